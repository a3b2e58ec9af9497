"""When recurring duties fall: one occurrence a period, with its due instant, each a run of a clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta

from msgspec import Struct

from shared.engine.acting import do
from shared.engine.calendar import Calendar
from shared.engine.clocks import arm
from shared.engine.rules import DutyRule
from shared.engine.runs import Run
from shared.engine.state import CaseState, Context

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ONE_DAY = timedelta(days=1)


class Occurrence(Struct, frozen=True, kw_only=True):
    """One turn of a duty. `period` names it: 2026-03-10, 2026-W11, 2026-03, 2026-Q1, 2026-H1, 2026, or first/last date."""

    period: str
    starts_at: datetime
    due_at: datetime
    unit: str | None = None


def occurrences(duty: DutyRule, calendar: Calendar, start: datetime, end: datetime) -> Iterator[Occurrence]:
    """Every turn whose span, from its start to its due instant, touches [start, end], in order of their starts."""
    if duty.every == "unset":
        return
    units: tuple[str | None, ...] = duty.per or (None,)
    for period, begins, due in _spans(duty, calendar, start, end):
        if due >= start and begins <= end:
            for unit in units:
                yield Occurrence(period=period, starts_at=begins, due_at=due, unit=unit)


def _spans(
    duty: DutyRule, calendar: Calendar, start: datetime, end: datetime
) -> Iterator[tuple[str, datetime, datetime]]:
    first, last = calendar.local(start).date(), calendar.local(end).date()
    if duty.periods:
        for year in range(first.year - 1, last.year + 2):
            for window, covers in duty.periods:
                opens, closes = _window(window, year)
                covered = f"{opens}/{closes}" if not covers else _covered(covers, opens)
                yield covered, calendar.start_of(opens), calendar.end_of(closes)
        return
    if duty.every in ("day", "working_day"):
        day = first
        while day <= last:
            if duty.every == "day" or calendar.is_working_day(day):
                yield day.isoformat(), calendar.start_of(day), _due(duty, calendar, calendar.start_of(day), day, day)
            day += ONE_DAY
        return
    kind = "week" if duty.every.startswith("week") else duty.every
    # A turn may be due after its own period ("the 10th of the next month"): begin one period early.
    day = first - timedelta(days=400)
    done: set[str] = set()
    while day <= last:
        name = calendar.period(calendar.start_of(day), kind)  # type: ignore[arg-type]
        if name not in done:
            done.add(name)
            begins, stops = calendar.period_bounds(name)
            final = calendar.local(stops - ONE_DAY / 2).date()
            yield name, begins, _due(duty, calendar, begins, calendar.local(begins).date(), final)
        step = timedelta(days=1 if kind == "week" else 15)
        day = min(day + step, last) if day < last else last + ONE_DAY  # a turn may begin on the very last days


def _due(duty: DutyRule, calendar: Calendar, begins: datetime, first: date, last: date) -> datetime:
    """The due instant of a turn: as the duty says, else close of office of a day, the end of the last day of anything longer."""
    if duty.due is not None:
        return calendar.due(begins, duty.due, duty.clock.counting)
    if first == last:
        return calendar.close_of(first)
    _, _, weekday = duty.every.partition(":")
    if weekday in WEEKDAYS:
        return calendar.close_of(first + timedelta(days=WEEKDAYS.index(weekday)))
    return calendar.end_of(last)


def _window(text: str, year: int) -> tuple[date, date]:
    """`06-01/06-10` of a year; a window that ends before it begins ends in the next year."""
    opens, closes = (date.fromisoformat(f"{year}-{part}") for part in text.split("/"))
    return (opens, closes) if opens <= closes else (opens, closes.replace(year=year + 1))


def _covered(text: str, opens: date) -> str:
    """The span that a report covers: the last `12-01/05-31` that ends before its window opens."""
    _, until = text.split("/")
    for year in (opens.year, opens.year - 1):
        last = date.fromisoformat(f"{year}-{until}")
        if last < opens:
            begins = date.fromisoformat(f"{last.year}-{text.split('/')[0]}")
            return f"{begins if begins <= last else begins.replace(year=last.year - 1)}/{last}"
    return f"{opens.year}"


def begin_duty(case: CaseState, duty: DutyRule, occurrence: Occurrence) -> None:
    """Start one turn of a duty as a run of its clock."""
    rule, at = duty.clock, occurrence.starts_at
    case.reach(at)
    runs = case.runs[rule.id]
    calendar = case.calendars.at(rule.calendar, at, at)
    run = Run(rule, len(runs), at, 0, case.policy.version, at, calendar, rule.counting, rule.overdue_unit)
    run.data = {"period": occurrence.period}
    if occurrence.unit is not None:
        run.data["unit"] = occurrence.unit
    case.scope.context = Context(at, run.data, run.ref, clock_run=run)
    run.owner = case.first(rule.owner, rule)
    if run.owner is not None:
        run.data["owner"] = run.owner
    run.due_at = occurrence.due_at
    runs.append(run)
    arm(case, run)
    do(case, rule, duty.do, at, f"{run.ref}:start")
    case.clock_event(rule.started_key, run, at)

"""A due instant shown step by step: each date or stretch of time, whether it counted, and why not.

`explain` walks the calendar; `readd` adds the steps up again and finds any hole between them; `render` puts them in
words. Dates are walked one by one, not taken from the running totals that `Calendar.due` uses, each checks the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

import msgspec

from shared.engine.amounts import ANCHORS, TIME_UNITS, Amount, Language
from shared.engine.calendar.arithmetic import USUAL_COUNTING, Calendar, is_after_cutoff, is_rolled, time_of
from shared.engine.calendar.section import Counting

StepCause = Literal[
    "cutoff", "first_day", "working_day", "make_up_day", "part_day", "same_day", "weekend", "holiday", "closed",
    "pause", "calendar_days", "weeks", "months", "years", "anchor", "roll", "past",
    "elapsed", "office_hours", "outside_hours", "end",
]  # fmt: skip
Pauses = Sequence[tuple[datetime, datetime]]

_ZERO: Final = timedelta()
_DAY: Final = timedelta(days=1)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an explanation.

    cause: what these dates or this time are, or why they don't count.
    first, last: dates, both included; together with the other steps without a hole.
    start, end: a stretch of time `[start, end)`, UTC; of a pause as it was; the closing step's `end` is the due one.
    counted: dates that count, or weeks, months, years; less than nothing for what a pause takes out again.
    time: time that counts.
    number: the running total of `counted` with this step.
    names: of a holiday, by language.
    at: in the closing step "close", "end" or "HH:MM".
    """

    cause: StepCause
    first: date | None = None
    last: date | None = None
    start: datetime | None = None
    end: datetime | None = None
    counted: int = 0
    time: timedelta = _ZERO
    number: int = 0
    names: Mapping[str, str] = {}
    at: str = ""

    @property
    def skipped(self) -> bool:
        """Whether nothing of it counts."""
        return not self.counted and not self.time and self.cause != "end"


class Sum(msgspec.Struct, frozen=True):
    """What steps add up to: dates (or weeks, months, years), time, and the instant at which they end."""

    counted: int
    time: timedelta
    until: datetime


def explain(
    calendar: Calendar, start: datetime, amount: Amount, counting: Counting = USUAL_COUNTING, pauses: Pauses = ()
) -> list[Step]:
    """Return the steps from a start to the due instant, the last of which bears it.

    Args:
        calendar: on which the limit counts.
        start: aware.
        amount: the limit.
        counting: how it is counted.
        pauses: closed stretches in order, none beginning before `start`.

    Returns:
        Steps that re-add to `amount` and to `calendar.due(...)` with the sum of these pauses.
    """
    if amount.unit in TIME_UNITS:
        return _time_steps(calendar, start, amount, counting, pauses)
    walk = _Walk(calendar, calendar.local(start).date())
    if amount.unit == "wd":
        _walk_working_days(walk, start, amount, counting, pauses)
    else:
        _walk_dates(walk, start, amount, counting, pauses)
    return walk.steps


def readd(steps: Sequence[Step]) -> Sum:
    """Add steps up again.

    Raises:
        ValueError: there is a hole or an overlap between steps, a running total is wrong, or the end is missing.
    """
    if not steps or steps[-1].cause != "end" or steps[-1].end is None:
        raise ValueError("the steps have no end")
    until = steps[-1].end
    number = 0
    for step in steps:
        number += step.counted
        if step.number != number:
            raise ValueError(f"the running total is {number}, not {step.number}")
    dated = [(step.first, step.last) for step in steps[:-1] if step.first is not None and step.last is not None]
    for (_, last), (first, _) in pairwise(dated):
        if first != last + _DAY:
            raise ValueError(f"{last} is not followed by {first}")
    if dated and steps[-1].last != dated[-1][1]:
        raise ValueError(f"the end is not on {dated[-1][1]}")
    timed = [(step.start, step.end) for step in steps[:-1] if step.first is None and step.start and step.end]
    if not dated:
        for (_, end), (begins, _) in pairwise(timed):
            if begins != end:
                raise ValueError(f"{end} is not followed by {begins}")
        if timed and timed[-1][1] != until:
            raise ValueError(f"the end is not at {timed[-1][1]}")
    return Sum(number, sum((step.time for step in steps), _ZERO), until)


class _Walk:
    """Collects steps over dates; neighbours that are skipped for one cause become one step."""

    def __init__(self, calendar: Calendar, first: date) -> None:
        self.calendar = calendar
        self.day = first  # the next date to be told
        self.steps: list[Step] = []
        self.number = 0

    def tell(
        self, cause: StepCause, last: date | None = None, counted: int = 0, names: Mapping[str, str] | None = None
    ) -> None:
        """Add the dates from the next one through `last` (that one alone, if None)."""
        last = last or self.day
        first = self.day
        names = names or {}
        if self.steps and not counted and cause in ("weekend", "holiday", "closed"):
            before = self.steps[-1]
            if before.cause == cause and before.names == names and before.first is not None:
                first = before.first
                self.steps.pop()
        self.number += counted
        self.steps.append(Step(cause=cause, first=first, last=last, counted=counted, number=self.number, names=names))
        self.day = last + _DAY

    def tell_day(self, counts: StepCause | None = None, counted: int = 0) -> bool:
        """Add the next date, skipped with its cause or counted; return whether it is worked."""
        known = self.calendar.day(self.day)
        worked = self.calendar.is_working_day(self.day)
        if worked:
            self.tell(counts or known.cause, counted=counted)
        else:
            self.tell(known.cause if not known.hours else "closed", names=known.names)
        return worked

    def tell_pauses(self, pauses: Pauses, lengths: Sequence[int]) -> None:
        """Take out what pauses have added."""
        for (since, until), length in zip(pauses, lengths, strict=True):
            self.number -= length
            self.steps.append(
                Step(
                    cause="pause",
                    start=since.astimezone(UTC),
                    end=until.astimezone(UTC),
                    counted=-length,
                    number=self.number,
                )
            )

    def tell_end(self, at: str, due: datetime) -> None:
        """Close with the instant."""
        last = self.day - _DAY
        self.steps.append(Step(cause="end", first=last, last=last, end=due, number=self.number, at=at))


def _walk_start(walk: _Walk, start: datetime, counting: Counting) -> None:
    """Go to day 0: the date of the start, or the one after it when the cut-off has passed."""
    if counting.cutoff is not None and is_after_cutoff(walk.calendar.local(start), counting.cutoff):
        walk.tell("cutoff")


def _walk_working_days(walk: _Walk, start: datetime, amount: Amount, counting: Counting, pauses: Pauses) -> None:
    calendar = walk.calendar
    lengths = [calendar.working_days_between(since, until) for since, until in pauses]
    _walk_start(walk, start, counting)
    if amount.n == 0:
        while not walk.tell_day("same_day"):
            pass
    elif counting.count_first_day:
        walk.tell_day(counted=1)
    else:
        walk.tell("first_day")
    while walk.number < amount.n + sum(lengths):
        walk.tell_day(counted=1)
    walk.tell_pauses(pauses, lengths)
    at = time_of(amount, counting)
    while (due := calendar.time_on(walk.day - _DAY, at)) < start:
        while not walk.tell_day("past"):
            pass
    walk.tell_end(at, due)


def _walk_dates(walk: _Walk, start: datetime, amount: Amount, counting: Counting, pauses: Pauses) -> None:
    calendar, unit = walk.calendar, amount.unit
    lengths = [calendar.paused(amount, since, until, counting).days for since, until in pauses]
    target = calendar.due_date(start, amount, counting)
    if unit in ANCHORS:
        walk.tell("anchor", last=target)
    else:
        if unit == "d":
            _walk_start(walk, start, counting)
        if not (counting.count_first_day and unit == "d" and amount.n):
            walk.tell("first_day")
        if target >= walk.day:
            cause: Mapping[str, StepCause] = {"d": "calendar_days", "w": "weeks", "mo": "months", "y": "years"}
            walk.tell(cause[unit], last=target, counted=amount.n)
        if sum(lengths):
            walk.tell("calendar_days", last=target + timedelta(days=sum(lengths)), counted=sum(lengths))
        walk.tell_pauses(pauses, lengths)
    at = time_of(amount, counting)
    if is_rolled(amount, counting):
        _walk_roll(walk)
    while (due := calendar.time_on(walk.day - _DAY, at)) < start:
        walk.tell("past", last=calendar.date_after(walk.day - _DAY, amount))
        if is_rolled(amount, counting):
            _walk_roll(walk)
    walk.tell_end(at, due)


def _walk_roll(walk: _Walk) -> None:
    """Move on to a working date."""
    if not walk.calendar.is_working_day(walk.day - _DAY):
        while not walk.tell_day("roll"):
            pass


def _time_steps(calendar: Calendar, start: datetime, amount: Amount, counting: Counting, pauses: Pauses) -> list[Step]:
    """Return the stretches of `[start, due)`: worked or elapsed, skipped, paused."""
    paused = sum((calendar.paused(amount, since, until, counting).time for since, until in pauses), _ZERO)
    in_office = amount.unit == "bh" or counting.hour_mode == "office_hours"
    length = timedelta(minutes=amount.n) if amount.unit == "min" else timedelta(hours=amount.n)
    start = start.astimezone(UTC)
    due = calendar.add_working(start, length + paused) if in_office else start + length + paused
    steps: list[Step] = []
    at = start
    for since, until in [*((a.astimezone(UTC), b.astimezone(UTC)) for a, b in pauses), (due, due)]:
        stop = min(since, due)
        steps += _office_steps(calendar, at, stop) if in_office else _elapsed_steps(at, stop)
        at = min(until, due)
        if stop < at:
            steps.append(Step(cause="pause", start=stop, end=at))
    return [*steps, Step(cause="end", end=due)]


def _elapsed_steps(start: datetime, end: datetime) -> Iterator[Step]:
    if start < end:
        yield Step(cause="elapsed", start=start, end=end, time=end - start)


def _office_steps(calendar: Calendar, start: datetime, end: datetime) -> Iterator[Step]:
    at = start
    for opens, closes in calendar.intervals(start, end):
        yield from _closed_steps(calendar, at, opens)
        yield Step(cause="office_hours", start=opens, end=closes, time=closes - opens)
        at = closes
    yield from _closed_steps(calendar, at, end)


def _closed_steps(calendar: Calendar, start: datetime, end: datetime) -> Iterator[Step]:
    """Yield the stretches of `[start, end)`, in which no office is open, date by date, equal neighbours joined."""
    open_step: Step | None = None
    at = start
    while at < end:
        day = calendar.local(at).date()
        known = calendar.day(day)
        worked = calendar.is_working_day(day)
        until = min(max(calendar.start_of(day + _DAY), at + timedelta(seconds=1)), end)
        cause: StepCause = "outside_hours" if worked else known.cause if not known.hours else "closed"
        names = {} if worked else known.names
        if open_step is not None and open_step.cause == cause and open_step.names == names:
            open_step = msgspec.structs.replace(open_step, end=until)
        else:
            if open_step is not None:
                yield open_step
            open_step = Step(cause=cause, start=at, end=until, names=names)
        at = until
    if open_step is not None:
        yield open_step


# ---- words

_WEEKDAY_EN: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEKDAY_ZH: Final = ("周一", "周二", "周三", "周四", "周五", "周六", "周日")


def render(calendar: Calendar, steps: Sequence[Step], lang: Language = "en") -> list[str]:
    """Return one line per step, times on the calendar's wall clock, the year where it is not the first step's."""
    years = [day.year for step in steps if (day := _first_date(calendar, step)) is not None]
    words = _Words(calendar, years[0] if years else 0, lang)
    return [words.english(step) if lang == "en" else words.chinese(step) for step in steps]


def _first_date(calendar: Calendar, step: Step) -> date | None:
    if step.first is not None:
        return step.first
    at = step.start or step.end
    return None if at is None else calendar.local(at).date()


class _Words:
    def __init__(self, calendar: Calendar, year: int, lang: Language) -> None:
        self.calendar, self.year, self.lang = calendar, year, lang

    def date(self, day: date) -> str:
        number = f"{day:%m-%d}" if day.year == self.year else day.isoformat()
        if self.lang == "zh":
            return f"{number} {_WEEKDAY_ZH[day.weekday()]}"
        return f"{_WEEKDAY_EN[day.weekday()]} {number}"

    def instant(self, at: datetime) -> str:
        local = self.calendar.local(at)
        shown = f"{local:%H:%M:%S}" if local.second or local.microsecond else f"{local:%H:%M}"
        return f"{self.date(local.date())} {shown}"

    def span(self, step: Step) -> str:
        if step.first is not None and step.last is not None:
            return (
                self.date(step.first)
                if step.first == step.last
                else f"{self.date(step.first)} – {self.date(step.last)}"
            )
        if step.start is None or step.end is None:
            return ""
        start, end = self.calendar.local(step.start), self.calendar.local(step.end)
        if start.date() == end.date():
            return f"{self.instant(step.start)} – {self.instant(step.end).rpartition(' ')[2]}"
        return f"{self.instant(step.start)} – {self.instant(step.end)}"

    def length(self, time: timedelta) -> str:
        minutes, seconds = divmod(int(time.total_seconds()), 60)
        hours, minutes = divmod(minutes, 60)
        units = (" h", " min", " s") if self.lang == "en" else ("小时", "分钟", "秒")
        parts = [f"{n}{unit}" for n, unit in zip((hours, minutes, seconds), units, strict=True) if n]
        return (" " if self.lang == "en" else "").join(parts) or f"0{units[1]}"

    def name(self, step: Step) -> str:
        return step.names.get(self.lang) or step.names.get("") or step.names.get("en") or ""

    def english(self, step: Step) -> str:
        span, cause, name = self.span(step), step.cause, self.name(step)
        if cause == "end":
            assert step.end is not None
            how = {"close": " (close of office)", "end": " (end of the day)"}.get(step.at, "")
            return f"due {self.instant(step.end)}{how}"
        if cause == "pause":
            if not step.counted:
                return f"{span} paused"
            return f"{span} paused: {_many(-step.counted, 'day')} not counted"
        one = step.first == step.last
        return {
            "cutoff": f"{span} after the cut-off, belongs to the next date",
            "first_day": f"{span} day of the start, not counted",
            "working_day": f"{span} working day {step.number}",
            "make_up_day": f"{span} make-up day {step.number}",
            "part_day": f"{span} working day {step.number} (own hours)",
            "same_day": f"{span} the working day itself",
            "weekend": f"{span} weekend",
            "holiday": f"{span} holiday" + (f": {name}" if name else ""),
            "closed": f"{span} closed",
            "calendar_days": f"{span} calendar day{f' {step.number}' if one else f's, {step.counted} in all'}",
            "weeks": f"{span} {_many(step.counted, 'week')}",
            "months": f"{span} {_many(step.counted, 'month')}",
            "years": f"{span} {_many(step.counted, 'year')}",
            "anchor": f"{span} up to the date named",
            "roll": f"{span} the first working day after it",
            "past": f"{span} instead, that time of the day had passed",
            "elapsed": f"{span} {self.length(step.time)}",
            "office_hours": f"{span} {self.length(step.time)} of office hours",
            "outside_hours": f"{span} outside office hours",
        }[cause]

    def chinese(self, step: Step) -> str:
        span, cause, name = self.span(step), step.cause, self.name(step)
        if cause == "end":
            assert step.end is not None
            how = {"close": "（下班时间）", "end": "（当日结束）"}.get(step.at, "")
            return f"截止 {self.instant(step.end)}{how}"
        if cause == "pause":
            return f"{span} 暂停" + (f"，扣除{-step.counted}天" if step.counted else "")
        one = step.first == step.last
        return {
            "cutoff": f"{span} 超过截止时刻，算作次日",
            "first_day": f"{span} 起始当日，不计",
            "working_day": f"{span} 第{step.number}个工作日",
            "make_up_day": f"{span} 调休上班，第{step.number}个工作日",
            "part_day": f"{span} 第{step.number}个工作日（特殊工时）",
            "same_day": f"{span} 当个工作日",
            "weekend": f"{span} 周末，不计",
            "holiday": f"{span} {name or '节假日'}，不计",
            "closed": f"{span} 不办公，不计",
            "calendar_days": f"{span} {f'第{step.number}个自然日' if one else f'共{step.counted}个自然日'}",
            "weeks": f"{span} {step.counted}周",
            "months": f"{span} {step.counted}个月",
            "years": f"{span} {step.counted}年",
            "anchor": f"{span} 至约定日期",
            "roll": f"{span} 顺延至此工作日",
            "past": f"{span} 当日该时刻已过，顺延",
            "elapsed": f"{span} {self.length(step.time)}",
            "office_hours": f"{span} 办公时间{self.length(step.time)}",
            "outside_hours": f"{span} 非办公时间，不计",
        }[cause]


def _many(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"

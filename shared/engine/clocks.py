"""Clocks: begun, stopped, paused, replaced, and put on the agenda with their steps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from shared.engine.acting import do
from shared.engine.amounts import Amount, parse_amount
from shared.engine.model import ClockView
from shared.engine.rules import WHILES, ClockRule, Handlers
from shared.engine.runs import INSTANT, Run
from shared.engine.state import CaseState, Context

# -- starting --------------------------------------------------------------------------------------------------------------------------


def start(case: CaseState, rule: ClockRule, context: Context) -> None:
    if rule.while_ is not None:
        case.last_start[rule.id] = context
        if not case.holds(rule.while_, rule):
            return  # it is looked at again when what `while` reads has changed
    if rule.when is None or case.holds(rule.when, rule):
        begin(case, rule, context)
    elif rule.while_ is not None:
        case.expect_change(WHILES)  # it may start yet


def begin(case: CaseState, rule: ClockRule, context: Context, anchor: datetime | None = None) -> None:
    at = context.at
    runs = case.runs[rule.id]
    if (runs or rule.supersedes) and not _makes_room(case, rule, runs, at):
        return
    base = anchor or (at if rule.anchor is None else _anchor(case, rule, at))
    calendar = case.calendars.at(rule.calendar, at, at)
    by_seq = 0 if context.entry is None else case.seq
    limited, counting, unit, version = rule.plain_limit, rule.counting, rule.overdue_unit, case.policy.version
    if limited is not None:
        due = calendar.due(base, limited, counting)
        run = Run(rule, len(runs), at, by_seq, version, base, calendar, counting, unit, limited, due)
        runs.append(run)
        if rule.arms_plainly:
            case.push(due + INSTANT, "due", run)
        else:
            arm(case, run)
        case.clock_event(rule.started_key, run, at)
        return
    for place in range(rule.repeat_count or 1):
        run = Run(rule, len(runs), at, by_seq, version, base, calendar, counting, unit)
        if rule.stop_all:
            run.expected = frozenset(rule.stop_all)
        if rule.owner:
            run.owner = case.first(rule.owner, rule)
        if rule.data:
            run.data = {name: case.value(value, rule) for name, value in rule.data}
        runs.append(run)
        run.amount, run.due_at = limit(case, run, place)
        arm(case, run)
        case.clock_event(rule.started_key, run, at)
        if rule.inside:
            _check_inside(case, run, context)


def _makes_room(case: CaseState, rule: ClockRule, runs: list[Run], at: datetime) -> bool:
    """End what a new run takes the place of. False: one that is active already stays, and none begins."""
    active = [run for run in runs if run.active]
    if active and rule.again == "ignore":
        return False
    if rule.again == "restart":
        for run in active:
            supersede(run, at)
    for other in rule.supersedes:
        for run in active if other == rule.id else case.runs.get(other, ()):
            if run.active:
                supersede(run, at)
    return True


def _anchor(case: CaseState, rule: ClockRule, at: datetime) -> datetime:
    """The instant from which a limit counts that starts at `at`, where the rule names another."""
    found = case.value(rule.anchor, rule)
    if found == "received":
        found = case.scope.complaint["received_at"]
    if isinstance(found, datetime):
        return found
    if found is not None:
        case.problem(rule, "the anchor is no instant")
    return at


def limit(case: CaseState, run: Run, place: int) -> tuple[Amount | None, datetime | None]:
    """The run's amount and due instant under its rule; (None, instant) for one that was agreed, (None, None) where nothing is set."""
    rule = run.rule
    found: Any = None
    for condition, value in rule.cases:
        if condition is None or case.holds(condition, rule):
            found = case.value(value, rule)
            break
    if isinstance(found, datetime):
        return None, found
    every = rule.repeat_every
    if every is not None and (found is None or place):
        found = Amount(n=every.n * (place + 1), unit=every.unit, at=every.at)
    if isinstance(found, str):
        try:
            found = parse_amount(found)
        except ValueError as error:
            case.problem(rule, str(error))
            return None, None
    if found is None:
        return None, None
    return found, run.calendar.due(run.anchor_at, found, run.counting, run.paused)


def arm(case: CaseState, run: Run) -> None:
    """Put the run's instants on the agenda."""
    due, rule = run.due_at, run.rule
    if due is None:
        return
    passed = due + INSTANT
    case.push(due if rule.timer else passed, "due", run, run.part)
    for rung in rule.rungs:
        before, after = rung.before, rung.after
        if before is not None:
            at = run.calendar.subtract(due, before)
            if at > run.started_at:
                case.push(at, "rung", (run, rung, at), run.part)
        elif after is None or not after.n:  # at once: after the limit was broken, and bearing its instant
            case.push(passed, "rung", (run, rung, due), run.part)
        else:
            at = run.calendar.due(due, after, run.counting)
            case.push(at, "rung", (run, rung, at), run.part)


def _check_inside(case: CaseState, run: Run, context: Context) -> None:
    outer = [
        one.due_at
        for name in run.rule.inside
        for one in case.runs.get(name, ())
        if one.active and one.due_at is not None
    ]
    if run.due_at is None or not outer or run.due_at <= min(outer):
        return
    before = case.scope.context
    case.scope.context = replace(before, clock_run=run)
    do(case, run.rule, run.rule.inside_do, context.at, f"{run.ref}:inside")
    case.scope.context = before


# -- what an event does to clocks that run -----------------------------------------------------------------------------------------------


def move_clocks(case: CaseState, handlers: Handlers, context: Context) -> None:
    """Pauses, resumptions, stops, cancellations and starts."""
    at = context.at
    if handlers.pauses:
        for condition, clock, pause in handlers.pauses:
            if condition is None or case.holds(condition, clock):
                for run in case.runs.get(clock.id, ()):
                    if run.state == "running" and (run.due_at is None or at <= run.due_at):
                        run.state, run.paused_at, run.pause_rule = "paused", at, pause
    if handlers.resumes:
        for condition, clock, pause in handlers.resumes:
            if condition is None or case.holds(condition, clock):
                for run in case.runs.get(clock.id, ()):
                    if run.state == "paused" and run.pause_rule is pause:
                        _resume(case, run, at)
    if handlers.stops:
        for condition, clock in handlers.stops:
            runs = case.runs.get(clock.id)
            if runs and (condition is None or case.holds(condition, clock)):
                if clock.stops_plainly and case.case_kind != "duty":
                    for run in runs:
                        if run.stopped_at is None and run.state != "fired":  # it is active
                            _end(case, run, at)
                else:
                    _stop(case, clock, runs, handlers.keys, context)
    if handlers.cancels:
        for condition, clock in handlers.cancels:
            if condition is None or case.holds(condition, clock):
                for run in case.runs.get(clock.id, ()):
                    if run.active:
                        if run.state != "breached":
                            run.state = "cancelled"
                        run.stopped_at = at
    if handlers.starts:
        for condition, clock in handlers.starts:
            if condition is None or case.holds(condition, clock):
                if clock.starts_plainly:
                    begin(case, clock, context)
                else:
                    start(case, clock, context)


def _stop(case: CaseState, clock: ClockRule, runs: list[Run], keys: tuple[str, ...], context: Context) -> None:
    at = context.at
    active = [run for run in runs if run.active]
    if clock.repeat_count is not None:
        active = active[:1]
    if case.case_kind == "duty":
        active = _turns(active, context.data)
    for run in active:
        if clock.stop_all:
            run.expected = run.expected.difference(keys)
            if run.expected:
                continue
        _end(case, run, at)
        if clock.repeat_every is not None:
            repeat(case, run, at)


def _end(case: CaseState, run: Run, at: datetime) -> None:
    """What the run waited for was done, in time or late."""
    run.stopped_at = at
    if run.is_late(at):
        run.state, run.breached_at = "breached", run.due_at
        case.clock_event(run.rule.late_key, run, at)
    else:
        run.state = "met"
        case.clock_event(run.rule.met_key, run, at)


def _turns(runs: list[Run], data: Mapping[str, Any]) -> list[Run]:
    """The turns of a duty that an entry is proof of: those it names by their period or unit; all where it names none, or in other words."""
    period, unit = str(data.get("period") or ""), data.get("unit")
    if any(len(period) == len(str(run.data.get("period") or "")) > 0 for run in runs):
        runs = [run for run in runs if run.data.get("period") == period]
    if unit is not None and any("unit" in run.data for run in runs):
        runs = [run for run in runs if run.data.get("unit") == unit]
    return runs


def repeat(case: CaseState, run: Run, at: datetime) -> None:
    """An open-ended series: the next begins where the last ended."""
    rule = run.rule
    if rule.repeat_every is None or rule.repeat_count is not None:
        return
    if case.state in case.policy.closed and not rule.repeat_after_closing:
        return
    begin(case, rule, Context(at, run.data, run.ref, clock_run=run), anchor=run.due_at or at)


def cancel_all(case: CaseState, at: datetime) -> None:
    """Nobody owes anything any more; what is late stays late."""
    for runs in case.runs.values():
        for run in runs:
            if run.active and not run.is_late(at):
                run.state, run.stopped_at = "cancelled", at


def supersede(run: Run, at: datetime) -> None:
    """A limit that another takes the place of; one that is breached stays breached and can still be stopped."""
    if not run.is_late(at):
        run.state, run.stopped_at = "superseded", at


def _resume(case: CaseState, run: Run, at: datetime) -> None:
    run.state = "running"
    paused_at, run.paused_at = run.paused_at, None
    if run.due_at is None or paused_at is None:
        return
    due, run.paused = run.after_pause(paused_at, at, run.pause_rule.count)
    run.pauses += ((paused_at, at),)
    if due == run.due_at:
        arm(case, run)  # what was on the agenda may have come and gone while it rested
        return
    move(case, run, due, at)
    if run.paused.days:
        run.data = {**run.data, "paused_working_days": run.paused.days}


def move(case: CaseState, run: Run, due: datetime, at: datetime, former: ClockView | None = None) -> None:
    """Give the run another due instant; the former one stays visible as superseded.

    Args:
        former: the part that ends, as it was; needed where more of the run than its due instant has changed already.
    """
    case.former.append(run.view(at, "superseded", at) if former is None else former)
    run.part += 1
    run.due_at = due
    arm(case, run)


# -- clocks that depend on the class -----------------------------------------------------------------------------------------------------


def reconsider(case: CaseState, context: Context) -> None:
    """Clocks that depend on the class: out when it no longer fits, in when it does now."""
    if not case.sees_change(WHILES):
        return
    for rule in case.policy.whiles:
        begun = case.last_start.get(rule.id)
        if begun is None:
            continue
        if not case.holds(rule.while_, rule):
            for run in case.runs.get(rule.id, ()):
                if run.active:
                    supersede(run, context.at)
        elif not case.runs.get(rule.id):
            case.expect_change(WHILES)  # it may start yet
            if begun is context or _ended(case, rule, begun):
                continue
            moved = Context(context.at, begun.data, context.ref, context.entry, context.actor)
            case.scope.context = moved
            if case.holds(rule.when, rule):
                from_start = rule.reanchor == "start" and rule.anchor is None
                begin(case, rule, moved, anchor=begun.at if from_start else None)
            case.scope.context = context


def _ended(case: CaseState, rule: ClockRule, begun: Context) -> bool:
    """Whether the step that the clock waits for was already done after its start."""
    latest = {key: entry.at for entry in case.past for key in entry.keys}
    return any(
        (at := latest.get(key)) is not None
        and at >= begun.at
        and not (case.current is not None and at == case.current.at)
        for key in case.policy.stop_triggers.get(rule.id, ())
    )

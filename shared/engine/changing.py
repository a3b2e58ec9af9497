"""Going on under other rules: a new version, announced days, the deadlines of merged complaints."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from shared.engine.clocks import limit, move, supersede
from shared.engine.model import ClockView, Entry
from shared.engine.runs import Run
from shared.engine.state import CaseState


def change_policy(case: CaseState, entry: Entry) -> None:
    """Go on under another version. Breached clocks stay as they are; running ones get the new limit, never one already past."""
    version = int(entry.data["version"])
    policy = case.policies[version]
    case.policy = policy
    case.scope.settings = policy.settings
    case.watch()
    for name, runs in case.runs.items():
        rule = policy.clocks.get(name)
        for run in runs:
            if not run.active:
                continue
            if rule is None:
                supersede(run, entry.at)
                continue
            former = run.view(entry.at, "superseded", entry.at)
            run.rule = rule
            if run.is_late(entry.at):
                continue
            held = run.policy_version, run.counting
            run.policy_version, run.counting = version, rule.counting
            if not _recompute(case, run, entry.at, former):
                run.policy_version, run.counting = held


def change_calendar(case: CaseState, entry: Entry) -> None:
    """Days that were not announced are known now, or an exception moves running clocks."""
    case.known_at = entry.at
    for runs in case.runs.values():
        for run in runs:
            if run.active and run.state_at(entry.at) in ("running", "paused"):
                former = run.view(entry.at, "superseded", entry.at)
                run.calendar = case.calendars.at(run.rule.calendar, run.started_at, entry.at)
                _recompute(case, run, entry.at, former)


def _recompute(case: CaseState, run: Run, at: datetime, former: ClockView) -> bool:
    """Count the limit anew. False: the due instant stays what it was, for the new one would lie in the past or there is none."""
    if run.due_at is None:
        return True
    before = case.scope.context
    case.scope.context = replace(before, data=run.data)
    amount, due = limit(case, run, run.number if run.rule.repeat_count else 0)
    case.scope.context = before
    if due == run.due_at:
        return True
    if due is None or due <= at:
        return False
    run.amount = amount
    move(case, run, due, at, former)
    return True


def tighten(case: CaseState, entry: Entry) -> None:
    """Of merged or split complaints each keeps the strictest deadline."""
    if entry.kind not in ("merged", "split"):
        return
    for name, text in (entry.data.get("deadlines") or {}).items():
        due = datetime.fromisoformat(text) if isinstance(text, str) else text
        for run in case.runs.get(name, ()):
            if run.active and run.state == "running" and run.due_at is not None and due < run.due_at:
                move(case, run, due, entry.at)

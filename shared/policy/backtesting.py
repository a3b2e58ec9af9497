"""Replay real history under a draft: what would have been missed, what it would have cost, which dates would have moved.

Nothing is stored and nobody is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from shared.engine.calendar import CalendarBook
from shared.engine.case import Case, replay
from shared.engine.imposing import penalties
from shared.engine.model import Entry, PenaltyView
from shared.engine.rules import Clause, CompiledPolicy
from shared.engine.runs import Run


class History(Struct, frozen=True):
    """One case as it happened, with the versions it lived under."""

    case_id: str
    number: str
    policy_version: int
    timeline: Sequence[Entry]


class Moved(Struct, frozen=True, kw_only=True):
    """One due instant that the draft puts elsewhere; None where one side has no such run."""

    rule: str
    clause: Clause
    run: int
    before: datetime | None
    after: datetime | None


class CaseChange(Struct, frozen=True, kw_only=True):
    """What the draft changes in one case."""

    case_id: str
    number: str
    breaches_gained: tuple[str, ...] = ()
    breaches_lost: tuple[str, ...] = ()
    moved: tuple[Moved, ...] = ()
    fines_before_minor: int = 0
    fines_after_minor: int = 0
    state_before: str = ""
    state_after: str = ""


class Backtest(Struct, frozen=True, kw_only=True):
    """The sums over all cases, and every case behind them."""

    cases: int
    changed: int
    breaches_before: int
    breaches_after: int
    breaches_gained: int
    breaches_lost: int
    fines_before_minor: int
    fines_after_minor: int
    currency: str
    deadlines_moved: int
    failed: tuple[str, ...]
    changes: tuple[CaseChange, ...]


def backtest(
    draft: CompiledPolicy,
    draft_calendars: CalendarBook,
    live: Mapping[int, CompiledPolicy],
    live_calendars: CalendarBook,
    cases: Iterable[History],
    until: datetime,
) -> Backtest:
    """Compare each case as it stands under its own versions with how it would stand had the draft been in force from its receipt.

    Entries are taken as they were made: the draft does not undo what people did, it only judges it anew.
    """
    totals = dict.fromkeys(("cases", "before", "after", "gained", "lost", "fines_before", "fines_after", "moved"), 0)
    changes: list[CaseChange] = []
    failed: list[str] = []
    for case in cases:
        totals["cases"] += 1
        try:
            held = _folded(live, case.timeline, live_calendars, case.policy_version, until)
            would = _folded({draft.version: draft}, _plain(case.timeline), draft_calendars, draft.version, until)
            fined, would_fine = _fines(penalties(held, until)), _fines(penalties(would, until))
        except (LookupError, ValueError, ArithmeticError):
            failed.append(case.case_id)
            continue
        broke, would_break = _breaches(held), _breaches(would)
        change = CaseChange(
            case_id=case.case_id,
            number=case.number,
            breaches_gained=tuple(sorted(would_break - broke)),
            breaches_lost=tuple(sorted(broke - would_break)),
            moved=tuple(_moved(held, would)),
            fines_before_minor=fined,
            fines_after_minor=would_fine,
            state_before=held.state,
            state_after=would.state,
        )
        totals["before"] += len(broke)
        totals["after"] += len(would_break)
        totals["gained"] += len(change.breaches_gained)
        totals["lost"] += len(change.breaches_lost)
        totals["fines_before"] += change.fines_before_minor
        totals["fines_after"] += change.fines_after_minor
        totals["moved"] += len(change.moved)
        if _differs(change):
            changes.append(change)
    return Backtest(
        cases=totals["cases"],
        changed=len(changes),
        breaches_before=totals["before"],
        breaches_after=totals["after"],
        breaches_gained=totals["gained"],
        breaches_lost=totals["lost"],
        fines_before_minor=totals["fines_before"],
        fines_after_minor=totals["fines_after"],
        currency=draft.currency,
        deadlines_moved=totals["moved"],
        failed=tuple(failed),
        changes=tuple(changes),
    )


def _folded(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    version: int,
    until: datetime,
) -> Case:
    """The case at `until`. No standing is made of it: of each, a few figures are compared."""
    known = [entry for entry in timeline if entry.at <= until]
    case = replay(policies, known, calendars, policy_version=version)
    case.advance(until)
    case.reach(until)
    return case


def _plain(timeline: Sequence[Entry]) -> list[Entry]:
    """The timeline without changes of policy: under the draft there was only the draft."""
    return [entry for entry in timeline if entry.kind != "policy_changed"]


def _runs(case: Case) -> Iterable[Run]:
    return (run for runs in case.runs.values() for run in runs if run.state != "superseded")


def _breaches(case: Case) -> set[str]:
    """Each missed run by rule and number."""
    return {f"{run.rule.id}#{run.number}" for run in _runs(case) if run.breached_at is not None}


def _moved(before: Case, after: Case) -> Iterable[Moved]:
    held = {(run.rule.id, run.number): run for run in _runs(before)}
    would = {(run.rule.id, run.number): run for run in _runs(after)}
    for key in {**held, **would}:
        old, new = held.get(key), would.get(key)
        due_before = None if old is None else old.due_at
        due_after = None if new is None else new.due_at
        if due_before != due_after:
            shown: Any = new or old
            yield Moved(rule=key[0], clause=shown.rule.clause, run=key[1], before=due_before, after=due_after)


def _fines(imposed: Sequence[PenaltyView]) -> int:
    return sum(one.amount_minor or 0 for one in imposed if one.state not in ("needs_decision", "waived"))


def _differs(change: CaseChange) -> bool:
    return bool(
        change.breaches_gained
        or change.breaches_lost
        or change.moved
        or change.fines_before_minor != change.fines_after_minor
        or change.state_before != change.state_after
    )


def merged(parts: Sequence[Backtest], currency: str) -> Backtest:
    """One result from several shares of the cases."""
    return Backtest(
        cases=sum(one.cases for one in parts),
        changed=sum(one.changed for one in parts),
        breaches_before=sum(one.breaches_before for one in parts),
        breaches_after=sum(one.breaches_after for one in parts),
        breaches_gained=sum(one.breaches_gained for one in parts),
        breaches_lost=sum(one.breaches_lost for one in parts),
        fines_before_minor=sum(one.fines_before_minor for one in parts),
        fines_after_minor=sum(one.fines_after_minor for one in parts),
        currency=currency,
        deadlines_moved=sum(one.deadlines_moved for one in parts),
        failed=tuple(case for one in parts for case in one.failed),
        changes=tuple(change for one in parts for change in one.changes),
    )

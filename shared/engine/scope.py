"""What expressions see while the engine runs: one object a case, its parts replaced as the case goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared.engine.rules import clauses_of
from shared.money import format_minor

if TYPE_CHECKING:
    from shared.engine.runs import Run
    from shared.engine.state import CaseState

NOTHING: Mapping[str, Any] = {}


class Scope:
    """One attribute for each name of `shared.policy.scope`; the costly ones are made when they are asked for."""

    __slots__ = (
        "_case",
        "actor_unit",
        "at",
        "by",
        "clock_run",
        "collected",
        "complaint",
        "count",
        "data",
        "fields",
        "last",
        "penalty",
        "roles",
        "seen",
        "settings",
    )

    def __init__(self, case: CaseState, settings: Mapping[str, Any]) -> None:
        self._case = case
        self.settings = settings
        self.complaint: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self.data: Mapping[str, Any] = NOTHING
        self.at: Any = None
        self.by: str | None = None
        self.roles: Sequence[str] = ()
        self.actor_unit: str | None = None
        self.seen: dict[str, int] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.collected: dict[str, list[str]] = {}
        self.clock_run: Run | None = None
        self.count: Mapping[str, Any] | None = None
        self.penalty: Mapping[str, Any] | None = None

    @property
    def local_time(self) -> str | None:
        return None if self.at is None else f"{self._case.calendar.local(self.at):%H:%M}"

    @property
    def entries(self) -> list[dict[str, Any]]:
        return self._case.seen_entries

    @property
    def clock(self) -> dict[str, Any] | None:
        return None if self.clock_run is None else clock_record(self.clock_run, self.at)

    @property
    def clocks(self) -> dict[str, Any]:
        return {rule: clock_record(runs[-1], self.at) for rule, runs in self._case.runs.items() if runs}

    @property
    def counts(self) -> dict[str, Any]:
        return self._case.counts


def clock_record(run: Run, at: Any) -> dict[str, Any]:
    """The run as expressions see it at `at`."""
    rule = run.rule
    state = run.state_at(at)
    breached_at = run.breached_at
    if state == "breached" and breached_at is None:
        breached_at = run.due_at
    clauses = clauses_of(rule.clause)
    return {
        "rule": rule.id,
        "clause": clauses[0] if clauses else None,
        "state": state,
        "started_at": run.started_at,
        "anchor_at": run.anchor_at,
        "due_at": run.due_at,
        "stopped_at": run.stopped_at,
        "breached": breached_at is not None,
        "breached_at": breached_at,
        "overdue_days": run.overdue_days(at) if breached_at is not None else 0,
        "owner": run.owner,
        "round": run.number + 1,
    }


def count_record(rule: str, stamp: Any) -> dict[str, Any]:
    return {
        "rule": rule,
        "subject": stamp.subject,
        "count": stamp.before + stamp.added,
        "before": stamp.before,
        "fires": stamp.fires,
        "times": stamp.times,
    }


def penalty_record(view: Any) -> dict[str, Any]:
    clauses = clauses_of(view.clause)
    return {
        "rule": view.rule,
        "clause": clauses[0] if clauses else None,
        "party": view.party,
        "kind": view.kind,
        "amount": None if view.amount_minor is None else format_minor(view.amount_minor, view.currency),
        "sanction": view.sanction,
        "points": view.points,
        "state": view.state,
    }

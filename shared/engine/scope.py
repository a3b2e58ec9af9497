"""What expressions see while the engine runs: one object a case, its parts replaced as the case goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from shared.engine.rules import clauses_of
from shared.money import Money

if TYPE_CHECKING:
    from shared.engine.runs import Run

NOTHING: Mapping[str, Any] = {}


class Scope:
    """One attribute for each name of `shared.policy.scope`; the costly ones are made when they are asked for.

    It shares parts with its case and does not know the case: two that know each other would outlive every fold until the
    garbage collector comes by.
    """

    __slots__ = (
        "actor_unit",
        "at",
        "by",
        "clock_run",
        "collected",
        "complaint",
        "count",
        "counts",
        "data",
        "entries",
        "fields",
        "last",
        "penalty",
        "roles",
        "runs",
        "seen",
        "settings",
        "zone",
    )

    def __init__(self, settings: Mapping[str, Any], zone: tzinfo) -> None:
        self.settings = settings
        self.zone = zone
        self.runs: dict[str, list[Run]] = {}
        self.entries: list[dict[str, Any]] = []
        self.counts: dict[str, Any] = {}
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
        return None if self.at is None else f"{self.at.astimezone(self.zone):%H:%M}"

    @property
    def clock(self) -> dict[str, Any] | None:
        return None if self.clock_run is None else clock_record(self.clock_run, self.at)

    @property
    def clocks(self) -> dict[str, Any]:
        return {rule: clock_record(runs[-1], self.at) for rule, runs in self.runs.items() if runs}


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
        "amount": None if view.amount_minor is None else Money(view.amount_minor, view.currency),
        "sanction": view.sanction,
        "points": view.points,
        "state": view.state,
    }

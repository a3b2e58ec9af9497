"""What expressions see while the engine runs: one object a case, its parts replaced as the case goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from shared.engine.model import SYSTEM, Actor, Entry
from shared.engine.rules import clauses_of
from shared.money import Money

if TYPE_CHECKING:
    from shared.engine.penalties import Liability
    from shared.engine.runs import Run

NOTHING: Mapping[str, Any] = {}


class Context(Struct, eq=False, gc=False):
    """What an event is about, besides the case."""

    at: datetime
    data: Mapping[str, Any]
    ref: str | int  # what effects are keyed by: the entry's seq, or the clock's rule, run and part
    entry: Entry | None = None
    actor: Actor | None = SYSTEM  # who did it
    clock_run: Run | None = None
    count: Mapping[str, Any] | None = None
    penalty: Mapping[str, Any] | None = None
    liability: Liability | None = None  # of a trigger `penalty:`


BEFORE_ALL: Final = Context(datetime.min.replace(tzinfo=UTC), NOTHING, "", actor=None)


class Scope:
    """One attribute for each name of `shared.policy.scope`; the costly ones are made when they are asked for.

    What belongs to the event at hand stays in its context, so that going on to the next event is one assignment. The scope
    shares parts with its case and does not know the case: two that know each other would outlive every fold until the
    garbage collector comes by.
    """

    __slots__ = (
        "_counted",
        "_seen",
        "collected",
        "complaint",
        "context",
        "counts",
        "entries",
        "fields",
        "happened",
        "last",
        "past",
        "runs",
        "settings",
        "zone",
    )

    def __init__(self, settings: Mapping[str, Any], zone: tzinfo) -> None:
        self.settings = settings
        self.zone = zone
        self.runs: defaultdict[str, list[Run]] = defaultdict(list)
        self.entries: list[dict[str, Any]] = []
        self.counts: dict[str, Any] = {}
        self.complaint: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self.context = BEFORE_ALL
        self.past: list[Entry] = []
        self.happened: list[str] = []  # what the engine found out: triggers that are not counted yet
        self._seen: dict[str, int] = {}
        self._counted = 0  # how many of the entries are in it
        self.last: dict[str, dict[str, Any]] = {}
        self.collected: dict[str, list[str]] = {}

    @property
    def at(self) -> datetime | None:
        context = self.context
        return None if context is BEFORE_ALL else context.at

    @property
    def data(self) -> Mapping[str, Any]:
        return self.context.data

    @property
    def by(self) -> str | None:
        actor = self.context.actor
        return None if actor is None else actor.id

    @property
    def roles(self) -> Sequence[str]:
        actor = self.context.actor
        return () if actor is None else actor.roles

    @property
    def actor_unit(self) -> str | None:
        actor = self.context.actor
        return None if actor is None else actor.unit

    @property
    def count(self) -> Mapping[str, Any] | None:
        return self.context.count

    @property
    def penalty(self) -> Mapping[str, Any] | None:
        return self.context.penalty

    @property
    def seen(self) -> dict[str, int]:
        """How often each trigger came. Counted when it is asked for, since most folds never do."""
        seen, past, happened = self._seen, self.past, self.happened
        if self._counted < len(past):
            for entry in past[self._counted :]:
                for key in entry.keys:
                    seen[key] = seen.get(key, 0) + 1
            self._counted = len(past)
        if happened:
            for key in happened:
                seen[key] = seen.get(key, 0) + 1
            happened.clear()
        return seen

    @property
    def local_time(self) -> str | None:
        return None if self.at is None else f"{self.at.astimezone(self.zone):%H:%M}"

    @property
    def clock(self) -> dict[str, Any] | None:
        run = self.context.clock_run
        return None if run is None else clock_record(run, self.at)

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

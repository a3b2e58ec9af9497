"""Fact rows: one wide row for each case.

A row says what came of one case in plain attributes, so that a report needs no timeline. One function makes it from
the timeline and the standing, in the simulator and in the reporting service alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from shared.engine.model import ClockView, Entry, PenaltyView, Standing
from shared.engine.rules import Clause, clauses_of

# Of several runs of clocks under one clause the worst tells how the clause stands.
WORST_FIRST: Final = ("breached", "met", "running", "paused", "fired", "superseded", "cancelled")
_WORSE: Final = {state: place for place, state in enumerate(WORST_FIRST)}


class FactEntry(Struct, frozen=True, kw_only=True):
    """One line of the timeline; `trigger` is the kind, followed by `:` and the step where it has one."""

    trigger: str
    at: datetime
    by: str
    data: dict[str, Any] = {}

    def happens(self, trigger: str) -> bool:
        """Whether a policy's trigger means this: `approved` any approval, `approved:decision` that one alone."""
        return self.trigger == trigger or self.trigger.split(":", 1)[0] == trigger


class FactClock(Struct, frozen=True, kw_only=True, omit_defaults=True):
    rule: str
    clause: Clause
    state: str
    started_at: datetime | None = None
    due_at: datetime | None = None
    stopped_at: datetime | None = None
    name: str | None = None


class FactPenalty(Struct, frozen=True, kw_only=True, omit_defaults=True):
    clause: Clause
    party: str
    kind: str
    at: datetime
    amount_minor: int | None = None
    currency: str = "CNY"
    sanction: str | None = None
    points: int | None = None
    state: str | None = None

    @property
    def is_fine(self) -> bool:
        """Whether its amount is owed as a fine: imposed or corrected, and not waiting, replaced or waived."""
        return self.kind == "fine" and self.state in (None, "correction")


class FactRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case in one row.

    An earlier complaint of a scenario sets only what is known of it; `count` is how many complaints the row stands for,
    0 for a row that carries nothing but earlier penalties.
    """

    at: datetime | None = None  # received
    handled_at: datetime | None = None  # first resolved or closed
    resolved_at: datetime | None = None  # last resolved
    closed_at: datetime | None = None  # None while it is open
    assigned_at: datetime | None = None
    due_at: datetime | None = None  # of the limit that ends first
    case_kind: str = "complaint"
    kind: str | None = None
    category: str | None = None
    severity: str | None = None
    priority: str | int | None = None
    outcome: str | None = None
    channel: str | None = None
    source: str | None = None
    state: str | None = None
    accepted: bool | None = None  # None: not decided
    decline_reason: str | None = None
    anonymous: bool = False
    respondent: dict[str, Any] = {}  # staff, unit, supervisor
    handler: dict[str, Any] = {}  # staff, unit, head
    complainant_id: str | None = None
    complainant_type: str | None = None
    fields: dict[str, Any] = {}
    rating: str | None = None  # of the last survey or follow-up
    clocks: dict[str, str] = {}  # clause, and id of the rule → worst state of its runs
    runs: tuple[FactClock, ...] = ()  # every run that counts
    breached: tuple[str, ...] = ()  # clause of each broken limit, once for each run; else the rule's id
    on_time: bool = False  # at least one limit was met and none is broken
    late: bool = False  # at least one limit is broken
    escalated: int = 0
    rounds: int = 1
    good_reason: bool = False  # a reason for lateness was recorded and approved
    fines_minor: int = 0
    penalties: tuple[FactPenalty, ...] = ()
    facts: dict[str, Any] = {}  # the policy's own derived facts
    entries: tuple[FactEntry, ...] = ()
    count: int = 1
    seq: int = 0  # last entry taken into account


def fact(
    timeline: Sequence[Entry],
    standing: Standing | None,
    *,
    case_kind: str = "complaint",
    source: str | None = None,
    derived: Mapping[str, Any] | None = None,
) -> FactRow:
    """Return the row of one case.

    Args:
        timeline: the entries from seq 1 without a gap, in order.
        standing: what follows from them; None: not worked out yet, and the row tells what the entries say.
        derived: figures of `vocabulary.facts`, by name.
    """
    received = timeline[0] if timeline and timeline[0].kind == "received" else None
    told = received.data if received else {}
    complainant = told.get("complainant") or {}
    said = _said(timeline)
    closed = standing.closed if standing else said.closed_at is not None
    clocks = standing.clocks if standing else ()
    runs = tuple(_run(clock) for clock in clocks if clock.state not in ("superseded", "cancelled"))
    broken = [run for run in runs if run.state == "breached"]
    penalties = tuple(_penalty(penalty) for penalty in standing.penalties) if standing else ()
    announced = sum(1 for effect in standing.effects if effect.kind == "escalated") if standing else 0
    classified = standing.classified if standing else None
    own = dict(derived or {})
    return FactRow(
        at=received.at if received else (timeline[0].at if timeline else None),
        handled_at=said.handled_at,
        resolved_at=said.resolved_at,
        closed_at=_closed_at(timeline, standing, said) if closed else None,
        assigned_at=said.assigned_at or (standing.owner.at if standing and standing.owner else None),
        due_at=min((run.due_at for run in runs if run.due_at is not None and run.state != "fired"), default=None),
        case_kind=case_kind,
        kind=(classified.kind if classified else None) or told.get("kind"),
        category=(classified.category if classified else None) or told.get("category"),
        severity=(classified.severity if classified else None) or told.get("severity"),
        priority=classified.priority if classified else told.get("priority"),
        outcome=standing.outcome if standing else said.outcome,
        channel=told.get("channel"),
        source=source,
        state=standing.state if standing else None,
        accepted=standing.acceptance.accepted if standing and standing.acceptance else said.accepted,
        decline_reason=_decline_reason(standing, said),
        anonymous=bool(told.get("anonymous", False)),
        respondent=_respondent(told, standing),
        handler=_handler(told, standing, said),
        complainant_id=complainant.get("id"),
        complainant_type=complainant.get("type"),
        fields={**(told.get("fields") or {}), **said.fields},
        rating=said.rating,
        clocks=worst_states(runs),
        runs=runs,
        breached=tuple(clause for run in broken for clause in clauses_of(run.clause) or (run.rule,)),
        on_time=any(run.state == "met" for run in runs) and not broken,
        late=bool(broken),
        escalated=announced + said.escalated,
        rounds=own["rounds"] if isinstance(own.get("rounds"), int) else said.rounds,
        good_reason=said.good_reason,
        fines_minor=sum(penalty.amount_minor or 0 for penalty in penalties if penalty.is_fine),
        penalties=penalties,
        facts=own,
        entries=tuple(fact_entry(entry) for entry in timeline),
        seq=timeline[-1].seq if timeline else 0,
    )


def fact_entry(entry: Entry) -> FactEntry:
    step = entry.data.get("step")
    trigger = f"{entry.kind}:{step}" if step else entry.kind
    return FactEntry(trigger=trigger, at=entry.at, by=entry.by.id, data=entry.data)


def worst_states(runs: Iterable[FactClock]) -> dict[str, str]:
    """Return the worst state of each clause and of each rule; no rule's id looks like a clause."""
    worst: dict[str, str] = {}
    for run in runs:
        for name in (*clauses_of(run.clause), run.rule):
            before = worst.get(name)
            if before is None or _WORSE[run.state] < _WORSE[before]:
                worst[name] = run.state
    return worst


_ENDINGS: Final = frozenset(("closed", "archived", "declined", "withdrawn", "handed_over", "merged"))


class _Said(Struct, kw_only=True):
    """What the entries alone say."""

    handled_at: datetime | None = None
    resolved_at: datetime | None = None
    closed_at: datetime | None = None
    ended_at: datetime | None = None  # by whatever entry can end a case, since the last reopening
    assigned_at: datetime | None = None
    assigned: dict[str, Any] = {}
    accepted: bool | None = None
    decline_reason: str | None = None
    outcome: str | None = None
    rating: str | None = None
    fields: dict[str, Any] = {}
    escalated: int = 0
    rounds: int = 1
    good_reason: bool = False


def _said(timeline: Sequence[Entry]) -> _Said:
    said = _Said()
    for entry in timeline:
        data = entry.data
        match entry.kind:
            case "resolved":
                said.handled_at = said.handled_at or entry.at
                said.resolved_at = entry.at
            case "closed" | "archived":
                said.handled_at = said.handled_at or entry.at
                said.closed_at = said.closed_at or entry.at
            case "reopened":
                said.closed_at = said.ended_at = None
                said.rounds += 1
            case "assigned":
                said.assigned_at = said.assigned_at or entry.at
                said.assigned = {name: data[name] for name in ("unit", "staff", "head") if data.get(name)}
            case "accepted":
                said.accepted, said.decline_reason = True, None
            case "declined":
                said.accepted, said.decline_reason = False, data.get("reason")
            case "escalated" if entry.key is None:  # with a key it is the echo of an effect, which counts itself
                said.escalated += 1
            case "approved" if data.get("step") == "good_reason":
                said.good_reason = True
            case "surveyed" | "followed_up":
                said.rating = data.get("rating") or said.rating
            case _:
                pass
        if entry.kind in _ENDINGS:
            said.ended_at = said.ended_at or entry.at
        if entry.kind in ("resolved", "closed", "reconsidered", "investigated", "corrected") and data.get("outcome"):
            said.outcome = data["outcome"]
        if isinstance(data.get("round"), int) and not isinstance(data["round"], bool):
            said.rounds = max(said.rounds, data["round"])
        if entry.seq > 1 and isinstance(data.get("fields"), dict):
            said.fields.update(data["fields"])
    return said


def _closed_at(timeline: Sequence[Entry], standing: Standing | None, said: _Said) -> datetime | None:
    """Return when it was closed: by a person, by the system, or by another entry that ends a case."""
    effects = standing.effects if standing else ()
    by_system = [effect.at for effect in effects if effect.kind == "closed" and effect.what is None]
    if said.closed_at is not None or not timeline:
        return said.closed_at
    return max(by_system) if by_system else said.ended_at or timeline[-1].at


def _decline_reason(standing: Standing | None, said: _Said) -> str | None:
    if standing and standing.acceptance:
        return None if standing.acceptance.accepted else standing.acceptance.reason
    return said.decline_reason


def _respondent(told: Mapping[str, Any], standing: Standing | None) -> dict[str, Any]:
    respondent = {name: value for name, value in (told.get("respondent") or {}).items() if value is not None}
    if standing and standing.classified.respondent:
        respondent["name"] = standing.classified.respondent
    return respondent


def _handler(told: Mapping[str, Any], standing: Standing | None, said: _Said) -> dict[str, Any]:
    """Return who handles it: the last assignment, else who must act by the rules, else what was stated on receipt."""
    stated = {name: value for name, value in (told.get("handler") or {}).items() if value is not None}
    if said.assigned:
        return {**stated, **said.assigned}
    owner = standing.owner if standing else None
    if owner is None:
        return stated
    named = {"unit": owner.unit or owner.role, "staff": owner.staff}
    return {**stated, **{name: value for name, value in named.items() if value}}


def _run(clock: ClockView) -> FactClock:
    return FactClock(
        rule=clock.rule,
        clause=clock.clause,
        state=clock.state,
        started_at=clock.started_at,
        due_at=clock.due_at,
        stopped_at=clock.stopped_at,
        name=clock.name,
    )


def _penalty(penalty: PenaltyView) -> FactPenalty:
    return FactPenalty(
        clause=penalty.clause,
        party=penalty.party,
        kind=penalty.kind,
        at=penalty.at,
        amount_minor=penalty.amount_minor,
        currency=penalty.currency,
        sanction=penalty.sanction,
        points=penalty.points,
        state=penalty.state,
    )

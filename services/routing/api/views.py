"""What the API shows of a case, and what it hides from whom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from services.routing.domain.allowing import Candidate
from services.routing.repository.assignments import Assignment
from services.routing.repository.cases import Stored
from shared.auth import Caller
from shared.engine.explaining import Explanation
from shared.engine.model import Actor, Entry, RouteView, Standing
from shared.engine.rules import CompiledPolicy

HIDDEN = "***"


class OwnerView(msgspec.Struct, frozen=True, kw_only=True):
    """Who must act. `named_by`: the policy's rule, None for a person's decision."""

    unit: str | None
    role: str | None
    staff: str | None
    part: str | None = None
    in_place_of: str | None = None
    named_by: str | None = None
    clause: Any = None
    since: datetime | None = None


class EntryView(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    kind: str
    at: datetime
    by: Actor
    data: dict[str, Any]
    counts: dict[str, Any]
    key: str | None


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case with its timeline and what follows from it at `standing.now`. `as_of_seq`: the last line that is in it."""

    case_id: UUID
    kind: str
    number: str
    source: str
    duplicate_of: UUID | None
    policy_version: int
    as_of_seq: int
    received_at: datetime
    owner: OwnerView
    assignments: list[OwnerView]
    timeline: list[EntryView]
    standing: Standing
    explanations: list[Explanation] | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Where a case stands, in short."""

    state: str
    closed: bool
    outcome: str | None
    due_at: datetime | None
    next_at: datetime | None
    breached: list[str]
    owner: OwnerView


class EntryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command: its entry, those that the system added at once, and the standing after them."""

    case_id: UUID
    seq: int
    kind: str
    at: datetime
    version: int
    followed_by: list[int]
    standing: Summary


class AllowedView(msgspec.Struct, frozen=True, kw_only=True):
    case_id: UUID
    as_of_seq: int
    state: str
    actor: Actor
    items: list[Candidate]


Language = Literal["en", "zh"]


def entry_view(entry: Entry, policy: CompiledPolicy, caller: Caller) -> EntryView:
    return EntryView(
        seq=entry.seq,
        kind=entry.kind,
        at=entry.at,
        by=entry.by,
        data=shown_data(entry.data, policy, caller),
        counts=msgspec.to_builtins(entry.counts),
        key=entry.key,
    )


def shown_data(data: dict[str, Any], policy: CompiledPolicy, caller: Caller) -> dict[str, Any]:
    """Return an entry's data; restricted fields are masked for those who may not see personal data."""
    fields = data.get("fields")
    if caller.sees_personal_data or not isinstance(fields, dict):
        return data
    declared = policy.document.vocabulary.fields
    shown = {
        name: HIDDEN if value is not None and name in declared and declared[name].restricted else value
        for name, value in fields.items()
    }
    return {**data, "fields": shown}


def owner_view(assignment: Assignment | None, owner: RouteView | None = None) -> OwnerView:
    if assignment is None:
        return OwnerView(
            unit=owner.unit if owner else None, role=owner.role if owner else None, staff=owner.staff if owner else None
        )
    return OwnerView(
        unit=assignment.unit,
        role=assignment.role,
        staff=assignment.staff_id,
        part=assignment.part,
        in_place_of=assignment.in_place_of,
        named_by=assignment.rule,
        clause=assignment.clause,
        since=assignment.assigned_at,
    )


def case_view(
    stored: Stored,
    standing: Standing,
    policy: CompiledPolicy,
    assigned: Sequence[Assignment],
    caller: Caller,
    explanations: list[Explanation] | None,
) -> CaseView:
    return CaseView(
        case_id=stored.case_id,
        kind=stored.kind,
        number=stored.number,
        source=stored.source,
        duplicate_of=stored.duplicate_of,
        policy_version=stored.policy_version,
        as_of_seq=stored.version,
        received_at=stored.received_at,
        owner=owner_view(assigned[-1] if assigned else None, standing.owner),
        assignments=[owner_view(each) for each in assigned],
        timeline=[entry_view(entry, policy, caller) for entry in stored.timeline],
        standing=standing,
        explanations=explanations,
    )


def summary(standing: Standing, assignment: Assignment | None) -> Summary:
    dues = [clock.due_at for clock in standing.clocks if clock.state == "running" and clock.due_at is not None]
    return Summary(
        state=standing.state,
        closed=standing.closed,
        outcome=standing.outcome,
        due_at=min(dues, default=None),
        next_at=standing.next_at,
        breached=sorted({clock.rule for clock in standing.clocks if clock.state == "breached"}),
        owner=owner_view(assignment, standing.owner),
    )

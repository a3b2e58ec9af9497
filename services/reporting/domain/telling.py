"""From what was told of a case, in whatever order it came, to its fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, tzinfo
from uuid import UUID

import msgspec
from msgspec import Struct

from services.reporting.domain.rollups import Counted, counted
from shared.engine.facts import FactRow, fact
from shared.engine.model import EffectView, Entry, Standing
from shared.messages import StandingChanged


class Told(Struct, kw_only=True):
    """Everything that was told of one case so far."""

    case_id: UUID
    case_kind: str = "complaint"
    number: str = ""
    source: str = ""
    entries: Sequence[Entry] = ()  # in the order of seq; there may be gaps
    standing: StandingChanged | None = None
    effects: Sequence[EffectView] = ()  # announced and not withdrawn
    amounts: Mapping[tuple[str, str], int] = {}  # (kind of penalty, currency) → minor units posted
    messages: Mapping[tuple[str, str], int] = {}  # (channel, state) → deliveries


class StoredFact(Struct, frozen=True, kw_only=True):
    """The fact of one case as it is stored: the row, what it adds to the rollups, and what it is looked up by."""

    case_id: UUID
    seq: int
    case_kind: str
    number: str
    received_at: datetime
    last_at: datetime  # no instant that a report may ask for is later
    kind: str | None
    category: str | None
    severity: str | None
    channel: str | None
    unit: str | None
    state: str | None
    outcome: str | None
    is_late: bool
    is_closed: bool
    zone: str
    day: date
    counted: Counted
    body: FactRow  # without entries, which are stored as they were told


def without_gap(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries from seq 1 up to the first that is missing."""
    return [entry for place, entry in enumerate(entries, start=1) if entry.seq == place]


def row_of(told: Told) -> FactRow | None:
    """Return the row with its entries, None as long as the first entry has not come."""
    timeline = without_gap(told.entries)
    if not timeline:
        return None
    derived = told.standing.facts if told.standing else None
    return fact(timeline, _standing(told), case_kind=told.case_kind, source=told.source or None, derived=derived)


def fact_of(told: Told, zone: tzinfo, zone_name: str) -> StoredFact | None:
    """Return what is stored for the case, None as long as its first entry has not come."""
    row = row_of(told)
    if row is None or row.at is None:
        return None
    added = counted(row, zone, told.amounts, told.messages)
    return StoredFact(
        case_id=told.case_id,
        seq=row.seq,
        case_kind=row.case_kind,
        number=told.number,
        received_at=row.at,
        last_at=_last_instant(row),
        kind=row.kind,
        category=row.category,
        severity=row.severity,
        channel=row.channel,
        unit=row.handler.get("unit"),
        state=row.state,
        outcome=row.outcome,
        is_late=row.late,
        is_closed=row.closed_at is not None,
        zone=zone_name,
        day=added.day,
        counted=added,
        body=msgspec.structs.replace(row, entries=()),
    )


def _last_instant(row: FactRow) -> datetime:
    instants = (
        row.at,
        row.handled_at,
        row.resolved_at,
        row.closed_at,
        row.due_at,
        *(entry.at for entry in row.entries),
    )
    return max(instant for instant in instants if instant is not None)


def _standing(told: Told) -> Standing | None:
    """Return the standing that sla told, with the effects that it announced: the same that a fold gives."""
    message = told.standing
    if message is None:
        return None
    return Standing(
        seq=message.seq,
        now=message.now,
        policy_version=message.policy_version,
        state=message.state,
        closed=message.closed,
        acceptance=message.acceptance,
        classified=message.classified,
        outcome=message.outcome,
        routing=message.routing,
        clocks=message.clocks,
        effects=tuple(told.effects),
        penalties=message.penalties,
        counters=(),
        problems=(),
        next_at=None,
        owner=message.owner,
    )

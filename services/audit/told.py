"""What the services have told each other, gathered from the bodies in their outboxes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from services.audit.streams import SERVICES

OUTBOX: Final = """
SELECT tenant_id, message_id, subject, body, published_at IS NOT NULL AS is_published, created_at, stream_seq
  FROM {service}.outbox
 ORDER BY id"""

DELIVERY_ORDER: Final = ("suppressed", "queued", "held", "sent", "failed", "dead", "delivered")
UNTOLD: Final = frozenset({"queued", "sending", "expanded"})
"""States of a delivery that are nobody else's business."""


class Row(Struct, frozen=True):
    """A row of an outbox; `body` as a hash, to be compared with what the stream holds."""

    service: str
    tenant_id: UUID
    subject: str
    body: int
    is_published: bool
    created_at: datetime
    stream_seq: int | None


class Standing(Struct, frozen=True, kw_only=True):
    """The last that sla said of a case."""

    tenant_id: UUID
    message_id: UUID
    seq: int
    now: datetime
    case_kind: str
    state: str
    closed: bool
    outcome: str | None
    classified: dict[str, Any]
    clocks: list[dict[str, Any]]
    penalties: list[dict[str, Any]]
    policy_version: int


class Announced(Struct, frozen=True):
    tenant_id: UUID
    effect: dict[str, Any]
    withdrawn: bool


class Posted(Struct, frozen=True):
    tenant_id: UUID
    case_id: UUID
    key: str
    kind: str
    currency: str
    difference_minor: int


class Delivered(Struct, frozen=True):
    tenant_id: UUID
    case_id: UUID | None
    channel: str
    state: str
    attempts: int
    at: datetime
    states: frozenset[str] = frozenset()  # every state that was told


class Told(Struct, kw_only=True):
    """By what it is about. `rows` by service and message id."""

    rows: dict[tuple[str, UUID], Row] = {}
    received: dict[UUID, dict[str, Any]] = {}  # case → line 1
    received_of: dict[UUID, UUID] = {}  # case → tenant
    entries: dict[tuple[UUID, int], dict[str, Any]] = {}  # (case, seq) → entry
    standings: dict[UUID, Standing] = {}
    announced: dict[tuple[UUID, str], list[Announced]] = {}
    posted: dict[UUID, list[Posted]] = {}
    delivered: dict[UUID, Delivered] = {}
    unreadable: list[tuple[str, UUID]] = []
    foreign: list[tuple[str, UUID, UUID]] = []  # messages whose subject or body names another tenant than their row


class _Envelope(Struct):
    tenant_id: UUID


async def gather(connection: asyncpg.Connection) -> Told:
    """Read every outbox once."""
    told = Told()
    for service in SERVICES:
        async for row in connection.cursor(OUTBOX.format(service=service), prefetch=1000):
            _take(told, service, row)
    return told


def _take(told: Told, service: str, row: Any) -> None:
    message_id, tenant_id, subject = row["message_id"], row["tenant_id"], row["subject"]
    told.rows[service, message_id] = Row(
        service, tenant_id, subject, hash(row["body"]), row["is_published"], row["created_at"], row["stream_seq"]
    )
    try:
        named = msgspec.json.decode(row["body"], type=_Envelope).tenant_id
        if named != tenant_id or f".{tenant_id}." not in subject:
            told.foreign.append((service, message_id, tenant_id))
            return
        _READERS.get(".".join(subject.split(".")[3:]), _ignore)(told, tenant_id, row["body"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        told.unreadable.append((service, message_id))


def _ignore(told: Told, tenant_id: UUID, body: bytes) -> None:
    """What the audit asks nothing of: reference data, ticks."""


def _received(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    case_id = UUID(found["case_id"])
    told.received[case_id] = found
    told.received_of[case_id] = tenant_id


def _appended(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.entries[UUID(found["case_id"]), found["entry"]["seq"]] = found["entry"]


class _StandingBody(Struct):
    message_id: UUID
    case_id: UUID
    case_kind: str
    seq: int
    now: datetime
    state: str
    closed: bool
    classified: dict[str, Any]
    outcome: str | None
    clocks: list[dict[str, Any]]
    penalties: list[dict[str, Any]]
    policy_version: int


def _standing(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body, type=_StandingBody)
    before = told.standings.get(found.case_id)
    if before is not None and (before.seq, before.now, before.message_id) >= (found.seq, found.now, found.message_id):
        return
    told.standings[found.case_id] = Standing(
        tenant_id=tenant_id,
        message_id=found.message_id,
        seq=found.seq,
        now=found.now,
        case_kind=found.case_kind,
        state=found.state,
        closed=found.closed,
        outcome=found.outcome,
        classified=found.classified,
        clocks=found.clocks,
        penalties=found.penalties,
        policy_version=found.policy_version,
    )


def _announced(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    place = (UUID(found["case_id"]), found["effect"]["key"])
    told.announced.setdefault(place, []).append(Announced(tenant_id, found["effect"], found["withdrawn"]))


def _posted(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    penalty = found["penalty"]
    told.posted.setdefault(UUID(found["posting_id"]), []).append(
        Posted(
            tenant_id,
            UUID(found["case_id"]),
            penalty["key"],
            penalty["kind"],
            penalty["currency"],
            found["difference_minor"],
        )
    )


class _DeliveryBody(Struct):
    delivery_id: UUID
    case_id: UUID | None
    channel: str
    state: str
    attempts: int
    at: datetime


def _delivered(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body, type=_DeliveryBody)
    before = told.delivered.get(found.delivery_id)
    states = frozenset({found.state}) | (before.states if before is not None else frozenset())
    newest = found if before is None or _place(before) < _place(found) else before
    told.delivered[found.delivery_id] = Delivered(
        tenant_id, found.case_id, found.channel, newest.state, newest.attempts, newest.at, states
    )


def _place(of: Delivered | _DeliveryBody) -> tuple[datetime, int, int]:
    return of.at, of.attempts, DELIVERY_ORDER.index(of.state)


_READERS: Final = {
    "complaint.received": _received,
    "entry.appended": _appended,
    "standing.changed": _standing,
    "announcement.made": _announced,
    "penalty.posted": _posted,
    "delivery.changed": _delivered,
}

"""What the services have told each other, gathered from the bodies in their outboxes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct
from msgspec.structs import replace

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
    """The last that sla said of a case; `body`: in its own words."""

    tenant_id: UUID
    body: bytes
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
    late: bool


class Posted(Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    case_id: UUID
    key: str
    kind: str
    currency: str
    difference_minor: int
    at: str
    month: str
    penalty: dict[str, Any]


class Delivered(Struct, frozen=True, kw_only=True):
    """`states`: every one that was told; the rest as it was told last."""

    tenant_id: UUID
    delivery_id: UUID
    case_id: UUID | None
    rule: str
    audience: str
    channel: str
    state: str
    attempts: int
    detail: str
    at: datetime
    states: frozenset[str] = frozenset()


class Happened(Struct, frozen=True):
    """A message that somebody may be told of."""

    type: str
    body: bytes


class Told(Struct, kw_only=True):
    """By what it is about. `rows` by service and message id."""

    rows: dict[tuple[str, UUID], Row] = {}
    received: dict[UUID, dict[str, Any]] = {}  # case → line 1
    received_of: dict[UUID, UUID] = {}  # case → tenant
    lines: dict[tuple[UUID, int], dict[str, Any]] = {}  # (case, seq) → the message with this line
    standings: dict[UUID, Standing] = {}
    announced: dict[tuple[UUID, str], list[Announced]] = {}
    posted: dict[UUID, list[Posted]] = {}
    imposed: dict[tuple[UUID, str], dict[str, Any]] = {}  # (case, key) → the penalty as it was posted last
    delivered: dict[UUID, Delivered] = {}
    happened: dict[UUID, Happened] = {}  # by message
    staff: dict[tuple[UUID, str], dict[str, Any]] = {}  # (tenant, member) → the newest message
    ticked: dict[UUID, datetime] = {}  # time → its last tick
    advanced: dict[UUID, datetime] = {}  # round of a clock's operation → where it goes
    settled: dict[UUID, dict[str, Any]] = {}  # round → message
    rested: set[UUID] = set()  # rounds
    published: set[tuple[UUID, str, str, str]] = (
        set()
    )  # (tenant, policy or calendar, name or effect, version or revision)
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
    told.lines[UUID(found["case_id"]), found["entry"]["seq"]] = found
    told.happened[UUID(found["message_id"])] = Happened("routing.v1.entry.appended", body)


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
        body=body,
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
    told.announced.setdefault(place, []).append(
        Announced(tenant_id, found["effect"], found["withdrawn"], found["late"])
    )
    told.happened[UUID(found["message_id"])] = Happened("sla.v1.announcement.made", body)


def _posted(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    penalty = found["penalty"]
    told.posted.setdefault(UUID(found["posting_id"]), []).append(
        Posted(
            tenant_id=tenant_id,
            case_id=UUID(found["case_id"]),
            key=penalty["key"],
            kind=penalty["kind"],
            currency=penalty["currency"],
            difference_minor=found["difference_minor"],
            at=found["at"],
            month=found["month"],
            penalty=penalty,
        )
    )
    told.imposed[UUID(found["case_id"]), penalty["key"]] = penalty
    told.happened[UUID(found["message_id"])] = Happened("sla.v1.penalty.posted", body)


def _delivered(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body, type=Delivered)
    before = told.delivered.get(found.delivery_id)
    states = frozenset({found.state}) | (before.states if before is not None else frozenset())
    newest = found if before is None or _place(before) < _place(found) else before
    told.delivered[found.delivery_id] = replace(newest, states=states)


def _place(of: Delivered) -> tuple[datetime, int, int]:
    return of.at, of.attempts, DELIVERY_ORDER.index(of.state)


def _staff(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    place = (tenant_id, found["staff"]["staff_id"])
    if place not in told.staff or told.staff[place]["revision"] <= found["revision"]:
        told.staff[place] = found


def _policy(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.published.add((tenant_id, "policy", found["effect"], str(found["version"])))


def _calendar(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.published.add((tenant_id, "calendar", found["name"], str(found["revision"])))


class _Clock(Struct):
    at: datetime
    operation_id: UUID = UUID(int=0)
    target: datetime | None = None


def _ticked(told: Told, tenant_id: UUID, body: bytes) -> None:
    at = msgspec.json.decode(body, type=_Clock).at
    told.ticked[tenant_id] = max(at, told.ticked.get(tenant_id, at))


def _advanced(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body, type=_Clock)
    told.advanced[found.operation_id] = found.target or found.at


def _settled(told: Told, tenant_id: UUID, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.settled[UUID(found["operation_id"])] = found


def _rested(told: Told, tenant_id: UUID, body: bytes) -> None:
    told.rested.add(msgspec.json.decode(body, type=_Clock).operation_id)


_READERS: Final = {
    "complaint.received": _received,
    "entry.appended": _appended,
    "standing.changed": _standing,
    "announcement.made": _announced,
    "penalty.posted": _posted,
    "delivery.changed": _delivered,
    "staff.changed": _staff,
    "policy.published": _policy,
    "calendar.published": _calendar,
    "clock.ticked": _ticked,
    "clock.advanced": _advanced,
    "clock.settled": _settled,
    "clock.rested": _rested,
}

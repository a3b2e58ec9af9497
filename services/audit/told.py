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
NONE: Final = UUID(int=0)
_AT_ONCE: Final = 5000

UNTOLD: Final = frozenset({"queued", "sending", "expanded"})
"""States of a delivery that are nobody else's business."""


class Row(Struct, frozen=True, gc=False):
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
    said: dict[str, Any]


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
    instants: set[tuple[UUID, datetime]] = set()  # all ticks of sandboxes
    advanced: dict[UUID, datetime] = {}  # round of a clock's operation → where it goes
    settled: dict[UUID, dict[str, Any]] = {}  # round → message
    rested: set[UUID] = set()  # rounds
    published: set[tuple[UUID, str, str, str]] = (
        set()
    )  # (tenant, policy or calendar, name or effect, version or revision)
    tenants: dict[UUID, dict[str, Any]] = {}  # the newest message
    zones: dict[UUID, set[str]] = {}  # tenant → every zone that it was told to have
    credentials: dict[tuple[UUID, str], dict[str, Any]] = {}  # (tenant, credential) → the newest message
    policies: dict[tuple[UUID, int], dict[str, Any]] = {}
    calendars: dict[tuple[UUID, str, int], dict[str, Any]] = {}
    served: dict[tuple[UUID, str], set[str]] = {}  # (tenant, member) → every role and unit that they were told to have
    unreadable: list[tuple[str, UUID]] = []
    foreign: list[tuple[str, UUID, UUID]] = []  # messages whose subject or body names another tenant than their row


class _Envelope(Struct, gc=False):
    """What every message says of itself, and what most of them are about."""

    tenant_id: UUID
    message_id: UUID = NONE
    case_id: UUID | None = None


_envelope: Final = msgspec.json.Decoder(_Envelope)


async def gather(connection: asyncpg.Connection) -> Told:
    """Read every outbox once."""
    told = Told()
    for service in SERVICES:
        async for row in connection.cursor(OUTBOX.format(service=service), prefetch=_AT_ONCE):
            _take(told, service, row)
    return told


def _take(told: Told, service: str, row: Any) -> None:
    tenant_id, message_id, subject, body, is_published, created_at, stream_seq = row
    told.rows[service, message_id] = Row(service, tenant_id, subject, hash(body), is_published, created_at, stream_seq)
    try:
        envelope = _envelope.decode(body)
        if envelope.tenant_id != tenant_id or f".{tenant_id}." not in subject:
            told.foreign.append((service, message_id, tenant_id))
            return
        _READERS.get(subject.split(".", 3)[-1], _ignore)(told, envelope, body)
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        told.unreadable.append((service, message_id))


def _ignore(told: Told, of: _Envelope, body: bytes) -> None:
    """What the audit asks nothing of: reference data, ticks."""


def _case(of: _Envelope) -> UUID:
    """The case. Raises KeyError for a message that names none."""
    if of.case_id is None:
        raise KeyError("case_id")
    return of.case_id


def _received(told: Told, of: _Envelope, body: bytes) -> None:
    case_id = _case(of)
    told.received[case_id] = msgspec.json.decode(body)
    told.received_of[case_id] = of.tenant_id


def _appended(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.lines[_case(of), found["entry"]["seq"]] = found
    told.happened[of.message_id] = Happened("routing.v1.entry.appended", found)


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


_standing_body: Final = msgspec.json.Decoder(_StandingBody)


def _standing(told: Told, of: _Envelope, body: bytes) -> None:
    found = _standing_body.decode(body)
    before = told.standings.get(found.case_id)
    if before is not None and (before.seq, before.now, before.message_id) >= (found.seq, found.now, found.message_id):
        return
    told.standings[found.case_id] = Standing(
        tenant_id=of.tenant_id,
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


def _announced(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.announced.setdefault((_case(of), found["effect"]["key"]), []).append(
        Announced(of.tenant_id, found["effect"], found["withdrawn"], found["late"])
    )
    told.happened[of.message_id] = Happened("sla.v1.announcement.made", found)


def _posted(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    penalty = found["penalty"]
    told.posted.setdefault(UUID(found["posting_id"]), []).append(
        Posted(
            tenant_id=of.tenant_id,
            case_id=_case(of),
            key=penalty["key"],
            kind=penalty["kind"],
            currency=penalty["currency"],
            difference_minor=found["difference_minor"],
            at=found["at"],
            month=found["month"],
            penalty=penalty,
        )
    )
    told.imposed[_case(of), penalty["key"]] = penalty
    told.happened[of.message_id] = Happened("sla.v1.penalty.posted", found)


_delivered_body: Final = msgspec.json.Decoder(Delivered)


def _delivered(told: Told, of: _Envelope, body: bytes) -> None:
    found = _delivered_body.decode(body)
    before = told.delivered.get(found.delivery_id)
    states = frozenset({found.state}) | (before.states if before is not None else frozenset())
    newest = found if before is None or _place(before) < _place(found) else before
    told.delivered[found.delivery_id] = replace(newest, states=states)


def _place(of: Delivered) -> tuple[datetime, int, int]:
    return of.at, of.attempts, DELIVERY_ORDER.index(of.state)


def _staff(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    place = (of.tenant_id, found["staff"]["staff_id"])
    if place not in told.staff or told.staff[place]["revision"] <= found["revision"]:
        told.staff[place] = found
    told.served.setdefault(place, set()).update(found["staff"]["roles"], filter(None, (found["staff"]["unit"],)))


def _tenant(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    if of.tenant_id not in told.tenants or told.tenants[of.tenant_id]["revision"] <= found["revision"]:
        told.tenants[of.tenant_id] = found
    told.zones.setdefault(of.tenant_id, set()).add(found["zone"])


def _credential(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    place = (of.tenant_id, found["credential_id"])
    if place not in told.credentials or told.credentials[place]["revision"] <= found["revision"]:
        told.credentials[place] = found


def _policy(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.published.add((of.tenant_id, "policy", found["effect"], str(found["version"])))
    told.policies[of.tenant_id, found["version"]] = found


def _calendar(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.published.add((of.tenant_id, "calendar", found["name"], str(found["revision"])))
    told.calendars[of.tenant_id, found["name"], found["revision"]] = found


class _Clock(Struct):
    at: datetime
    operation_id: UUID = UUID(int=0)
    target: datetime | None = None


def _ticked(told: Told, of: _Envelope, body: bytes) -> None:
    at = msgspec.json.decode(body, type=_Clock).at
    told.ticked[of.tenant_id] = max(at, told.ticked.get(of.tenant_id, at))
    if of.tenant_id != NONE:
        told.instants.add((of.tenant_id, at))


def _advanced(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body, type=_Clock)
    told.advanced[found.operation_id] = found.target or found.at


def _settled(told: Told, of: _Envelope, body: bytes) -> None:
    found = msgspec.json.decode(body)
    told.settled[UUID(found["operation_id"])] = found


def _rested(told: Told, of: _Envelope, body: bytes) -> None:
    told.rested.add(msgspec.json.decode(body, type=_Clock).operation_id)


_READERS: Final = {
    "complaint.received": _received,
    "entry.appended": _appended,
    "standing.changed": _standing,
    "announcement.made": _announced,
    "penalty.posted": _posted,
    "delivery.changed": _delivered,
    "staff.changed": _staff,
    "tenant.changed": _tenant,
    "credential.changed": _credential,
    "policy.published": _policy,
    "calendar.published": _calendar,
    "clock.ticked": _ticked,
    "clock.advanced": _advanced,
    "clock.settled": _settled,
    "clock.rested": _rested,
}

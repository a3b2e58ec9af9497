"""Complaints as received: looked up and stored many at a time, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from services.intake.domain.duplicates import Earlier
from shared import handover
from shared.database import Database, Record, Tx

# One look before a batch is stored: the time, the current policy, which keys another transaction is working on, which
# were answered before, whose the telephone numbers and addresses are, and what those people complained of lately. The
# data keys are locked against erasure until the batch is in.
#
# A batch may hold complaints of several tenants: each key and each point comes with its tenant, and is looked up by both.
#
# Each key, point and person is looked up by itself. A plain join leaves PostgreSQL the choice, and a plan that was made
# while the tables were small reads everything that the tenant has, for as long as nobody has counted the rows anew.
LOOK = """
WITH tenancy AS MATERIALIZED (
    SELECT t.place, t.tenant_id, t.back,
           coalesce((SELECT c.now FROM test_clock c WHERE c.tenant_id = t.tenant_id), clock_timestamp()) AS now,
           (SELECT max(p.version) FROM policy p WHERE p.tenant_id = t.tenant_id) AS policy_version
      FROM unnest($1::text::uuid[], $2::interval[]) WITH ORDINALITY AS t (tenant_id, back, place)
), wanted AS MATERIALIZED (
    SELECT w.place, pg_try_advisory_xact_lock(hashtextextended(w.tenant_id::text || ' receipt ' || w.key, 0)) AS is_free,
           (SELECT true FROM receipt r WHERE r.tenant_id = w.tenant_id AND r.key = w.key) AS is_answered
      FROM unnest($3::text::uuid[], $4::text[]) WITH ORDINALITY AS w (tenant_id, key, place)
), known AS MATERIALIZED (
    SELECT w.place, w.tenant_id, found.complainant_id, found.wrapped_key
      FROM unnest($5::text::uuid[], $6::text[], $7::bytea[]) WITH ORDINALITY AS w (tenant_id, kind, blind, place)
           CROSS JOIN LATERAL (
               SELECT p.complainant_id, k.wrapped_key
                 FROM contact_point p
                 JOIN data_key k ON k.tenant_id = p.tenant_id AND k.owner_id = p.complainant_id AND k.wrapped_key IS NOT NULL
                WHERE p.tenant_id = w.tenant_id AND p.kind = w.kind AND p.blind = w.blind
                LIMIT 1
                  FOR SHARE OF k) AS found
)
SELECT (SELECT array_agg(now ORDER BY place) FROM tenancy) AS now,
       (SELECT array_agg(policy_version ORDER BY place) FROM tenancy) AS policy_version,
       (SELECT array_agg(place) FROM wanted WHERE NOT is_free) AS busy,
       (SELECT array_agg(place) FROM wanted WHERE is_answered) AS answered,
       (SELECT jsonb_agg(jsonb_build_array(place, complainant_id, encode(wrapped_key, 'hex'))) FROM known) AS known,
       (SELECT jsonb_agg(jsonb_build_array(place, complainant_id, complaint_id, received_at, duplicate_of, words))
          FROM (SELECT DISTINCT t.place, t.tenant_id, t.now - t.back AS since, k.complainant_id
                  FROM known k
                  JOIN tenancy t ON t.tenant_id = k.tenant_id) AS person
               CROSS JOIN LATERAL (
                   SELECT c.complaint_id, c.received_at, c.duplicate_of, c.words
                     FROM complaint c
                    WHERE c.tenant_id = person.tenant_id AND c.complainant_id = person.complainant_id
                      AND c.received_at >= person.since
                   OFFSET 0) AS lately) AS earlier"""

ANSWERED = """
SELECT r.key, r.request_sha256, c.complaint_id, c.number, c.received_at, c.duplicate_of, c.policy_version
  FROM receipt r
 CROSS JOIN LATERAL (
       SELECT * FROM complaint WHERE tenant_id = $1 AND complaint_id = r.complaint_id OFFSET 0) AS c  -- by its key, whatever is counted
 WHERE r.tenant_id = $1 AND r.key = ANY ($2::text[])"""

# Everything that a batch stores, in one statement, which the server keeps (migrations/0003_store_in_one_call.sql): in the transaction
# that has looked, or, plainly, in one of its own, which looks at the same time.
STORE = """
SELECT place, number, count, today, points, received_at, outbox_id
  FROM store_complaints(
       $1, $2, $3, $4,
       $5::text::uuid[], $6::text::int[], $7::text::int[], $8, $9, $10::text::timestamptz[], $11::text::timestamptz[], $12::text::bigint[],
       $13::text::uuid[], $14::text::uuid[], $15, $16, $17, $18::text::uuid[], $19::text::uuid[], $20::text::timestamptz[],
       $21::text::uuid[], $22, $23, $24, $25, $26, $27::text::int[], $28::text::bigint[], $29::text::uuid[], $30,
       $31::text::uuid[], $32::text::uuid[], $33,
       $34::text::uuid[], $35, $36, $37::text::uuid[],
       $38::text::uuid[], $39::text::uuid[], $40::text::uuid[], $41, $42, $43,
       $44::text::uuid[], $45::text::uuid[], $46::text::uuid[], $47, $48::text::int[], $49, $50)"""

FIND = """
SELECT complaint_id, number, source, complainant_id, policy_version, received_at, stored_at, duplicate_of, sealed_contact
  FROM complaint
 WHERE tenant_id = $1 AND complaint_id = $2"""

LATEST_OF = """
SELECT complaint_id, sealed_contact
  FROM complaint
 WHERE tenant_id = $1 AND complainant_id = $2 AND sealed_contact IS NOT NULL
 ORDER BY received_at DESC
 LIMIT 1"""

PRUNE_RECEIPTS = """
DELETE FROM receipt
 WHERE (tenant_id, key) IN (SELECT tenant_id, key
                              FROM receipt
                             WHERE created_at < statement_timestamp() - $1::int * interval '1 day'
                             ORDER BY created_at
                             LIMIT $2)"""


class Asked(Struct, frozen=True):
    """What one tenant's complaints are looked up by."""

    tenant_id: UUID
    keys: Sequence[str]
    points: Sequence[tuple[str, bytes]]  # kind and blind index
    window: timedelta | None  # how far back complaints are asked for; None: not at all


class Known(Struct, frozen=True):
    """Whose a telephone number or address is."""

    point: tuple[str, bytes]
    complainant_id: UUID
    wrapped_key: bytes


class Look(Struct, kw_only=True):
    """What there is of one tenant."""

    now: datetime
    policy_version: int | None
    busy: set[str]
    answered: set[str]
    known: list[Known]
    earlier: list[tuple[UUID, Earlier]]  # by complainant


class Answer(Struct, frozen=True):
    """What was answered under a key."""

    key: str
    request_sha256: bytes
    complaint_id: UUID
    number: str
    received_at: datetime
    duplicate_of: UUID | None
    policy_version: int


class TenantRow(Struct, frozen=True, kw_only=True):
    """A tenant of a batch: all its complaints are under one policy version."""

    tenant_id: UUID
    policy_version: int
    generation: int  # of the tenant's keys
    day: str  # name of the counter of the plan
    subject: str
    begins: datetime | None = None  # of that day; stored plainly only as long as it lasts, and within the plan
    ends: datetime | None = None
    a_day: int | None = None


class ComplaintRow(Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    complaint_id: UUID
    key: str
    request_sha256: bytes
    source: str
    source_id: UUID | None
    complainant_id: UUID
    received_at: datetime | None  # None: when it is stored
    duplicate_of: UUID | None
    words: str  # JSON
    sealed_contact: bytes | None
    counter: str
    before: str
    after: str
    width: int
    last: int | None  # the highest count that fits
    message_id: UUID
    body: str


class PersonRow(Struct, frozen=True):
    """Somebody new, and their wrapped key."""

    tenant_id: UUID
    owner_id: UUID
    wrapped_key: bytes


class TextRow(Struct, frozen=True):
    tenant_id: UUID
    text_id: UUID
    case_id: UUID
    kind: str
    sealed: bytes
    created_by: str


class AttachmentRow(Struct, frozen=True):
    tenant_id: UUID
    attachment_id: UUID
    complaint_id: UUID
    media_type: str
    size: int
    sealed_name: bytes
    sealed: bytes


class PointRow(Struct, frozen=True):
    tenant_id: UUID
    kind: str
    blind: bytes
    complainant_id: UUID


class Batch(Struct, kw_only=True):
    """Everything that belongs to the complaints of a batch."""

    hole: str  # stands in the bodies where the number belongs
    hole_at: datetime  # stands in the bodies where the time belongs, of what is stored plainly
    tenants: list[TenantRow] = []
    complaints: list[ComplaintRow] = []
    people: list[PersonRow] = []
    points: list[PointRow] = []
    texts: list[TextRow] = []
    attachments: list[AttachmentRow] = []


class StoredRow(Struct, frozen=True):
    number: str
    count: int
    today: int
    points: int  # new ones, of the whole batch
    received_at: datetime
    outbox_id: int


class FoundComplaint(Struct, frozen=True):
    complaint_id: UUID
    number: str
    source: str
    complainant_id: UUID
    policy_version: int
    received_at: datetime
    stored_at: datetime
    duplicate_of: UUID | None
    sealed_contact: bytes | None


async def look(tx: Tx, asked: Sequence[Asked]) -> list[Look]:
    """Look before storing, for each tenant. Takes the keys' locks."""
    keys = [(place, key) for place, each in enumerate(asked) for key in each.keys]
    points = [(place, point) for place, each in enumerate(asked) for point in each.points]
    ids = [each.tenant_id.hex for each in asked]
    row = await tx.fetchrow(
        LOOK,
        _array(ids),
        [each.window for each in asked],
        _array([ids[place] for place, _ in keys]),
        [key for _, key in keys],
        _array([ids[place] for place, _ in points]),
        [kind for _, (kind, _) in points],
        [blind for _, (_, blind) in points],
    )
    assert row is not None
    found = [
        Look(now=now, policy_version=version, busy=set(), answered=set(), known=[], earlier=[])
        for now, version in zip(row["now"], row["policy_version"], strict=True)
    ]
    for number in row["busy"] or ():  # places in SQL begin with 1
        place, key = keys[number - 1]
        found[place].busy.add(key)
    for number in row["answered"] or ():
        place, key = keys[number - 1]
        found[place].answered.add(key)
    for number, owner, wrapped in row["known"] or ():
        place, point = points[number - 1]
        found[place].known.append(Known(point, UUID(owner), bytes.fromhex(wrapped)))
    for number, owner, complaint_id, received_at, duplicate_of, words in row["earlier"] or ():
        earlier = Earlier(
            complaint_id=UUID(complaint_id),
            received_at=datetime.fromisoformat(received_at),
            duplicate_of=UUID(duplicate_of) if duplicate_of else None,
            words=words,
        )
        found[number - 1].earlier.append((UUID(owner), earlier))
    return found


async def answered(tx: Tx, tenant_id: UUID, keys: Sequence[str]) -> dict[str, Answer]:
    """Return what was answered under each of these keys, as far as something was."""
    rows = await tx.fetch(ANSWERED, tenant_id, list(keys))
    return {row["key"]: Answer(*row) for row in rows}


async def store(tx: Tx, batch: Batch) -> dict[int, StoredRow]:
    """Store a batch and return what was stored, by the complaint's place in it; those whose key has been answered are not
    among them.
    """
    rows = await tx.fetch(STORE, *_arguments(batch, is_plain=False))
    stored = _stored(rows)
    tx.after_commit(partial(_hand_over, tx.database, batch, stored))
    return stored


async def store_plainly(database: Database, batch: Batch, lock_seconds: float) -> dict[int, StoredRow]:
    """Store what is plain of a batch, in a transaction of its own, and return it when it is committed: nothing, where one of
    them would have spoilt the others.
    """
    try:
        rows = await database.api_call(STORE, *_arguments(batch, is_plain=True, lock_seconds=lock_seconds))
    except asyncpg.PostgresError as error:
        if error.sqlstate == "RC001":  # what `not_plain` raises
            return {}
        raise
    stored = _stored(rows)
    _hand_over(database, batch, stored)
    return stored


def _arguments(batch: Batch, *, is_plain: bool, lock_seconds: float = 0.0) -> list[object]:
    tenants, complaints, people, points = batch.tenants, batch.complaints, batch.people, batch.points
    texts, files = batch.texts, batch.attachments
    return [
        is_plain,
        str(int(lock_seconds * 1000)),
        *_holes(batch),
        _ids([row.tenant_id for row in tenants]),
        _array([str(row.policy_version) for row in tenants]),
        _array([str(row.generation) for row in tenants]),
        [row.day for row in tenants],
        [row.subject for row in tenants],
        _instants([row.begins for row in tenants]),
        _instants([row.ends for row in tenants]),
        _numbers([row.a_day for row in tenants]),
        _ids([row.tenant_id for row in complaints]),
        _ids([row.complaint_id for row in complaints]),
        [row.key for row in complaints],
        [row.request_sha256 for row in complaints],
        [row.source for row in complaints],
        _ids([row.source_id for row in complaints]),
        _ids([row.complainant_id for row in complaints]),
        _instants([row.received_at for row in complaints]),
        _ids([row.duplicate_of for row in complaints]),
        [row.words for row in complaints],
        [row.sealed_contact for row in complaints],
        [row.counter for row in complaints],
        [row.before for row in complaints],
        [row.after for row in complaints],
        _array([str(row.width) for row in complaints]),
        _numbers([row.last for row in complaints]),
        _ids([row.message_id for row in complaints]),
        [row.body for row in complaints],
        _ids([row.tenant_id for row in people]),
        _ids([row.owner_id for row in people]),
        [row.wrapped_key for row in people],
        _ids([row.tenant_id for row in points]),
        [row.kind for row in points],
        [row.blind for row in points],
        _ids([row.complainant_id for row in points]),
        _ids([row.tenant_id for row in texts]),
        _ids([row.text_id for row in texts]),
        _ids([row.case_id for row in texts]),
        [row.kind for row in texts],
        [row.sealed for row in texts],
        [row.created_by for row in texts],
        _ids([row.tenant_id for row in files]),
        _ids([row.attachment_id for row in files]),
        _ids([row.complaint_id for row in files]),
        [row.media_type for row in files],
        _array([str(row.size) for row in files]),
        [row.sealed_name for row in files],
        [row.sealed for row in files],
    ]


def _holes(batch: Batch) -> tuple[str, str]:
    """What stands in the bodies for the number and for the time, as JSON text."""
    return f'"{batch.hole}"', msgspec.json.encode(batch.hole_at).decode()


def _stored(rows: Sequence[Record]) -> dict[int, StoredRow]:
    return {place - 1: StoredRow(*values) for place, *values in rows}  # places in SQL begin with 1


def _hand_over(database: Database, batch: Batch, stored: Mapping[int, StoredRow]) -> None:
    """Give the relay what was stored and is committed, so that it need not read it."""
    number_hole, at_hole = _holes(batch)
    subjects = {row.tenant_id: row.subject for row in batch.tenants}
    given = []
    for place, row in stored.items():
        complaint = batch.complaints[place]
        body = complaint.body.replace(number_hole, msgspec.json.encode(row.number).decode())
        body = body.replace(at_hole, f'"{row.received_at:%Y-%m-%dT%H:%M:%S.%f}Z"')
        tenant_id = complaint.tenant_id
        given.append(handover.Row(tenant_id, row.outbox_id, complaint.message_id, subjects[tenant_id], body.encode()))
    if given:
        database.outbox_added.give(given)


def _array(values: Iterable[str]) -> str:
    """Return PostgreSQL's text of an array of numbers, instants or ids, which need no quotes. The client looks several times
    at each value of a list that is neither text nor bytes.
    """
    return f"{{{','.join(values)}}}"


def _instants(instants: Iterable[datetime | None]) -> str:
    return _array(["NULL" if each is None else each.isoformat() for each in instants])


def _numbers(numbers: Iterable[int | None]) -> str:
    return _array(["NULL" if each is None else str(each) for each in numbers])


def _ids(ids: Iterable[UUID | None]) -> str:
    return _array(["NULL" if each is None else each.hex for each in ids])


async def find(tx: Tx, tenant_id: UUID, complaint_id: UUID) -> FoundComplaint | None:
    row = await tx.fetchrow(FIND, tenant_id, complaint_id)
    return FoundComplaint(*row) if row is not None else None


async def latest_of(tx: Tx, tenant_id: UUID, complainant_id: UUID) -> tuple[UUID, bytes] | None:
    """Return the complainant's latest complaint that says how they are reached, with what it says."""
    row = await tx.fetchrow(LATEST_OF, tenant_id, complainant_id)
    return (row["complaint_id"], row["sealed_contact"]) if row is not None else None


async def prune_receipts(tx: Tx, days: int, limit: int) -> int:
    """Delete receipts older than so many days, of all tenants; return how many. Only a worker's transaction may."""
    return int((await tx.execute(PRUNE_RECEIPTS, days, limit)).rpartition(" ")[2])

"""Complaints as received: looked up and stored many at a time, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from services.intake.domain.duplicates import Earlier
from shared.database import Tx

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
  JOIN complaint c ON c.tenant_id = $1 AND c.complaint_id = r.complaint_id
 WHERE r.tenant_id = $1 AND r.key = ANY ($2::text[])"""

# Everything that a batch stores, in one statement. Only what `taken` lets through goes further: a key that was answered
# between the look and now adds nothing. The number is known only here, so it is put into the message here, as JSON
# text. Whatever belongs to a complaint or to a person is joined with them by the tenant too.
STORE = """
WITH tenancy AS MATERIALIZED (
    SELECT *
      FROM unnest($1::text::uuid[], $2::text::int[], $3::text::int[], $4::text[], $5::text[])
        AS t (tenant_id, policy_version, generation, day, subject)
), offered AS (
    SELECT *
      FROM unnest($6::text::uuid[], $7::text::uuid[], $8::text[], $9::bytea[], $10::text[], $11::text::uuid[], $12::text::uuid[],
                  $13::text::timestamptz[], $14::text::uuid[], $15::text[], $16::bytea[], $17::text[], $18::text[], $19::text[],
                  $20::text::int[], $21::text::uuid[], $22::text[])
           WITH ORDINALITY
        AS o (tenant_id, complaint_id, key, request_sha256, source, source_id, complainant_id, received_at,
              duplicate_of, words, sealed_contact, counter, before, after, width, message_id, body, place)
), taken AS (
    INSERT INTO receipt (tenant_id, key, request_sha256, complaint_id)
    SELECT tenant_id, key, request_sha256, complaint_id FROM offered
        ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING tenant_id, complaint_id
), fresh AS (
    SELECT o.*, t.policy_version, t.generation, t.day, t.subject,
           count(*) OVER (PARTITION BY o.tenant_id, counter) AS together,
           row_number() OVER (PARTITION BY o.tenant_id, counter ORDER BY place) AS turn
      FROM offered o
      JOIN taken USING (tenant_id, complaint_id)
      JOIN tenancy t USING (tenant_id)
), counted AS (
    INSERT INTO counter AS c (tenant_id, name, count)
    SELECT tenant_id, name, added
      FROM (SELECT tenant_id, counter AS name, count(*) AS added FROM fresh GROUP BY tenant_id, counter
             UNION ALL
            SELECT tenant_id, day, count(*) FROM fresh GROUP BY tenant_id, day) AS each
     ORDER BY tenant_id, name
        ON CONFLICT (tenant_id, name) DO UPDATE SET count = c.count + excluded.count
    RETURNING tenant_id, name, count
), counts AS (
    SELECT f.*, (c.count - f.together + f.turn) AS n, d.count AS today
      FROM fresh f
      JOIN counted c ON c.tenant_id = f.tenant_id AND c.name = f.counter
      JOIN counted d ON d.tenant_id = f.tenant_id AND d.name = f.day
), numbered AS (
    SELECT *, before || lpad(n::text, greatest(width, length(n::text)), '0') || after AS number FROM counts
), person AS (
    INSERT INTO data_key (tenant_id, owner_id, generation, wrapped_key)
    SELECT k.tenant_id, k.owner_id, t.generation, k.wrapped_key
      FROM unnest($23::text::uuid[], $24::text::uuid[], $25::bytea[]) AS k (tenant_id, owner_id, wrapped_key)
      JOIN tenancy t USING (tenant_id)
     WHERE (k.tenant_id, k.owner_id) IN (SELECT tenant_id, complainant_id FROM fresh)
), point AS (
    INSERT INTO contact_point (tenant_id, kind, blind, complainant_id)
    SELECT p.tenant_id, p.kind, p.blind, p.complainant_id
      FROM unnest($26::text::uuid[], $27::text[], $28::bytea[], $29::text::uuid[]) AS p (tenant_id, kind, blind, complainant_id)
     WHERE (p.tenant_id, p.complainant_id) IN (SELECT tenant_id, complainant_id FROM fresh)
     ORDER BY p.tenant_id, p.kind, p.blind
        ON CONFLICT DO NOTHING
    RETURNING complainant_id
), stored AS (
    INSERT INTO complaint (tenant_id, complaint_id, number, source, source_id, complainant_id, policy_version,
                           received_at, duplicate_of, words, sealed_contact)
    SELECT tenant_id, complaint_id, number, source, source_id, complainant_id, policy_version, received_at, duplicate_of,
           words::jsonb, sealed_contact
      FROM numbered
), words AS (
    INSERT INTO free_text (tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)
    SELECT f.tenant_id, t.text_id, f.complainant_id, f.complaint_id, t.kind, t.sealed, t.created_by
      FROM unnest($30::text::uuid[], $31::text::uuid[], $32::text::uuid[], $33::text[], $34::bytea[], $35::text[])
           AS t (tenant_id, text_id, case_id, kind, sealed, created_by)
      JOIN fresh f ON f.tenant_id = t.tenant_id AND f.complaint_id = t.case_id
), file AS (
    INSERT INTO attachment (tenant_id, attachment_id, complaint_id, owner_id, media_type, bytes, sealed_name, sealed)
    SELECT f.tenant_id, a.attachment_id, f.complaint_id, f.complainant_id, a.media_type, a.bytes, a.sealed_name, a.sealed
      FROM unnest($36::text::uuid[], $37::text::uuid[], $38::text::uuid[], $39::text[], $40::text::int[], $41::bytea[], $42::bytea[])
           AS a (tenant_id, attachment_id, complaint_id, media_type, bytes, sealed_name, sealed)
      JOIN fresh f ON f.tenant_id = a.tenant_id AND f.complaint_id = a.complaint_id
), told AS (
    INSERT INTO outbox (tenant_id, message_id, subject, body)
    SELECT tenant_id, message_id, subject, convert_to(replace(body, $43, to_json(number)::text), 'UTF8')
      FROM numbered
     ORDER BY place
)
SELECT place, number, n, today, (SELECT count(*) FROM point) AS points
  FROM numbered"""

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
                             WHERE created_at < clock_timestamp() - $1::int * interval '1 day'
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


class ComplaintRow(Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    complaint_id: UUID
    key: str
    request_sha256: bytes
    source: str
    source_id: UUID | None
    complainant_id: UUID
    received_at: datetime
    duplicate_of: UUID | None
    words: str  # JSON
    sealed_contact: bytes | None
    counter: str
    before: str
    after: str
    width: int
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

    hole: str  # stands in the bodies where the number belongs, as JSON text
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
    tenants, complaints, people, points = batch.tenants, batch.complaints, batch.people, batch.points
    texts, files = batch.texts, batch.attachments
    rows = await tx.fetch(
        STORE,
        _ids([row.tenant_id for row in tenants]),
        _array([str(row.policy_version) for row in tenants]),
        _array([str(row.generation) for row in tenants]),
        [row.day for row in tenants],
        [row.subject for row in tenants],
        _ids([row.tenant_id for row in complaints]),
        _ids([row.complaint_id for row in complaints]),
        [row.key for row in complaints],
        [row.request_sha256 for row in complaints],
        [row.source for row in complaints],
        _ids([row.source_id for row in complaints]),
        _ids([row.complainant_id for row in complaints]),
        _array([row.received_at.isoformat() for row in complaints]),
        _ids([row.duplicate_of for row in complaints]),
        [row.words for row in complaints],
        [row.sealed_contact for row in complaints],
        [row.counter for row in complaints],
        [row.before for row in complaints],
        [row.after for row in complaints],
        _array([str(row.width) for row in complaints]),
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
        f'"{batch.hole}"',
    )
    tx.after_commit(tx.database.outbox_added.set)
    return {place - 1: StoredRow(number, count, today, new) for place, number, count, today, new in rows}


def _array(values: Iterable[str]) -> str:
    """Return PostgreSQL's text of an array of numbers, instants or ids, which need no quotes. The client looks several times
    at each value of a list that is neither text nor bytes.
    """
    return f"{{{','.join(values)}}}"


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

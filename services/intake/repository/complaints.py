"""Complaints as received: looked up and stored many at a time, each exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from services.intake.domain.duplicates import Earlier
from shared.database import Tx

# One look before a batch is stored: the time, the current policy, which keys another transaction is working on, which
# were answered before, whose the telephone numbers and addresses are, and what those people complained of lately. The
# data keys are locked against erasure until the batch is in.
#
# Each key, point and person is looked up by itself. A plain join leaves PostgreSQL the choice, and a plan that was made
# while the tables were small reads everything that the tenant has, for as long as nobody has counted the rows anew.
LOOK = """
WITH clock AS (
    SELECT coalesce((SELECT now FROM test_clock WHERE tenant_id = $1), clock_timestamp()) AS now
), wanted AS MATERIALIZED (
    SELECT key, pg_try_advisory_xact_lock(hashtextextended($1::text || ' receipt ' || key, 0)) AS is_free,
           (SELECT true FROM receipt r WHERE r.tenant_id = $1 AND r.key = w.key) AS is_answered
      FROM unnest($2::text[]) AS w (key)
), known AS MATERIALIZED (
    SELECT found.kind, found.blind, found.complainant_id, found.wrapped_key
      FROM unnest($3::text[], $4::bytea[]) AS w (kind, blind)
           CROSS JOIN LATERAL (
               SELECT p.kind, p.blind, p.complainant_id, k.wrapped_key
                 FROM contact_point p
                 JOIN data_key k ON k.tenant_id = $1 AND k.owner_id = p.complainant_id AND k.wrapped_key IS NOT NULL
                WHERE p.tenant_id = $1 AND p.kind = w.kind AND p.blind = w.blind
                LIMIT 1
                  FOR SHARE OF k) AS found
)
SELECT (SELECT now FROM clock) AS now,
       (SELECT max(version) FROM policy WHERE tenant_id = $1) AS policy_version,
       (SELECT array_agg(key) FROM wanted WHERE NOT is_free) AS busy,
       (SELECT array_agg(key) FROM wanted WHERE is_answered) AS answered,
       (SELECT jsonb_agg(jsonb_build_array(kind, encode(blind, 'hex'), complainant_id, encode(wrapped_key, 'hex')))
          FROM known) AS known,
       (SELECT jsonb_agg(jsonb_build_array(complaint_id, received_at, duplicate_of, words, complainant_id))
          FROM (SELECT DISTINCT complainant_id FROM known) AS person
               CROSS JOIN LATERAL (
                   SELECT c.complaint_id, c.received_at, c.duplicate_of, c.words
                     FROM complaint c
                    WHERE c.tenant_id = $1 AND c.complainant_id = person.complainant_id
                      AND c.received_at >= (SELECT now - $5::interval FROM clock)
                   OFFSET 0) AS lately) AS earlier"""

ANSWERED = """
SELECT r.key, r.request_sha256, c.complaint_id, c.number, c.received_at, c.duplicate_of, c.policy_version
  FROM receipt r
  JOIN complaint c ON c.tenant_id = $1 AND c.complaint_id = r.complaint_id
 WHERE r.tenant_id = $1 AND r.key = ANY ($2::text[])"""

# Everything that a batch stores, in one statement. Only what `taken` lets through goes further: a key that was answered
# between the look and now adds nothing. The number is known only here, so it is put into the message here, as JSON
# text.
STORE = """
WITH offered AS (
    SELECT *
      FROM unnest($2::uuid[], $3::text[], $4::bytea[], $5::text[], $6::uuid[], $7::uuid[], $8::timestamptz[],
                  $9::uuid[], $10::jsonb[], $11::bytea[], $12::text[], $13::text[], $14::text[], $15::int[],
                  $16::uuid[], $17::text[])
           WITH ORDINALITY
        AS o (complaint_id, key, request_sha256, source, source_id, complainant_id, received_at,
              duplicate_of, words, sealed_contact, counter, before, after, width, message_id, body, place)
), taken AS (
    INSERT INTO receipt (tenant_id, key, request_sha256, complaint_id)
    SELECT $1, key, request_sha256, complaint_id FROM offered
        ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING complaint_id
), fresh AS (
    SELECT o.*, count(*) OVER (PARTITION BY counter) AS together,
           row_number() OVER (PARTITION BY counter ORDER BY place) AS turn
      FROM offered o JOIN taken USING (complaint_id)
), counted AS (
    INSERT INTO counter AS c (tenant_id, name, count)
    SELECT $1, name, added
      FROM (SELECT counter AS name, count(*) AS added FROM fresh GROUP BY counter
             UNION ALL
            SELECT $18, count(*) FROM fresh HAVING count(*) > 0) AS each
     ORDER BY name
        ON CONFLICT (tenant_id, name) DO UPDATE SET count = c.count + excluded.count
    RETURNING name, count
), counts AS (
    SELECT f.*, (c.count - f.together + f.turn) AS n
      FROM fresh f JOIN counted c ON c.name = f.counter
), numbered AS (
    SELECT *, before || lpad(n::text, greatest(width, length(n::text)), '0') || after AS number FROM counts
), person AS (
    INSERT INTO data_key (tenant_id, owner_id, generation, wrapped_key)
    SELECT $1, k.owner_id, $19, k.wrapped_key
      FROM unnest($20::uuid[], $21::bytea[]) AS k (owner_id, wrapped_key)
     WHERE k.owner_id IN (SELECT complainant_id FROM fresh)
), point AS (
    INSERT INTO contact_point (tenant_id, kind, blind, complainant_id)
    SELECT $1, p.kind, p.blind, p.complainant_id
      FROM unnest($22::text[], $23::bytea[], $24::uuid[]) AS p (kind, blind, complainant_id)
     WHERE p.complainant_id IN (SELECT complainant_id FROM fresh)
     ORDER BY p.kind, p.blind
        ON CONFLICT DO NOTHING
    RETURNING complainant_id
), stored AS (
    INSERT INTO complaint (tenant_id, complaint_id, number, source, source_id, complainant_id, policy_version,
                           received_at, duplicate_of, words, sealed_contact)
    SELECT $1, complaint_id, number, source, source_id, complainant_id, $25, received_at, duplicate_of, words, sealed_contact
      FROM numbered
), words AS (
    INSERT INTO free_text (tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)
    SELECT $1, t.text_id, f.complainant_id, t.case_id, t.kind, t.sealed, t.created_by
      FROM unnest($26::uuid[], $27::uuid[], $28::text[], $29::bytea[], $30::text[])
           AS t (text_id, case_id, kind, sealed, created_by)
      JOIN fresh f ON f.complaint_id = t.case_id
), file AS (
    INSERT INTO attachment (tenant_id, attachment_id, complaint_id, owner_id, media_type, bytes, sealed_name, sealed)
    SELECT $1, a.attachment_id, a.complaint_id, f.complainant_id, a.media_type, a.bytes, a.sealed_name, a.sealed
      FROM unnest($31::uuid[], $32::uuid[], $33::text[], $34::int[], $35::bytea[], $36::bytea[])
           AS a (attachment_id, complaint_id, media_type, bytes, sealed_name, sealed)
      JOIN fresh f ON f.complaint_id = a.complaint_id
), told AS (
    INSERT INTO outbox (tenant_id, message_id, subject, body)
    SELECT $1, message_id, $37, convert_to(replace(body, $38, to_json(number)::text), 'UTF8')
      FROM numbered
     ORDER BY place
)
SELECT complaint_id, number, n, (SELECT count FROM counted WHERE name = $18) AS today,
       (SELECT count(*) FROM point) AS points
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


class Known(Struct, frozen=True):
    """Whose a telephone number or address is."""

    kind: str
    blind: bytes
    complainant_id: UUID
    wrapped_key: bytes


class Look(Struct, frozen=True):
    now: datetime
    policy_version: int | None
    busy: frozenset[str]
    answered: frozenset[str]
    known: tuple[Known, ...]
    earlier: tuple[tuple[UUID, Earlier], ...]  # by complainant


class Answer(Struct, frozen=True):
    """What was answered under a key."""

    key: str
    request_sha256: bytes
    complaint_id: UUID
    number: str
    received_at: datetime
    duplicate_of: UUID | None
    policy_version: int


class ComplaintRow(Struct, frozen=True, kw_only=True):
    complaint_id: UUID
    key: str
    request_sha256: bytes
    source: str
    source_id: UUID | None
    complainant_id: UUID
    received_at: datetime
    duplicate_of: UUID | None
    words: dict[str, Any]
    sealed_contact: bytes | None
    counter: str
    before: str
    after: str
    width: int
    message_id: UUID
    body: str


class TextRow(Struct, frozen=True):
    text_id: UUID
    case_id: UUID
    kind: str
    sealed: bytes
    created_by: str


class AttachmentRow(Struct, frozen=True):
    attachment_id: UUID
    complaint_id: UUID
    media_type: str
    size: int
    sealed_name: bytes
    sealed: bytes


class PointRow(Struct, frozen=True):
    kind: str
    blind: bytes
    complainant_id: UUID


class Batch(Struct, frozen=True, kw_only=True):
    """Everything that belongs to a batch of complaints of one tenant under one policy version."""

    policy_version: int
    generation: int  # of the tenant's keys
    day: str  # name of the counter of the plan
    subject: str
    hole: str  # stands in the bodies where the number belongs
    complaints: list[ComplaintRow]
    people: list[tuple[UUID, bytes]]  # new complainants and their wrapped keys
    points: list[PointRow]
    texts: list[TextRow]
    attachments: list[AttachmentRow]


class StoredRow(Struct, frozen=True):
    complaint_id: UUID
    number: str
    count: int
    today: int
    points: int


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


async def look(
    tx: Tx, tenant_id: UUID, keys: Sequence[str], points: Sequence[tuple[str, bytes]], window: timedelta | None
) -> Look:
    """Look before storing. Takes the keys' locks; `window` is how far back complaints are asked for, None for not at
    all.
    """
    row = await tx.fetchrow(
        LOOK, tenant_id, list(keys), [kind for kind, _ in points], [blind for _, blind in points], window
    )
    assert row is not None
    return Look(
        now=row["now"],
        policy_version=row["policy_version"],
        busy=frozenset(row["busy"] or ()),
        answered=frozenset(row["answered"] or ()),
        known=tuple(
            Known(kind, bytes.fromhex(blind), UUID(owner), bytes.fromhex(wrapped))
            for kind, blind, owner, wrapped in row["known"] or ()
        ),
        earlier=tuple(
            (
                UUID(complainant_id),
                Earlier(
                    complaint_id=UUID(complaint_id),
                    received_at=datetime.fromisoformat(received_at),
                    duplicate_of=UUID(duplicate_of) if duplicate_of else None,
                    words=words,
                ),
            )
            for complaint_id, received_at, duplicate_of, words, complainant_id in row["earlier"] or ()
        ),
    )


async def answered(tx: Tx, tenant_id: UUID, keys: Sequence[str]) -> dict[str, Answer]:
    """Return what was answered under each of these keys, as far as something was."""
    rows = await tx.fetch(ANSWERED, tenant_id, list(keys))
    return {row["key"]: Answer(*row) for row in rows}


async def store(tx: Tx, tenant_id: UUID, batch: Batch) -> dict[UUID, StoredRow]:
    """Store a batch and return what was stored, by complaint; those whose key has been answered are not among them."""
    complaints, texts, files, points = batch.complaints, batch.texts, batch.attachments, batch.points
    rows = await tx.fetch(
        STORE,
        tenant_id,
        [row.complaint_id for row in complaints],
        [row.key for row in complaints],
        [row.request_sha256 for row in complaints],
        [row.source for row in complaints],
        [row.source_id for row in complaints],
        [row.complainant_id for row in complaints],
        [row.received_at for row in complaints],
        [row.duplicate_of for row in complaints],
        [row.words for row in complaints],
        [row.sealed_contact for row in complaints],
        [row.counter for row in complaints],
        [row.before for row in complaints],
        [row.after for row in complaints],
        [row.width for row in complaints],
        [row.message_id for row in complaints],
        [row.body for row in complaints],
        batch.day,
        batch.generation,
        [owner for owner, _ in batch.people],
        [wrapped for _, wrapped in batch.people],
        [point.kind for point in points],
        [point.blind for point in points],
        [point.complainant_id for point in points],
        batch.policy_version,
        [text.text_id for text in texts],
        [text.case_id for text in texts],
        [text.kind for text in texts],
        [text.sealed for text in texts],
        [text.created_by for text in texts],
        [file.attachment_id for file in files],
        [file.complaint_id for file in files],
        [file.media_type for file in files],
        [file.size for file in files],
        [file.sealed_name for file in files],
        [file.sealed for file in files],
        batch.subject,
        batch.hole,
    )
    tx.after_commit(tx.database.outbox_added.set)
    return {row["complaint_id"]: StoredRow(*row) for row in rows}


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

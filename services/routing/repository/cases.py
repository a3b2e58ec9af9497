"""Cases, their timelines, and what is derived from them to be found by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.routing.domain.columns import Columns
from services.routing.repository.assignments import Assignment
from shared import outbox
from shared.database import Record, Tx
from shared.engine.model import Entry

CASE = """
SELECT c.case_id, c.kind, c.number, c.subject_key, c.source, c.silent, c.duplicate_of, c.policy_version, c.current_policy_version,
       c.version, c.state, c.closed, c.creates, c.received_at, c.changed_at, c.owner_unit, c.owner_role, c.owner_staff,
       (SELECT json_agg(json_build_object('seq', e.seq, 'kind', e.kind, 'at', e.at, 'by', e.by, 'data', e.data, 'counts', e.counts,
                                          'key', e.key) ORDER BY e.seq)
          FROM entry e
         WHERE e.tenant_id = c.tenant_id AND e.case_id = c.case_id)::text AS timeline,
       (SELECT row_to_json(a)
          FROM assignment a
         WHERE a.tenant_id = c.tenant_id AND a.case_id = c.case_id AND a.active)::text AS assignment
  FROM "case" c
 WHERE c.tenant_id = $1 AND c.case_id = $2"""

LOCK_CASE = CASE + " FOR UPDATE OF c"

TIMELINE = """
SELECT json_agg(json_build_object('seq', seq, 'kind', kind, 'at', at, 'by', by, 'data', data, 'counts', counts, 'key', key)
                ORDER BY seq)::text AS timeline,
       (SELECT row_to_json(a) FROM assignment a WHERE a.tenant_id = $1 AND a.case_id = $2 AND a.active)::text AS assignment
  FROM entry
 WHERE tenant_id = $1 AND case_id = $2"""

INSERT_CASES = """
WITH new AS (
    SELECT *
      FROM json_to_recordset($1::json) AS c(
           tenant_id uuid, case_id uuid, kind text, number text, subject_key text, year integer, source text, silent boolean,
           duplicate_of uuid, policy_version integer, current_policy_version integer, version integer, state text, closed boolean,
           outcome text,
           class_kind text, category text, severity text, priority text, rank integer, respondent text, owner_unit text,
           owner_role text, owner_staff text, received_at timestamptz, changed_at timestamptz, due_at timestamptz,
           breached_at timestamptz, provisional boolean, creates integer, wake_at timestamptz, sandbox boolean)),
made AS (
    INSERT INTO "case" (tenant_id, case_id, kind, number, subject_key, year, source, silent, duplicate_of, policy_version,
                        current_policy_version, version, state, closed, outcome, class_kind, category, severity, priority, rank,
                        respondent, owner_unit, owner_role, owner_staff, received_at, changed_at, due_at, breached_at, provisional,
                        creates)
    SELECT tenant_id, case_id, kind, number, subject_key, year, source, silent, duplicate_of, policy_version,
           current_policy_version, version, state, closed, outcome, class_kind, category, severity, priority, rank, respondent,
           owner_unit, owner_role, owner_staff, received_at, changed_at, due_at, breached_at, provisional, creates
      FROM new
     ORDER BY tenant_id, case_id
        ON CONFLICT DO NOTHING
    RETURNING tenant_id, case_id),
lines AS (
    INSERT INTO entry (tenant_id, case_id, seq, kind, at, by, data, counts, key)
    SELECT made.tenant_id, made.case_id, e.seq, e.kind, e.at, e.by, e.data, e.counts, e.key
      FROM unnest($2::uuid[], $3::uuid[], $4::text[]) AS line(tenant_id, case_id, entry)
      JOIN made ON made.tenant_id = line.tenant_id AND made.case_id = line.case_id
     CROSS JOIN LATERAL json_to_record(line.entry::json)
                     AS e(seq integer, kind text, at timestamptz, by json, data json, counts json, key text)),
named AS (
    INSERT INTO assignment (tenant_id, assignment_id, case_id, seq, unit, role, staff_id, part, in_place_of, rule, clause, named,
                            assigned_at)
    SELECT made.tenant_id, a.assignment_id, made.case_id, a.seq, a.unit, a.role, a.staff_id, a.part, a.in_place_of, a.rule, a.clause,
           a.named, a.assigned_at
      FROM json_to_recordset($5::json) AS a(tenant_id uuid, case_id uuid, assignment_id uuid, seq integer, unit text, role text,
                                            staff_id text, part text, in_place_of text, rule text, clause json, named text,
                                            assigned_at timestamptz)
      JOIN made ON made.tenant_id = a.tenant_id AND made.case_id = a.case_id),
woken AS (
    INSERT INTO wake_up (tenant_id, case_id, wake_at, sandbox)
    SELECT made.tenant_id, made.case_id, new.wake_at, new.sandbox
      FROM new
      JOIN made ON made.tenant_id = new.tenant_id AND made.case_id = new.case_id
     WHERE new.wake_at IS NOT NULL),
told AS (
    INSERT INTO outbox (tenant_id, message_id, subject, body)
    SELECT * FROM unnest($6::uuid[], $7::uuid[], $8::text[], $9::bytea[])
        ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING
    RETURNING id, message_id)
SELECT (SELECT count(*) FROM made) AS made, array_agg(id ORDER BY id) AS ids, array_agg(message_id ORDER BY id) AS message_ids
  FROM told"""

UPDATE_CASE = """
WITH made AS (
    UPDATE "case"
       SET current_policy_version = $4, version = $5, state = $6, closed = $7, outcome = $8, class_kind = $9, category = $10,
           severity = $11, priority = $12, rank = $13, respondent = $14, owner_unit = $15, owner_role = $16, owner_staff = $17,
           changed_at = $18, due_at = $19, breached_at = $20, provisional = $21, creates = $25
     WHERE tenant_id = $1 AND case_id = $2 AND version = $3
    RETURNING 1),
lines AS (
    INSERT INTO entry (tenant_id, case_id, seq, kind, at, by, data, counts, key)
    SELECT $1, $2, e.seq, e.kind, e.at, e.by, e.data, e.counts, e.key
      FROM made,
           json_to_recordset($22::json) AS e(seq integer, kind text, at timestamptz, by json, data json, counts json, key text)),
woken AS (
    INSERT INTO wake_up (tenant_id, case_id, wake_at, sandbox)
    SELECT $1, $2, $23::timestamptz, $24
      FROM made
     WHERE $23::timestamptz IS NOT NULL
        ON CONFLICT (tenant_id, case_id) DO UPDATE SET wake_at = excluded.wake_at),
asleep AS (
    DELETE FROM wake_up
     WHERE tenant_id = $1 AND case_id = $2 AND $23::timestamptz IS NULL)
SELECT 1 FROM made"""

LOCK_SUBJECT = """
SELECT pg_advisory_xact_lock(hashtextextended($1::text || ' ' || $2, 1))"""

SUBJECT = """
SELECT case_id, version, changed_at
  FROM "case"
 WHERE tenant_id = $1 AND subject_key = $2"""

COUNTED = """
SELECT json_agg(json_build_object('seq', seq, 'kind', kind, 'at', at, 'by', by, 'data', data) ORDER BY seq)::text
  FROM entry
 WHERE tenant_id = $1 AND case_id = $2 AND kind IN ('counted', 'uncounted') AND data ->> 'rule' = $3 AND at >= $4"""

GROW_SUBJECT = """
WITH made AS (
    UPDATE "case"
       SET version = $4, changed_at = $5
     WHERE tenant_id = $1 AND case_id = $2 AND version = $3
    RETURNING 1)
INSERT INTO entry (tenant_id, case_id, seq, kind, at, by, data, counts, key)
SELECT $1, $2, e.seq, e.kind, e.at, e.by, e.data, e.counts, e.key
  FROM made,
       json_to_recordset($6::json) AS e(seq integer, kind text, at timestamptz, by json, data json, counts json, key text)
RETURNING 1"""

DUTY = """
SELECT case_id FROM "case" WHERE tenant_id = $1 AND year = $2"""

OPEN_CASES_AFTER = """
SELECT case_id
  FROM "case"
 WHERE tenant_id = $1 AND kind = ANY($2) AND NOT closed AND case_id > $3
 ORDER BY case_id
 LIMIT $4"""

# A calendar reaches cases whose clocks run: provisional ones, and all of them where the edition says so. The fold tells which it moves.
RUNNING_CASES_AFTER = """
SELECT case_id
  FROM "case"
 WHERE tenant_id = $1 AND kind <> 'subject' AND (provisional OR due_at IS NOT NULL) AND case_id > $2
 ORDER BY case_id
 LIMIT $3"""

# Of so many complaints in the order in which they were stored: those without an assignment, and where the next look begins.
UNASSIGNED = """
WITH looked AS MATERIALIZED (
    SELECT case_id, stored_at
      FROM "case"
     WHERE tenant_id = $1 AND kind = 'complaint' AND (stored_at, case_id) > ($2, $3)
     ORDER BY stored_at, case_id
     LIMIT $4),
last AS (
    SELECT case_id, stored_at FROM looked ORDER BY stored_at DESC, case_id DESC LIMIT 1)
SELECT (SELECT count(*) FROM looked) AS looked, last.stored_at, last.case_id,
       ARRAY(SELECT l.case_id
               FROM looked l
              WHERE NOT EXISTS (SELECT 1 FROM assignment a WHERE a.tenant_id = $1 AND a.case_id = l.case_id AND a.active)
              ORDER BY l.stored_at, l.case_id) AS unassigned
  FROM last"""


Place = tuple[datetime, UUID]
"""When a case was stored, and its id: where it stands among its tenant's."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One case as it is stored, with its timeline."""

    case_id: UUID
    kind: str
    number: str
    subject_key: str | None
    source: str
    silent: bool
    duplicate_of: UUID | None
    policy_version: int
    current_policy_version: int
    version: int
    state: str
    closed: bool
    creates: int
    received_at: datetime
    changed_at: datetime
    owner_unit: str | None
    owner_role: str | None
    owner_staff: str | None
    timeline: tuple[Entry, ...]
    assignment: Assignment | None  # the active one


class NewCase(msgspec.Struct, frozen=True, kw_only=True):
    """What a case bears from its first line on."""

    case_id: UUID
    kind: str
    policy_version: int
    received_at: datetime
    number: str = ""
    subject_key: str | None = None
    year: int | None = None
    source: str = ""
    silent: bool = False
    duplicate_of: UUID | None = None


class Inserted(msgspec.Struct, frozen=True, kw_only=True):
    """A new case with all that is stored of it at first."""

    tenant_id: UUID
    new: NewCase
    entries: Sequence[Entry]
    columns: Columns
    owner: Owner
    wake_at: datetime | None
    sandbox: bool
    assigned: Assignment | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    case_id: UUID
    version: int
    changed_at: datetime


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    unit: str | None = None
    role: str | None = None
    staff_id: str | None = None


_timeline = msgspec.json.Decoder(tuple[Entry, ...])


async def lock(tx: Tx, tenant_id: UUID, case_id: UUID) -> Stored | None:
    """Return the case under its row lock, which makes this transaction its single writer."""
    row = await tx.fetchrow(LOCK_CASE, tenant_id, case_id)
    if row is None:
        return None
    stored = _stored(row)
    if len(stored.timeline) != row["version"]:
        # The lock was waited for: the row is the newest, the rest is as old as the statement.
        rest = await tx.fetchrow(TIMELINE, tenant_id, case_id)
        assert rest is not None
        stored = msgspec.structs.replace(
            stored, timeline=_timeline.decode(rest["timeline"]), assignment=_assignment(rest["assignment"])
        )
    return stored


async def read(tx: Tx, tenant_id: UUID, case_id: UUID) -> Stored | None:
    row = await tx.fetchrow(CASE, tenant_id, case_id)
    return None if row is None else _stored(row)


async def insert(tx: Tx, cases: Sequence[Inserted]) -> bool:
    """Store new cases with their first entries and assignments, and what was told so far; False when one of them is there already."""
    told = outbox.take_back(tx)
    lines = [(each, entry) for each in cases for entry in each.entries]
    row = await tx.fetchrow(
        INSERT_CASES,
        [_row(each) for each in cases],
        [case.tenant_id for case, _ in lines],
        [case.new.case_id for case, _ in lines],
        [msgspec.json.encode(entry).decode() for _, entry in lines],
        [
            {"tenant_id": each.tenant_id, **msgspec.structs.asdict(each.assigned)}
            for each in cases
            if each.assigned is not None
        ],
        *outbox.columns(told),
    )
    assert row is not None
    outbox.stored(tx, told, list(zip(row["ids"] or (), row["message_ids"] or (), strict=True)))
    return bool(row["made"] == len(cases))


def _row(case: Inserted) -> dict[str, Any]:
    last = case.entries[-1]
    return {
        "tenant_id": case.tenant_id,
        **msgspec.structs.asdict(case.new),
        **msgspec.structs.asdict(case.columns),
        "version": last.seq,
        "owner_unit": case.owner.unit,
        "owner_role": case.owner.role,
        "owner_staff": case.owner.staff_id,
        "changed_at": last.at,
        "wake_at": case.wake_at,
        "sandbox": case.sandbox,
    }


async def update(
    tx: Tx,
    tenant_id: UUID,
    stored: Stored,
    entries: Sequence[Entry],
    columns: Columns,
    owner: Owner,
    wake_at: datetime | None,
    *,
    sandbox: bool,
) -> bool:
    """Append `entries` and set what follows from them; False when somebody else wrote since `stored` was read.

    Args:
        wake_at: when the case changes by itself next; None: never.
    """
    last = entries[-1] if entries else stored.timeline[-1]
    done = await tx.fetchval(
        UPDATE_CASE,
        tenant_id,
        stored.case_id,
        stored.version,
        columns.current_policy_version,
        last.seq,
        columns.state,
        columns.closed,
        columns.outcome,
        columns.class_kind,
        columns.category,
        columns.severity,
        columns.priority,
        columns.rank,
        columns.respondent,
        owner.unit,
        owner.role,
        owner.staff_id,
        last.at,
        columns.due_at,
        columns.breached_at,
        columns.provisional,
        list(entries),
        wake_at,
        sandbox,
        columns.creates,
    )
    return done is not None


async def lock_subject(tx: Tx, tenant_id: UUID, subject_key: str) -> Subject | None:
    """Return the subject's case, None when there is none yet; until commit nobody else counts for the subject."""
    await tx.execute(LOCK_SUBJECT, str(tenant_id), subject_key)
    row = await tx.fetchrow(SUBJECT, tenant_id, subject_key)
    return None if row is None else Subject(**dict(row))


async def counted(tx: Tx, tenant_id: UUID, case_id: UUID, rule: str, since: datetime) -> tuple[Entry, ...]:
    """Return the lines of a subject that count, or take back, under one rule. A line is never older than what it counts."""
    text = await tx.fetchval(COUNTED, tenant_id, case_id, rule, since)
    return () if text is None else _timeline.decode(text)


async def grow_subject(tx: Tx, tenant_id: UUID, subject: Subject, entries: Sequence[Entry]) -> bool:
    """Append to a subject's case; False when somebody else wrote."""
    last = entries[-1]
    done = await tx.fetchval(
        GROW_SUBJECT, tenant_id, subject.case_id, subject.version, last.seq, last.at, list(entries)
    )
    return done is not None


async def duty_case(tx: Tx, tenant_id: UUID, year: int) -> UUID | None:
    found: UUID | None = await tx.fetchval(DUTY, tenant_id, year)
    return found


async def open_cases(tx: Tx, tenant_id: UUID, kinds: Sequence[str], after: UUID, limit: int) -> list[UUID]:
    return [row["case_id"] for row in await tx.fetch(OPEN_CASES_AFTER, tenant_id, list(kinds), after, limit)]


async def moved_by_calendar(tx: Tx, tenant_id: UUID, after: UUID, limit: int) -> list[UUID]:
    """Return cases with a limit that runs or rests, which a new edition of a calendar may move."""
    return [row["case_id"] for row in await tx.fetch(RUNNING_CASES_AFTER, tenant_id, after, limit)]


async def unassigned(tx: Tx, tenant_id: UUID, after: Place, limit: int) -> tuple[list[UUID], Place | None]:
    """Return complaints that belong to nobody, of `limit` that were stored after this place, and the place to go on from; None at the end.

    There must be none.
    """
    row = await tx.fetchrow(UNASSIGNED, tenant_id, *after, limit)
    if row is None:
        return [], None
    return row["unassigned"], (row["stored_at"], row["case_id"]) if row["looked"] == limit else None


def _stored(row: Record) -> Stored:
    fields: dict[str, Any] = dict(row)
    fields["timeline"] = _timeline.decode(fields["timeline"] or "[]")
    fields["assignment"] = _assignment(fields["assignment"])
    return Stored(**fields)


def _assignment(text: str | None) -> Assignment | None:
    return None if text is None else msgspec.json.decode(text, type=Assignment)

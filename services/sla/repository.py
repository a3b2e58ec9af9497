"""Every SQL statement of sla. `tx` bears the tenant; the tenant is also a condition of each statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from services.sla.domain.ledger import Position
from shared import outbox
from shared.database import Record, Tx
from shared.engine.model import EffectView, Entry, PenaltyView


class _Posted(Struct):
    key: str
    posted_minor: int
    digest: str
    penalty: PenaltyView


_timeline = msgspec.json.Decoder(list[Entry])
_encode = msgspec.json.Encoder().encode
_told = msgspec.json.Decoder(dict[str, bool])
_posted = msgspec.json.Decoder(list[_Posted])


Key = tuple[UUID, UUID]
"""Tenant and case."""


class Watched(Struct, frozen=True):
    """A case as sla knows it: the columns of `CASE` in their order, and what else is known.

    `timeline` runs from seq 1 up to the first gap. `told`: what has been announced, by key, and whether it was withdrawn. `positions`: what
    has been posted, by key.
    """

    case_id: UUID
    case_kind: str
    policy_version: int
    number: str
    silent: bool
    folded_seq: int
    folded_at: datetime | None
    digest: bytes | None
    postings: int
    failures: int
    timeline: tuple[Entry, ...]
    told: dict[str, bool]
    positions: dict[str, Position]


# Lines, each once, and their cases on the list of those to look at: locked until the transaction ends, in their order.
# Nothing but what was just stored is known of a case whose row is new, which nobody has locked (xmax).
ADD_ENTRIES = """
WITH told AS (
    SELECT *
      FROM json_to_recordset($1::text::json)
           AS t (tenant_id uuid, case_id uuid, seq integer, case_kind text, policy_version integer, number text, silent boolean,
                 entry json)),
lines AS (
    INSERT INTO timeline_entry (tenant_id, case_id, seq, entry)
    SELECT tenant_id, case_id, seq, entry
      FROM told
     ORDER BY tenant_id, case_id, seq
    ON CONFLICT (tenant_id, case_id, seq) DO NOTHING)
INSERT INTO watched_case AS c (tenant_id, case_id, case_kind, policy_version, number, silent, wake_at)
SELECT tenant_id, case_id, min(case_kind), (array_agg(policy_version ORDER BY seq))[1], max(number), bool_or(silent),
       '1900-01-01 00:00:00+00'
  FROM told
 GROUP BY tenant_id, case_id
 ORDER BY tenant_id, case_id
ON CONFLICT (tenant_id, case_id) DO UPDATE
   SET wake_at = '1900-01-01 00:00:00+00',
       number = CASE WHEN c.number = '' THEN excluded.number ELSE c.number END,
       silent = c.silent OR excluded.silent
RETURNING tenant_id, case_id, case_kind, policy_version, number, silent, folded_seq, folded_at, digest, postings, failures,
          c.xmax = 0 AS is_new,
          (SELECT tick.at
             FROM tick
            WHERE tick.tenant_id = CASE (SELECT tenant.sandbox FROM tenant WHERE tenant.tenant_id = c.tenant_id)
                                   WHEN true THEN c.tenant_id
                                   WHEN false THEN '00000000-0000-0000-0000-000000000000' END) AS now"""


class Line(Struct, frozen=True, gc=False):
    """One line of a timeline, as it is told."""

    tenant_id: UUID
    case_id: UUID
    seq: int
    case_kind: str
    policy_version: int
    number: str
    silent: bool
    entry: Entry


class Noted(Struct, frozen=True):
    """A case that something was told about, with the columns of `CASE`; locked by the transaction.

    `now` is the last tick of its tenant's time, None where there was none or the tenant has not arrived.
    """

    tenant_id: UUID
    case_id: UUID
    columns: tuple[Any, ...]
    folded_seq: int
    failures: int
    is_new: bool
    now: datetime | None

    @property
    def key(self) -> Key:
        return self.tenant_id, self.case_id


async def add_entries(tx: Tx, lines: Sequence[Line]) -> list[Noted]:
    """Store lines, each once, have their cases looked at, and return these; of any of the transaction's tenants."""
    return [
        Noted(
            row["tenant_id"],
            row["case_id"],
            tuple(row[1:11]),
            row["folded_seq"],
            row["failures"],
            row["is_new"],
            row["now"],
        )
        for row in await tx.fetch(ADD_ENTRIES, _json(lines))
    ]


SET_TICK = """
INSERT INTO tick AS t (tenant_id, at) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET at = greatest(t.at, excluded.at)"""
TICKS = "SELECT tenant_id, at FROM tick"


async def set_tick(tx: Tx, tenant_id: UUID, at: datetime) -> None:
    await tx.execute(SET_TICK, tenant_id, at)


async def ticks(tx: Tx) -> dict[UUID, datetime]:
    """The last tick of each time. Crosses tenants."""
    return {row["tenant_id"]: row["at"] for row in await tx.fetch(TICKS)}


class Upcoming(Struct, frozen=True):
    """The earliest wake-up of a tenant. `sandbox` is None for a tenant that has not arrived."""

    tenant_id: UUID
    wake_at: datetime
    sandbox: bool | None


CLAIM = """
SELECT case_id, case_kind, policy_version, number, silent, folded_seq, folded_at, digest, postings, failures
  FROM watched_case
 WHERE tenant_id = $1 AND wake_at <= $2
 ORDER BY wake_at
 LIMIT $3
   FOR UPDATE SKIP LOCKED"""
# A statement of its own after the claim: it sees whatever was told until the rows were locked.
# Behind a SELECT nobody looks at an array's length: PostgreSQL finds a plan for few elements cheaper, and would make one each time.
KNOWN = """
SELECT w.tenant_id, w.case_id,
       (SELECT '[' || string_agg(e.entry::text, ',' ORDER BY e.seq) || ']'
          FROM timeline_entry e
         WHERE e.tenant_id = w.tenant_id AND e.case_id = w.case_id) AS timeline,
       (SELECT json_object_agg(a.key, a.withdrawn_at IS NOT NULL)::text
          FROM announcement a
         WHERE a.tenant_id = w.tenant_id AND a.case_id = w.case_id) AS told,
       (SELECT json_agg(json_build_object('key', p.key, 'posted_minor', p.posted_minor, 'digest', encode(p.digest, 'hex'),
                                          'penalty', p.penalty))::text
          FROM ledger_position p
         WHERE p.tenant_id = w.tenant_id AND p.case_id = w.case_id) AS positions
  FROM unnest((SELECT $1::text::uuid[]), (SELECT $2::text::uuid[])) AS w (tenant_id, case_id)"""
CASE = """
SELECT case_id, case_kind, policy_version, number, silent, folded_seq, folded_at, digest, postings, failures
  FROM watched_case
 WHERE tenant_id = $1 AND case_id = $2"""


async def claim(tx: Tx, tenant_id: UUID, now: datetime, limit: int) -> list[Watched]:
    """The tenant's cases that are due, locked until the transaction ends; those that another replica has are skipped."""
    rows = await tx.fetch(CLAIM, tenant_id, now, limit)
    known = await known_of(tx, [(tenant_id, row["case_id"]) for row in rows])
    return [Watched(*(*row, *known[tenant_id, row["case_id"]])) for row in rows]


async def watched(tx: Tx, tenant_id: UUID, case_id: UUID) -> Watched | None:
    row = await tx.fetchrow(CASE, tenant_id, case_id)
    if row is None:
        return None
    known = await known_of(tx, [(tenant_id, case_id)])
    return Watched(*(*row, *known[tenant_id, case_id]))


Known = tuple[tuple[Entry, ...], dict[str, bool], dict[str, Position]]
"""A case's timeline, and what was said and posted about it: the last fields of `Watched`."""


async def known_of(tx: Tx, cases: Sequence[Key]) -> dict[Key, Known]:
    """Return what is known of each of these cases, of any of the transaction's tenants."""
    if not cases:
        return {}
    tenants, ids = zip(*cases, strict=True)
    rows = await tx.fetch(KNOWN, f"{{{','.join(map(str, tenants))}}}", f"{{{','.join(map(str, ids))}}}")
    return {
        (tenant_id, case_id): (
            () if timeline is None else without_gap(_timeline.decode(timeline)),
            {} if told is None else _told.decode(told),
            {} if positions is None else _positions(positions),
        )
        for tenant_id, case_id, timeline, told, positions in rows
    }


def _positions(text: str) -> dict[str, Position]:
    return {one.key: Position(one.posted_minor, bytes.fromhex(one.digest), one.penalty) for one in _posted.decode(text)}


def without_gap(lines: Sequence[Entry]) -> tuple[Entry, ...]:
    """The lines up to the first gap; they are in order, each once, and there are some."""
    if lines[-1].seq == len(lines):
        return tuple(lines)
    return tuple(line for place, line in enumerate(lines, 1) if line.seq == place)


NEXT_WAKE = "SELECT min(wake_at) FROM watched_case WHERE tenant_id = $1 AND wake_at <= $2"


async def next_wake(tx: Tx, tenant_id: UUID, until: datetime) -> datetime | None:
    """The tenant's earliest wake-up up to `until`."""
    found: datetime | None = await tx.fetchval(NEXT_WAKE, tenant_id, until)
    return found


# How cases are left after a look ($1), what is announced of them ($2), and the messages about it ($3 to $6).
# Rows go as one text: the driver looks at each value of an array several times, which took a tenth of sla's time.
# The keys are named once more as arrays: for a join alone PostgreSQL reads all of the tenant's cases, as long as nobody has counted them.
KEEP = """
WITH rested AS MATERIALIZED (
    SELECT *
      FROM json_to_recordset($1::text::json)
           AS r (tenant_id uuid, case_id uuid, wake_at timestamptz, folded_seq integer, folded_at timestamptz, digest text,
                 postings integer)),
kept AS (
    UPDATE watched_case AS c
       SET wake_at = r.wake_at, folded_seq = r.folded_seq, folded_at = r.folded_at, digest = decode(r.digest, 'base64'),
           postings = r.postings, failures = 0, error = NULL
      FROM rested AS r
     WHERE c.tenant_id = r.tenant_id AND c.case_id = r.case_id
       AND c.tenant_id = ANY (ARRAY(SELECT tenant_id FROM rested)) AND c.case_id = ANY (ARRAY(SELECT case_id FROM rested))),
announced AS (
    INSERT INTO announcement (tenant_id, case_id, key, rule, clause, kind, at, addressee, what, data, late, silent)
    SELECT tenant_id, case_id, key, rule, clause, kind, at, addressee, what, data, late, silent
      FROM json_to_recordset($2::text::json)
           AS n (tenant_id uuid, case_id uuid, key text, rule text, clause json, kind text, at timestamptz, addressee text, what text,
                 data json, late boolean, silent boolean)
    ON CONFLICT (tenant_id, case_id, key) DO NOTHING),
told AS (
    INSERT INTO outbox (tenant_id, message_id, subject, body)
    SELECT *
      FROM unnest((SELECT $3::uuid[]), (SELECT $4::uuid[]), (SELECT $5::text[]), (SELECT $6::bytea[]))
    ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING
    RETURNING id, message_id)
SELECT id, message_id FROM told ORDER BY id"""
FAIL = """
UPDATE watched_case
   SET failures = failures + 1, error = $3, wake_at = CASE WHEN failures >= 8 THEN NULL ELSE wake_at END
 WHERE tenant_id = $1 AND case_id = $2"""
FORGET_WAKE = "UPDATE watched_case SET wake_at = NULL WHERE tenant_id = $1 AND case_id = ANY($2)"


class Rest(Struct, frozen=True):
    """How a case is left after a look."""

    tenant_id: UUID
    case_id: UUID
    wake_at: datetime | None
    folded_seq: int
    folded_at: datetime
    digest: bytes
    postings: int


class Announced(Struct, frozen=True, gc=False):
    """A row of announcements."""

    tenant_id: UUID
    case_id: UUID
    key: str
    rule: str
    clause: str | list[str] | None
    kind: str
    at: datetime
    addressee: str | None
    what: str | None
    data: dict[str, Any]
    late: bool
    silent: bool


async def keep(tx: Tx, rests: Sequence[Rest], announced: Sequence[Announced]) -> None:
    """Store how cases are left and what is announced of them, of any of the transaction's tenants, with all that it has told so far."""
    told = outbox.take_back(tx)
    if rests or announced or told:
        rows = await tx.fetch(KEEP, _json(rests), _json(announced), *outbox.columns(told))
        outbox.stored(tx, told, [(row["id"], row["message_id"]) for row in rows])


async def fail(tx: Tx, tenant_id: UUID, case_id: UUID, error: str) -> None:
    """Note that a case could not be looked at; after eight times it is left alone until something new is told."""
    await tx.execute(FAIL, tenant_id, case_id, error)


async def forget_wake(tx: Tx, tenant_id: UUID, case_ids: Sequence[UUID]) -> None:
    """Leave cases alone until something is told about them."""
    await tx.execute(FORGET_WAKE, tenant_id, list(case_ids))


WITHDRAW = """
UPDATE announcement AS a SET withdrawn_at = clock_timestamp()
  FROM unnest($2::uuid[], $3::text[]) AS w (case_id, key)
 WHERE a.tenant_id = $1 AND a.case_id = w.case_id AND a.key = w.key AND a.withdrawn_at IS NULL
   AND a.case_id = ANY (ARRAY(SELECT unnest($2::uuid[])))
RETURNING a.case_id, a.key, a.rule, a.clause::text AS clause, a.kind, a.at, a.addressee, a.what, a.data::text AS data, a.silent"""


async def withdraw(tx: Tx, tenant_id: UUID, keys: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, EffectView]]:
    """Withdraw announcements, given as (case, key), and return what each had said."""
    if not keys:
        return []
    rows = await tx.fetch(WITHDRAW, tenant_id, [case_id for case_id, _ in keys], [key for _, key in keys])
    return [(row["case_id"], effect_of(row)) for row in rows]


def effect_of(row: Record) -> EffectView:
    """What a row of announcements says."""
    return EffectView(
        key=row["key"],
        rule=row["rule"],
        clause=None if row["clause"] is None else msgspec.json.decode(row["clause"]),
        kind=row["kind"],
        at=row["at"],
        to=row["addressee"],
        what=row["what"],
        data=msgspec.json.decode(row["data"]),
        silent=row["silent"],
    )


SET_POSITION = """
INSERT INTO ledger_position AS p (tenant_id, case_id, key, posted_minor, digest, penalty)
SELECT $1, case_id, key, posted_minor, digest, penalty::json
  FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::bytea[], $6::text[]) AS n (case_id, key, posted_minor, digest, penalty)
ON CONFLICT (tenant_id, case_id, key) DO UPDATE
   SET posted_minor = excluded.posted_minor, digest = excluded.digest, penalty = excluded.penalty"""
POST = """
INSERT INTO ledger_posting
       (tenant_id, posting_id, case_id, key, rule, party, kind, state, currency, difference_minor, month, posted_at, penalty)
SELECT $1, posting_id, case_id, key, rule, party, kind, state, currency, difference_minor, month, posted_at, penalty::json
  FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::text[],
              $12::timestamptz[], $13::text[])
       AS n (posting_id, case_id, key, rule, party, kind, state, currency, difference_minor, month, posted_at, penalty)"""


class Row(Struct, frozen=True, kw_only=True):
    """One row of the ledger."""

    posting_id: UUID
    case_id: UUID
    key: str
    difference_minor: int
    posted_minor: int
    digest: bytes
    month: str
    posted_at: datetime
    penalty: PenaltyView


async def post(tx: Tx, tenant_id: UUID, rows: Sequence[Row]) -> None:
    """Post rows and move their positions."""
    if not rows:
        return
    penalties = [_json(row.penalty) for row in rows]
    await tx.execute(
        POST,
        tenant_id,
        [row.posting_id for row in rows],
        [row.case_id for row in rows],
        [row.key for row in rows],
        [row.penalty.rule for row in rows],
        [row.penalty.party for row in rows],
        [row.penalty.kind for row in rows],
        [row.penalty.state for row in rows],
        [row.penalty.currency for row in rows],
        [row.difference_minor for row in rows],
        [row.month for row in rows],
        [row.posted_at for row in rows],
        penalties,
    )
    await tx.execute(
        SET_POSITION,
        tenant_id,
        [row.case_id for row in rows],
        [row.key for row in rows],
        [row.posted_minor for row in rows],
        [row.digest for row in rows],
        penalties,
    )


LEDGER = """
SELECT posting_id, case_id, key, rule, party, kind, state, currency, difference_minor, month, posted_at, penalty::text AS penalty
  FROM ledger_posting
 WHERE tenant_id = $1
   AND ($2::text IS NULL OR party = $2) AND ($3::text IS NULL OR month = $3) AND ($4::uuid IS NULL OR case_id = $4)
   AND ($5::uuid IS NULL OR posting_id > $5)
 ORDER BY posting_id
 LIMIT $6"""
BALANCES = """
SELECT party, month, kind, currency, sum(difference_minor)::bigint AS balance_minor, count(*) AS rows
  FROM ledger_posting
 WHERE tenant_id = $1 AND ($2::text IS NULL OR party = $2) AND ($3::text IS NULL OR month = $3)
 GROUP BY party, month, kind, currency
 ORDER BY party, month, kind"""
ANNOUNCEMENTS = """
SELECT case_id, key, rule, clause::text AS clause, kind, at, addressee, what, data::text AS data, late, silent, made_at, withdrawn_at
  FROM announcement
 WHERE tenant_id = $1 AND at > '-infinity'
   AND ($2::uuid IS NULL OR case_id = $2) AND ($3::text IS NULL OR kind = $3)
   AND ($4::timestamptz IS NULL OR (at, case_id, key) < ($4, $5::uuid, $6::text))
 ORDER BY at DESC, case_id DESC, key DESC
 LIMIT $7"""


async def ledger(
    tx: Tx, tenant_id: UUID, party: str | None, month: str | None, case_id: UUID | None, after: UUID | None, limit: int
) -> list[Any]:
    return await tx.fetch(LEDGER, tenant_id, party, month, case_id, after, limit)


async def balances(tx: Tx, tenant_id: UUID, party: str | None, month: str | None) -> list[Any]:
    return await tx.fetch(BALANCES, tenant_id, party, month)


async def announcements(
    tx: Tx,
    tenant_id: UUID,
    case_id: UUID | None,
    kind: str | None,
    before: tuple[datetime, UUID, str] | None,
    limit: int,
) -> list[Any]:
    at, of, key = before or (None, None, None)
    return await tx.fetch(ANNOUNCEMENTS, tenant_id, case_id, kind, at, of, key, limit)


BEGIN_ADVANCE = """
INSERT INTO advance (tenant_id, operation_id, target) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, operation_id) DO NOTHING"""
LOCK_ADVANCE = """
SELECT target, steps FROM advance
 WHERE tenant_id = $1 AND operation_id = $2 AND settled_at IS NULL
   FOR UPDATE SKIP LOCKED"""
STEP_ADVANCE = "UPDATE advance SET steps = $3 WHERE tenant_id = $1 AND operation_id = $2"
SETTLE_ADVANCE = (
    "UPDATE advance SET steps = $3, settled_at = clock_timestamp() WHERE tenant_id = $1 AND operation_id = $2"
)


class Advance(Struct, frozen=True):
    tenant_id: UUID
    operation_id: UUID
    target: datetime
    steps: int


async def begin_advance(tx: Tx, tenant_id: UUID, operation_id: UUID, target: datetime) -> None:
    await tx.execute(BEGIN_ADVANCE, tenant_id, operation_id, target)


# The last tick of each time; the earliest wake-up of each tenant that has one, found by skipping through the index; and the sandboxes on
# their way. As of one instant: whoever sees a tick sees whatever was told before it.
LOOK_AROUND = """
WITH RECURSIVE next AS (
    (SELECT tenant_id, wake_at FROM watched_case WHERE wake_at IS NOT NULL ORDER BY tenant_id, wake_at LIMIT 1)
    UNION ALL
    SELECT following.tenant_id, following.wake_at
      FROM next
     CROSS JOIN LATERAL (
        SELECT tenant_id, wake_at FROM watched_case
         WHERE wake_at IS NOT NULL AND tenant_id > next.tenant_id
         ORDER BY tenant_id, wake_at LIMIT 1) AS following
)
SELECT 'tick' AS what, tenant_id, at, NULL::boolean AS sandbox, NULL::uuid AS operation_id, NULL::integer AS steps
  FROM tick
 UNION ALL
SELECT 'wake-up', next.tenant_id, next.wake_at, tenant.sandbox, NULL, NULL
  FROM next
  LEFT JOIN tenant USING (tenant_id)
 UNION ALL
SELECT 'advance', tenant_id, target, NULL, operation_id, steps
  FROM advance
 WHERE settled_at IS NULL
 ORDER BY what, tenant_id, at"""


class Around(Struct, frozen=True):
    """What there is to do over all tenants."""

    ticks: dict[UUID, datetime]  # the last of each time
    waiting: list[Upcoming]
    advances: list[Advance]


async def look_around(tx: Tx) -> Around:
    """Return what there is to do. Crosses tenants."""
    found = Around({}, [], [])
    for row in await tx.fetch(LOOK_AROUND):
        if row["what"] == "tick":
            found.ticks[row["tenant_id"]] = row["at"]
        elif row["what"] == "wake-up":
            found.waiting.append(Upcoming(row["tenant_id"], row["at"], row["sandbox"]))
        else:
            found.advances.append(Advance(row["tenant_id"], row["operation_id"], row["at"], row["steps"]))
    return found


async def lock_advance(tx: Tx, one: Advance) -> Advance | None:
    row = await tx.fetchrow(LOCK_ADVANCE, one.tenant_id, one.operation_id)
    return None if row is None else Advance(one.tenant_id, one.operation_id, row["target"], row["steps"])


async def step_advance(tx: Tx, one: Advance, steps: int) -> None:
    await tx.execute(STEP_ADVANCE, one.tenant_id, one.operation_id, steps)


async def settle_advance(tx: Tx, one: Advance, steps: int) -> None:
    await tx.execute(SETTLE_ADVANCE, one.tenant_id, one.operation_id, steps)


DUE_SOON = "SELECT count(*) FROM watched_case WHERE tenant_id = $1 AND error IS NOT NULL"


async def failing(tx: Tx, tenant_id: UUID) -> int:
    found: int = await tx.fetchval(DUE_SOON, tenant_id)
    return found


def _json(value: Any) -> str | None:
    return None if value is None else _encode(value).decode()

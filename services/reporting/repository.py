"""Every SQL statement of reporting. Rows in, values out; the transaction belongs to the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from services.reporting.domain.rollups import Counted, Key
from services.reporting.domain.telling import StoredFact, Told
from shared.database import Record, Tx
from shared.engine.facts import FactEntry, FactRow, fact_entry
from shared.engine.model import EffectView, Entry
from shared.messages import (
    AnnouncementMade,
    ComplaintReceived,
    DeliveryChanged,
    EntryAppended,
    PenaltyPosted,
    StandingChanged,
)

# --- what is told: collected, and stored at the end of the transaction, all of it and of all tenants in one statement, each kind in the
# order of its key. As far as it was news, the facts of its cases are made in the same transaction, or noted as out of date: to be made at
# once, or after some seconds.

# $1 to $7 entries, $8 to $13 standings, $14 to $18 announcements, $19 to $24 postings, $25 to $32 deliveries; $33 seconds by which a note
# is put off; $34 whether facts are made in this transaction. Then the cases whose facts are to be made at once are held from here on, also
# those that have no fact yet, together with others their tenants' rollups, and whatever was noted of them is taken off the queue. Nobody
# waits here for a case that somebody else holds, since other tenants' messages would wait with him: it is noted.
# A line is awaited by its standing, which follows within moments, and a delivery by the first of its case: these are what is put off.
# Behind a SELECT nobody looks at an array's length: PostgreSQL finds a plan for few elements cheaper, and would make one each time.
TELL = """
WITH line AS (
    INSERT INTO entry (tenant_id, case_id, seq, case_kind, number, source, body)
    SELECT tenant_id, case_id, seq, case_kind, number, source, body::jsonb
      FROM unnest((SELECT $1::uuid[]), $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
           AS new(tenant_id, case_id, seq, case_kind, number, source, body)
    ON CONFLICT (tenant_id, case_id, seq) DO UPDATE
       SET number = greatest(entry.number, excluded.number), source = greatest(entry.source, excluded.source)
     WHERE entry.number < excluded.number OR entry.source < excluded.source
    RETURNING tenant_id, case_id, seq),
stood AS (
    INSERT INTO standing (tenant_id, case_id, seq, now, message_id, body)
    SELECT tenant_id, case_id, seq, now, message_id, body::jsonb
      FROM unnest((SELECT $8::uuid[]), $9::uuid[], $10::integer[], $11::timestamptz[], $12::uuid[], $13::text[])
           AS new(tenant_id, case_id, seq, now, message_id, body)
    ON CONFLICT (tenant_id, case_id) DO UPDATE
       SET seq = excluded.seq, now = excluded.now, message_id = excluded.message_id, body = excluded.body
     WHERE (standing.seq, standing.now, standing.message_id) < (excluded.seq, excluded.now, excluded.message_id)
    RETURNING tenant_id, case_id),
announced AS (
    INSERT INTO announcement (tenant_id, case_id, key, effect, is_withdrawn)
    SELECT tenant_id, case_id, key, effect::jsonb, is_withdrawn
      FROM unnest((SELECT $14::uuid[]), $15::uuid[], $16::text[], $17::text[], $18::boolean[])
           AS new(tenant_id, case_id, key, effect, is_withdrawn)
    ON CONFLICT (tenant_id, case_id, key) DO UPDATE
       SET is_withdrawn = true
     WHERE excluded.is_withdrawn AND NOT announcement.is_withdrawn
    RETURNING tenant_id, case_id),
posted AS (
    INSERT INTO posting (tenant_id, posting_id, case_id, kind, currency, difference_minor)
    SELECT tenant_id, posting_id, case_id, kind, currency, difference_minor
      FROM unnest((SELECT $19::uuid[]), $20::uuid[], $21::uuid[], $22::text[], $23::text[], $24::bigint[])
           AS new(tenant_id, posting_id, case_id, kind, currency, difference_minor)
    ON CONFLICT (tenant_id, posting_id) DO NOTHING
    RETURNING tenant_id, case_id),
delivered AS (
    INSERT INTO delivery (tenant_id, delivery_id, case_id, channel, state, attempts, at)
    SELECT tenant_id, delivery_id, case_id, channel, state, attempts, at
      FROM unnest((SELECT $25::uuid[]), $26::uuid[], $27::uuid[], $28::text[], $29::text[], $30::integer[], $31::timestamptz[])
           AS new(tenant_id, delivery_id, case_id, channel, state, attempts, at)
    ON CONFLICT (tenant_id, delivery_id) DO UPDATE
       SET state = excluded.state, attempts = excluded.attempts, at = excluded.at
     WHERE (delivery.at, delivery.attempts, array_position($32::text[], delivery.state))
         < (excluded.at, excluded.attempts, array_position($32::text[], excluded.state))
    RETURNING tenant_id, case_id),
news AS MATERIALIZED (
    SELECT tenant_id, case_id, coalesce(bool_or(is_complete), false) AS is_urgent
      FROM (SELECT tenant_id, case_id,
                   (SELECT standing.seq >= line.seq
                      FROM standing
                     WHERE standing.tenant_id = line.tenant_id AND standing.case_id = line.case_id) AS is_complete
              FROM line
             UNION ALL
            SELECT tenant_id, case_id, true FROM stood
             UNION ALL
            SELECT tenant_id, case_id, true FROM announced
             UNION ALL
            SELECT tenant_id, case_id, true FROM posted
             UNION ALL
            SELECT tenant_id, case_id,
                   (SELECT true
                      FROM standing
                     WHERE standing.tenant_id = delivered.tenant_id AND standing.case_id = delivered.case_id)
              FROM delivered
             WHERE case_id IS NOT NULL) AS told
     GROUP BY tenant_id, case_id),
looked AS MATERIALIZED (
    SELECT tenant_id, case_id, is_urgent,
           CASE WHEN $34::boolean AND is_urgent
                THEN pg_try_advisory_xact_lock_shared(hashtextextended('reporting rollup ' || tenant_id::text, 0))
                     AND pg_try_advisory_xact_lock(hashtextextended('reporting fact ' || tenant_id::text || ' ' || case_id::text, 0))
                ELSE false END AS is_held
      FROM news),
noted AS (
    INSERT INTO stale (tenant_id, case_id, not_before)
    SELECT tenant_id, case_id,
           CASE WHEN is_urgent OR $33::float8 <= 0 THEN '-infinity' ELSE clock_timestamp() + make_interval(secs => $33) END
      FROM looked
     WHERE NOT is_held),
claimed AS MATERIALIZED (
    SELECT waiting.case_id, waiting.id
      FROM looked
     CROSS JOIN LATERAL (
        SELECT case_id, id
          FROM stale
         WHERE stale.tenant_id = looked.tenant_id AND stale.case_id = looked.case_id
           FOR UPDATE SKIP LOCKED) AS waiting
     WHERE looked.is_held),
taken AS (
    DELETE FROM stale
     WHERE tenant_id = ANY (ARRAY (SELECT tenant_id FROM looked)) AND case_id = ANY (ARRAY (SELECT case_id FROM claimed))
       AND id = ANY (ARRAY (SELECT id FROM claimed)))
SELECT tenant_id, case_id, is_urgent, is_held
  FROM looked
 ORDER BY tenant_id, case_id"""

# $3: seconds by which it is put off, and $4 how often it has failed.
NOTE = """
INSERT INTO stale (tenant_id, case_id, not_before, failures)
SELECT tenant_id, case_id, clock_timestamp() + make_interval(secs => $3), $4
  FROM unnest($1::uuid[], $2::uuid[]) AS named(tenant_id, case_id)"""

DELIVERY_STATES = ["suppressed", "queued", "held", "sent", "failed", "dead", "delivered"]

Case = tuple[UUID, UUID]
"""Tenant and case."""

News = ComplaintReceived | EntryAppended | StandingChanged | AnnouncementMade | PenaltyPosted | DeliveryChanged


class Book:
    """Takes down what is told. Nothing is stored before the transaction ends, or somebody calls `tx.finish()` or `close`.

    Args:
        patience: seconds by which the note is put off that a line or a first delivery makes, so that a fact is not made anew for what
            follows at once: what sla makes of a line. A line that comes after that is not put off.
        wake: called with the tenant after a commit that has left facts to be made at once.
        put_off: called with the patience after a commit that has left facts to be made later.
    """

    def __init__(
        self,
        patience: float = 0.0,
        wake: Callable[[UUID], object] = lambda _: None,
        put_off: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.patience = patience
        self._wake = wake
        self._put_off = put_off

    def take_down(self, tx: Tx, message: News) -> None:
        tx.at_the_end(self._store, for_all=True).append(message)

    async def close(self, tx: Tx) -> list[Case]:
        """Store what was taken down, and return the cases whose facts are to be made now; they are held, and their notes taken.

        In order and each once. Whoever calls this makes the facts in the same transaction.
        """
        cases: list[Case] = []
        tx.kept["making"] = cases
        await tx.finish()
        del tx.kept["making"]
        return cases

    async def _store(self, tx: Tx, messages: Sequence[News]) -> None:
        told = _Rows()
        for message in messages:
            told.add(message)
        making: list[Case] | None = tx.kept.get("making")
        columns = [
            *_columns(told.entries, 7),
            *_columns(told.standings, 6),
            *_columns(told.announcements, 5),
            *_columns(told.postings, 6),
            *_columns(told.deliveries, 7),
        ]
        put_off = False
        for row in await tx.fetch(TELL, *columns, DELIVERY_STATES, self.patience, making is not None):
            if row["is_held"] and making is not None:
                making.append((row["tenant_id"], row["case_id"]))
            elif row["is_urgent"] or self.patience <= 0:
                tx.after_commit(partial(self._wake, row["tenant_id"]))
            else:
                put_off = True
        if put_off:
            tx.after_commit(lambda: self._put_off(self.patience))


class _Rows:
    """What was told in one transaction, by kind and key: of each thing the newest."""

    def __init__(self) -> None:
        self.entries: dict[tuple[UUID, UUID, int], tuple[UUID, UUID, int, str, str, str, str]] = {}
        self.standings: dict[Case, tuple[UUID, UUID, int, datetime, UUID, str]] = {}
        self.announcements: dict[tuple[UUID, UUID, str], tuple[UUID, UUID, str, str, bool]] = {}
        self.postings: dict[tuple[UUID, UUID], tuple[Any, ...]] = {}
        self.deliveries: dict[tuple[UUID, UUID], tuple[UUID, UUID, UUID | None, str, str, int, datetime]] = {}

    def add(self, message: News) -> None:
        match message:
            case ComplaintReceived() | EntryAppended():
                self._add_entry(message)
            case StandingChanged():
                self._add_standing(message)
            case AnnouncementMade():
                self._add_announcement(message)
            case PenaltyPosted():
                self._add_posting(message)
            case DeliveryChanged():
                self._add_delivery(message)

    def _add_entry(self, message: EntryAppended | ComplaintReceived) -> None:
        key = (message.tenant_id, message.case_id, message.entry.seq)
        known = self.entries.get(key)
        if known is None:
            self.entries[key] = (*key, message.case_kind, message.number, message.source, _text(message.entry))
        else:
            self.entries[key] = (*known[:4], max(message.number, known[4]), max(message.source, known[5]), known[6])

    def _add_standing(self, message: StandingChanged) -> None:
        key = (message.tenant_id, message.case_id)
        known = self.standings.get(key)
        if known is None or known[2:5] < (message.seq, message.now, message.message_id):
            self.standings[key] = (*key, message.seq, message.now, message.message_id, _text(message))

    def _add_announcement(self, message: AnnouncementMade) -> None:
        key = (message.tenant_id, message.case_id, message.effect.key)
        known = self.announcements.get(key)
        if known is None:
            self.announcements[key] = (*key, _text(message.effect), message.withdrawn)
        elif message.withdrawn:
            self.announcements[key] = (*known[:4], True)

    def _add_posting(self, message: PenaltyPosted) -> None:
        key = (message.tenant_id, message.posting_id)
        penalty = message.penalty
        self.postings[key] = (*key, message.case_id, penalty.kind, penalty.currency, message.difference_minor)

    def _add_delivery(self, message: DeliveryChanged) -> None:
        key = (message.tenant_id, message.delivery_id)
        row = (*key, message.case_id, message.channel, message.state, message.attempts, message.at)
        known = self.deliveries.get(key)
        if known is None or _delivery_place(known) < _delivery_place(row):
            self.deliveries[key] = row


def _delivery_place(row: tuple[UUID, UUID, UUID | None, str, str, int, datetime]) -> tuple[datetime, int, int]:
    """The states in the order in which a delivery goes through them settle what was told at one instant."""
    return row[6], row[5], DELIVERY_STATES.index(row[4])


def _columns(rows: Mapping[Any, Sequence[Any]], count: int) -> list[list[Any]]:
    """Return the rows by their `count` columns, in the order of their keys: who locks several rows always locks them in the same order."""
    if not rows:
        return [[] for _ in range(count)]
    return [list(column) for column in zip(*(rows[key] for key in sorted(rows)), strict=True)]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def note(tx: Tx, cases: Iterable[Case], seconds: float = 0.0, failures: int = 0) -> None:
    """Note the facts of these cases as out of date, to be made after so many seconds."""
    named = list(cases)
    if named:
        await tx.execute(
            NOTE, [tenant_id for tenant_id, _ in named], [case_id for _, case_id in named], seconds, failures
        )


# --- which facts are out of date

# One look at the index for each tenant, however long its queue is; whose notes are all put off is left out. The index is searched for an
# instant that stands still during the statement; with `clock_timestamp()` each look read all of the tenant's notes.
DUE_TENANTS = """
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM stale ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT stale.tenant_id
              FROM stale
             WHERE stale.tenant_id > waiting.tenant_id
             ORDER BY stale.tenant_id
             LIMIT 1)
      FROM waiting
     WHERE waiting.tenant_id IS NOT NULL)
SELECT tenant_id
  FROM waiting
 WHERE EXISTS (SELECT 1 FROM stale WHERE stale.tenant_id = waiting.tenant_id AND not_before <= statement_timestamp())"""

# Of each tenant the cases of the notes that are due, and then all notes about these cases. Nothing is taken before the tenant itself is
# known.
CLAIM_STALE = """
WITH place AS MATERIALIZED (
    SELECT asked.tenant_id, (SELECT zone FROM tenant WHERE tenant.tenant_id = asked.tenant_id) AS zone
      FROM unnest((SELECT $1::uuid[])) AS asked(tenant_id)),
due AS MATERIALIZED (
    SELECT place.tenant_id, noted.case_id
      FROM place
     CROSS JOIN LATERAL (
        SELECT case_id
          FROM stale
         WHERE stale.tenant_id = place.tenant_id AND not_before <= statement_timestamp()
         ORDER BY not_before, id
         LIMIT $2) AS noted
     WHERE place.zone IS NOT NULL),
claimed AS MATERIALIZED (
    SELECT noted.case_id, noted.id
      FROM (SELECT DISTINCT tenant_id, case_id FROM due) AS named
     CROSS JOIN LATERAL (
        SELECT case_id, id
          FROM stale
         WHERE stale.tenant_id = named.tenant_id AND stale.case_id = named.case_id
           FOR UPDATE SKIP LOCKED) AS noted),
taken AS (
    DELETE FROM stale
     WHERE tenant_id = ANY (ARRAY (SELECT tenant_id FROM place)) AND case_id = ANY (ARRAY (SELECT case_id FROM claimed))
       AND id = ANY (ARRAY (SELECT id FROM claimed))
    RETURNING stale.tenant_id, stale.case_id)
SELECT place.tenant_id, (SELECT count(*) FROM due WHERE due.tenant_id = place.tenant_id) AS due,
       (SELECT array_agg(DISTINCT case_id ORDER BY case_id) FROM taken WHERE taken.tenant_id = place.tenant_id) AS cases
  FROM place
 WHERE place.zone IS NOT NULL"""

CLAIM_CASE = """
WITH claimed AS (
    SELECT id
      FROM stale
     WHERE tenant_id = $1 AND case_id = $2
       FOR UPDATE SKIP LOCKED)
DELETE FROM stale
 USING claimed
 WHERE stale.tenant_id = $1 AND stale.case_id = $2 AND stale.id = claimed.id"""

# Each failure doubles the wait, up to ten minutes.
POSTPONE = """
UPDATE stale
   SET failures = failures + 1, not_before = clock_timestamp() + least(power(2, failures), 600) * interval '1 second'
 WHERE tenant_id = $1 AND case_id = $2"""

KNOWS = """
SELECT EXISTS (SELECT 1 FROM tenant WHERE tenant_id = $1)"""

HAS_OTHER_ZONE = """
SELECT EXISTS (SELECT 1 FROM fact WHERE tenant_id = $1 AND seq > 0 AND zone <> $2)"""

KNOWS_REVISION = """
SELECT EXISTS (SELECT 1 FROM tenant WHERE tenant_id = $1 AND revision >= $2)"""

MARK_OTHER_ZONE = """
INSERT INTO stale (tenant_id, case_id)
SELECT fact.tenant_id, fact.case_id
  FROM fact
  JOIN tenant ON tenant.tenant_id = fact.tenant_id
 WHERE fact.tenant_id = $1 AND fact.seq > 0 AND fact.zone <> tenant.zone"""

COUNT_STALE = """
SELECT count(*)
  FROM (SELECT 1 FROM stale WHERE tenant_id = $1 LIMIT $2) AS waiting"""

# Shared by all who refresh facts of the tenant, alone for who counts a day anew.
LOCK_ALONE = """
SELECT pg_advisory_xact_lock(hashtextextended('reporting rollup ' || $1::text, 0))"""

# A case has no row to lock before its fact is made. The cases come in their order, so nobody waits for one who waits for him.
LOCK_CASES = """
SELECT pg_advisory_xact_lock_shared(hashtextextended('reporting rollup ' || tenant_id::text, 0))
  FROM unnest($1::uuid[]) AS of(tenant_id)
 UNION ALL
SELECT pg_advisory_xact_lock(hashtextextended('reporting fact ' || tenant_id::text || ' ' || case_id::text, 0))
  FROM unnest($2::uuid[], $3::uuid[]) AS named(tenant_id, case_id)"""


async def due_tenants(tx: Tx) -> list[UUID]:
    """Return the tenants that have facts to be made now; crosses tenants."""
    return [row["tenant_id"] for row in await tx.fetch(DUE_TENANTS)]


class Claimed(msgspec.Struct, frozen=True):
    """What was taken off a tenant's queue: the cases, each once, in order."""

    cases: list[UUID]
    due: int  # notes that were; as many as asked for: there may be more


async def claim_stale(tx: Tx, tenants: Sequence[UUID], limit: int) -> dict[UUID, Claimed]:
    """Take the notes of some cases off each tenant's queue: up to `limit` that are due, and whatever else was noted of their cases.

    Tenants that are still on their way are left out.
    """
    return {
        row["tenant_id"]: Claimed(row["cases"] or [], row["due"]) for row in await tx.fetch(CLAIM_STALE, tenants, limit)
    }


async def claim_case(tx: Tx, tenant_id: UUID, case_id: UUID) -> None:
    """Take the notes about one case off the queue."""
    await tx.execute(CLAIM_CASE, tenant_id, case_id)


async def postpone(tx: Tx, tenant_id: UUID, case_id: UUID) -> None:
    """Leave a case alone for a while, since its fact could not be made."""
    await tx.execute(POSTPONE, tenant_id, case_id)


async def knows(tx: Tx, tenant_id: UUID) -> bool:
    """Return whether the tenant is known here."""
    return bool(await tx.fetchval(KNOWS, tenant_id))


async def has_other_zone(tx: Tx, tenant_id: UUID, zone: str) -> bool:
    """Return whether the day of some fact was reckoned in another zone."""
    return bool(await tx.fetchval(HAS_OTHER_ZONE, tenant_id, zone))


async def knows_revision(tx: Tx, tenant_id: UUID, revision: int) -> bool:
    """Return whether our copy of the tenant is at least of this revision."""
    return bool(await tx.fetchval(KNOWS_REVISION, tenant_id, revision))


async def mark_other_zone(tx: Tx, tenant_id: UUID) -> None:
    """Note the facts whose day was reckoned in another zone than the tenant's."""
    await tx.execute(MARK_OTHER_ZONE, tenant_id)


async def count_stale(tx: Tx, tenant_id: UUID, at_most: int = 10_000) -> int:
    found: int = await tx.fetchval(COUNT_STALE, tenant_id, at_most)
    return found


async def lock_rollup(tx: Tx, tenant_id: UUID) -> None:
    """Hold the tenant's rollup alone until the transaction ends."""
    await tx.execute(LOCK_ALONE, str(tenant_id))


async def lock_cases(tx: Tx, cases: Sequence[Case]) -> None:
    """Hold these cases until the transaction ends, also those that have no fact yet, and their tenants' rollups together with others.

    Args:
        cases: in order and each once.
    """
    tenants = [tenant_id for tenant_id, _ in cases]
    await tx.execute(LOCK_CASES, list(dict.fromkeys(tenants)), tenants, [case_id for _, case_id in cases])


# --- what was told of some cases

# An array behind a SELECT: see TELL.
TOLD = """
SELECT named.tenant_id, named.case_id, (SELECT zone FROM tenant WHERE tenant.tenant_id = named.tenant_id) AS zone,
       (SELECT counted::text FROM fact WHERE fact.tenant_id = named.tenant_id AND fact.case_id = named.case_id) AS counted,
       lines.case_kind, lines.number, lines.source, lines.timeline,
       (SELECT body::text FROM standing WHERE standing.tenant_id = named.tenant_id AND standing.case_id = named.case_id) AS standing,
       (SELECT '[' || string_agg(effect::text, ',' ORDER BY key) || ']'
          FROM announcement
         WHERE announcement.tenant_id = named.tenant_id AND announcement.case_id = named.case_id AND NOT is_withdrawn) AS effects,
       (SELECT json_agg(json_build_array(kind, currency, minor))::text
          FROM (SELECT kind, currency, sum(difference_minor)::bigint AS minor
                  FROM posting
                 WHERE posting.tenant_id = named.tenant_id AND posting.case_id = named.case_id
                 GROUP BY kind, currency) AS amount) AS amounts,
       (SELECT json_agg(json_build_array(channel, state, number))::text
          FROM (SELECT channel, state, count(*) AS number
                  FROM delivery
                 WHERE delivery.tenant_id = named.tenant_id AND delivery.case_id = named.case_id
                 GROUP BY channel, state) AS message) AS messages
  FROM unnest((SELECT $1::uuid[]), $2::uuid[]) AS named(tenant_id, case_id)
 CROSS JOIN LATERAL (
    SELECT max(entry.case_kind) AS case_kind, max(entry.number) AS number, max(entry.source) AS source,
           '[' || string_agg(entry.body::text, ',' ORDER BY entry.seq) || ']' AS timeline
      FROM entry
     WHERE entry.tenant_id = named.tenant_id AND entry.case_id = named.case_id) AS lines"""

_ENTRY = msgspec.json.Decoder(Entry)
_TIMELINE = msgspec.json.Decoder(list[Entry])
_EFFECTS = msgspec.json.Decoder(list[EffectView])
_SUMS = msgspec.json.Decoder(list[tuple[str, str, int]])
_STANDING = msgspec.json.Decoder(StandingChanged)
_ROW = msgspec.json.Decoder(FactRow)
_COUNTED = msgspec.json.Decoder(Counted)


class Found(msgspec.Struct, frozen=True):
    """What was told of a case, as it is stored."""

    case: Case
    zone: str | None  # the tenant's; None as long as the tenant is not known here
    row: Record

    def read(self) -> tuple[Told, Counted | None]:
        """Return what was told, and what the fact has added so far. Raises what msgspec raises, if it cannot be read."""
        row = self.row
        told = Told(
            case_id=row["case_id"],
            case_kind=row["case_kind"] or "complaint",
            number=row["number"] or "",
            source=row["source"] or "",
            entries=_TIMELINE.decode(row["timeline"] or "[]"),
            standing=None if row["standing"] is None else _STANDING.decode(row["standing"]),
            effects=tuple(_EFFECTS.decode(row["effects"] or "[]")),
            amounts=_sums(row["amounts"]),
            messages=_sums(row["messages"]),
        )
        return told, None if row["counted"] is None else _COUNTED.decode(row["counted"])


async def told(tx: Tx, cases: Sequence[Case]) -> list[Found]:
    """Return what was told of each of these cases."""
    rows = await tx.fetch(TOLD, [tenant_id for tenant_id, _ in cases], [case_id for _, case_id in cases])
    return [Found((row["tenant_id"], row["case_id"]), row["zone"], row) for row in rows]


def _sums(text: str | None) -> dict[tuple[str, str], int]:
    return {(first, second): number for first, second, number in _SUMS.decode(text or "[]")}


# --- facts and rollups

# Facts, and what they add to the sums, both in the order of the key: who locks several rows always locks them in the same order. $1 to $20
# facts, $21 to $26 differences.
PUT_FACTS = """
WITH made AS (
    INSERT INTO fact (tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state,
                      outcome, is_late, is_closed, zone, day, counted, body)
    SELECT tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state, outcome,
           is_late, is_closed, zone, day, counted::jsonb, body::jsonb
      FROM unnest((SELECT $1::uuid[]), $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                  $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::boolean[],
                  $16::boolean[], $17::text[], $18::date[], $19::text[], $20::text[])
           AS new(tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state,
                  outcome, is_late, is_closed, zone, day, counted, body)
        ON CONFLICT (tenant_id, case_id) DO UPDATE
       SET seq = excluded.seq, case_kind = excluded.case_kind, number = excluded.number, received_at = excluded.received_at,
           last_at = excluded.last_at, kind = excluded.kind, category = excluded.category, severity = excluded.severity,
           channel = excluded.channel, unit = excluded.unit, state = excluded.state, outcome = excluded.outcome,
           is_late = excluded.is_late, is_closed = excluded.is_closed, zone = excluded.zone, day = excluded.day,
           counted = excluded.counted, body = excluded.body),
sums AS (
    INSERT INTO rollup (tenant_id, day, dimension, part, measure, amount)
    SELECT tenant_id, day, dimension, part, measure, amount
      FROM unnest((SELECT $21::uuid[]), $22::date[], $23::text[], $24::text[], $25::text[], $26::bigint[])
           AS added(tenant_id, day, dimension, part, measure, amount)
     ORDER BY tenant_id, day, dimension, part, measure
        ON CONFLICT (tenant_id, day, dimension, part, measure) DO UPDATE SET amount = rollup.amount + excluded.amount
    RETURNING tenant_id, day, amount)
SELECT DISTINCT tenant_id, day FROM sums WHERE amount = 0"""

DROP_EMPTY = """
DELETE FROM rollup
 WHERE tenant_id = $1 AND day = ANY($2::date[]) AND amount = 0"""


async def put_facts(
    tx: Tx, facts: Sequence[tuple[UUID, StoredFact]], differences: Mapping[UUID, Mapping[Key, int]]
) -> None:
    """Store facts, each with its tenant, and add differences, by tenant, to the rollup; what becomes zero goes."""
    made = {
        (tenant_id, each.case_id): (
            tenant_id,
            *msgspec.structs.astuple(each)[:-2],
            _text(each.counted),
            _text(each.body),
        )
        for tenant_id, each in facts
    }
    added = {
        (tenant_id, *key): (tenant_id, *key, amount)
        for tenant_id, of_tenant in differences.items()
        for key, amount in of_tenant.items()
    }
    if not made and not added:
        return
    empty = await tx.fetch(PUT_FACTS, *_columns(made, 20), *_columns(added, 6))
    for tenant_id in sorted({row["tenant_id"] for row in empty}):
        await tx.execute(DROP_EMPTY, tenant_id, [row["day"] for row in empty if row["tenant_id"] == tenant_id])


# --- counting anew

CASES = """
SELECT DISTINCT case_id
  FROM entry
 WHERE tenant_id = $1 AND case_id > $2
 ORDER BY case_id
 LIMIT $3"""

DAYS = """
SELECT day FROM fact WHERE tenant_id = $1 AND seq > 0 AND day IS NOT NULL
UNION
SELECT day FROM rollup WHERE tenant_id = $1
ORDER BY day"""

# The sums of one day from the facts themselves, by another road than the differences of `domain/rollups.py`.
RECOUNT = """
WITH measured AS (
    SELECT fact.case_id, fact.counted, measure.key AS measure, measure.value::bigint AS amount
      FROM fact, jsonb_each_text(fact.counted -> 'measures') AS measure
     WHERE fact.tenant_id = $1 AND fact.day = $2 AND fact.seq > 0),
added AS (
    SELECT 'all' AS dimension, '' AS part, measure, amount FROM measured
    UNION ALL
    SELECT dimension, coalesce(measured.counted -> 'parts' ->> dimension, ''), measure, amount
      FROM measured, unnest($3::text[]) AS dimension
    UNION ALL
    SELECT 'all', '', total.key, total.value::bigint
      FROM fact, jsonb_each_text(fact.counted -> 'totals') AS total
     WHERE fact.tenant_id = $1 AND fact.day = $2 AND fact.seq > 0)
SELECT dimension, part, measure, sum(amount)::bigint AS amount
  FROM added
 GROUP BY dimension, part, measure
HAVING sum(amount) <> 0"""

ROLLUP_OF_DAY = """
SELECT dimension, part, measure, amount
  FROM rollup
 WHERE tenant_id = $1 AND day = $2"""

FACTS_AS_STORED = """
SELECT case_id, seq, counted::text AS counted, body::text AS body
  FROM fact
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])"""


async def cases_after(tx: Tx, tenant_id: UUID, case_id: UUID, limit: int) -> list[UUID]:
    return [row["case_id"] for row in await tx.fetch(CASES, tenant_id, case_id, limit)]


async def counted_days(tx: Tx, tenant_id: UUID) -> list[date]:
    return [row["day"] for row in await tx.fetch(DAYS, tenant_id)]


async def recount(tx: Tx, tenant_id: UUID, day: date, dimensions: Sequence[str]) -> dict[Key, int]:
    """Return the sums of one day as the facts give them."""
    return {_key(day, row): row["amount"] for row in await tx.fetch(RECOUNT, tenant_id, day, dimensions)}


async def rollup_of_day(tx: Tx, tenant_id: UUID, day: date) -> dict[Key, int]:
    """Return the sums of one day as they are kept."""
    return {_key(day, row): row["amount"] for row in await tx.fetch(ROLLUP_OF_DAY, tenant_id, day)}


async def facts_as_stored(
    tx: Tx, tenant_id: UUID, case_ids: Sequence[UUID]
) -> dict[UUID, tuple[int, Counted, FactRow]]:
    """Return what is stored for those of the cases that have a fact."""
    return {
        row["case_id"]: (row["seq"], _COUNTED.decode(row["counted"]), _ROW.decode(row["body"]))
        for row in await tx.fetch(FACTS_AS_STORED, tenant_id, case_ids)
        if row["seq"]
    }


def _key(day: date, row: Record) -> Key:
    return (day, row["dimension"], row["part"], row["measure"])


# --- reading

SUMS = """
SELECT dimension, part, measure, sum(amount)::bigint AS amount
  FROM rollup
 WHERE tenant_id = $1
   AND dimension = ANY($2::text[])
   AND day >= coalesce($3::date, '-infinity')
   AND day < coalesce($4::date, 'infinity')
 GROUP BY dimension, part, measure
 ORDER BY dimension, part, measure"""

COVERED = """
SELECT coalesce(sum(amount), 0)::bigint
  FROM rollup
 WHERE tenant_id = $1 AND dimension = 'all' AND part = '' AND measure = 'entries'"""

PAGE = """
SELECT case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state, outcome,
       is_late, is_closed, zone, day, counted::text AS counted, body::text AS body
  FROM fact
 WHERE tenant_id = $1
   AND seq > 0
   AND (received_at, case_id) > ($2, $3)
   AND received_at < coalesce($4::timestamptz, 'infinity')
   AND last_at >= coalesce($5::timestamptz, '-infinity')
   AND ($6::uuid IS NULL OR case_id = $6)
   AND ($7::text IS NULL OR case_kind = $7)
   AND ($8::text IS NULL OR kind = $8)
   AND ($9::text IS NULL OR category = $9)
   AND ($10::text IS NULL OR severity = $10)
   AND ($11::text IS NULL OR channel = $11)
   AND ($12::text IS NULL OR unit = $12)
   AND ($13::text IS NULL OR state = $13)
   AND ($14::text IS NULL OR outcome = $14)
   AND ($15::boolean IS NULL OR is_late = $15)
 ORDER BY received_at, case_id
 LIMIT $16"""

ENTRIES_OF_KINDS = """
SELECT case_id, body::text AS body
  FROM entry
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[]) AND seq <= $4 AND body ->> 'kind' = ANY($3::text[])
 ORDER BY case_id, seq"""

Place = tuple[datetime, UUID]
"""Where a page ended: when the last case of it was received, and its id."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which facts; None: all."""

    received_before: datetime | None = None
    touched_since: datetime | None = None  # those that tell of an instant at or after this one
    case_id: UUID | None = None
    case_kind: str | None = None
    kind: str | None = None
    category: str | None = None
    severity: str | None = None
    channel: str | None = None
    unit: str | None = None
    state: str | None = None
    outcome: str | None = None
    late: bool | None = None


async def sums(
    tx: Tx, tenant_id: UUID, dimensions: Sequence[str], start_on: date | None, end_on: date | None
) -> dict[tuple[str, str], dict[str, int]]:
    """Return the measures of each (dimension, part) over the days `[start_on, end_on)`."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for row in await tx.fetch(SUMS, tenant_id, dimensions, start_on, end_on):
        found.setdefault((row["dimension"], row["part"]), {})[row["measure"]] = row["amount"]
    return found


async def covered(tx: Tx, tenant_id: UUID) -> int:
    """Return how many entries of complaints' timelines the figures cover."""
    number: int = await tx.fetchval(COVERED, tenant_id)
    return number


async def page(tx: Tx, tenant_id: UUID, which: Filter, after: Place, limit: int) -> list[StoredFact]:
    """Return the facts after a place, by receipt."""
    rows = await tx.fetch(
        PAGE,
        tenant_id,
        *after,
        which.received_before,
        which.touched_since,
        which.case_id,
        which.case_kind,
        which.kind,
        which.category,
        which.severity,
        which.channel,
        which.unit,
        which.state,
        which.outcome,
        which.late,
        limit,
    )
    return [_stored(row) for row in rows]


async def pages(tx: Tx, tenant_id: UUID, which: Filter, after: Place, size: int) -> AsyncIterator[list[StoredFact]]:
    """Yield all facts after a place, in portions."""
    while facts := await page(tx, tenant_id, which, after, size):
        yield facts
        if len(facts) < size:
            return
        after = (facts[-1].received_at, facts[-1].case_id)


async def entries_of(
    tx: Tx, tenant_id: UUID, facts: Sequence[StoredFact], kinds: Sequence[str]
) -> dict[UUID, list[FactEntry]]:
    """Return the entries of these kinds, by case, as far as the facts cover them."""
    covered_by = {stored.case_id: stored.seq for stored in facts}
    found: dict[UUID, list[FactEntry]] = {}
    most = max(covered_by.values(), default=0)
    for row in await tx.fetch(ENTRIES_OF_KINDS, tenant_id, list(covered_by), kinds, most):
        entry = _ENTRY.decode(row["body"])
        if entry.seq <= covered_by[row["case_id"]]:
            found.setdefault(row["case_id"], []).append(fact_entry(entry))
    return found


def _stored(row: Record) -> StoredFact:
    values: dict[str, Any] = dict(row)
    values["counted"] = _COUNTED.decode(values["counted"])
    values["body"] = _ROW.decode(values["body"])
    return StoredFact(**values)


EXCEEDS = """
SELECT count(*) > $4
  FROM (SELECT 1
          FROM fact
         WHERE tenant_id = $1 AND seq > 0 AND case_kind = 'complaint'
           AND received_at >= $2 AND received_at < coalesce($3::timestamptz, 'infinity')
         LIMIT $4 + 1) AS found"""


async def exceeds(tx: Tx, tenant_id: UUID, start_at: datetime, end_at: datetime | None, most: int) -> bool:
    """Return whether more than `most` complaints were received in `[start_at, end_at)`."""
    return bool(await tx.fetchval(EXCEEDS, tenant_id, start_at, end_at, most))

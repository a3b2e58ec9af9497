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

# --- what is told: collected, and stored at the end of the transaction, all of a kind and of all tenants in one statement in the order of
# its key. Each also notes that the facts of the cases are out of date, as far as it was news: at once, or after some seconds ("note in").

# Behind a SELECT nobody looks at an array's length: PostgreSQL finds a plan for few elements cheaper, and would make one each time.
ADD_ENTRIES = """
WITH told AS (
    INSERT INTO entry (tenant_id, case_id, seq, case_kind, number, source, body)
    SELECT tenant_id, case_id, seq, case_kind, number, source, body::jsonb
      FROM unnest((SELECT $1::uuid[]), $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
           AS new(tenant_id, case_id, seq, case_kind, number, source, body)
    ON CONFLICT (tenant_id, case_id, seq) DO UPDATE
       SET number = greatest(entry.number, excluded.number), source = greatest(entry.source, excluded.source)
     WHERE entry.number < excluded.number OR entry.source < excluded.source
    RETURNING tenant_id, case_id, seq),
noted AS (
    INSERT INTO stale (tenant_id, case_id, not_before)
    SELECT tenant_id, case_id,
           min(CASE WHEN $8::float8 > 0 AND (seen IS NULL OR seen < seq)
                    THEN clock_timestamp() + make_interval(secs => $8) ELSE '-infinity' END)
      FROM (SELECT told.*, (SELECT standing.seq
                              FROM standing
                             WHERE standing.tenant_id = told.tenant_id AND standing.case_id = told.case_id) AS seen
              FROM told) AS looked
     GROUP BY tenant_id, case_id
    RETURNING tenant_id, not_before)
SELECT DISTINCT tenant_id FROM noted WHERE not_before = '-infinity'"""

PUT_STANDINGS = """
WITH told AS (
    INSERT INTO standing (tenant_id, case_id, seq, now, message_id, body)
    SELECT tenant_id, case_id, seq, now, message_id, body::jsonb
      FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::timestamptz[], $5::uuid[], $6::text[])
           AS new(tenant_id, case_id, seq, now, message_id, body)
    ON CONFLICT (tenant_id, case_id) DO UPDATE
       SET seq = excluded.seq, now = excluded.now, message_id = excluded.message_id, body = excluded.body
     WHERE (standing.seq, standing.now, standing.message_id) < (excluded.seq, excluded.now, excluded.message_id)
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told"""

PUT_ANNOUNCEMENTS = """
WITH told AS (
    INSERT INTO announcement (tenant_id, case_id, key, effect, is_withdrawn)
    SELECT tenant_id, case_id, key, effect::jsonb, is_withdrawn
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::boolean[]) AS new(tenant_id, case_id, key, effect, is_withdrawn)
    ON CONFLICT (tenant_id, case_id, key) DO UPDATE
       SET is_withdrawn = true
     WHERE excluded.is_withdrawn AND NOT announcement.is_withdrawn
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told GROUP BY tenant_id, case_id"""

ADD_POSTINGS = """
WITH told AS (
    INSERT INTO posting (tenant_id, posting_id, case_id, kind, currency, difference_minor)
    SELECT tenant_id, posting_id, case_id, kind, currency, difference_minor
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])
           AS new(tenant_id, posting_id, case_id, kind, currency, difference_minor)
    ON CONFLICT (tenant_id, posting_id) DO NOTHING
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told GROUP BY tenant_id, case_id"""

# The states in the order in which a delivery goes through them settle what was told at one instant.
PUT_DELIVERIES = """
WITH told AS (
    INSERT INTO delivery (tenant_id, delivery_id, case_id, channel, state, attempts, at)
    SELECT tenant_id, delivery_id, case_id, channel, state, attempts, at
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[])
           AS new(tenant_id, delivery_id, case_id, channel, state, attempts, at)
    ON CONFLICT (tenant_id, delivery_id) DO UPDATE
       SET state = excluded.state, attempts = excluded.attempts, at = excluded.at
     WHERE (delivery.at, delivery.attempts, array_position($8::text[], delivery.state))
         < (excluded.at, excluded.attempts, array_position($8::text[], excluded.state))
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id, not_before)
SELECT tenant_id, case_id, CASE WHEN $9::float8 > 0 THEN clock_timestamp() + make_interval(secs => $9) ELSE '-infinity' END
  FROM told WHERE case_id IS NOT NULL GROUP BY tenant_id, case_id"""

DELIVERY_STATES = ["suppressed", "queued", "held", "sent", "failed", "dead", "delivered"]


class Book:
    """Takes down what is told. Nothing is stored before the transaction ends, or somebody calls `tx.finish()`.

    Args:
        patience: seconds by which the note is put off that a line or a delivery makes. What sla makes of a line follows at once and makes
            its note without delay, and deliveries change several times: so that a fact is not made anew for each. A line that comes after
            what sla made of it is not put off.
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

    async def add_entry(self, tx: Tx, message: EntryAppended | ComplaintReceived) -> None:
        tx.at_the_end(self._store_entries, for_all=True).append(message)

    async def put_standing(self, tx: Tx, message: StandingChanged) -> None:
        tx.at_the_end(_store_standings, for_all=True).append(message)
        self._hurry(tx, [tx.tenant_id])

    async def put_announcement(self, tx: Tx, message: AnnouncementMade) -> None:
        tx.at_the_end(_store_announcements, for_all=True).append(message)
        self._hurry(tx, [tx.tenant_id])

    async def add_posting(self, tx: Tx, message: PenaltyPosted) -> None:
        tx.at_the_end(_store_postings, for_all=True).append(message)
        self._hurry(tx, [tx.tenant_id])

    async def put_delivery(self, tx: Tx, message: DeliveryChanged) -> None:
        tx.at_the_end(self._store_deliveries, for_all=True).append(message)

    def _hurry(self, tx: Tx, tenants: Iterable[UUID]) -> None:
        for tenant_id in tenants:
            tx.after_commit(partial(self._wake, tenant_id))

    async def _store_entries(self, tx: Tx, messages: Sequence[EntryAppended | ComplaintReceived]) -> None:
        new: dict[tuple[UUID, UUID, int], tuple[UUID, UUID, int, str, str, str, str]] = {}
        for message in messages:
            key = (message.tenant_id, message.case_id, message.entry.seq)
            number, source, body = message.number, message.source, _text(message.entry)
            if key in new:
                number, source, body = max(number, new[key][4]), max(source, new[key][5]), new[key][6]
            new[key] = (*key, message.case_kind, number, source, body)
        rows = await tx.fetch(ADD_ENTRIES, *_columns(new), self.patience)
        self._hurry(tx, [row["tenant_id"] for row in rows])
        if self.patience:
            tx.after_commit(lambda: self._put_off(self.patience))

    async def _store_deliveries(self, tx: Tx, messages: Sequence[DeliveryChanged]) -> None:
        newest: dict[tuple[UUID, UUID], DeliveryChanged] = {}
        for message in messages:
            key = (message.tenant_id, message.delivery_id)
            known = newest.setdefault(key, message)
            if _delivery_place(known) < _delivery_place(message):
                newest[key] = message
        rows = {
            key: (*key, each.case_id, each.channel, each.state, each.attempts, each.at) for key, each in newest.items()
        }
        await tx.execute(PUT_DELIVERIES, *_columns(rows), DELIVERY_STATES, self.patience)
        if self.patience:
            tx.after_commit(lambda: self._put_off(self.patience))
        else:
            self._hurry(tx, {each.tenant_id for each in messages})


async def _store_standings(tx: Tx, messages: Sequence[StandingChanged]) -> None:
    newest: dict[tuple[UUID, UUID], StandingChanged] = {}
    for message in messages:
        key = (message.tenant_id, message.case_id)
        known = newest.setdefault(key, message)
        if (known.seq, known.now, known.message_id) < (message.seq, message.now, message.message_id):
            newest[key] = message
    rows = {key: (*key, each.seq, each.now, each.message_id, _text(each)) for key, each in newest.items()}
    await tx.execute(PUT_STANDINGS, *_columns(rows))


async def _store_announcements(tx: Tx, messages: Sequence[AnnouncementMade]) -> None:
    rows: dict[tuple[UUID, UUID, str], tuple[UUID, UUID, str, str, bool]] = {}
    for message in messages:
        key = (message.tenant_id, message.case_id, message.effect.key)
        if key not in rows:
            rows[key] = (*key, _text(message.effect), message.withdrawn)
        elif message.withdrawn:
            rows[key] = (*rows[key][:4], True)
    await tx.execute(PUT_ANNOUNCEMENTS, *_columns(rows))


async def _store_postings(tx: Tx, messages: Sequence[PenaltyPosted]) -> None:
    rows = {
        (each.tenant_id, each.posting_id): (
            each.tenant_id,
            each.posting_id,
            each.case_id,
            each.penalty.kind,
            each.penalty.currency,
            each.difference_minor,
        )
        for each in messages
    }
    await tx.execute(ADD_POSTINGS, *_columns(rows))


def _columns(rows: Mapping[Any, Sequence[Any]]) -> list[list[Any]]:
    """Return the rows by columns, in the order of their keys: who locks several rows always locks them in the same order."""
    return [list(column) for column in zip(*(rows[key] for key in sorted(rows)), strict=True)]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _delivery_place(message: DeliveryChanged) -> tuple[datetime, int, int]:
    return message.at, message.attempts, DELIVERY_STATES.index(message.state)


# --- which facts are out of date

# One look at the index for each tenant, however long its queue is; whose notes are all put off is left out.
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
 WHERE EXISTS (SELECT 1 FROM stale WHERE stale.tenant_id = waiting.tenant_id AND not_before <= clock_timestamp())"""

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
         WHERE stale.tenant_id = place.tenant_id AND not_before <= clock_timestamp()
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
SELECT place.tenant_id, place.zone, (SELECT count(*) FROM due WHERE due.tenant_id = place.tenant_id) AS due,
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

ZONE = """
SELECT zone FROM tenant WHERE tenant_id = $1"""

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

Case = tuple[UUID, UUID]
"""Tenant and case."""


async def due_tenants(tx: Tx) -> list[UUID]:
    """Return the tenants that have facts to be made now; crosses tenants."""
    return [row["tenant_id"] for row in await tx.fetch(DUE_TENANTS)]


class Claimed(msgspec.Struct, frozen=True):
    """What was taken off a tenant's queue: the cases, each once, in order; and its zone."""

    zone: str
    cases: list[UUID]
    due: int  # notes that were; as many as asked for: there may be more


async def claim_stale(tx: Tx, tenants: Sequence[UUID], limit: int) -> dict[UUID, Claimed]:
    """Take the notes of some cases off each tenant's queue: up to `limit` that are due, and whatever else was noted of their cases.

    Tenants that are still on their way are left out.
    """
    return {
        row["tenant_id"]: Claimed(row["zone"], row["cases"] or [], row["due"])
        for row in await tx.fetch(CLAIM_STALE, tenants, limit)
    }


async def claim_case(tx: Tx, tenant_id: UUID, case_id: UUID) -> None:
    """Take the notes about one case off the queue."""
    await tx.execute(CLAIM_CASE, tenant_id, case_id)


async def postpone(tx: Tx, tenant_id: UUID, case_id: UUID) -> None:
    """Leave a case alone for a while, since its fact could not be made."""
    await tx.execute(POSTPONE, tenant_id, case_id)


async def zone_of(tx: Tx, tenant_id: UUID) -> str | None:
    """Return the name of the tenant's zone, None as long as the tenant is not known here."""
    zone: str | None = await tx.fetchval(ZONE, tenant_id)
    return zone


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

# An array behind a SELECT: see ADD_ENTRIES.
TOLD = """
SELECT named.tenant_id, named.case_id,
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


async def told(tx: Tx, cases: Sequence[Case]) -> list[tuple[UUID, Told, Counted | None]]:
    """Return tenant, what was told of each of these cases, and what its fact has added so far."""
    return [
        (
            row["tenant_id"],
            Told(
                case_id=row["case_id"],
                case_kind=row["case_kind"] or "complaint",
                number=row["number"] or "",
                source=row["source"] or "",
                entries=_TIMELINE.decode(row["timeline"] or "[]"),
                standing=None if row["standing"] is None else _STANDING.decode(row["standing"]),
                effects=tuple(_EFFECTS.decode(row["effects"] or "[]")),
                amounts=_sums(row["amounts"]),
                messages=_sums(row["messages"]),
            ),
            None if row["counted"] is None else _COUNTED.decode(row["counted"]),
        )
        for row in await tx.fetch(TOLD, [tenant_id for tenant_id, _ in cases], [case_id for _, case_id in cases])
    ]


def _sums(text: str | None) -> dict[tuple[str, str], int]:
    return {(first, second): number for first, second, number in _SUMS.decode(text or "[]")}


# --- facts and rollups

# In the order of the key, here and below: who locks several rows always locks them in the same order.
PUT_FACTS = """
INSERT INTO fact (tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state,
                  outcome, is_late, is_closed, zone, day, counted, body)
SELECT tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state, outcome, is_late,
       is_closed, zone, day, counted::jsonb, body::jsonb
  FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::text[], $9::text[],
              $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::boolean[], $16::boolean[], $17::text[],
              $18::date[], $19::text[], $20::text[])
       AS new(tenant_id, case_id, seq, case_kind, number, received_at, last_at, kind, category, severity, channel, unit, state,
              outcome, is_late, is_closed, zone, day, counted, body)
    ON CONFLICT (tenant_id, case_id) DO UPDATE
   SET seq = excluded.seq, case_kind = excluded.case_kind, number = excluded.number, received_at = excluded.received_at,
       last_at = excluded.last_at, kind = excluded.kind, category = excluded.category, severity = excluded.severity,
       channel = excluded.channel, unit = excluded.unit, state = excluded.state, outcome = excluded.outcome,
       is_late = excluded.is_late, is_closed = excluded.is_closed, zone = excluded.zone, day = excluded.day,
       counted = excluded.counted, body = excluded.body"""

ADD_TO_ROLLUP = """
WITH sums AS (
    INSERT INTO rollup (tenant_id, day, dimension, part, measure, amount)
    SELECT tenant_id, day, dimension, part, measure, amount
      FROM unnest($1::uuid[], $2::date[], $3::text[], $4::text[], $5::text[], $6::bigint[])
           AS added(tenant_id, day, dimension, part, measure, amount)
     ORDER BY tenant_id, day, dimension, part, measure
    ON CONFLICT (tenant_id, day, dimension, part, measure) DO UPDATE SET amount = rollup.amount + excluded.amount
    RETURNING tenant_id, day, amount)
SELECT DISTINCT tenant_id, day FROM sums WHERE amount = 0"""

DROP_EMPTY = """
DELETE FROM rollup
 WHERE tenant_id = $1 AND day = ANY($2::date[]) AND amount = 0"""


async def put_facts(tx: Tx, facts: Sequence[tuple[UUID, StoredFact]]) -> None:
    """Store facts, each with its tenant."""
    if facts:
        rows = {
            (tenant_id, each.case_id): (
                tenant_id,
                *msgspec.structs.astuple(each)[:-2],
                _text(each.counted),
                _text(each.body),
            )
            for tenant_id, each in facts
        }
        await tx.execute(PUT_FACTS, *_columns(rows))


async def add_to_rollup(tx: Tx, differences: Mapping[UUID, Mapping[Key, int]]) -> None:
    """Add differences, by tenant, to the rollup; what becomes zero goes."""
    rows = [
        (tenant_id, *key, amount) for tenant_id, of_tenant in differences.items() for key, amount in of_tenant.items()
    ]
    if not rows:
        return
    empty = await tx.fetch(ADD_TO_ROLLUP, *map(list, zip(*rows, strict=True)))
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

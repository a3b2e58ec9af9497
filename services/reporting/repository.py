"""Every SQL statement of reporting. Rows in, values out; the transaction belongs to the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
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

# --- what is told; each statement also notes that the case's fact is out of date, if it was news

ADD_ENTRY = """
WITH told AS (
    INSERT INTO entry (tenant_id, case_id, seq, case_kind, number, source, body)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant_id, case_id, seq) DO UPDATE
       SET number = greatest(entry.number, excluded.number), source = greatest(entry.source, excluded.source)
     WHERE entry.number < excluded.number OR entry.source < excluded.source
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told"""

PUT_STANDING = """
WITH told AS (
    INSERT INTO standing (tenant_id, case_id, seq, now, message_id, body)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id, case_id) DO UPDATE
       SET seq = excluded.seq, now = excluded.now, message_id = excluded.message_id, body = excluded.body
     WHERE (standing.seq, standing.now, standing.message_id) < (excluded.seq, excluded.now, excluded.message_id)
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told"""

PUT_ANNOUNCEMENT = """
WITH told AS (
    INSERT INTO announcement (tenant_id, case_id, key, effect, is_withdrawn)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant_id, case_id, key) DO UPDATE
       SET is_withdrawn = true
     WHERE excluded.is_withdrawn AND NOT announcement.is_withdrawn
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told"""

ADD_POSTING = """
WITH told AS (
    INSERT INTO posting (tenant_id, posting_id, case_id, kind, currency, difference_minor)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id, posting_id) DO NOTHING
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told"""

# The states in the order in which a delivery goes through them settle what was told at one instant.
PUT_DELIVERY = """
WITH told AS (
    INSERT INTO delivery (tenant_id, delivery_id, case_id, channel, state, attempts, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant_id, delivery_id) DO UPDATE
       SET state = excluded.state, attempts = excluded.attempts, at = excluded.at
     WHERE (delivery.at, delivery.attempts, array_position($8::text[], delivery.state))
         < (excluded.at, excluded.attempts, array_position($8::text[], excluded.state))
    RETURNING tenant_id, case_id)
INSERT INTO stale (tenant_id, case_id) SELECT tenant_id, case_id FROM told WHERE case_id IS NOT NULL"""

DELIVERY_STATES = ["suppressed", "queued", "held", "sent", "failed", "dead", "delivered"]


async def add_entry(tx: Tx, message: EntryAppended | ComplaintReceived) -> None:
    await tx.execute(
        ADD_ENTRY,
        message.tenant_id,
        message.case_id,
        message.entry.seq,
        message.case_kind,
        message.number,
        message.source,
        message.entry,
    )


async def put_standing(tx: Tx, message: StandingChanged) -> None:
    await tx.execute(
        PUT_STANDING,
        message.tenant_id,
        message.case_id,
        message.seq,
        message.now,
        message.message_id,
        message,
    )


async def put_announcement(tx: Tx, message: AnnouncementMade) -> None:
    await tx.execute(
        PUT_ANNOUNCEMENT, message.tenant_id, message.case_id, message.effect.key, message.effect, message.withdrawn
    )


async def add_posting(tx: Tx, message: PenaltyPosted) -> None:
    await tx.execute(
        ADD_POSTING,
        message.tenant_id,
        message.posting_id,
        message.case_id,
        message.penalty.kind,
        message.penalty.currency,
        message.difference_minor,
    )


async def put_delivery(tx: Tx, message: DeliveryChanged) -> None:
    await tx.execute(
        PUT_DELIVERY,
        message.tenant_id,
        message.delivery_id,
        message.case_id,
        message.channel,
        message.state,
        message.attempts,
        message.at,
        DELIVERY_STATES,
    )


# --- which facts are out of date

# One look at the index for each tenant, however long its queue is.
STALE_TENANTS = """
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
SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL"""

CLAIM_STALE = """
WITH claimed AS (
    SELECT id
      FROM stale
     WHERE tenant_id = $1 AND not_before <= clock_timestamp()
     ORDER BY id
     LIMIT $2
       FOR UPDATE SKIP LOCKED)
DELETE FROM stale
 USING claimed
 WHERE stale.tenant_id = $1 AND stale.id = claimed.id
RETURNING stale.case_id"""

CLAIM_CASE = """
WITH claimed AS (
    SELECT id
      FROM stale
     WHERE tenant_id = $1 AND case_id = $2
       FOR UPDATE SKIP LOCKED)
DELETE FROM stale
 USING claimed
 WHERE stale.tenant_id = $1 AND stale.id = claimed.id"""

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
LOCK_SHARED = """
SELECT pg_advisory_xact_lock_shared(hashtextextended('reporting rollup ' || $1::text, 0))"""

LOCK_ALONE = """
SELECT pg_advisory_xact_lock(hashtextextended('reporting rollup ' || $1::text, 0))"""


async def stale_tenants(tx: Tx) -> list[UUID]:
    """Return the tenants that have facts out of date; crosses tenants."""
    return [row["tenant_id"] for row in await tx.fetch(STALE_TENANTS)]


async def claim_stale(tx: Tx, tenant_id: UUID, limit: int) -> list[UUID]:
    """Take up to `limit` notes off the queue and return their cases, each once, in order."""
    return sorted({row["case_id"] for row in await tx.fetch(CLAIM_STALE, tenant_id, limit)})


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


async def lock_rollup(tx: Tx, tenant_id: UUID, *, alone: bool = False) -> None:
    """Hold the tenant's rollup until the transaction ends, together with others or alone."""
    await tx.execute(LOCK_ALONE if alone else LOCK_SHARED, str(tenant_id))


# --- what was told of some cases

ENTRIES = """
SELECT case_id, case_kind, number, source, body::text AS body
  FROM entry
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])
 ORDER BY case_id, seq"""

STANDINGS = """
SELECT case_id, body::text AS body
  FROM standing
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])"""

ANNOUNCEMENTS = """
SELECT case_id, effect::text AS effect
  FROM announcement
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[]) AND NOT is_withdrawn
 ORDER BY case_id, key"""

AMOUNTS = """
SELECT case_id, kind, currency, sum(difference_minor)::bigint AS minor
  FROM posting
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])
 GROUP BY case_id, kind, currency"""

MESSAGES = """
SELECT case_id, channel, state, count(*) AS number
  FROM delivery
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])
 GROUP BY case_id, channel, state"""

_ENTRY = msgspec.json.Decoder(Entry)
_EFFECT = msgspec.json.Decoder(EffectView)
_STANDING = msgspec.json.Decoder(StandingChanged)
_ROW = msgspec.json.Decoder(FactRow)
_COUNTED = msgspec.json.Decoder(Counted)


async def told(tx: Tx, tenant_id: UUID, case_ids: Sequence[UUID]) -> list[Told]:
    """Return what was told of these cases, one for each, in the same order."""
    found = {case_id: Told(case_id=case_id) for case_id in case_ids}
    entries: dict[UUID, list[Entry]] = {}
    for row in await tx.fetch(ENTRIES, tenant_id, case_ids):
        case = found[row["case_id"]]
        case.case_kind = row["case_kind"]
        case.number = case.number or row["number"]
        case.source = case.source or row["source"]
        entries.setdefault(row["case_id"], []).append(_ENTRY.decode(row["body"]))
    for case_id, timeline in entries.items():
        found[case_id].entries = timeline
    for row in await tx.fetch(STANDINGS, tenant_id, case_ids):
        found[row["case_id"]].standing = _STANDING.decode(row["body"])
    for row in await tx.fetch(ANNOUNCEMENTS, tenant_id, case_ids):
        case = found[row["case_id"]]
        case.effects = (*case.effects, _EFFECT.decode(row["effect"]))
    for row in await tx.fetch(AMOUNTS, tenant_id, case_ids):
        case = found[row["case_id"]]
        case.amounts = {**case.amounts, (row["kind"], row["currency"]): row["minor"]}
    for row in await tx.fetch(MESSAGES, tenant_id, case_ids):
        case = found[row["case_id"]]
        case.messages = {**case.messages, (row["channel"], row["state"]): row["number"]}
    return list(found.values())


# --- facts and rollups

# In the order of the key, here and below: who locks several rows always locks them in the same order.
NAME_FACTS = """
INSERT INTO fact (tenant_id, case_id)
SELECT $1, case_id FROM unnest($2::uuid[]) AS named(case_id) ORDER BY case_id
ON CONFLICT (tenant_id, case_id) DO NOTHING"""

LOCK_FACTS = """
SELECT case_id, counted::text AS counted
  FROM fact
 WHERE tenant_id = $1 AND case_id = ANY($2::uuid[])
 ORDER BY case_id
   FOR UPDATE"""

PUT_FACTS = """
UPDATE fact
   SET seq = new.seq, case_kind = new.case_kind, number = new.number, received_at = new.received_at,
       last_at = new.last_at, kind = new.kind, category = new.category, severity = new.severity,
       channel = new.channel, unit = new.unit, state = new.state, outcome = new.outcome, is_late = new.is_late,
       is_closed = new.is_closed, zone = new.zone, day = new.day, counted = new.counted, body = new.body
  FROM jsonb_to_recordset($2::jsonb) AS new(
       case_id uuid, seq integer, case_kind text, number text, received_at timestamptz, last_at timestamptz,
       kind text, category text, severity text, channel text, unit text, state text, outcome text, is_late boolean,
       is_closed boolean, zone text, day date, counted jsonb, body jsonb)
 WHERE fact.tenant_id = $1 AND fact.case_id = new.case_id"""

ADD_TO_ROLLUP = """
INSERT INTO rollup (tenant_id, day, dimension, part, measure, amount)
SELECT $1, day, dimension, part, measure, amount
  FROM unnest($2::date[], $3::text[], $4::text[], $5::text[], $6::bigint[])
       AS added(day, dimension, part, measure, amount)
 ORDER BY day, dimension, part, measure
ON CONFLICT (tenant_id, day, dimension, part, measure) DO UPDATE SET amount = rollup.amount + excluded.amount"""

DROP_EMPTY = """
DELETE FROM rollup
 WHERE tenant_id = $1 AND day = ANY($2::date[]) AND amount = 0"""


async def lock_facts(tx: Tx, tenant_id: UUID, case_ids: Sequence[UUID]) -> dict[UUID, Counted | None]:
    """Lock the facts of these cases, also of those that have none yet, and return what each has added so far."""
    await tx.execute(NAME_FACTS, tenant_id, case_ids)
    return {
        row["case_id"]: None if row["counted"] is None else _COUNTED.decode(row["counted"])
        for row in await tx.fetch(LOCK_FACTS, tenant_id, case_ids)
    }


async def put_facts(tx: Tx, tenant_id: UUID, facts: Sequence[StoredFact]) -> None:
    if facts:
        await tx.execute(PUT_FACTS, tenant_id, facts)


async def add_to_rollup(tx: Tx, tenant_id: UUID, differences: Mapping[Key, int]) -> None:
    """Add differences to the rollup; what becomes zero goes."""
    if not differences:
        return
    days, dimensions, parts, measures = zip(*differences, strict=True)
    await tx.execute(ADD_TO_ROLLUP, tenant_id, days, dimensions, parts, measures, list(differences.values()))
    await tx.execute(DROP_EMPTY, tenant_id, sorted(set(days)))


# --- counting anew

CASES = """
SELECT DISTINCT case_id
  FROM entry
 WHERE tenant_id = $1 AND case_id > $2
 ORDER BY case_id
 LIMIT $3"""

DAYS = """
SELECT day FROM fact WHERE tenant_id = $1 AND seq > 0
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

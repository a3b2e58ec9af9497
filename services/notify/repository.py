"""Every SQL statement of notify. Rows in, values out; the edges begin and end transactions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec

from services.notify.domain.messages import Channel
from services.notify.domain.outcomes import Outcome, State
from shared.database import Record, Tx
from shared.engine.model import Entry
from shared.messages import EntryAppended

# -- timelines ---------------------------------------------------------------------------------------------------------

ADD_ENTRIES = """
INSERT INTO entry (tenant_id, case_id, seq, case_kind, policy_version, number, silent, body)
SELECT *
  FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::integer[], $6::text[], $7::boolean[], $8::jsonb[])
    ON CONFLICT (tenant_id, case_id, seq) DO NOTHING
RETURNING tenant_id, case_id, seq"""

# An array behind a SELECT: see ADD_DELIVERIES.
TIMELINES = """
SELECT case_id, seq, case_kind, policy_version, number, body
  FROM entry
 WHERE tenant_id = $1 AND case_id = ANY ((SELECT $2::uuid[])::uuid[])
 ORDER BY case_id, seq"""

CASE_SEQ = """
SELECT max(seq)
  FROM entry
 WHERE tenant_id = $1 AND case_id = $2"""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of one case that have arrived without a gap; `complete_to` is the last one's seq, 0 when the first is missing."""

    case_kind: str
    policy_version: int
    number: str
    entries: tuple[Entry, ...]

    @property
    def complete_to(self) -> int:
        return self.entries[-1].seq if self.entries else 0


async def add_entries(tx: Tx, messages: Sequence[EntryAppended]) -> set[tuple[UUID, UUID, int]]:
    """Store lines, each once, of any of the transaction's tenants; return tenant, case and seq of those that were new."""
    rows = await tx.fetch(
        ADD_ENTRIES,
        [each.tenant_id for each in messages],
        [each.case_id for each in messages],
        [each.entry.seq for each in messages],
        [each.case_kind for each in messages],
        [each.policy_version for each in messages],
        [each.number for each in messages],
        [each.silent for each in messages],
        [each.entry for each in messages],
    )
    return {(row["tenant_id"], row["case_id"], row["seq"]) for row in rows}


async def timelines(tx: Tx, tenant_id: UUID, case_ids: Sequence[UUID]) -> dict[UUID, Timeline]:
    """The timelines of these cases; one of which nothing has arrived is missing."""
    rows = await tx.fetch(TIMELINES, tenant_id, list(case_ids))
    return {case_id: _timeline(list(lines)) for case_id, lines in groupby(rows, itemgetter("case_id"))}


def _timeline(rows: Sequence[Record]) -> Timeline:
    entries = []
    for expected, row in enumerate(rows, start=1):
        if row["seq"] != expected:
            break
        entries.append(msgspec.convert(row["body"], Entry))
    first = rows[0] if entries else None
    return Timeline(
        case_kind=first["case_kind"] if first else "complaint",
        policy_version=first["policy_version"] if first else 0,
        number=first["number"] if first else "",
        entries=tuple(entries),
    )


async def case_seq(tx: Tx, tenant_id: UUID, case_id: UUID) -> int | None:
    """The highest seq that has arrived, or None for a case that is not known here."""
    found: int | None = await tx.fetchval(CASE_SEQ, tenant_id, case_id)
    return found


# -- events and deliveries ---------------------------------------------------------------------------------------------

# Events with their deliveries and what is queued of them. A message that no provider of the tenant could send is over before it begins; a
# person may have it sent later.
# Behind a SELECT nobody looks at an array's length: PostgreSQL finds a plan for few elements cheaper, and would make one each time.
ADD_DELIVERIES = """
WITH told AS (
    INSERT INTO event (tenant_id, event_id, type, case_id, number, source, at, body)
    SELECT *
      FROM unnest((SELECT $1::uuid[]), $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[], $8::jsonb[])
        ON CONFLICT (tenant_id, event_id) DO NOTHING
), wanted AS (
    SELECT new.*,
           new.state = 'queued' AND new.channel <> 'webhook' AND (
               SELECT true
                 FROM provider
                WHERE provider.tenant_id = new.tenant_id AND provider.channel = new.channel AND provider.active) IS NULL AS is_unsendable
      FROM unnest((SELECT $9::uuid[]), $10::uuid[], $11::uuid[], $12::uuid[], $13::text[], $14::text[], $15::text[], $16::text[],
                  $17::integer[], $18::jsonb[], $19::text[], $20::text[], $21::timestamptz[], $22::timestamptz[])
        AS new (tenant_id, event_id, delivery_id, case_id, rule, audience, addressee, channel, policy_version, fields, state, reason, at,
                due_at)
), added AS (
    INSERT INTO delivery (tenant_id, delivery_id, event_id, case_id, rule, audience, addressee, channel, policy_version,
                          fields, state, reason, at, due_at, ended_at)
    SELECT tenant_id, delivery_id, event_id, case_id, rule, audience, addressee, channel, policy_version, fields,
           CASE WHEN is_unsendable THEN 'dead' ELSE state END, CASE WHEN is_unsendable THEN 'no_provider' ELSE reason END, at, due_at,
           CASE WHEN is_unsendable OR state NOT IN ('queued', 'held') THEN clock_timestamp() END
      FROM wanted
        ON CONFLICT DO NOTHING
    RETURNING tenant_id, delivery_id, case_id, rule, audience, channel, state, reason, attempts, round, due_at
), queued AS (
    INSERT INTO delivery_queue (tenant_id, delivery_id, wake_at, held_until)
    SELECT tenant_id, delivery_id,
           CASE WHEN state = 'queued' THEN clock_timestamp() WHEN tenant_id = ANY ($23::uuid[]) THEN 'infinity' ELSE due_at END,
           CASE WHEN state = 'held' AND tenant_id = ANY ($23::uuid[]) THEN due_at END
      FROM added
     WHERE state IN ('queued', 'held')
)
SELECT tenant_id, delivery_id, case_id, rule, audience, channel, state, reason, attempts, round, due_at, clock_timestamp() AS now
  FROM added"""

SUPPRESS_WITHDRAWN = """
WITH withdrawn AS (
    UPDATE delivery
       SET state = 'suppressed', reason = 'withdrawn', ended_at = clock_timestamp()
      FROM event
     WHERE event.tenant_id = $1 AND event.case_id = $2 AND event.source = $3
       AND delivery.tenant_id = event.tenant_id AND delivery.event_id = event.event_id
       AND delivery.channel <> 'webhook' AND delivery.state IN ('queued', 'held') AND delivery.attempts = 0
    RETURNING delivery.delivery_id
), gone AS (
    DELETE FROM delivery_queue
     USING withdrawn
     WHERE delivery_queue.tenant_id = $1 AND delivery_queue.delivery_id = withdrawn.delivery_id
)
SELECT delivery_id
  FROM withdrawn"""

DELIVERY = """
SELECT delivery.*, event.type AS event_type, event.number, event.body AS event_body
  FROM delivery
  JOIN event ON event.tenant_id = delivery.tenant_id AND event.event_id = delivery.event_id
 WHERE delivery.tenant_id = $1 AND delivery.delivery_id = $2"""

STATES = """
SELECT tenant_id, delivery_id, case_id, rule, audience, channel, state, reason, attempts, round
  FROM delivery
 WHERE tenant_id = $1 AND delivery_id = ANY ($2::uuid[])"""

DELIVERY_STATE = """
SELECT state, attempts
  FROM delivery
 WHERE tenant_id = $1 AND delivery_id = $2
   FOR UPDATE"""

LIST_DELIVERIES = """
SELECT delivery.*, event.type AS event_type, event.number
  FROM delivery
  JOIN event ON event.tenant_id = delivery.tenant_id AND event.event_id = delivery.event_id
 WHERE delivery.tenant_id = $1
   AND ($2::uuid IS NULL OR delivery.case_id = $2)
   AND ($3::text IS NULL OR delivery.state = $3)
   AND ($4::text IS NULL OR delivery.channel = $4)
   AND ($5::text IS NULL OR delivery.rule = $5)
   AND ($6::text IS NULL OR delivery.audience = $6)
   AND ($7::timestamptz IS NULL OR (delivery.created_at, delivery.delivery_id) < ($7, $8::uuid))
 ORDER BY delivery.created_at DESC, delivery.delivery_id DESC
 LIMIT $9"""

CASE_DELIVERIES = """
SELECT delivery.*, event.type AS event_type, event.number
  FROM delivery
  JOIN event ON event.tenant_id = delivery.tenant_id AND event.event_id = delivery.event_id
 WHERE delivery.tenant_id = $1 AND delivery.case_id = $2
   AND ($3::timestamptz IS NULL OR (delivery.created_at, delivery.delivery_id) > ($3, $4::uuid))
 ORDER BY delivery.created_at, delivery.delivery_id
 LIMIT $5"""

ATTEMPTS = """
SELECT attempt, at, begun_at, ended_at, outcome, detail
  FROM delivery_attempt
 WHERE tenant_id = $1 AND delivery_id = $2
 ORDER BY attempt"""

RETRY = """
WITH again AS (
    UPDATE delivery
       SET state = 'queued', reason = '', attempts = 0, round = round + 1, ended_at = NULL
     WHERE tenant_id = $1 AND delivery_id = $2 AND state IN ('failed', 'dead')
    RETURNING tenant_id, delivery_id
)
INSERT INTO delivery_queue (tenant_id, delivery_id, wake_at)
SELECT tenant_id, delivery_id, clock_timestamp()
  FROM again
    ON CONFLICT (tenant_id, delivery_id) DO UPDATE SET wake_at = excluded.wake_at, held_until = NULL
RETURNING delivery_id"""


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody is told of."""

    tenant_id: UUID
    event_id: UUID
    kind: str
    case_id: UUID | None
    number: str
    source: str
    at: datetime
    body: Any


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    event_id: UUID
    delivery_id: UUID
    case_id: UUID | None
    rule: str
    audience: str
    addressee: str
    channel: Channel
    state: State
    at: datetime  # the event's
    due_at: datetime  # in the tenant's time
    reason: str = ""
    policy_version: int | None = None
    fields: dict[str, Any] = {}


async def add_deliveries(
    tx: Tx, events: Sequence[NewEvent], deliveries: Sequence[NewDelivery], *, sandboxes: Collection[UUID]
) -> list[Record]:
    """Store events and deliveries that are not there yet, of any of the transaction's tenants, and queue those to be sent; return the new
    deliveries as they are.

    A held one of a live tenant wakes by itself; a sandbox's waits for its clock to settle. One that would be queued for a channel without a
    provider is dead at once.
    """
    return await tx.fetch(
        ADD_DELIVERIES,
        [each.tenant_id for each in events],
        [each.event_id for each in events],
        [each.kind for each in events],
        [each.case_id for each in events],
        [each.number for each in events],
        [each.source for each in events],
        [each.at for each in events],
        [each.body for each in events],
        [each.tenant_id for each in deliveries],
        [each.event_id for each in deliveries],
        [each.delivery_id for each in deliveries],
        [each.case_id for each in deliveries],
        [each.rule for each in deliveries],
        [each.audience for each in deliveries],
        [each.addressee for each in deliveries],
        [each.channel for each in deliveries],
        [each.policy_version for each in deliveries],
        [each.fields for each in deliveries],
        [each.state for each in deliveries],
        [each.reason for each in deliveries],
        [each.at for each in deliveries],
        [each.due_at for each in deliveries],
        list(sandboxes),
    )


async def suppress_withdrawn(tx: Tx, tenant_id: UUID, case_id: UUID, source: str) -> list[UUID]:
    """Suppress what is still unsent of an effect that no longer holds; return what was suppressed."""
    return [row["delivery_id"] for row in await tx.fetch(SUPPRESS_WITHDRAWN, tenant_id, case_id, source)]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery with what it tells of, as the sender needs it."""

    tenant_id: UUID
    delivery_id: UUID
    event_id: UUID
    event_type: str
    event_body: dict[str, Any]
    case_id: UUID | None
    number: str
    rule: str
    audience: str
    addressee: str
    channel: Channel
    policy_version: int | None
    fields: dict[str, Any]
    state: State
    attempts: int
    round: int
    at: datetime
    due_at: datetime


async def delivery_row(tx: Tx, tenant_id: UUID, delivery_id: UUID) -> Record | None:
    """The row as lists show it."""
    return await tx.fetchrow(DELIVERY, tenant_id, delivery_id)


async def list_deliveries(
    tx: Tx,
    tenant_id: UUID,
    *,
    case_id: UUID | None = None,
    state: str | None = None,
    channel: str | None = None,
    rule: str | None = None,
    audience: str | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[Record]:
    """The newest first, from just after `before`."""
    at, last = before or (None, None)
    return await tx.fetch(LIST_DELIVERIES, tenant_id, case_id, state, channel, rule, audience, at, last, limit)


async def case_deliveries(
    tx: Tx, tenant_id: UUID, case_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Record]:
    """The oldest first, from just after `after`."""
    at, last = after or (None, None)
    return await tx.fetch(CASE_DELIVERIES, tenant_id, case_id, at, last, limit)


async def attempts(tx: Tx, tenant_id: UUID, delivery_id: UUID) -> list[Record]:
    return await tx.fetch(ATTEMPTS, tenant_id, delivery_id)


async def states(tx: Tx, tenant_id: UUID, delivery_ids: Sequence[UUID]) -> list[Record]:
    """What is told of deliveries."""
    return await tx.fetch(STATES, tenant_id, list(delivery_ids))


async def delivery_state(tx: Tx, tenant_id: UUID, delivery_id: UUID) -> Record | None:
    """State and number of attempts, with the row locked."""
    return await tx.fetchrow(DELIVERY_STATE, tenant_id, delivery_id)


async def retry(tx: Tx, tenant_id: UUID, delivery_id: UUID) -> bool:
    """Queue a dead or failed delivery anew; return whether it was one. Earlier attempts stay, and are asked after before it is sent."""
    return await tx.fetchval(RETRY, tenant_id, delivery_id) is not None


# -- the queue ---------------------------------------------------------------------------------------------------------

# Tenants take turns: the first due row of each, then the second of each, …; a tenant with a long queue delays itself alone.
# The keys are named once more as arrays: for a join alone PostgreSQL reads the whole queue, as long as nobody has counted it.
CLAIM = """
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM delivery_queue ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT next.tenant_id
              FROM delivery_queue AS next
             WHERE next.tenant_id > waiting.tenant_id
             ORDER BY next.tenant_id
             LIMIT 1)
      FROM waiting
     WHERE waiting.tenant_id IS NOT NULL
), due AS (
    SELECT mine.tenant_id, mine.delivery_id, mine.wake_at
      FROM waiting
     CROSS JOIN LATERAL (
        SELECT queue.tenant_id, queue.delivery_id, queue.wake_at
          FROM delivery_queue AS queue
         WHERE queue.tenant_id = waiting.tenant_id AND queue.wake_at <= statement_timestamp()
         ORDER BY queue.wake_at
         LIMIT $2
           FOR UPDATE SKIP LOCKED
     ) AS mine
     WHERE waiting.tenant_id IS NOT NULL AND waiting.tenant_id <> ALL ($3::uuid[])
), turns AS MATERIALIZED (
    SELECT tenant_id, delivery_id
      FROM (SELECT due.*, row_number() OVER (PARTITION BY tenant_id ORDER BY wake_at, delivery_id) AS turn FROM due) AS ranked
     ORDER BY turn, wake_at
     LIMIT $1
)
UPDATE delivery_queue
   SET wake_at = clock_timestamp() + $4 * interval '1 second', fence = fence + 1
  FROM turns
 WHERE delivery_queue.tenant_id = turns.tenant_id AND delivery_queue.delivery_id = turns.delivery_id
   AND delivery_queue.tenant_id = ANY (ARRAY (SELECT tenant_id FROM turns))
   AND delivery_queue.delivery_id = ANY (ARRAY (SELECT delivery_id FROM turns))
RETURNING delivery_queue.tenant_id, delivery_queue.delivery_id, delivery_queue.fence"""

# Everything that sending one delivery needs, with its place in the queue locked: none when the claim is not ours any more.
LOAD = """
SELECT delivery.*, event.type AS event_type, event.number, event.body AS event_body, clock_timestamp() AS now,
       ARRAY (SELECT key
                FROM delivery_attempt
               WHERE delivery_attempt.tenant_id = delivery.tenant_id
                 AND delivery_attempt.delivery_id = delivery.delivery_id
                 AND (outcome IS NULL OR outcome = 'unknown')
               ORDER BY attempt) AS unknown_keys,
       provider.provider_id AS active_provider_id, provider.config AS provider_config, provider.sealed AS provider_sealed,
       endpoint.endpoint_id, endpoint.url, endpoint.sealed AS endpoint_sealed, endpoint.active AS endpoint_active,
       endpoint.failing_since
  FROM delivery_queue AS queue
  JOIN delivery ON delivery.tenant_id = queue.tenant_id AND delivery.delivery_id = queue.delivery_id
  JOIN event ON event.tenant_id = delivery.tenant_id AND event.event_id = delivery.event_id
  LEFT JOIN provider
    ON provider.tenant_id = delivery.tenant_id AND provider.channel = delivery.channel AND provider.active
  LEFT JOIN endpoint
    ON endpoint.tenant_id = delivery.tenant_id
   AND endpoint.endpoint_id = CASE WHEN delivery.channel = 'webhook' THEN delivery.addressee::uuid END
 WHERE queue.tenant_id = $1 AND queue.delivery_id = $2 AND queue.fence = $3
   FOR UPDATE OF queue"""

LOCK_LEASE = """
SELECT clock_timestamp()
  FROM delivery_queue
 WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3
   FOR UPDATE"""

BEGIN_ATTEMPT = """
WITH begun AS (
    UPDATE delivery
       SET state = 'sending', attempts = attempts + 1, recipient = $3, provider_id = $4
     WHERE tenant_id = $1 AND delivery_id = $2
    RETURNING attempts
), numbered AS (
    SELECT coalesce(max(attempt), 0) + 1 AS attempt
      FROM delivery_attempt
     WHERE tenant_id = $1 AND delivery_id = $2
)
INSERT INTO delivery_attempt (tenant_id, delivery_id, attempt, key, at)
SELECT $1, $2, numbered.attempt, $5, $6
  FROM numbered, begun
RETURNING attempt, (SELECT attempts FROM begun) AS attempts"""

# What an attempt came to and what follows, for whoever still holds the claim; nothing otherwise.
RECORD = """
WITH held AS (
    SELECT FROM delivery_queue WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3 FOR UPDATE
), ended AS (
    UPDATE delivery_attempt
       SET ended_at = clock_timestamp(), outcome = $5, detail = $6
     WHERE tenant_id = $1 AND delivery_id = $2 AND attempt = $4 AND EXISTS (SELECT FROM held)
), gone AS (
    DELETE FROM delivery_queue
     WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3 AND $10::float8 IS NULL
), later AS (
    UPDATE delivery_queue
       SET wake_at = clock_timestamp() + $10 * interval '1 second', held_until = NULL
     WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3 AND $10::float8 IS NOT NULL
)
UPDATE delivery
   SET state = $7, reason = $8, provider_ref = coalesce($9, provider_ref),
       sent_at = CASE WHEN $7 = 'sent' THEN coalesce($11, clock_timestamp()) ELSE sent_at END,
       ended_at = CASE WHEN $10::float8 IS NULL THEN clock_timestamp() END
 WHERE tenant_id = $1 AND delivery_id = $2 AND EXISTS (SELECT FROM held)
RETURNING tenant_id, delivery_id, case_id, rule, audience, channel, state, reason, attempts, round,
          coalesce($11, clock_timestamp()) AS told_at"""

# The last state of a delivery that no attempt of the present claim has brought about.
END = """
WITH held AS (
    SELECT FROM delivery_queue WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3 FOR UPDATE
), gone AS (
    DELETE FROM delivery_queue
     WHERE tenant_id = $1 AND delivery_id = $2 AND fence = $3
)
UPDATE delivery
   SET state = $4, reason = $5, provider_ref = coalesce($6, provider_ref),
       sent_at = CASE WHEN $4 = 'sent' THEN coalesce($7, clock_timestamp()) ELSE sent_at END, ended_at = clock_timestamp()
 WHERE tenant_id = $1 AND delivery_id = $2 AND EXISTS (SELECT FROM held)
RETURNING tenant_id, delivery_id, case_id, rule, audience, channel, state, reason, attempts, round,
          coalesce($7, clock_timestamp()) AS told_at"""

END_OPEN_ATTEMPTS = """
UPDATE delivery_attempt
   SET ended_at = clock_timestamp(), outcome = $3, detail = $4
 WHERE tenant_id = $1 AND delivery_id = $2 AND (outcome IS NULL OR outcome = 'unknown')"""

CHANGE = """
UPDATE delivery
   SET state = $3, reason = $4, provider_ref = coalesce($5, provider_ref),
       sent_at = CASE WHEN $3 = 'sent' THEN $6 ELSE sent_at END,
       ended_at = CASE WHEN $3 IN ('queued', 'held', 'sending') THEN NULL ELSE clock_timestamp() END,
       due_at = CASE WHEN $3 = 'held' THEN $6 ELSE due_at END
 WHERE tenant_id = $1 AND delivery_id = $2
RETURNING attempts"""

LEAVE_QUEUE = """
DELETE FROM delivery_queue
 WHERE tenant_id = $1 AND delivery_id = $2"""

WAKE_LATER = """
UPDATE delivery_queue
   SET wake_at = clock_timestamp() + $3 * interval '1 second', held_until = NULL
 WHERE tenant_id = $1 AND delivery_id = $2"""

HOLD_UNTIL = """
UPDATE delivery_queue
   SET wake_at = CASE WHEN $4 THEN 'infinity' ELSE $3::timestamptz END, held_until = CASE WHEN $4 THEN $3::timestamptz END
 WHERE tenant_id = $1 AND delivery_id = $2"""

RELEASE = """
UPDATE delivery_queue
   SET wake_at = clock_timestamp(), held_until = NULL
 WHERE tenant_id = $1 AND held_until <= $2"""

QUEUE_STATE = """
SELECT count(*) FILTER (WHERE wake_at <= clock_timestamp()) AS due,
       coalesce(extract(epoch FROM clock_timestamp() - min(wake_at)), 0)::float8 AS lag_seconds
  FROM (SELECT wake_at FROM delivery_queue WHERE wake_at <= statement_timestamp() LIMIT 10000) AS queue"""


class Claim(msgspec.Struct, frozen=True):
    """The right to send one delivery until the lease ends, as long as the fence has not moved."""

    tenant_id: UUID
    delivery_id: UUID
    fence: int


async def claim(tx: Tx, count: int, per_tenant: int, busy: Sequence[UUID], lease_seconds: float) -> list[Claim]:
    """Take over due deliveries, tenants in turn; none of the tenants in `busy`."""
    rows = await tx.fetch(CLAIM, count, per_tenant, list(busy), lease_seconds)
    return [Claim(row["tenant_id"], row["delivery_id"], row["fence"]) for row in rows]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A claimed delivery with what is needed to send it; `now` is the database's clock."""

    delivery: Delivery
    row: Record  # with the columns of its provider or its endpoint, null where there is none
    unknown_keys: list[UUID]  # of attempts whose outcome nobody knows, the oldest first
    now: datetime


async def load(tx: Tx, claimed: Claim) -> Loaded | None:
    """Return what a claim is about, with its row in the queue locked; None when the claim is not ours any more."""
    row = await tx.fetchrow(LOAD, claimed.tenant_id, claimed.delivery_id, claimed.fence)
    if row is None:
        return None
    return Loaded(
        delivery=msgspec.convert(dict(row), Delivery), row=row, unknown_keys=row["unknown_keys"], now=row["now"]
    )


async def holds(tx: Tx, claimed: Claim) -> datetime | None:
    """The database's time if the claim is still ours; its row is then locked until the transaction ends."""
    found: datetime | None = await tx.fetchval(LOCK_LEASE, claimed.tenant_id, claimed.delivery_id, claimed.fence)
    return found


async def begin_attempt(
    tx: Tx, claimed: Claim, *, recipient: str, provider_id: UUID | None, key: UUID, at: datetime
) -> tuple[int, int]:
    """Write an attempt down before its call; return its number, and how many attempts the delivery has had since it was queued."""
    row = await tx.fetchrow(BEGIN_ATTEMPT, claimed.tenant_id, claimed.delivery_id, recipient, provider_id, key, at)
    assert row is not None
    return row["attempt"], row["attempts"]


async def record(
    tx: Tx,
    claimed: Claim,
    attempt: int,
    *,
    outcome: Outcome,
    detail: str,
    state: State,
    reason: str,
    provider_ref: str | None,
    wait_seconds: float | None,
    at: datetime | None,
) -> Record | None:
    """Write down what an attempt came to and what follows; None, and nothing written, when somebody else has taken over.

    Args:
        wait_seconds: when the delivery is looked at again; None: it leaves the queue.
        at: in a sandbox the message's own instant; None: now.
    """
    return await tx.fetchrow(
        RECORD,
        claimed.tenant_id,
        claimed.delivery_id,
        claimed.fence,
        attempt,
        outcome,
        detail,
        state,
        reason,
        provider_ref,
        wait_seconds,
        at,
    )


async def end(
    tx: Tx, claimed: Claim, state: State, *, reason: str, provider_ref: str | None, at: datetime | None
) -> Record | None:
    """Put a delivery into its last state; None, and nothing written, when somebody else has taken over.

    Args:
        at: in a sandbox the message's own instant; None: now.
    """
    return await tx.fetchrow(
        END, claimed.tenant_id, claimed.delivery_id, claimed.fence, state, reason, provider_ref, at
    )


async def end_unknown_attempts(tx: Tx, claimed: Claim, outcome: Outcome, detail: str) -> None:
    """What became of the attempts nobody knew about has been found out."""
    await tx.execute(END_OPEN_ATTEMPTS, claimed.tenant_id, claimed.delivery_id, outcome, detail)


async def change(
    tx: Tx,
    tenant_id: UUID,
    delivery_id: UUID,
    state: State,
    at: datetime,
    *,
    reason: str = "",
    provider_ref: str | None = None,
) -> int:
    """Put a delivery into a state; return how many attempts it has had. `at` is when it was sent, or until when it is held."""
    found: int = await tx.fetchval(CHANGE, tenant_id, delivery_id, state, reason, provider_ref, at)
    return found


async def leave_queue(tx: Tx, tenant_id: UUID, delivery_id: UUID) -> None:
    await tx.execute(LEAVE_QUEUE, tenant_id, delivery_id)


async def wake_later(tx: Tx, tenant_id: UUID, delivery_id: UUID, seconds: float) -> None:
    await tx.execute(WAKE_LATER, tenant_id, delivery_id, seconds)


async def hold_until(tx: Tx, tenant_id: UUID, delivery_id: UUID, until: datetime, *, sandbox: bool) -> None:
    await tx.execute(HOLD_UNTIL, tenant_id, delivery_id, until, sandbox)


async def release(tx: Tx, tenant_id: UUID, target: datetime) -> None:
    """Wake what a sandbox holds until `target` or earlier."""
    await tx.execute(RELEASE, tenant_id, target)


async def queue_state(tx: Tx) -> tuple[int, float]:
    """How many deliveries are due, over all tenants, and for how long the oldest has been."""
    row = await tx.fetchrow(QUEUE_STATE)
    assert row is not None
    return row["due"], row["lag_seconds"]


# -- budgets -----------------------------------------------------------------------------------------------------------

USES = """
INSERT INTO budget (tenant_id, scope, subject, used, last_at)
VALUES ($1, $2, $3, '{}', $4)
    ON CONFLICT (tenant_id, scope, subject) DO UPDATE SET last_at = greatest(budget.last_at, excluded.last_at)
RETURNING used"""

REMEMBER_USES = """
UPDATE budget
   SET used = $4
 WHERE tenant_id = $1 AND scope = $2 AND subject = $3"""

TAKE_DAY = """
INSERT INTO day_budget (tenant_id, channel, day, used)
VALUES ($1, $2, $3, 1)
    ON CONFLICT (tenant_id, channel, day) DO UPDATE SET used = day_budget.used + 1
 WHERE day_budget.used < $4
RETURNING used"""


async def uses(tx: Tx, tenant_id: UUID, scope: str, subject: bytes, at: datetime) -> list[datetime]:
    """The remembered uses, with the row locked until the transaction ends."""
    found: list[datetime] = await tx.fetchval(USES, tenant_id, scope, subject, at)
    return found


async def remember_uses(tx: Tx, tenant_id: UUID, scope: str, subject: bytes, used: Sequence[datetime]) -> None:
    await tx.execute(REMEMBER_USES, tenant_id, scope, subject, list(used))


async def take_day(tx: Tx, tenant_id: UUID, channel: str, day: date, limit: int) -> bool:
    """Count one more message of the day; false, and nothing counted, when the limit has been reached."""
    if limit < 1:
        return False
    return await tx.fetchval(TAKE_DAY, tenant_id, channel, day, limit) is not None


# -- providers and endpoints -------------------------------------------------------------------------------------------

ADD_PROVIDER = """
INSERT INTO provider (tenant_id, provider_id, channel, name, config, sealed, active)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""

ADD_RECEIPT_ADDRESS = """
INSERT INTO receipt_address (tenant_id, provider_id)
VALUES ($1, $2)"""

STAND_DOWN = """
UPDATE provider
   SET active = false, revision = revision + 1, updated_at = clock_timestamp()
 WHERE tenant_id = $1 AND channel = $2 AND active AND provider_id <> $3"""

PROVIDERS = """
SELECT *
  FROM provider
 WHERE tenant_id = $1
 ORDER BY created_at, provider_id"""

PROVIDER = """
SELECT *
  FROM provider
 WHERE tenant_id = $1 AND provider_id = $2"""

CHANGE_PROVIDER = """
UPDATE provider
   SET name = $3, config = $4, sealed = $5, active = $6, revision = revision + 1, updated_at = clock_timestamp()
 WHERE tenant_id = $1 AND provider_id = $2
RETURNING *"""

DELETE_PROVIDER = """
DELETE FROM provider
 WHERE tenant_id = $1 AND provider_id = $2
RETURNING provider_id"""

RECEIPT_TENANT = """
SELECT tenant_id
  FROM receipt_address
 WHERE provider_id = $1"""

ADD_RECEIPT = """
INSERT INTO receipt (tenant_id, provider_id, webhook_id, provider_ref, state)
VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant_id, provider_id, webhook_id) DO NOTHING
RETURNING webhook_id"""

FIND_BY_REF = """
SELECT delivery_id, state
  FROM delivery
 WHERE tenant_id = $1 AND provider_id = $2 AND provider_ref = $3
   FOR UPDATE"""

ADD_ENDPOINT = """
INSERT INTO endpoint (tenant_id, endpoint_id, url, description, events, sealed)
VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id, endpoint_id) DO NOTHING
RETURNING *"""

ENDPOINTS = """
SELECT *
  FROM endpoint
 WHERE tenant_id = $1
 ORDER BY created_at, endpoint_id"""

ENDPOINT = """
SELECT *
  FROM endpoint
 WHERE tenant_id = $1 AND endpoint_id = $2"""

LOCK_ENDPOINT = """
SELECT *
  FROM endpoint
 WHERE tenant_id = $1 AND endpoint_id = $2
   FOR UPDATE"""

CHANGE_ENDPOINT = """
UPDATE endpoint
   SET url = $3, description = $4, events = $5, active = $6, stopped_because = $7, sealed = $8,
       failing_since = CASE WHEN $6 THEN NULL ELSE failing_since END,
       revision = revision + 1, updated_at = clock_timestamp()
 WHERE tenant_id = $1 AND endpoint_id = $2
RETURNING *"""

DELETE_ENDPOINT = """
DELETE FROM endpoint
 WHERE tenant_id = $1 AND endpoint_id = $2
RETURNING endpoint_id"""

ENDPOINT_WORKS = """
UPDATE endpoint
   SET failing_since = NULL
 WHERE tenant_id = $1 AND endpoint_id = $2 AND failing_since IS NOT NULL"""

ENDPOINT_FAILS = """
UPDATE endpoint
   SET failing_since = coalesce(failing_since, clock_timestamp()),
       active = active AND NOT $3 AND coalesce(failing_since, clock_timestamp()) > clock_timestamp() - $4 * interval '1 day',
       stopped_because = CASE WHEN $3 THEN 'gone'
                              WHEN coalesce(failing_since, clock_timestamp()) <= clock_timestamp() - $4 * interval '1 day' THEN 'failing'
                              ELSE stopped_because END
 WHERE tenant_id = $1 AND endpoint_id = $2"""


async def add_provider(
    tx: Tx, tenant_id: UUID, provider_id: UUID, channel: str, name: str, config: Any, sealed: bytes, *, active: bool
) -> None:
    """Store a provider; an active one takes the place of the channel's active one."""
    if active:
        await tx.execute(STAND_DOWN, tenant_id, channel, provider_id)
    await tx.execute(ADD_PROVIDER, tenant_id, provider_id, channel, name, config, sealed, active)
    await tx.execute(ADD_RECEIPT_ADDRESS, tenant_id, provider_id)


async def providers(tx: Tx, tenant_id: UUID) -> list[Record]:
    return await tx.fetch(PROVIDERS, tenant_id)


async def provider(tx: Tx, tenant_id: UUID, provider_id: UUID) -> Record | None:
    return await tx.fetchrow(PROVIDER, tenant_id, provider_id)


async def change_provider(
    tx: Tx, tenant_id: UUID, provider_id: UUID, channel: str, name: str, config: Any, sealed: bytes, *, active: bool
) -> Record | None:
    if active:
        await tx.execute(STAND_DOWN, tenant_id, channel, provider_id)
    return await tx.fetchrow(CHANGE_PROVIDER, tenant_id, provider_id, name, config, sealed, active)


async def delete_provider(tx: Tx, tenant_id: UUID, provider_id: UUID) -> bool:
    return await tx.fetchval(DELETE_PROVIDER, tenant_id, provider_id) is not None


async def receipt_tenant(tx: Tx, provider_id: UUID) -> UUID | None:
    """The tenant of a provider, before any tenant is known; for a transaction across tenants."""
    found: UUID | None = await tx.fetchval(RECEIPT_TENANT, provider_id)
    return found


async def add_receipt(
    tx: Tx, tenant_id: UUID, provider_id: UUID, webhook_id: str, provider_ref: str, state: str
) -> bool:
    """Remember a receipt; false when it came before."""
    found = await tx.fetchval(ADD_RECEIPT, tenant_id, provider_id, webhook_id, provider_ref, state)
    return found is not None


async def find_by_ref(tx: Tx, tenant_id: UUID, provider_id: UUID, provider_ref: str) -> list[Record]:
    """The deliveries that the provider knows under this name, locked."""
    return await tx.fetch(FIND_BY_REF, tenant_id, provider_id, provider_ref)


async def add_endpoint(
    tx: Tx, tenant_id: UUID, endpoint_id: UUID, url: str, description: str, events: Sequence[str], sealed: bytes
) -> Record | None:
    """Store an endpoint; None when there is one with this id."""
    return await tx.fetchrow(ADD_ENDPOINT, tenant_id, endpoint_id, url, description, list(events), sealed)


async def endpoints(tx: Tx, tenant_id: UUID) -> list[Record]:
    return await tx.fetch(ENDPOINTS, tenant_id)


async def endpoint(tx: Tx, tenant_id: UUID, endpoint_id: UUID) -> Record | None:
    return await tx.fetchrow(ENDPOINT, tenant_id, endpoint_id)


async def lock_endpoint(tx: Tx, tenant_id: UUID, endpoint_id: UUID) -> Record | None:
    return await tx.fetchrow(LOCK_ENDPOINT, tenant_id, endpoint_id)


async def change_endpoint(
    tx: Tx,
    tenant_id: UUID,
    endpoint_id: UUID,
    *,
    url: str,
    description: str,
    events: Sequence[str],
    active: bool,
    stopped_because: str | None,
    sealed: bytes,
) -> Record | None:
    return await tx.fetchrow(
        CHANGE_ENDPOINT, tenant_id, endpoint_id, url, description, list(events), active, stopped_because, sealed
    )


async def delete_endpoint(tx: Tx, tenant_id: UUID, endpoint_id: UUID) -> bool:
    return await tx.fetchval(DELETE_ENDPOINT, tenant_id, endpoint_id) is not None


async def endpoint_works(tx: Tx, tenant_id: UUID, endpoint_id: UUID) -> None:
    await tx.execute(ENDPOINT_WORKS, tenant_id, endpoint_id)


async def endpoint_fails(tx: Tx, tenant_id: UUID, endpoint_id: UUID, *, gone: bool, patience_days: int) -> None:
    """Note that an endpoint failed; one that is gone, or has failed for so many days, is not called any more."""
    await tx.execute(ENDPOINT_FAILS, tenant_id, endpoint_id, gone, patience_days)


# -- sandboxes ---------------------------------------------------------------------------------------------------------

ADD_SETTLEMENT = """
INSERT INTO settlement (tenant_id, operation_id, target)
VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, operation_id) DO NOTHING"""

OPEN_SETTLEMENTS = """
SELECT tenant_id, operation_id, target, extract(epoch FROM clock_timestamp() - begun_at)::float8 AS age_seconds
  FROM settlement
 WHERE rested_at IS NULL
 ORDER BY begun_at
 LIMIT 100"""

UNSENT = """
SELECT count(*)
  FROM delivery_queue
 WHERE tenant_id = $1 AND (held_until IS NULL OR held_until <= $2) AND fence < $3"""

REST = """
UPDATE settlement
   SET rested_at = clock_timestamp()
 WHERE tenant_id = $1 AND operation_id = $2 AND rested_at IS NULL
RETURNING operation_id"""


async def add_settlement(tx: Tx, tenant_id: UUID, operation_id: UUID, target: datetime) -> None:
    await tx.execute(ADD_SETTLEMENT, tenant_id, operation_id, target)


async def open_settlements(tx: Tx) -> list[Record]:
    """Over all tenants, the oldest first."""
    return await tx.fetch(OPEN_SETTLEMENTS)


async def unsent(tx: Tx, tenant_id: UUID, target: datetime, tries: int) -> int:
    """How many deliveries are due by `target` and have been taken up less than so often."""
    found: int = await tx.fetchval(UNSENT, tenant_id, target, tries)
    return found


async def rest(tx: Tx, tenant_id: UUID, operation_id: UUID) -> bool:
    """Close a settlement; false when another replica did."""
    return await tx.fetchval(REST, tenant_id, operation_id) is not None


# -- housekeeping ------------------------------------------------------------------------------------------------------

# An index is searched for an instant that stands still during the statement; `clock_timestamp()` does not.
PRUNE_DELIVERIES = """
DELETE FROM delivery
 WHERE (tenant_id, delivery_id) IN (
    SELECT tenant_id, delivery_id
      FROM delivery
     WHERE tenant_id = $1 AND created_at < statement_timestamp() - $2 * interval '1 day' AND ended_at IS NOT NULL
     ORDER BY created_at
     LIMIT $3)"""

PRUNE_EVENTS = """
DELETE FROM event
 WHERE (tenant_id, event_id) IN (
    SELECT tenant_id, event_id
      FROM event
     WHERE tenant_id = $1 AND created_at < statement_timestamp() - $2 * interval '1 day'
       AND NOT EXISTS (SELECT FROM delivery
                        WHERE delivery.tenant_id = event.tenant_id AND delivery.event_id = event.event_id)
     ORDER BY created_at
     LIMIT $3)"""

PRUNE_BUDGETS = """
DELETE FROM budget
 WHERE tenant_id = $1 AND last_at < $2"""

PRUNE_DAYS = """
DELETE FROM day_budget
 WHERE tenant_id = $1 AND day < $2"""

PRUNE_RECEIPTS = """
DELETE FROM receipt
 WHERE tenant_id = $1 AND received_at < statement_timestamp() - interval '14 days'"""

PRUNE_SETTLEMENTS = """
DELETE FROM settlement
 WHERE tenant_id = $1 AND rested_at < statement_timestamp() - interval '7 days'"""


async def prune(tx: Tx, tenant_id: UUID, *, days: int, before: datetime, limit: int) -> int:
    """Delete what is past the tenant's retention, a batch at a time; return how many deliveries and events went.

    Args:
        before: in the tenant's time; budgets that were last used earlier no longer count.
    """
    gone = 0
    for statement in (PRUNE_DELIVERIES, PRUNE_EVENTS):
        gone += int((await tx.execute(statement, tenant_id, days, limit)).rpartition(" ")[2])
    await tx.execute(PRUNE_BUDGETS, tenant_id, before)
    await tx.execute(PRUNE_DAYS, tenant_id, before.date())
    await tx.execute(PRUNE_RECEIPTS, tenant_id)
    await tx.execute(PRUNE_SETTLEMENTS, tenant_id)
    return gone

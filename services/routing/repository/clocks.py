"""What tells the time: stamps, ticks, test clocks and the operations that move them; and what falls due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shared.database import Record, Tx
from shared.errors import NotYetError

# One round trip for what every writer asks before it begins.
STAMP = """
SELECT stamped_at, is_sandbox, (SELECT version FROM "case" WHERE tenant_id = $1 AND case_id = $2) AS version,
       coalesce((SELECT revision FROM staff_revision WHERE tenant_id = $1), 0) AS staff_revision
  FROM stamp_now($1)"""

# Each case is looked up by its key. Behind a SELECT nobody looks at an array's length: PostgreSQL finds a plan for few cheaper, and would
# make one each time.
STAMP_TOGETHER = """
SELECT asked.tenant_id, stamp.stamped_at, stamp.is_sandbox,
       coalesce((SELECT revision FROM staff_revision WHERE staff_revision.tenant_id = asked.tenant_id), 0) AS staff_revision,
       ARRAY (SELECT case_id
                FROM (SELECT new.case_id,
                             (SELECT version FROM "case" WHERE tenant_id = new.tenant_id AND case_id = new.case_id) AS version
                        FROM unnest((SELECT $2::uuid[]), $3::uuid[]) AS new (tenant_id, case_id)) AS looked
               WHERE version IS NOT NULL) AS known
  FROM unnest((SELECT $1::uuid[])) AS asked (tenant_id)
 CROSS JOIN LATERAL stamp_now(asked.tenant_id) AS stamp"""

TICK = """
SELECT tick_live()"""

NOTE_TICK = """
UPDATE live_tick SET outbox_id = pg_sequence_last_value('outbox_id_seq')"""

PACE = """
SELECT clock_timestamp() AS now, t.at AS ticked_at, coalesce(pg_sequence_last_value('outbox_id_seq'), 0) > t.outbox_id AS is_busy,
       (SELECT wake_at FROM wake_up WHERE NOT sandbox AND wake_at > t.at ORDER BY wake_at LIMIT 1) AS next_at,
       coalesce((SELECT wake_at FROM wake_up WHERE NOT sandbox ORDER BY wake_at LIMIT 1) <= t.at, false) AS has_due
  FROM live_tick t"""

TEST_CLOCK = """
SELECT now FROM test_clock WHERE tenant_id = $1"""

START_TEST_CLOCK = """
INSERT INTO test_clock (tenant_id, now)
VALUES ($1, $2)
    ON CONFLICT (tenant_id) DO NOTHING
RETURNING 1"""

MOVE_TEST_CLOCK = """
INSERT INTO test_clock (tenant_id, now)
VALUES ($1, $2)
    ON CONFLICT (tenant_id) DO UPDATE SET now = greatest(test_clock.now, excluded.now)"""

LOCK_TEST_CLOCK = """
SELECT pg_advisory_xact_lock(clock_lock_space(), clock_lock_key($1))"""

INSERT_OPERATION = """
INSERT INTO clock_operation (tenant_id, operation_id, round_id, started_from, target, asked_by)
VALUES ($1, $2, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
RETURNING operation_id, started_from, target, state, round, round_id, written, settled, rested, steps, created_at, done_at"""

OPERATION = """
SELECT operation_id, started_from, target, state, round, round_id, written, settled, rested, steps, created_at, done_at
  FROM clock_operation
 WHERE tenant_id = $1 AND operation_id = $2"""

LOCK_ROUND = """
SELECT operation_id, started_from, target, state, round, round_id, written, settled, rested, steps, created_at, done_at
  FROM clock_operation
 WHERE tenant_id = $1 AND round_id = $2
   FOR UPDATE"""

RUNNING_OPERATION = """
SELECT operation_id, started_from, target, state, round, round_id, written, settled, rested, steps, created_at, done_at
  FROM clock_operation
 WHERE tenant_id = $1 AND state = 'running'"""

NOTE_SETTLED = """
UPDATE clock_operation SET settled = true, settled_at = clock_timestamp(), steps = steps + $3 WHERE tenant_id = $1 AND round_id = $2"""

NOTE_RESTED = """
UPDATE clock_operation SET rested = true WHERE tenant_id = $1 AND round_id = $2"""

NOTE_WRITTEN = """
UPDATE clock_operation
   SET written = written + $2, awaited = awaited + $3
 WHERE tenant_id = $1 AND state = 'running' AND ($2 <> 0 OR $3 <> 0)"""

IS_AWAITING = """
SELECT awaited > 0 AND clock_timestamp() < settled_at + make_interval(secs => $3)
  FROM clock_operation
 WHERE tenant_id = $1 AND operation_id = $2"""

NEXT_ROUND = """
UPDATE clock_operation
   SET round = round + 1, round_id = $3, written = 0, settled = false, rested = false
 WHERE tenant_id = $1 AND operation_id = $2"""

FINISH_OPERATION = """
UPDATE clock_operation SET state = 'done', done_at = clock_timestamp() WHERE tenant_id = $1 AND operation_id = $2"""

DUE_LIVE = """
SELECT tenant_id, case_id, wake_at
  FROM wake_up
 WHERE NOT sandbox AND wake_at <= (SELECT at FROM live_tick)
 ORDER BY wake_at
 LIMIT $1"""

# Tenants are found by skipping through the index; only while more is due than a round takes.
DUE_OF_EACH = """
WITH RECURSIVE live AS (SELECT at FROM live_tick),
waiting AS (
    (SELECT tenant_id FROM wake_up ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT following.tenant_id
      FROM waiting
     CROSS JOIN LATERAL (
        SELECT tenant_id FROM wake_up WHERE tenant_id > waiting.tenant_id ORDER BY tenant_id LIMIT 1) AS following
)
SELECT due.tenant_id, due.case_id, due.wake_at
  FROM waiting
 CROSS JOIN LATERAL (
    SELECT tenant_id, case_id, wake_at, row_number() OVER (ORDER BY wake_at) AS place
      FROM wake_up
     WHERE wake_up.tenant_id = waiting.tenant_id AND NOT sandbox AND wake_at <= (SELECT at FROM live)
     ORDER BY wake_at
     LIMIT $1) AS due
 ORDER BY due.place, due.wake_at
 LIMIT $2"""

DUE_SANDBOX = """
SELECT case_id, wake_at
  FROM wake_up
 WHERE tenant_id = $1 AND sandbox AND wake_at <= $2
 ORDER BY wake_at
 LIMIT $3"""


SANDBOXES_DUE = """
SELECT DISTINCT t.tenant_id
  FROM test_clock t
  LEFT JOIN clock_operation o ON o.tenant_id = t.tenant_id AND o.state = 'running'
 WHERE EXISTS (SELECT 1
                 FROM wake_up w
                WHERE w.tenant_id = t.tenant_id AND w.sandbox AND w.wake_at <= coalesce(o.target, t.now))"""

RUNNING_OPERATIONS = """
SELECT tenant_id, round_id FROM clock_operation WHERE state = 'running' AND settled AND rested"""


# In a sandbox time stands still between operations: what cannot be folded waits an hour of its time behind the others.
POSTPONE = """
UPDATE wake_up
   SET wake_at = CASE WHEN sandbox THEN wake_at + interval '1 hour' ELSE clock_timestamp() + make_interval(secs => $3) END
 WHERE tenant_id = $1 AND case_id = $2"""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What decides when to tick next. `is_busy`: something was told since the last tick. `next_at`: the next wake-up after it."""

    now: datetime
    ticked_at: datetime
    is_busy: bool
    has_due: bool
    next_at: datetime | None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A test clock on its way. A round is one going-through of sla and notify; what is written meanwhile asks for another."""

    operation_id: UUID
    started_from: datetime
    target: datetime
    state: str
    round: int
    round_id: UUID
    written: int
    settled: bool
    rested: bool
    steps: int
    created_at: datetime
    done_at: datetime | None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    case_id: UUID
    wake_at: datetime


class Stamp(msgspec.Struct, frozen=True):
    """`version`: of the case asked about, None when there is none. `staff_revision`: what staff in memory must be as new as."""

    at: datetime
    is_sandbox: bool
    version: int | None
    staff_revision: int


async def stamp(tx: Tx, tenant_id: UUID, case_id: UUID | None = None) -> Stamp:
    """Return the instant to stamp entries with, and hold the clock's lock until commit. NotYetError for a tenant that has not arrived."""
    row = await tx.fetchrow(STAMP, tenant_id, case_id)
    if row is None or row["is_sandbox"] is None or row["stamped_at"] is None:
        raise NotYetError("the tenant has not arrived")
    return Stamp(row["stamped_at"].astimezone(UTC), row["is_sandbox"], row["version"], row["staff_revision"])


class Stamps:
    """The same for several cases, each of which may be made once."""

    def __init__(self, stamp: Stamp, missing: set[UUID]) -> None:
        self._stamp = stamp
        self._missing = missing

    def take(self, case_id: UUID) -> Stamp | None:
        """Return the stamp of a case that was not there; None for one that was, that was not asked about, or that was taken."""
        if case_id not in self._missing:
            return None
        self._missing.remove(case_id)
        return self._stamp


async def stamp_together(tx: Tx, cases: Sequence[tuple[UUID, UUID]]) -> dict[UUID, Stamps]:
    """As `stamp`, for several cases in one round trip, given as (tenant, case); those of a tenant share the instant.

    A tenant that has not arrived is missing.
    """
    tenants = sorted({tenant_id for tenant_id, _ in cases})
    rows = await tx.fetch(
        STAMP_TOGETHER, tenants, [tenant_id for tenant_id, _ in cases], [case_id for _, case_id in cases]
    )
    return {
        row["tenant_id"]: Stamps(
            Stamp(row["stamped_at"].astimezone(UTC), row["is_sandbox"], None, row["staff_revision"]),
            {case_id for tenant_id, case_id in cases if tenant_id == row["tenant_id"]} - set(row["known"]),
        )
        for row in rows
        if row["is_sandbox"] is not None and row["stamped_at"] is not None
    }


async def tick(tx: Tx) -> datetime:
    """Return the live time after moving it on. The caller tells it in the same transaction, then calls `note_tick`."""
    at: datetime = await tx.fetchval(TICK)
    return at.astimezone(UTC)


async def note_tick(tx: Tx) -> None:
    """Remember how far the outbox had come, so that a tick alone does not look like something happening."""
    await tx.execute(NOTE_TICK)


async def pace(tx: Tx) -> Pace:
    row = await tx.fetchrow(PACE)
    assert row is not None
    return Pace(**dict(row))


async def test_clock(tx: Tx, tenant_id: UUID) -> datetime | None:
    found: datetime | None = await tx.fetchval(TEST_CLOCK, tenant_id)
    return None if found is None else found.astimezone(UTC)


async def start_test_clock(tx: Tx, tenant_id: UUID, at: datetime) -> bool:
    """Put up a sandbox's clock; False when it has one."""
    return await tx.fetchval(START_TEST_CLOCK, tenant_id, at) is not None


async def move_test_clock(tx: Tx, tenant_id: UUID, at: datetime) -> None:
    await tx.execute(MOVE_TEST_CLOCK, tenant_id, at)


async def lock_test_clock(tx: Tx, tenant_id: UUID) -> None:
    """Wait until nobody is stamping by this clock, and let nobody begin before commit."""
    await tx.execute(LOCK_TEST_CLOCK, tenant_id)


async def begin_operation(
    tx: Tx, tenant_id: UUID, operation_id: UUID, started_from: datetime, target: datetime, asked_by: str
) -> Operation | None:
    """Store a new operation; None when one is running."""
    row = await tx.fetchrow(INSERT_OPERATION, tenant_id, operation_id, started_from, target, asked_by)
    return None if row is None else _operation(row)


async def operation(tx: Tx, tenant_id: UUID, operation_id: UUID) -> Operation | None:
    row = await tx.fetchrow(OPERATION, tenant_id, operation_id)
    return None if row is None else _operation(row)


async def lock_round(tx: Tx, tenant_id: UUID, round_id: UUID) -> Operation | None:
    """Return the operation whose present round this is, for this transaction alone; None for a round that is past."""
    row = await tx.fetchrow(LOCK_ROUND, tenant_id, round_id)
    return None if row is None else _operation(row)


async def running_operation(tx: Tx, tenant_id: UUID) -> Operation | None:
    row = await tx.fetchrow(RUNNING_OPERATION, tenant_id)
    return None if row is None else _operation(row)


async def note_settled(tx: Tx, tenant_id: UUID, round_id: UUID, steps: int) -> None:
    await tx.execute(NOTE_SETTLED, tenant_id, round_id, steps)


async def note_rested(tx: Tx, tenant_id: UUID, round_id: UUID) -> None:
    await tx.execute(NOTE_RESTED, tenant_id, round_id)


async def note_written(tx: Tx, tenant_id: UUID, written: int, awaited: int) -> None:
    """Note that entries were written while the clock moves: it is not quiet yet.

    Args:
        awaited: complaints that will come of it, less those that have come.
    """
    await tx.execute(NOTE_WRITTEN, tenant_id, written, awaited)


async def is_awaiting(tx: Tx, tenant_id: UUID, operation_id: UUID, patience: float) -> bool:
    """Whether complaints that effects have created are still on their way, for at most `patience` seconds since sla settled."""
    found: bool | None = await tx.fetchval(IS_AWAITING, tenant_id, operation_id, patience)
    return bool(found)


async def next_round(tx: Tx, tenant_id: UUID, operation_id: UUID, round_id: UUID) -> None:
    await tx.execute(NEXT_ROUND, tenant_id, operation_id, round_id)


async def finish_operation(tx: Tx, tenant_id: UUID, operation_id: UUID) -> None:
    await tx.execute(FINISH_OPERATION, tenant_id, operation_id)


async def due_live(tx: Tx, limit: int, share: int) -> list[Due]:
    """Return cases of live tenants that have changed by themselves up to the last tick.

    Args:
        share: when there are more than `limit`, so many of each tenant come before anybody's others; what is left goes by time.
    """
    longest = [Due(**dict(row)) for row in await tx.fetch(DUE_LIVE, limit)]
    if len(longest) < limit:
        return longest
    shared = [Due(**dict(row)) for row in await tx.fetch(DUE_OF_EACH, share, limit)]
    return list(dict.fromkeys([*shared, *longest]))[:limit]


async def due_sandbox(tx: Tx, tenant_id: UUID, until: datetime, limit: int) -> list[Due]:
    rows = await tx.fetch(DUE_SANDBOX, tenant_id, until, limit)
    return [Due(tenant_id=tenant_id, case_id=row["case_id"], wake_at=row["wake_at"]) for row in rows]


async def sandboxes_due(tx: Tx) -> list[UUID]:
    """Return sandboxes with cases that have changed by themselves up to their clock, or up to where it is going."""
    return [row["tenant_id"] for row in await tx.fetch(SANDBOXES_DUE)]


async def running_operations(tx: Tx) -> list[tuple[UUID, UUID]]:
    """Return (tenant, round) of those that only wait for this service."""
    return [(row["tenant_id"], row["round_id"]) for row in await tx.fetch(RUNNING_OPERATIONS)]


async def postpone(tx: Tx, tenant_id: UUID, case_id: UUID, seconds: float) -> None:
    """Look at the case again later: it could not be folded."""
    await tx.execute(POSTPONE, tenant_id, case_id, seconds)


def _operation(row: Record) -> Operation:
    return Operation(**dict(row))

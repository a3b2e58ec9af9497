"""Publications that reach open cases, as jobs."""

from __future__ import annotations

from uuid import UUID

import msgspec

from shared.database import Tx

ADD = """
INSERT INTO move (tenant_id, move_id, cause, policy_version, effect, calendar, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING"""

OPEN = """
SELECT DISTINCT ON (tenant_id) tenant_id, move_id
  FROM move
 WHERE done_at IS NULL
 ORDER BY tenant_id, created_at, move_id
 LIMIT $1"""

LOCK = """
SELECT move_id, cause, policy_version, effect, calendar, revision, after_case
  FROM move
 WHERE tenant_id = $1 AND move_id = $2 AND done_at IS NULL
   FOR UPDATE SKIP LOCKED"""

ADVANCE = """
UPDATE move
   SET after_case = $3, looked_at = looked_at + $4, moved = moved + $5
 WHERE tenant_id = $1 AND move_id = $2"""

FINISH = """
UPDATE move SET done_at = clock_timestamp() WHERE tenant_id = $1 AND move_id = $2"""

TENANTS = """
SELECT tenant_id, sandbox FROM tenant WHERE active"""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    move_id: UUID
    cause: str
    policy_version: int | None
    effect: str | None
    calendar: str | None
    revision: int | None
    after_case: UUID


async def add_policy(tx: Tx, tenant_id: UUID, move_id: UUID, policy_version: int, effect: str) -> None:
    await tx.execute(ADD, tenant_id, move_id, "policy", policy_version, effect, None, None)


async def add_calendar(tx: Tx, tenant_id: UUID, move_id: UUID, calendar: str, revision: int) -> None:
    await tx.execute(ADD, tenant_id, move_id, "calendar", None, None, calendar, revision)


async def open_moves(tx: Tx, limit: int) -> list[tuple[UUID, UUID]]:
    """Return (tenant, move): the oldest open one of each tenant."""
    return [(row["tenant_id"], row["move_id"]) for row in await tx.fetch(OPEN, limit)]


async def lock(tx: Tx, tenant_id: UUID, move_id: UUID) -> Move | None:
    """Return the move for this transaction alone; None when it is done or another replica has it."""
    row = await tx.fetchrow(LOCK, tenant_id, move_id)
    return None if row is None else Move(**dict(row))


async def advance(tx: Tx, tenant_id: UUID, move_id: UUID, after: UUID, looked_at: int, moved: int) -> None:
    await tx.execute(ADVANCE, tenant_id, move_id, after, looked_at, moved)


async def finish(tx: Tx, tenant_id: UUID, move_id: UUID) -> None:
    await tx.execute(FINISH, tenant_id, move_id)


async def tenants(tx: Tx) -> list[tuple[UUID, bool]]:
    """Return every active tenant and whether it is a sandbox."""
    return [(row["tenant_id"], row["sandbox"]) for row in await tx.fetch(TENANTS)]

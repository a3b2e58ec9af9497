"""How long complaints take from being stored to being assigned, by the database's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from tests.chaos.frame import World, until

TAKEN: Final = """
SELECT (extract(epoch FROM c.stored_at - i.stored_at) * 1000)::float8 AS ms
  FROM intake.complaint i
  JOIN routing."case" c ON c.tenant_id = i.tenant_id AND c.case_id = i.complaint_id
 WHERE i.complaint_id = ANY ($1)
 ORDER BY 1"""


async def percentiles(world: World, ids: Sequence[UUID]) -> dict[str, float]:
    """p50 and p99 in milliseconds, once all of them are assigned."""
    connection = await asyncpg.connect(world.stack.local.superuser_dsn)
    try:

        async def all_assigned() -> bool:
            known = await connection.fetchval('SELECT count(*) FROM routing."case" WHERE case_id = ANY ($1)', list(ids))
            return bool(known == len(ids))

        await until(all_assigned, 30.0, f"{len(ids)} complaints are assigned")
        times = [row["ms"] for row in await connection.fetch(TAKEN, list(ids))]
    finally:
        await connection.close()
    if not times:
        return {"complaints": 0, "p50_ms": 0.0, "p99_ms": 0.0}
    return {
        "complaints": len(times),
        "p50_ms": round(statistics.median(times), 1),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 1),
    }

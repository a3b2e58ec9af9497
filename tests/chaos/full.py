"""The disk of NATS, or of PostgreSQL, is full for a while; afterwards everything goes on without anybody's hand."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

import asyncpg

from tests.chaos.disks import lacking, on_own_disk
from tests.chaos.frame import CaseFailedError, World, until
from tests.chaos.load import Load

FULL_SECONDS: Final = 5.0
DRAINED_SECONDS: Final = 60.0

UNPUBLISHED: Final = " UNION ALL ".join(
    f"SELECT count(*) AS n FROM {service}.outbox WHERE published_at IS NULL AND created_at < $1"
    for service in ("intake", "routing", "sla", "notify", "reporting")
)


class DiskFull:
    place: Final = "stack"

    def __init__(self, unit: Literal["nats", "postgres"]) -> None:
        self._unit = unit
        self.name = f"disk of {unit} full"

    def needs(self) -> str:
        return lacking()

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=world.size.modest_rate)
        async with on_own_disk(world, self._unit) as (_, disk), load.running():
            await asyncio.sleep(2.0)
            before = load.counts["stored"]
            disk.fill()
            await asyncio.sleep(FULL_SECONDS)
            during = load.counts["stored"] - before
            disk.free()
            if self._unit == "nats" and not during:
                raise CaseFailedError("nothing was stored while the disk of NATS was full")
            drained = await self._drained(world)
        return {**load.figures, "stored_while_full": during, "drained_after_seconds": drained}

    @staticmethod
    async def _drained(world: World) -> float:
        """How long it took until all that waited has been published."""
        loop = asyncio.get_running_loop()
        freed = loop.time()

        async def is_drained() -> bool:
            try:
                connection = await asyncpg.connect(world.stack.local.superuser_dsn, timeout=2)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                return False
            try:
                rows = await connection.fetch(
                    f"SELECT sum(n)::int AS n FROM ({UNPUBLISHED}) AS every",
                    await connection.fetchval("SELECT clock_timestamp() - interval '3 seconds'"),
                )
            finally:
                await connection.close()
            return not rows[0]["n"]

        await until(is_drained, DRAINED_SECONDS, "everything that waited for room has been published")
        return round(loop.time() - freed, 1)

"""The power goes under NATS, or under PostgreSQL: what was confirmed is on the disk, or is made good."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from tests.chaos.disks import cut_power, lacking, on_own_disk
from tests.chaos.frame import CaseFailedError, World
from tests.chaos.load import Load


class PowerCuts:
    place: Final = "stack"

    def __init__(self, unit: Literal["nats", "postgres"]) -> None:
        self._unit = unit
        self.name = f"power cuts of {unit}"

    def needs(self) -> str:
        return lacking()

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=world.size.modest_rate)
        lost = 0
        async with on_own_disk(world, self._unit) as (unit, disk), load.running():
            for _ in range(world.size.power_cuts):
                await asyncio.sleep(world.chance.uniform(2.0, 4.0))
                lost += await cut_power(world, unit, disk)
        if not lost:
            raise CaseFailedError("the cuts lost nothing at all, so they were none")
        return {**load.figures, "cuts": world.size.power_cuts, "cuts_that_lost_what_was_not_synced": lost}

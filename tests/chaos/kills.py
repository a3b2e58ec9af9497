"""Ninety seconds of load, with kills and freezes of the five services, NATS and PostgreSQL all the while."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from tests.chaos.faults import UNITS, back, strike
from tests.chaos.frame import CaseFailedError, World
from tests.chaos.load import Load


class Kills:
    name = "kills and freezes"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        size, chance, stack = world.size, world.chance, world.stack
        load, struck = Load(world), Counter[str]()
        began = time.monotonic()
        async with load.running():
            queue: list[str] = []
            while struck.total() < size.kills or time.monotonic() - began < size.load_seconds:
                if struck.total() < size.kills:
                    if not queue:  # each as often as the others, in another order every time
                        queue = chance.sample(UNITS, len(UNITS))
                    targets = [queue.pop() for _ in range(min(len(queue), 2 if chance.random() < 0.3 else 1))]
                    await asyncio.gather(*(strike(stack, name, chance, struck) for name in targets))
                    for name in targets:
                        await back(stack, name)
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                if time.monotonic() - began > size.load_seconds * 2 + 60:
                    raise CaseFailedError(f"only {struck.total()} of {size.kills} faults fitted into the time")
        return {**load.figures, **dict(sorted(struck.items())), "faults": struck.total()}

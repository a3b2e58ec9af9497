"""Ninety seconds of load, with kills and freezes of the five services, NATS and PostgreSQL all the while."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, Final

from tests.chaos.faults import UNITS, back, strike
from tests.chaos.frame import CaseFailedError, World, together
from tests.chaos.load import Load
from tests.chaos.speed import machine_speed

SPREAD: Final = 0.95
"""Over so much of the load are the faults spread, where they take no longer."""


class Kills:
    name: Final = "kills and freezes"
    place: Final = "stack"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        asked = world.size.rate * machine_speed()
        load, struck = Load(world, rate=asked), Counter[str]()
        began = time.monotonic()
        async with load.running():
            round_ = _Round(world, struck, began)
            await together(round_.strike_on() for _ in range(world.size.strikers))
        return {
            "asked_per_second": round(asked, 1),
            **load.figures,
            **dict(sorted(struck.items())),
            "faults": struck.total(),
        }


class _Round:
    """Strikes each unit as often as the others, in another order every time, for as long as there is load."""

    def __init__(self, world: World, struck: Counter[str], began: float) -> None:
        self._world = world
        self._struck = struck
        self._began = began
        self._queue: list[str] = []
        self._busy: set[str] = set()

    async def strike_on(self) -> None:
        """One of those who strike: now and then at two units at once."""
        size, chance = self._world.size, self._world.chance
        while (passed := time.monotonic() - self._began) < size.load_seconds or self._struck.total() < size.kills:
            if passed > size.load_seconds * 2 + 60:
                raise CaseFailedError(f"only {self._struck.total()} of {size.kills} faults fitted into the time")
            if self._struck.total() < size.kills:
                await together(map(self._strike, self._targets(2 if chance.random() < 0.3 else 1)))
            ahead = size.load_seconds * SPREAD * self._struck.total() / size.kills - passed
            await asyncio.sleep(max(chance.uniform(0.2, 1.0), ahead))

    def _targets(self, number: int) -> list[str]:
        if len(self._queue) < number:
            self._queue += self._world.chance.sample(UNITS, len(UNITS))
        free = [name for name in dict.fromkeys(self._queue) if name not in self._busy][:number]
        for name in free:
            self._queue.remove(name)
        return free

    async def _strike(self, name: str) -> None:
        self._busy.add(name)
        try:
            await strike(self._world.stack, name, self._world.chance, self._struck)
            await back(self._world.stack, name)
        finally:
            self._busy.discard(name)

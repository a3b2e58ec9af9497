"""Every named fail point: a service that comes by it ends there, without any cleaning up, and goes on when it is started again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from services.supervisor import ServiceProcess
from shared.embedded.errors import LocalStackError
from shared.fail_points import EXIT_CODE, POINTS
from tests.chaos.faults import back
from tests.chaos.frame import CaseFailedError, World
from tests.chaos.load import Load
from tests.chaos.poison import Poisoner

VARIABLE: Final = "RECOURSE_FAIL_POINT"
REACH_SECONDS: Final = 90.0  # a clock of the complaints takes sixty
BREATH_SECONDS: Final = 3.0
"""So long does a service work between two ends, where it has several at each place: who comes again for a minute is to get an answer."""
RATE: Final = 12.0

PLACES: Final[dict[str, tuple[str, ...]]] = {
    "intake": (
        "api.begun",
        "api.commit",
        "api.committed",
        "intake.stored",
        "intake.kept",
        "relay.picked",
        "relay.leads",
    ),
    "routing": (
        "idempotency.stored",
        "routing.written",
        "routing.ticked",
        "consumer.taken",
        "relay.published",
        "consumer.acknowledged",
    ),
    "sla": (
        "sla.entered",
        "sla.claimed",
        "sla.folded",
        "sla.told",
        "consumer.handled",
        "worker.commit",
        "worker.committed",
        "relay.marked",
    ),
    "notify": (
        "notify.stored",
        "notify.claimed",
        "notify.attempted",
        "notify.called",
        "notify.recorded",
        "consumer.claimed",
        "relay.repaired",
    ),
    "reporting": ("reporting.claimed", "reporting.stored", "consumer.applied"),
}
"""Which service ends where. With `BURYING` they are all points there are; a test sees to it."""

BURYING: Final = ("reporting", "consumer.buried")
"""Needs something to bury, which all that hear it must have buried before anybody is judged: so it comes last, alone."""

ONCE: Final = frozenset(("relay.leads", "relay.repaired"))
"""Places that a process comes by once in its life, unless a connection breaks."""


class FailPoints:
    name: Final = "fail points"
    place: Final = "stack"

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}  # until each was reached

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=RATE)
        visited: list[str] = []
        async with load.running():
            for failure in await asyncio.gather(
                *(self._of(world, service, visited) for service in PLACES),
                return_exceptions=True,  # each sees to its service until it is done with it
            ):
                if failure is not None:
                    raise failure
            visited.append(await self._bury(world))
        if set(visited) != POINTS:
            raise CaseFailedError(f"never reached: {', '.join(sorted(POINTS - set(visited)))}")
        slowest = dict(sorted(self._seconds.items(), key=lambda each: -each[1])[:5])
        return {**load.figures, "points": len(POINTS), "crashes": len(visited), "slowest_to_reach": slowest}

    async def _of(self, world: World, service: str, visited: list[str]) -> None:
        """Send one service through its points, one after the other."""
        unit = world.stack.supervisor.unit(service)
        assert isinstance(unit, ServiceProcess)
        points = list(PLACES[service])
        world.chance.shuffle(points)
        try:
            with world.stack.supervisor.held(service):
                for point in points:
                    for visit in world.size.visits[:1] if point in ONCE else world.size.visits:
                        await self._crash(unit, f"{point}:{visit}")
                        visited.append(point)
                        if len(world.size.visits) > 1:
                            await self._arm(unit, "")
                            await asyncio.sleep(BREATH_SECONDS)
        finally:
            unit.environment.pop(VARIABLE, None)
            if unit.is_running():  # it has not come by, and would yet, in the midst of another case
                await unit.kill()
        await back(world.stack, service)

    async def _crash(self, unit: ServiceProcess, setting: str) -> None:
        began = time.monotonic()
        await self._arm(unit, setting)
        await self._ended(unit, REACH_SECONDS)
        self._judge(unit, setting)
        self._seconds[setting.partition(":")[0]] = round(time.monotonic() - began, 1)

    @staticmethod
    async def _arm(unit: ServiceProcess, setting: str) -> None:
        await unit.kill()
        unit.environment[VARIABLE] = setting
        with contextlib.suppress(LocalStackError):  # it ended before it answered: the place is on the way to that
            await unit.start()

    async def _bury(self, world: World) -> str:
        """Have a service end between burying a message and having it forgotten."""
        service, point = BURYING
        unit = world.stack.supervisor.unit(service)
        assert isinstance(unit, ServiceProcess)
        async with Poisoner(world) as poisoner:
            with world.stack.supervisor.held(service):
                await self._arm(unit, f"{point}:1")
                await poisoner.publish_garbage("routing", "entry.appended")
                await self._ended(unit, REACH_SECONDS)
                self._judge(unit, point)
                unit.environment.pop(VARIABLE, None)
            await back(world.stack, service)
            await poisoner.clear("sla", "notify", "reporting")
        return point

    @staticmethod
    async def _ended(unit: ServiceProcess, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(unit.wait(), seconds)

    @staticmethod
    def _judge(unit: ServiceProcess, setting: str) -> None:
        if unit.is_running():
            raise CaseFailedError(f"{unit.name} has not come by {setting} within {REACH_SECONDS:.0f} s")
        if unit.last_words() != f"exit code {EXIT_CODE}":
            raise CaseFailedError(f"{unit.name} ended by itself instead of at {setting}: {unit.last_words()}")

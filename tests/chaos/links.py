"""The wires between the services and their servers are cut, go dead, and grow slow.

For this case the services reach PostgreSQL and NATS through relays of bytes in this process, which do to a connection what a
broken network does: end it, keep it open and let nothing through, or hold everything back for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, Self

import httpx

from services.supervisor import ServiceProcess
from shared.embedded.access import SERVICES
from shared.embedded.processes import LOOPBACK, free_port
from tests.chaos.faults import back
from tests.chaos.frame import CaseFailedError, World, together
from tests.chaos.load import Load
from tests.chaos.speed import machine_speed

SLOW_SECONDS: Final = 5.0
DEADLINES: Final = 2 * 3.0 + 1.0
"""Two statements at their deadline, and a second for the rest; one more is this machine's, or more where it is a slower one."""
CUTS: Final = 4


class Wire:
    """Everything that goes from one port of ours to a server's."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self.port = free_port()
        self._target = target
        self._chance = chance
        self._through = asyncio.Event()
        self._through.set()
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    @contextlib.contextmanager
    def dead(self) -> Iterator[None]:
        """Connections stay open, new ones are taken, and nothing gets through."""
        self._through.clear()
        try:
            yield
        finally:
            self._through.set()

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, far_writer):
            each.transport.abort()
        self._writers -= {writer, far_writer}
        await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._through.wait()
                if self._delay:
                    await asyncio.sleep(self._delay * self._chance.uniform(0.5, 1.5))
                writer.write(data)
                await writer.drain()


class Links:
    name: Final = "connections broken"
    place: Final = "stack"

    def __init__(self) -> None:
        self._speed = 1.0

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        local = world.stack.local
        self._speed = machine_speed()
        async with (
            Wire(local.postgres.port, world.chance) as database,
            Wire(local.nats.port, world.chance) as broker,
            self._rewired(world, database, broker),
        ):
            load = Load(world, rate=world.size.modest_rate)
            async with load.running():
                figures = await self._break(world, load, database, broker)
        return {**load.figures, **figures}

    async def _break(self, world: World, load: Load, database: Wire, broker: Wire) -> dict[str, Any]:
        for _ in range(CUTS):
            await asyncio.sleep(world.chance.uniform(0.5, 1.0))
            world.chance.choice((database, broker)).cut()
        await asyncio.sleep(1.0)
        before = load.counts["stored"]
        with broker.dead():
            await asyncio.sleep(world.size.dead_seconds)
        without_nats = load.counts["stored"] - before
        if not without_nats:
            raise CaseFailedError("nothing was stored while NATS could not be reached")
        await asyncio.sleep(1.0)
        answers: list[tuple[int, float]] = []
        with database.dead():
            await together(self._ask(world, answers, number * 0.2) for number in range(10))
        slowest = max(seconds for _, seconds in answers)
        if slowest > DEADLINES + 1.0 / self._speed:
            raise CaseFailedError(f"a request waited {slowest:.1f} s for a database that was away")
        await asyncio.sleep(1.0)
        with database.slow(0.05), broker.slow(0.2):
            await asyncio.sleep(SLOW_SECONDS)
        return {"stored_without_nats": without_nats, "slowest_answer_without_database_seconds": round(slowest, 1)}

    @staticmethod
    async def _ask(world: World, answers: list[tuple[int, float]], after: float) -> None:
        """A request that needs the database: it must be answered soon, and say when to come again."""
        await asyncio.sleep(after)
        path = ("/v1/cases?limit=1", "/v1/policies")[len(answers) % 2]
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=world.stack.url, timeout=30, trust_env=False) as http:
            answer = await http.get(path, headers={"Authorization": f"Bearer {world.tenants[0].admin_key}"})
        answers.append((answer.status_code, time.monotonic() - began))
        if answer.status_code != 503 or "retry-after" not in answer.headers:
            raise CaseFailedError(f"without a database {path} was answered {answer.status_code}")

    @contextlib.asynccontextmanager
    async def _rewired(self, world: World, database: Wire, broker: Wire) -> AsyncIterator[None]:
        """Start the services anew on other addresses, and again on the usual ones afterwards."""
        local = world.stack.local
        through = {
            "RECOURSE_DATABASE_URL": local.postgres.address_of("recourse").replace(
                f":{local.postgres.port}/", f":{database.port}/"
            ),
            "RECOURSE_NATS_URL": f"nats://{LOOPBACK}:{broker.port}",
        }
        usual: dict[str, dict[str, str]] = {}
        units = [unit for name in SERVICES if isinstance(unit := world.stack.supervisor.unit(name), ServiceProcess)]
        try:
            for unit in units:
                usual[unit.name] = {name: unit.environment[name] for name in through}
                unit.environment.update(through)
            await self._restart(world, units)
            yield
        finally:
            for unit in units:
                unit.environment.update(usual.get(unit.name, {}))
            await self._restart(world, units)

    @staticmethod
    async def _restart(world: World, units: list[ServiceProcess]) -> None:
        async def one(unit: ServiceProcess) -> None:
            with world.stack.supervisor.held(unit.name):
                await unit.stop()
                await unit.start()
            await back(world.stack, unit.name)

        await together(map(one, units))
        await world.stack.supervisor.wait_ready()

"""Wall clocks jump, forth and back, by an hour, each service's by minutes of its own: nothing fires early, nothing fires twice.

PostgreSQL and the services get a small library before their own that moves what they are told of the time. NATS is linked
statically and keeps the right time; nothing depends on it. Signatures are compared with somebody else's clock, so intake and
notify stay within minutes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg

from services.supervisor import ServiceProcess
from shared.embedded.access import SERVICES
from tests.chaos.faults import back
from tests.chaos.frame import CaseFailedError, World, together
from tests.chaos.load import Load

SOURCE: Final = Path(__file__).with_name("clock.c")
HOUR: Final = 3600.0
JITTER: Final = 240.0
BETWEEN_SECONDS: Final = 4.0

# sla's now is the last tick: nothing may be announced for an instant that neither a tick nor a line of the case has come to.
EARLY: Final = """
SELECT count(*)
  FROM sla.announcement a
 WHERE a.at > (SELECT max(at) FROM sla.tick WHERE tenant_id = '00000000-0000-0000-0000-000000000000')
   AND a.at > (SELECT max((e.entry ->> 'at')::timestamptz) FROM sla.timeline_entry e
                WHERE e.tenant_id = a.tenant_id AND e.case_id = a.case_id)"""

TWICE: Final = """
SELECT count(*) FROM (SELECT FROM sla.announcement GROUP BY tenant_id, case_id, rule, kind, at, addressee HAVING count(*) > 1) AS every"""

MADE: Final = "SELECT count(*) FROM sla.announcement"


@functools.cache
def compiler() -> str:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""


class Watches:
    """What time it is for whom."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.chmod(0o755)  # PostgreSQL may run as somebody else
        self._library = folder / "clock.so"
        command = [compiler(), "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True)

    def of(self, name: str) -> dict[str, str]:
        """The variables by which a process gets its watch."""
        self.set(name, 0.0)
        return {"LD_PRELOAD": str(self._library), "RECOURSE_CHAOS_CLOCK": str(self._folder / name)}

    def set(self, name: str, seconds: float) -> None:
        """Move a watch, at once, for whoever looks at it."""
        place = self._folder / name
        with place.open("r+b" if place.exists() else "w+b") as file:
            file.write(struct.pack("q", int(seconds * 1e9)))


class Clocks:
    """The last case of a run: time does not go back, so after a jump forth and back it stands still for an hour."""

    name: Final = "clocks jump"
    place: Final = "stack"

    def needs(self) -> str:
        return "" if compiler() else "a C compiler, for the library that moves a clock"

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=world.size.modest_rate / 2)
        with tempfile.TemporaryDirectory(prefix="recourse-clock-") as place:
            watches = Watches(Path(place))
            async with self._worn(world, watches):
                async with load.running():
                    moved = await self._jump(world, watches)
                twice = await self._ask(world, TWICE)
        if twice:
            raise CaseFailedError(f"{twice} announcements were made twice")
        return {**load.figures, "jumps": moved}

    async def _jump(self, world: World, watches: Watches) -> list[str]:
        """First back and to the right time again, then forth: what has come due by a jump may fire, once."""
        chance, moved = world.chance, []
        await asyncio.sleep(BETWEEN_SECONDS)
        for number in range(world.size.clock_jumps):
            hours = (-1.0, 0.0, 1.0)[number % 3] if number < world.size.clock_jumps - 1 else 1.0
            before = await self._ask(world, MADE)
            watches.set("postgres", hours * HOUR)
            for name in SERVICES:
                far = 0.0 if name in ("intake", "notify") else hours * HOUR
                watches.set(name, far + chance.uniform(-JITTER, JITTER))
            for look in range(int(BETWEEN_SECONDS)):
                await asyncio.sleep(1.0)
                if early := await self._ask(world, EARLY):
                    raise CaseFailedError(f"{early} announcements were made before their time")
                if not look and hours < 0 and (made := await self._ask(world, MADE) - before) > 50:
                    raise CaseFailedError(f"{made} announcements were made when the clock was set back")
            moved.append(f"{hours:+.0f} h")
        return moved

    @staticmethod
    async def _ask(world: World, query: str) -> int:
        connection = await asyncpg.connect(world.stack.local.superuser_dsn)
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def _worn(self, world: World, watches: Watches) -> AsyncIterator[None]:
        """Start PostgreSQL and the services anew with a watch of their own each. They keep it: nobody runs after this case."""
        supervisor = world.stack.supervisor
        with supervisor.held("postgres") as postgres:
            await postgres.stop()
            variables = watches.of("postgres")
            os.environ.update(variables)
            try:
                await postgres.start()
            finally:
                for name in variables:
                    del os.environ[name]
        units = [unit for name in SERVICES if isinstance(unit := supervisor.unit(name), ServiceProcess)]

        async def restart(unit: ServiceProcess) -> None:
            with supervisor.held(unit.name):
                await unit.stop()
                unit.environment.update(watches.of(unit.name))
                await unit.start()
            await back(world.stack, unit.name)

        await together(map(restart, units))
        await supervisor.wait_ready()
        yield

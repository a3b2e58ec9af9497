"""NATS loses its storage altogether, or is set back to an older copy of it; PostgreSQL is the record, and fills it again."""

from __future__ import annotations

import asyncio
import shutil
from typing import Any, Final

from shared.embedded.nats import NatsServer
from tests.chaos.faults import back
from tests.chaos.frame import World, until
from tests.chaos.load import PATIENCE_SECONDS, Load


class StreamsLost:
    name: Final = "streams deleted"
    place: Final = "stack"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=world.size.modest_rate)
        async with load.running():
            for _ in range(world.size.stream_losses):
                await _told_meanwhile(load, 3.0)
                with world.stack.supervisor.held("nats") as unit:
                    assert isinstance(unit, NatsServer)
                    await unit.kill()
                    unit.delete_store()
                await back(world.stack, "nats")
                await asyncio.sleep(2.0)
        return {**load.figures, "losses": world.size.stream_losses}


class StreamsOlder:
    name: Final = "streams set back"
    place: Final = "stack"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        load = Load(world, rate=world.size.modest_rate)
        async with load.running():
            for _ in range(world.size.stream_losses):
                await self._set_back(world, load)
        return {**load.figures, "times": world.size.stream_losses}

    async def _set_back(self, world: World, load: Load) -> None:
        older = world.stack.local.folder / "nats.older"
        try:
            with world.stack.supervisor.held("nats") as unit:
                assert isinstance(unit, NatsServer)
                await unit.kill()
                await asyncio.to_thread(shutil.copytree, unit.store, older)
                await unit.start()
            await _told_meanwhile(load, 4.0)
            with world.stack.supervisor.held("nats") as unit:
                assert isinstance(unit, NatsServer)
                await unit.kill()
                unit.delete_store()
                await asyncio.to_thread(shutil.copytree, older, unit.store)
                await unit.start()
            await asyncio.sleep(2.0)
        finally:
            shutil.rmtree(older, ignore_errors=True)


async def _told_meanwhile(load: Load, seconds: float) -> None:
    """Let something be told that is going to be lost; a loss of nothing would prove nothing."""
    before = load.counts["stored"]

    async def is_told() -> bool:
        return load.counts["stored"] > before

    await asyncio.sleep(seconds)
    await until(is_told, PATIENCE_SECONDS, "something is stored, which can be lost")

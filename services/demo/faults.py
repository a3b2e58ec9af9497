"""What goes wrong during the load, on purpose: each service, NATS and PostgreSQL are killed once, and NATS loses its disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from services.stack import Stack
from shared.embedded.nats import NatsServer

BETWEEN_SECONDS = 0.4


async def strike(stack: Stack, tell: Callable[[str], None]) -> list[str]:
    """Kill everything once, one after the other, and return what was struck. The supervisor starts it all again."""
    struck: list[str] = []
    for name in ("intake", "notify", "postgres", "routing", "nats", "sla", "reporting"):
        unit = stack.supervisor.unit(name)
        if name == "nats":
            with stack.supervisor.held(name):
                await unit.kill()
                assert isinstance(unit, NatsServer)
                unit.delete_store()
            struck.append("nats and its data")
        else:
            await unit.kill()
            struck.append(name)
        tell(f"killed {struck[-1]}")
        await _back(stack, name)
        await asyncio.sleep(BETWEEN_SECONDS)
    return struck


async def _back(stack: Stack, name: str, seconds: float = 30.0) -> None:
    """Wait until a unit runs again, so that each fault strikes a system that is otherwise whole."""
    unit = stack.supervisor.unit(name)
    async with asyncio.timeout(seconds):
        while not (unit.is_running() and await unit.is_healthy()):  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(0.05)

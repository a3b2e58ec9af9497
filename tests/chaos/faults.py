"""Kills and freezes of processes that the stack has started, by their process ids."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Final

from services.stack import Stack
from services.supervisor import Unit

UNITS: Final = ("intake", "routing", "sla", "notify", "reporting", "nats", "postgres")
BACK_SECONDS: Final = 40.0


def family(pid: int) -> list[int]:
    """A process and its children: PostgreSQL is a process for each session."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]
    return [pid]


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def freeze(unit: Unit, seconds: float) -> None:
    """Stop a process with all its children for a while: connections stay open and nothing answers."""
    frozen = family(unit.pid)
    send(frozen, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        send(frozen, signal.SIGCONT)


async def back(stack: Stack, name: str, seconds: float = BACK_SECONDS) -> None:
    """Wait until a unit runs again and answers."""
    unit = stack.supervisor.unit(name)
    end = time.monotonic() + seconds
    while not (unit.is_running() and await unit.is_healthy()):
        if time.monotonic() > end:
            raise TimeoutError(f"{name} has not come back within {seconds:.0f} s")
        await asyncio.sleep(0.05)


async def restart_soon(stack: Stack, name: str, pause: float = 0.0) -> None:
    """Kill a unit and start it again ourselves, without the growing pauses that a supervisor makes."""
    with stack.supervisor.held(name) as unit:
        await unit.kill()
        await asyncio.sleep(pause)
        await unit.stop()
        await unit.start()


async def strike(stack: Stack, name: str, chance: random.Random, done: Counter[str]) -> None:
    """One fault at one unit: a kill mostly, else a freeze."""
    unit = stack.supervisor.unit(name)
    if chance.random() < 0.7:
        await restart_soon(stack, name, chance.uniform(0.0, 0.3))
        done[f"{name} killed"] += 1
    else:
        with stack.supervisor.held(name):  # or the supervisor would take the frozen for dead
            await freeze(unit, chance.uniform(1.0, 5.0))
        done[f"{name} frozen"] += 1

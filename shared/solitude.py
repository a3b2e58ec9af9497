"""Who handles messages in this process: any number of groups at a time, or one suspect with nothing else in hand.

A message that was in hand when its process ended may have been what ended it. It is found out alone: what dies then, has nobody
else to blame. The room is the process's, whatever consumers and services run in it, since they die together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary


class Room:
    """Those who wait are let in as they came, so neither groups nor suspects wait for ever."""

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._groups = 0
        self._left = asyncio.Event()

    @asynccontextmanager
    async def among_others(self) -> AsyncIterator[None]:
        """Hold the room together with other groups."""
        async with self._door:
            self._groups += 1
        try:
            yield
        finally:
            self._groups -= 1
            self._left.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the room with nobody else in it, as soon as those inside have left."""
        async with self._door:
            while self._groups:
                self._left.clear()
                await self._left.wait()
            yield


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, Room] = WeakKeyDictionary()


def room() -> Room:
    """The room of this process, which has one event loop."""
    return _rooms.setdefault(asyncio.get_running_loop(), Room())

"""Waiting for what another task or process does.

A machine that is shared may stand still for seconds, so a wait is patient, and a test never asserts how long something took:
what would take for ever, or come too late by a minute, is what it tells apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

PATIENCE = 90.0
"""Seconds after which what has not come about is not coming."""


async def until(condition: Callable[[], Any | Awaitable[Any]]) -> Any:
    """Wait for a condition, and return what it gives once that is true; TimeoutError when it stays false."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)

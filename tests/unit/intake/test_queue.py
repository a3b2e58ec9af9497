"""Who waits to be stored: those who come together go together, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from services.intake.storing import Offer, Outcome, _Queue, _Waiting
from shared.errors import UnavailableError

HOURS = 3_600.0


def _entry(seconds: float = HOURS) -> _Waiting:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()
    return _Waiting(cast(Offer, None), done, loop.time() + seconds)


async def _turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_one_who_is_alone_waits_for_nobody() -> None:
    queue = _Queue()
    queue.add(_entry())
    queue.expected = 1
    await asyncio.wait_for(queue.gather(64), 30)


async def test_a_transaction_waits_for_as_many_as_came_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.intake.storing._TOGETHER_SECONDS", HOURS)
    queue = _Queue()
    queue.expected = 3
    queue.add(_entry())
    gathering = asyncio.create_task(queue.gather(64))
    await _turns()
    queue.add(_entry())
    await _turns()
    assert not gathering.done()
    queue.add(_entry())
    await asyncio.wait_for(gathering, 30)
    assert len(queue.waiting) == 3


async def test_it_waits_for_no_more_than_fit_and_no_longer_than_a_moment() -> None:
    queue = _Queue()
    queue.expected = 1_000
    queue.add(_entry())
    await asyncio.wait_for(queue.gather(1), 30)
    await asyncio.wait_for(queue.gather(64), 30)
    assert len(queue.waiting) == 1


async def test_everybody_is_answered_when_the_time_is_up_and_the_answered_are_forgotten() -> None:
    queue: Any = _Queue()
    entries = [_entry(0.01), _entry(0.02), _entry(HOURS)]
    for entry in entries:
        queue.add(entry)
    for entry in entries[:2]:
        with pytest.raises(UnavailableError):
            raise cast(BaseException, await asyncio.wait_for(entry.done, 30))
    assert not entries[2].done.done()
    entries[2].done.cancel()
    queue.add(_entry())
    assert len(queue._unanswered) == 1

"""Who waits to be stored: those who come together go together, tenants take turns, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from services.intake.gathering import Line, Waiting
from services.intake.storing import Outcome
from shared.errors import UnavailableError

HOURS = 3_600.0
SOMEBODY = uuid4()


def _entry(tenant_id: UUID = SOMEBODY, seconds: float = HOURS) -> Waiting:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()
    nothing = cast(Any, None)
    return Waiting(cast(Any, SimpleNamespace(tenant_id=tenant_id)), nothing, nothing, done, loop.time() + seconds)


def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TOGETHER_SECONDS", "_BESIDE_SECONDS"):
        monkeypatch.setattr(f"services.intake.gathering.{name}", HOURS)


def _came_together(line: Line, count: int) -> None:
    """Let the line know that so many were there when a transaction ended."""
    for _ in range(count):
        line.add(_entry())
    line.take(count)
    line.end(line.begin(count))


async def _turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_one_who_is_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    _patient(monkeypatch)
    line = Line(64, 2)
    line.add(_entry())
    await asyncio.wait_for(line.gather(), 30)


async def test_a_transaction_waits_for_as_many_as_came_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _patient(monkeypatch)
    line = Line(64, 2)
    _came_together(line, 3)
    line.add(_entry())
    gathering = asyncio.create_task(line.gather())
    await _turns()
    line.add(_entry())
    await _turns()
    assert not gathering.done()
    line.add(_entry())
    await asyncio.wait_for(gathering, 30)
    assert len(line) == 3


async def test_it_waits_for_no_more_than_fit_and_no_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(64, 1)
    _came_together(line, 1_000)
    line.add(_entry())
    await asyncio.wait_for(line.gather(), 30)
    _patient(monkeypatch)
    small = Line(1, 1)
    _came_together(small, 1_000)
    small.add(_entry())
    await asyncio.wait_for(small.gather(), 30)


async def test_many_go_in_two_halves_and_no_third_transaction_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    _patient(monkeypatch)
    line = Line(64, 2)
    _came_together(line, 32)
    for _ in range(16):
        line.add(_entry())
    for _ in range(16):
        line.add(_entry())
    assert await asyncio.wait_for(line.gather(), 30) == 16
    first = line.begin(len(line.take(16)))
    assert await asyncio.wait_for(line.gather(), 30) == 16
    line.begin(len(line.take(16)))
    for _ in range(16):
        line.add(_entry())
    gathering = asyncio.create_task(line.gather())
    await _turns()
    assert not gathering.done()
    line.end(first)  # 16 wait, 16 are under way, and 16 are expected to come again: that is two times 24
    await _turns()
    assert not gathering.done()
    for _ in range(8):
        line.add(_entry())
    assert await asyncio.wait_for(gathering, 30) == 24


async def test_tenants_take_turns() -> None:
    line = Line(64, 2)
    flood, quiet, other = uuid4(), uuid4(), uuid4()
    for _ in range(100):
        line.add(_entry(flood))
    line.add(_entry(quiet))
    line.add(_entry(other))
    taken = [entry.tenant.tenant_id for entry in line.take(5)]
    assert taken == [flood, quiet, other, flood, flood]
    line.add(_entry(quiet))
    assert [entry.tenant.tenant_id for entry in line.take(2)] == [flood, quiet]
    assert (line.of(flood), line.of(quiet), len(line)) == (96, 0, 96)


async def test_who_has_gone_is_not_taken() -> None:
    line = Line(64, 2)
    gone, there = _entry(), _entry()
    line.add(gone)
    line.add(there)
    gone.done.cancel()
    assert line.take(64) == [there]
    assert len(line) == 0


async def test_everybody_is_answered_when_the_time_is_up_and_the_answered_are_forgotten() -> None:
    line: Any = Line(64, 2)
    entries = [_entry(seconds=0.01), _entry(seconds=0.02), _entry()]
    for entry in entries:
        line.add(entry)
    for entry in entries[:2]:
        with pytest.raises(UnavailableError):
            raise cast(BaseException, await asyncio.wait_for(entry.done, 30))
    assert not entries[2].done.done()
    entries[2].done.cancel()
    line.add(_entry())
    assert len(line._unanswered) == 1

"""One suspect with nothing else in hand; groups beside one another; nobody waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from shared.solitude import Room, room


class Visit:
    """One visitor of the room, who stays until sent away."""

    def __init__(self, way: AbstractAsyncContextManager[None]) -> None:
        self._way = way
        self._end = asyncio.Event()
        self._inside = False
        self.task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        async with self._way:
            self._inside = True
            await self._end.wait()
        self._inside = False

    def is_inside(self) -> bool:
        return self._inside

    async def leave(self) -> None:
        self._end.set()
        await self.task


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_groups_are_inside_together_and_a_suspect_waits_until_all_have_left() -> None:
    place = Room()
    groups = [Visit(place.among_others()) for _ in range(2)]
    await turns()
    suspect = Visit(place.alone())
    await turns()
    assert [each.is_inside() for each in (*groups, suspect)] == [True, True, False]
    await groups[0].leave()
    await turns()
    assert not suspect.is_inside()
    await groups[1].leave()
    await turns()
    assert suspect.is_inside()
    await suspect.leave()


async def test_nobody_comes_in_while_a_suspect_is_alone() -> None:
    place = Room()
    suspect = Visit(place.alone())
    await turns()
    group, second = Visit(place.among_others()), Visit(place.alone())
    await turns()
    assert [each.is_inside() for each in (suspect, group, second)] == [True, False, False]
    await suspect.leave()
    await turns()
    assert [each.is_inside() for each in (group, second)] == [True, False]
    await group.leave()
    await turns()
    assert second.is_inside()
    await second.leave()


async def test_a_group_that_comes_while_a_suspect_waits_is_not_overtaken_by_further_suspects() -> None:
    place = Room()
    inside = Visit(place.among_others())
    await turns()
    first, late, second = Visit(place.alone()), Visit(place.among_others()), Visit(place.alone())
    await inside.leave()
    await turns()
    assert [each.is_inside() for each in (first, late, second)] == [True, False, False]
    await first.leave()
    await turns()
    assert [each.is_inside() for each in (late, second)] == [True, False]
    await late.leave()
    await turns()
    await second.leave()


async def test_who_is_cancelled_or_fails_leaves_the_room() -> None:
    place = Room()
    for way in (place.alone, place.among_others):
        visit = Visit(way())
        await turns()
        waiting = Visit(place.alone())
        await turns()
        waiting.task.cancel()
        visit.task.cancel()
        await asyncio.gather(visit.task, waiting.task, return_exceptions=True)
        after = Visit(place.alone())
        await turns()
        assert after.is_inside()
        await after.leave()


async def test_a_process_has_one_room() -> None:
    assert room() is room()

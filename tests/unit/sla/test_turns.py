"""How the cases that are due are shared out among tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest

from services.sla.loops import LEAST_BATCH, MOST_ROUNDS, RETRY_SECONDS, ROUND, Turn, WakeUps, share_of_round
from services.sla.repository import Advance
from services.sla.settings import SlaSettings
from tests.waiting import until


@pytest.mark.parametrize(("tenants", "share"), [(1, 200), (12, 200), (24, 100), (240, LEAST_BATCH)])
def test_a_round_does_not_grow_with_the_number_of_tenants_in_need(tenants: int, share: int) -> None:
    assert share_of_round(tenants, 200) == share
    assert tenants * share <= max(ROUND, tenants * LEAST_BATCH)


def test_a_batch_is_never_larger_than_the_setting_says() -> None:
    assert share_of_round(1, 5) == 5


NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ANNA, BERTA = UUID(int=1), UUID(int=2)


class Backlog(WakeUps):
    """The loop over backlogs of two tenants, given as numbers of batches; each of Berta's waits until it is let go."""

    def __init__(self, **batches: int) -> None:
        super().__init__(SimpleNamespace(settings=SlaSettings(service="sla", database_url="", nats_url="")))  # type: ignore[arg-type]
        self.left = {ANNA: batches.get("anna", 0), BERTA: batches.get("berta", 0)}
        self.taken: list[UUID] = []
        self.rounds = 0
        self.go_on = asyncio.Event()

    async def who_is_due(self) -> tuple[list[Turn], Sequence[Advance]]:
        self.rounds += 1
        return [Turn(tenant_id, NOW, 200) for tenant_id, left in self.left.items() if left], []

    async def batch(self, tenant_id: UUID, now: datetime, limit: int) -> bool:
        is_full = self.left[tenant_id] > 1
        self.left[tenant_id] = max(0, self.left[tenant_id] - 1)
        self.taken.append(tenant_id)
        if tenant_id == BERTA:
            await self.go_on.wait()
        return is_full


async def test_the_next_round_begins_while_the_last_batch_of_one_is_still_at_work() -> None:
    loop = Backlog(anna=4, berta=1)
    step = asyncio.create_task(loop.step())
    await until(lambda: _is(loop.left[ANNA] == 0))
    assert not step.done()
    loop.go_on.set()
    await step
    assert sorted(loop.taken) == [ANNA] * 4 + [BERTA]


async def test_tenants_take_turns_and_all_of_it_is_taken() -> None:
    loop = Backlog(anna=5, berta=3)
    loop.go_on.set()
    while await loop.step() == 0:
        pass
    assert loop.taken[:6] == [ANNA, BERTA] * 3
    assert loop.left == {ANNA: 0, BERTA: 0}


async def test_a_long_backlog_is_told_of_now_and_then() -> None:
    loop = Backlog(anna=10**6, berta=10**6)
    loop.go_on.set()
    assert await loop.step() == 0
    assert loop.rounds == MOST_ROUNDS


async def test_what_waits_for_something_is_not_taken_again_at_once() -> None:
    loop = Backlog(anna=100, berta=100)
    loop.go_on.set()
    taking = loop.batch

    async def without_policy(tenant_id: UUID, now: datetime, limit: int) -> bool:
        loop.waiting = True
        return await taking(tenant_id, now, limit)

    loop.batch = without_policy  # type: ignore[method-assign]
    assert await loop.step() == RETRY_SECONDS
    assert loop.rounds == 1


async def _is(condition: bool) -> bool:
    return condition

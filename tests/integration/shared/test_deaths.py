"""A process that keeps dying: what killed it is set aside, and whatever else was in hand is applied."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.integration.shared.crashing import POISON
from tests.integration.shared.test_crashes import Child
from tests.stack import Stack, a_request
from tests.waiting import until


@pytest.mark.timeout(300)
async def test_what_was_in_hand_beside_a_killer_is_applied_by_itself(stack: Stack) -> None:
    """Another killer joins in after the first death, so that deaths come while innocents are in hand again."""
    tenant, another = uuid4(), uuid4()
    innocents = [a_request(tenant, "investigated") for _ in range(12)]
    killers = [a_request(tenant, "escalated"), a_request(another, "escalated")]
    most = len(killers) * 2
    sla = Child(stack, "sla", 0, [POISON] * most)

    async def has_died() -> bool:
        return len(sla.to_come) < most

    async def settled() -> bool:
        heard = await stack.effects()
        assert len(heard) == len(set(heard)), "a message was applied twice"
        letters = await stack.root.fetch("SELECT message_key FROM sla.dead_letter")
        wrong = {row["message_key"] for row in letters} - {str(message.message_id) for message in killers}
        assert not wrong, "an innocent message was given up"
        return len(heard) == len(innocents) and len(letters) == len(killers)

    async with stack.service("intake") as intake:
        await stack.tell(intake, *innocents[:6], killers[0], *innocents[6:])
        try:
            await sla.start()
            await until(has_died)
            await stack.tell(intake, killers[1])
            await until(settled)
        finally:
            await sla.stop()

    assert {message.message_id for message in innocents} == set(await stack.effects())
    letters = await stack.root.fetch("SELECT reason, error_class, error FROM sla.dead_letter")
    assert [tuple(row) for row in letters] == [
        ("killed its process", "ProcessDied", "deaths of the process with nothing else in hand: 1")
    ] * len(killers)
    assert await stack.root.fetchval("SELECT count(*) FROM sla.attempt") == 0
    assert len(sla.to_come) <= 1, "each kills once in a group, perhaps both in one, and once alone"

"""A process that keeps dying: what killed it is set aside, and whatever else was in hand is applied."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest

from shared.consuming import Consumer
from shared.pending import Delivery
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


async def test_three_deaths_condemn_a_message_and_two_do_not(stack: Stack) -> None:
    """A process that ends while it handles a message leaves a mark, and nothing else; the chaos suite ends real ones."""
    killer = a_request(uuid4())
    answered: list[str] = []

    def come_again(consumer: Consumer, times: int) -> Delivery:
        async def term() -> None:
            answered.append("never again")

        return Delivery(
            raw=SimpleNamespace(term=term),  # type: ignore[arg-type]  # of the server's answers the one that is meant
            subject=f"intake.v1.{killer.tenant_id}.entry.requested",
            body=b"{}",
            key=str(killer.message_id),
            times=times,
            tenant_id=killer.tenant_id,
            message=killer,
            flaw=None,
            touched=0.0,
            taken_by=consumer,
            suspect=True,
            accused=True,
        )

    async with stack.hearing() as sla:
        [consumer] = sla.consumers
        await until(lambda: consumer._database is not None)
        for deaths in (1, 2):
            again = come_again(consumer, deaths + 1)
            assert await consumer._without_the_dead([again]) == [again]
        assert await consumer._without_the_dead([come_again(consumer, 4)]) == []

    [letter] = await stack.root.fetch("SELECT message_key, reason, attempts, error FROM sla.dead_letter")
    error = "deaths of the process with nothing else in hand: 2"
    assert tuple(letter) == (str(killer.message_id), "killed its process", 3, error)
    assert answered == ["never again"]

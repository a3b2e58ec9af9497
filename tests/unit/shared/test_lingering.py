"""Messages that nobody waits for share a transaction; others are handled as they come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.consuming import BATCH, Consumer
from shared.database import Tx
from shared.ids import new_id
from shared.messages import ClockTicked, encode, subject_of
from shared.messages.base import LIVE
from tests.waiting import until

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


async def _ignore(_message: ClockTicked, _tx: Tx) -> None:
    pass


def _consumer(seconds: float) -> Consumer:
    """One whose live messages linger so long."""
    return Consumer(
        "intake", "routing", handlers={ClockTicked: _ignore}, linger=lambda tenant: seconds if tenant == LIVE else 0.0
    )


async def _deliver(consumer: Consumer, tenant_id: UUID, place: int, times: int = 1) -> None:
    tick = ClockTicked(message_id=new_id(), tenant_id=tenant_id, at=NOW)
    reply = f"$JS.ACK.ROUTING.{consumer.name}.{times}.{place}.{place}.1.0"
    await consumer._on_message(Msg(Client(), subject_of(tick), reply, encode(tick)))


async def test_the_first_waits_for_others_and_another_tenants_do_not() -> None:
    consumer, other = _consumer(3600), uuid4()
    await _deliver(consumer, LIVE, 1)
    await _deliver(consumer, other, 2)
    [taken] = consumer._next_group()
    assert taken.tenant_id == other
    assert consumer._next_group() == []


async def test_a_full_batch_waits_no_longer() -> None:
    consumer = _consumer(3600)
    for place in range(BATCH):
        assert consumer._next_group() == []
        await _deliver(consumer, LIVE, place + 1)
    assert len(consumer._next_group()) == BATCH


async def test_they_go_together_when_their_time_has_come() -> None:
    consumer = _consumer(0.05)
    await _deliver(consumer, LIVE, 1)
    await _deliver(consumer, LIVE, 2)
    consumer._arrived.clear()
    await asyncio.wait_for(consumer._arrived.wait(), 90)
    assert len(await until(consumer._next_group)) == 2

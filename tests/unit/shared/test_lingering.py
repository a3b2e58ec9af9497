"""Messages that nobody waits for share a transaction; others are handled as they come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.consuming import Consumer
from shared.database import Tx
from shared.ids import new_id
from shared.messages import ClockTicked, encode, subject_of
from shared.messages.base import LIVE
from shared.pending import BATCH, identity
from tests.waiting import until

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


async def _ignore(_message: ClockTicked, _tx: Tx) -> None:
    pass


def _consumer(seconds: float, patient: UUID = LIVE, beside: Consumer | None = None) -> Consumer:
    """One of which one tenant's messages linger so long."""
    return Consumer(
        "intake",
        "routing",
        handlers={ClockTicked: _ignore},
        name=None if beside is None else "intake-on-another",
        linger=lambda tenant: seconds if tenant == patient else 0.0,
        beside=beside,
    )


async def _deliver(consumer: Consumer, tenant_id: UUID, place: int, times: int = 1) -> None:
    tick = ClockTicked(message_id=new_id(), tenant_id=tenant_id, at=NOW)
    reply = f"$JS.ACK.ROUTING.{consumer.name}.{times}.{place}.{place}.1.0"
    await consumer._on_message(Msg(Client(), subject_of(tick), reply, encode(tick)))


async def test_the_first_waits_for_others_and_another_tenants_do_not() -> None:
    consumer, other = _consumer(3600), uuid4()
    await _deliver(consumer, LIVE, 1)
    await _deliver(consumer, other, 2)
    [taken] = consumer._pending.next_group()
    assert taken.tenant_id == other
    assert consumer._pending.next_group() == []


async def test_a_full_batch_waits_no_longer() -> None:
    consumer = _consumer(3600)
    for place in range(BATCH):
        assert consumer._pending.next_group() == []
        await _deliver(consumer, LIVE, place + 1)
    assert len(consumer._pending.next_group()) == BATCH


async def test_they_go_together_when_their_time_has_come() -> None:
    consumer = _consumer(0.05)
    await _deliver(consumer, LIVE, 1)
    await _deliver(consumer, LIVE, 2)
    await asyncio.wait_for(consumer._pending.arrived.wait(), 90)
    assert len(await until(consumer._pending.next_group)) == 2


async def test_each_time_that_has_come_is_noticed() -> None:
    """Also the later of two, when the first tenant's were not taken at theirs since a worker was at them."""
    patient = _consumer(0.05)
    eager = _consumer(0.02, patient=(other := uuid4()), beside=patient)
    await _deliver(eager, other, 1)
    patient._pending.busy.add(other)
    await _deliver(patient, LIVE, 1)
    await asyncio.wait_for(patient._pending.arrived.wait(), 90)
    assert patient._pending.next_group() == []
    patient._pending.arrived.clear()
    await asyncio.wait_for(patient._pending.arrived.wait(), 90)
    [taken] = await until(patient._pending.next_group)
    assert taken.tenant_id == LIVE


async def test_what_came_from_two_streams_is_taken_together_as_soon_as_one_is_in_a_hurry() -> None:
    tenant = uuid4()
    patient = _consumer(3600, patient=tenant)
    eager = _consumer(0, beside=patient)
    await _deliver(patient, tenant, 7)
    assert patient._pending.next_group() == []
    await _deliver(eager, tenant, 7)
    assert [each.taken_by for each in patient._pending.next_group()] == [patient, eager]
    assert patient._pending.next_group() == []


async def test_what_makes_a_group_full_leaves_the_other_tenants_to_another_worker() -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    consumer = _consumer(0)
    for _ in range(3):
        _consumer(0, beside=consumer)
    for place in range(BATCH + 1):
        await _deliver(consumer, first, place)
    for place, tenant in enumerate((second, third, second)):
        await _deliver(consumer, tenant, BATCH + 1 + place)
    assert [each.tenant_id for each in consumer._pending.next_group()] == [first] * BATCH
    assert {each.tenant_id for each in consumer._pending.next_group()} == {second, third}
    assert consumer._pending.next_group() == [], "a worker is at the first tenant's"


async def test_what_has_waited_for_a_while_goes_with_anothers() -> None:
    tenant, other = uuid4(), uuid4()
    consumer = _consumer(3600, patient=tenant)
    await _deliver(consumer, tenant, 1)
    await _deliver(consumer, other, 2)
    assert {each.tenant_id for each in consumer._pending.next_group()} == {other}, "it has only just come"
    consumer._pending.busy.clear()
    since, due = consumer._pending.due[tenant]
    consumer._pending.due[tenant] = since - 1800, due - 1800
    assert consumer._pending.next_group() == [], "there is nobody to go with"
    await _deliver(consumer, other, 3)
    assert {each.tenant_id for each in consumer._pending.next_group()} == {tenant, other}


async def test_a_tick_waits_for_what_stands_before_it_in_its_own_stream() -> None:
    consumer, tenant = _consumer(0), uuid4()
    beside = _consumer(0, beside=consumer)
    await _deliver(consumer, tenant, 5)
    await _deliver(beside, LIVE, 7)
    await _deliver(consumer, LIVE, 8)
    [entry] = consumer._pending.next_group()
    assert (entry.place, consumer._pending.next_group()[0].taken_by) == (5, beside)
    consumer._pending.busy.clear()
    assert consumer._pending.next_group() == []
    consumer._in_hand.discard(entry)
    assert [each.place for each in consumer._pending.next_group()] == [8]


async def test_no_two_messages_of_one_id_are_the_same_for_two_consumers() -> None:
    consumer = _consumer(0)
    beside = _consumer(0, beside=consumer)
    tick = ClockTicked(message_id=new_id(), tenant_id=uuid4(), at=NOW)
    for each in (consumer, beside):
        await each._on_message(Msg(Client(), subject_of(tick), f"$JS.ACK.ROUTING.{each.name}.1.1.1.1.0", encode(tick)))
    assert len({identity(each) for each in consumer._pending.next_group()}) == 2

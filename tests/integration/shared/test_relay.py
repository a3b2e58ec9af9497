"""The outbox and its relay: order, one publisher at a time, and a stream that loses what it had acknowledged."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import nats
import nats.js.errors
import pytest
from nats.js import JetStreamContext

from shared import outbox, relay
from shared.database import Tx
from shared.messages.base import encode, subject_of
from shared.service import Service
from tests.infra import Infra
from tests.stack import Stack, a_request
from tests.waiting import until


async def stream(service: Service) -> list[str]:
    """The ids of the messages in the stream, in its order."""
    js = service.runtime.nats.js
    try:
        info = await js.stream_info("INTAKE")
    except nats.js.errors.NotFoundError:
        return []
    found = []
    for place in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        try:
            message = await js.get_msg("INTAKE", seq=place, direct=True)
        except nats.js.errors.NotFoundError:
            continue
        found.append((message.headers or {})["Nats-Msg-Id"].partition("/")[0])
    return found


async def unpublished(stack: Stack) -> int:
    return int(await stack.root.fetchval("SELECT count(*) FROM intake.outbox WHERE published_at IS NULL"))


async def drained(stack: Stack, count: int) -> bool:
    rows = await stack.root.fetchval("SELECT count(*) FROM intake.outbox")
    return int(rows) == count and await unpublished(stack) == 0


async def as_operator(infra: Infra) -> tuple[Any, JetStreamContext]:
    client = await nats.connect(infra.nats_url("operator"))
    return client, client.jetstream()


async def test_what_was_committed_before_a_message_was_added_is_published_before_it(stack: Stack) -> None:
    """Transactions under way at one moment have no order among them."""

    async def tell_in_turn(tenant: UUID) -> list[str]:
        transactions = [[a_request(tenant) for _ in range(16)] for _ in range(5)]
        for messages in transactions:
            await stack.tell(intake, *messages)
        return [str(message.message_id) for messages in transactions for message in messages]

    async with stack.service("intake") as intake:
        told = await asyncio.gather(*(tell_in_turn(tenant) for tenant in [uuid4() for _ in range(4)] * 2))
        await until(lambda: drained(stack, 640))
        published = await stream(intake)
        assert len(published) == 640
        place = {message_id: number for number, message_id in enumerate(published, 1)}
        for messages in told:
            assert [place[message_id] for message_id in messages] == sorted(
                place[message_id] for message_id in messages
            )
        rows = await stack.root.fetch("SELECT message_id, stream_seq FROM intake.outbox")
        assert {str(row["message_id"]): row["stream_seq"] for row in rows} == place


@pytest.mark.parametrize("number", [1, 3])
async def test_a_message_carries_its_id_type_and_source_as_cloudevents_headers(stack: Stack, number: int) -> None:
    """Alone as well as in a batch, which the relay writes by itself."""
    async with stack.service("intake") as intake:
        messages = [a_request(uuid4()) for _ in range(number)]
        tenant_id = messages[0].tenant_id
        messages = [msgspec.structs.replace(message, tenant_id=tenant_id) for message in messages]
        await stack.tell(intake, *messages)
        await until(lambda: drained(stack, number))
        for place, message in enumerate(messages, 1):
            found = await intake.runtime.nats.js.get_msg("INTAKE", seq=place, direct=True)
            assert (found.subject, found.data) == (f"intake.v1.{tenant_id}.entry.requested", encode(message))
            headers = {
                name: value
                for name, value in (found.headers or {}).items()
                if name.startswith(("ce-", "content-", "Nats-Msg"))
            }
            assert headers == {
                "Nats-Msg-Id": str(message.message_id),
                "ce-id": str(message.message_id),
                "ce-type": "intake.v1.entry.requested",
                "ce-source": "/recourse/intake",
                "ce-specversion": "1.0",
                "content-type": "application/json",
            }


async def test_nothing_overtakes_a_message_that_is_refused(stack: Stack) -> None:
    """Few messages are published at once, each with a wait for none before it."""
    async with stack.service("intake") as intake:
        tenant = uuid4()
        messages = [a_request(tenant) for _ in range(4)]
        messages[1] = msgspec.structs.replace(messages[1], data={"text": "x" * 5_000})
        await until(lambda: refilled(intake, 0))
        client, js = await as_operator(stack.infra)
        config = (await js.stream_info("INTAKE")).config
        await js.update_stream(config, max_msg_size=2_000)
        await stack.tell(intake, *messages)
        await until(lambda: begins_with(intake, messages[0]))
        await until(lambda: given_up_for_now(intake))
        assert await stream(intake) == [str(messages[0].message_id)]
        await js.update_stream(config, max_msg_size=-1)
        await client.close()
        await until(lambda: drained(stack, 4))
        assert await stream(intake) == [str(message.message_id) for message in messages]


async def test_messages_of_somebody_else_in_the_stream_hold_nothing_up(stack: Stack) -> None:
    """The relay then does not know the stream's last place."""
    async with stack.service("intake") as intake:
        tenant = uuid4()
        await stack.tell(intake, first := a_request(tenant))
        await until(lambda: drained(stack, 1))
        client, js = await as_operator(stack.infra)
        for _ in range(3):
            await js.publish(f"intake.v1.{tenant}.entry.requested", b"{}", headers={"Nats-Msg-Id": str(uuid4())})
        await client.close()
        messages = [a_request(tenant) for _ in range(5)]
        await stack.tell(intake, *messages)
        await until(lambda: drained(stack, 6))
        ids = [str(message.message_id) for message in (first, *messages)]
        assert [each for each in await stream(intake) if each in ids] == ids
        places = await stack.root.fetch("SELECT stream_seq FROM intake.outbox ORDER BY id")
        assert [row["stream_seq"] for row in places] == [1, 5, 6, 7, 8, 9]


async def begins_with(service: Service, message: Any) -> bool:
    return (await stream(service))[:1] == [str(message.message_id)]


async def given_up_for_now(service: Service) -> bool:
    return service.relay.failing_since is not None


async def test_the_same_fact_is_told_once(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        message = a_request(uuid4())
        for _ in range(3):
            await stack.tell(intake, message, message)
        await until(lambda: drained(stack, 1))
        assert await stream(intake) == [str(message.message_id)]


async def test_nothing_is_told_of_what_is_rolled_back(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        tenant = uuid4()

        async def told_in_vain() -> None:
            async with intake.runtime.db.api_tx(tenant) as tx:
                await outbox.add(tx, a_request(tenant))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await told_in_vain()
        told = a_request(tenant)
        await stack.tell(intake, told)
        await until(lambda: drained(stack, 1))
        assert await stream(intake) == [str(told.message_id)]


async def test_a_message_of_another_tenant_cannot_be_told(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with intake.runtime.db.api_tx(uuid4()) as tx:
                await outbox.add(tx, a_request(uuid4()))
        assert await stack.root.fetchval("SELECT count(*) FROM intake.outbox") == 0


async def test_a_deleted_stream_is_made_again_and_refilled(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        tenant = uuid4()
        before = [a_request(tenant) for _ in range(250)]
        await stack.tell(intake, *before)
        await until(lambda: heard(stack, 250))
        client, js = await as_operator(stack.infra)
        await js.delete_stream("INTAKE")
        await client.close()
        after = [a_request(tenant) for _ in range(10)]
        await stack.tell(intake, *after)
        await until(lambda: drained(stack, 260))
        await until(lambda: heard(stack, 260))
        assert set(await stream(intake)) == {str(message.message_id) for message in (*before, *after)}


async def heard(stack: Stack, count: int) -> bool:
    found = await stack.effects()
    assert len(found) == len(set(found))
    return len(found) == count


async def test_a_stream_deleted_while_nobody_looks_is_refilled_at_the_next_start(stack: Stack) -> None:
    tenant = uuid4()
    messages = [a_request(tenant) for _ in range(120)]
    async with stack.service("intake") as intake:
        await stack.tell(intake, *messages)
        await until(lambda: drained(stack, 120))
    client, js = await as_operator(stack.infra)
    await js.delete_stream("INTAKE")
    await client.close()
    async with stack.service("intake") as intake:
        await until(lambda: refilled(intake, 120))
        assert await stream(intake) == [str(message.message_id) for message in messages]


async def refilled(service: Service, count: int) -> bool:
    if not service.relay.has_repaired:
        return False
    info = await service.runtime.nats.js.stream_info("INTAKE")
    return bool(info.state.last_seq >= count)


async def test_a_stream_that_lost_its_tail_gets_it_again(stack: Stack) -> None:
    """The end of a stream is taken away by making it anew with its first part only, as a restored backup would."""
    tenant = uuid4()
    messages = [a_request(tenant) for _ in range(60)]
    async with stack.service("intake") as intake:
        await stack.tell(intake, *messages)
        await until(lambda: drained(stack, 60))
        kept = [await intake.runtime.nats.js.get_msg("INTAKE", seq=place, direct=True) for place in range(1, 41)]
    client, js = await as_operator(stack.infra)
    config = (await js.stream_info("INTAKE")).config
    await js.delete_stream("INTAKE")
    created = (await js.add_stream(config)).created
    for message in kept:
        await js.publish(
            message.subject or "", message.data or b"", headers={"Nats-Msg-Id": (message.headers or {})["Nats-Msg-Id"]}
        )
    await client.close()
    await stack.root.execute("UPDATE intake.relay_state SET stream_created = $1", str(created))
    async with stack.service("intake") as intake:
        await until(lambda: refilled(intake, 60))
        await until(lambda: drained(stack, 60))
        assert await stream(intake) == [str(message.message_id) for message in messages]


async def test_a_stream_that_went_on_after_losing_its_tail_is_found_out(stack: Stack) -> None:
    """The places are taken, but by other messages: comparing the last place alone would miss it."""
    tenant = uuid4()
    messages = [a_request(tenant) for _ in range(50)]
    async with stack.service("intake") as intake:
        await stack.tell(intake, *messages)
        await until(lambda: drained(stack, 50))
        kept = [await intake.runtime.nats.js.get_msg("INTAKE", seq=place, direct=True) for place in range(1, 31)]
    client, js = await as_operator(stack.infra)
    config = (await js.stream_info("INTAKE")).config
    await js.delete_stream("INTAKE")
    created = (await js.add_stream(config)).created
    for message in kept:
        await js.publish(
            message.subject or "", message.data or b"", headers={"Nats-Msg-Id": (message.headers or {})["Nats-Msg-Id"]}
        )
    for _ in range(30):
        await js.publish(f"intake.v1.{tenant}.entry.requested", b"{}", headers={"Nats-Msg-Id": str(uuid4())})
    await client.close()
    await stack.root.execute("UPDATE intake.relay_state SET stream_created = $1", str(created))
    async with stack.service("intake") as intake:
        await until(lambda: drained(stack, 50))
        await until(lambda: holds_all(intake, messages))


async def holds_all(service: Service, messages: list[Any]) -> bool:
    return service.relay.has_repaired and {str(message.message_id) for message in messages} <= set(
        await stream(service)
    )


async def test_the_audit_fills_holes_in_the_middle(stack: Stack) -> None:
    tenant = uuid4()
    messages = [a_request(tenant) for _ in range(40)]
    async with stack.service("intake", RECOURSE_AUDIT_SECONDS="0.3") as intake, stack.hearing():
        await stack.tell(intake, *messages)
        await until(lambda: heard(stack, 40))
        client, js = await as_operator(stack.infra)
        for place in (5, 6, 17, 33):
            assert await js.delete_msg("INTAKE", place)
        await client.close()
        await until(lambda: holds_all(intake, messages))
        await stack.tell(intake, last := a_request(tenant))
        await until(lambda: heard(stack, 41))
        assert (await stack.effects())[-1] == last.message_id


async def test_one_relay_publishes_and_another_takes_over(stack: Stack) -> None:
    async with stack.service("intake") as first:
        await until(lambda: leads(first))
        async with stack.service("intake") as second:
            await stack.tell(second, *(a_request(uuid4()) for _ in range(5)))
            await until(lambda: drained(stack, 5))
            assert (first.relay.is_leader, second.relay.is_leader) == (True, False)
            stack.running.remove(first)
            await first.stop()
            await until(lambda: leads(second))
            await stack.tell(second, *(a_request(uuid4()) for _ in range(5)))
            await until(lambda: drained(stack, 10))
            assert len(await stream(second)) == 10


async def leads(service: Service) -> bool:
    return service.relay.is_leader


async def test_a_lost_connection_to_the_database_hands_the_lock_on_and_loses_nothing(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        for number in range(3):
            await stack.tell(intake, *(a_request(uuid4()) for _ in range(20)))
            await stack.root.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'intake_worker' AND datname = current_database()"
            )
            await until(partial(heard, stack, (number + 1) * 20))


async def test_without_nats_requests_are_answered_and_messages_wait(stack: Stack) -> None:
    """Nothing listens at this address: the outbox keeps what is told, and readiness says so without failing."""
    async with stack.service("intake", RECOURSE_NATS_URL="nats://127.0.0.1:9", RECOURSE_INTAKE_PORT="0") as intake:
        await stack.tell(intake, a_request(uuid4()))
        readiness = await intake.readiness()
        assert readiness.ready
        assert any("NATS" in note.what for note in readiness.notes)
        assert await unpublished(stack) == 1
    async with stack.service("intake"):
        await until(lambda: drained(stack, 1))


async def test_a_full_stream_keeps_messages_in_the_outbox_until_there_is_room(stack: Stack) -> None:
    async with stack.service("intake", RECOURSE_STREAM_MAX_BYTES="20000") as intake:
        await stack.tell(intake, *(a_request(uuid4()) for _ in range(100)))
        await until(lambda: failing(intake))
        assert await unpublished(stack) > 0
    async with stack.service("intake"):
        await until(lambda: drained(stack, 100))


async def failing(service: Service) -> bool:
    return service.relay.failing_since is not None


async def test_what_was_committed_first_is_published_first(stack: Stack) -> None:
    """What the ticks of routing stand on: writers that take turns are told in turn."""
    async with stack.service("intake") as intake:
        ids: list[UUID] = []
        for _ in range(30):
            await stack.tell(intake, entry := a_request(uuid4()))
            ids.append(entry.message_id)
        await until(lambda: drained(stack, 30))
        assert await stream(intake) == [str(each) for each in ids]


@pytest.fixture
def marking_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published is marked only when something needs it."""
    monkeypatch.setattr(relay, "MARK_SECONDS", 3600.0)


@pytest.fixture
def looking_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is read only when there is a reason to."""
    monkeypatch.setattr(relay, "LOOK_FROM", 3600.0)
    monkeypatch.setattr(relay, "LOOK_TO", 3600.0)


async def in_stream(service: Service, count: int) -> bool:
    return service.relay.has_repaired and len(await stream(service)) == count


@pytest.mark.usefixtures("marking_is_far")
async def test_what_is_published_and_not_marked_is_not_published_again_and_marked_at_the_stop(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        messages = [a_request(uuid4()) for _ in range(10)]
        for message in messages:
            await stack.tell(intake, message)
            intake.runtime.db.outbox_added.set()  # the table is read as well
        await until(lambda: in_stream(intake, 10))
        assert await unpublished(stack) == 10
        async with stack.service("intake") as second:
            stack.running.remove(intake)
            await intake.stop()
            assert await unpublished(stack) == 0
            await until(lambda: leads(second))
            rows = await stack.root.fetch("SELECT message_id, stream_seq FROM intake.outbox ORDER BY id")
            assert [(row["message_id"], row["stream_seq"]) for row in rows] == [
                (message.message_id, place) for place, message in enumerate(messages, 1)
            ]
            assert await stream(second) == [str(message.message_id) for message in messages]


@pytest.mark.usefixtures("marking_is_far")
async def test_many_are_marked_without_waiting(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        await stack.tell(intake, *(a_request(uuid4()) for _ in range(relay.MARK_MANY)))
        await until(lambda: drained(stack, relay.MARK_MANY))


@pytest.mark.usefixtures("marking_is_far")
async def test_what_waits_to_be_marked_does_not_wait_to_be_published(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        await stack.tell(intake, *(a_request(uuid4()) for _ in range(5)))
        await until(lambda: in_stream(intake, 5))
        connection = await intake.runtime.db.connect()
        await intake.relay.measure(connection)
        await connection.close()
        assert 'recourse_outbox_waiting{service="intake"} 0.0' in intake.runtime.metrics.render().decode()


@pytest.mark.usefixtures("marking_is_far")
async def test_a_stream_deleted_before_its_messages_are_marked_is_refilled(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        before = [a_request(uuid4()) for _ in range(20)]
        await stack.tell(intake, *before)
        await until(lambda: in_stream(intake, 20))
        client, js = await as_operator(stack.infra)
        await js.delete_stream("INTAKE")
        await client.close()
        last = a_request(uuid4())
        await stack.tell(intake, last)
        await until(lambda: holds_all(intake, [*before, last]))


@pytest.mark.usefixtures("marking_is_far")
async def test_a_stream_that_went_back_unnoticed_gets_what_was_not_marked_again(stack: Stack) -> None:
    """Its end is gone, and nobody has been told: the next message takes the place of one that was published before."""
    async with stack.service("intake") as intake:
        before = [a_request(uuid4()) for _ in range(20)]
        await stack.tell(intake, *before)
        await until(lambda: in_stream(intake, 20))
        client, js = await as_operator(stack.infra)
        config = (await js.stream_info("INTAKE")).config
        await js.delete_stream("INTAKE")
        await js.add_stream(config)
        await client.close()
        last = a_request(uuid4())
        await stack.tell(intake, last)
        await until(lambda: holds_all(intake, [*before, last]))


@pytest.mark.usefixtures("marking_is_far")
async def test_what_was_not_marked_when_the_lead_was_lost_stands_in_the_stream_once(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        for number in range(3):
            await stack.tell(intake, *(a_request(uuid4()) for _ in range(10)))
            await until(partial(in_stream, intake, (number + 1) * 10))
            await stack.root.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'intake_worker' AND datname = current_database()"
            )
        await stack.tell(intake, a_request(uuid4()))
        await until(lambda: in_stream(intake, 31))


async def knows_all(stack: Stack, service: Service) -> bool:
    """Until the relay has seen the transactions end that were under way when it began, it reads the table. Tells one message more."""
    await stack.tell(service, a_request(uuid4()))
    return service.relay._known.is_complete


@pytest.mark.usefixtures("looking_is_far")
async def test_what_is_handed_over_is_published_without_reading_the_table(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack.service("intake") as intake:
        await until(lambda: knows_all(stack, intake))
        count = int(await stack.root.fetchval("SELECT count(*) FROM intake.outbox"))
        await until(lambda: drained(stack, count))
        monkeypatch.setattr(relay, "NEXT", "SELECT 1 / 0")
        messages = [a_request(uuid4()) for _ in range(10)]
        for message in messages[:5]:
            await stack.tell(intake, message)
        await stack.tell(intake, *messages[5:])
        await until(lambda: drained(stack, count + 10))
        assert (await stream(intake))[count:] == [str(message.message_id) for message in messages]


@pytest.mark.usefixtures("looking_is_far")
async def test_what_another_process_added_before_is_published_before(stack: Stack) -> None:
    """Nobody tells the relay of it, but its id is missing among those that it knows."""
    async with stack.service("intake") as intake:
        await until(lambda: knows_all(stack, intake))
        told = []
        for _ in range(10):
            other, own = a_request(uuid4()), a_request(uuid4())
            await stack.root.execute(
                "INSERT INTO intake.outbox (tenant_id, message_id, subject, body) VALUES ($1, $2, $3, $4)",
                other.tenant_id,
                other.message_id,
                subject_of(other),
                encode(other),
            )
            await stack.tell(intake, own)
            told += [str(other.message_id), str(own.message_id)]
        await until(lambda: holds(intake, told[-1]))
        assert (await stream(intake))[-20:] == told


async def holds(service: Service, message_id: str) -> bool:
    return service.relay.has_repaired and message_id in await stream(service)


async def test_writers_of_two_processes_that_take_turns_are_told_in_turn(stack: Stack) -> None:
    async with stack.service("intake") as first, stack.service("intake") as second:
        ids: list[str] = []
        for number in range(40):
            await stack.tell(second if number % 3 else first, entry := a_request(uuid4()))
            ids.append(str(entry.message_id))
        await until(lambda: drained(stack, 40))
        assert await stream(first) == ids


async def test_nothing_is_told_of_what_a_savepoint_undid(stack: Stack) -> None:
    async with stack.service("intake") as intake:
        await until(lambda: knows_all(stack, intake))
        tenant = uuid4()
        before, undone, after = (a_request(tenant) for _ in range(3))

        async def told_in_vain(tx: Tx) -> None:
            async with tx.transaction():
                await outbox.add(tx, undone)
                await outbox.store_now(tx)
                raise LookupError

        async with intake.runtime.db.api_tx(tenant) as tx:
            await outbox.add(tx, before)
            with pytest.raises(LookupError):
                await told_in_vain(tx)
            await outbox.add(tx, after)
        await until(lambda: holds(intake, str(after.message_id)))
        found = await stream(intake)
        assert str(undone.message_id) not in found
        assert found.index(str(before.message_id)) < found.index(str(after.message_id))

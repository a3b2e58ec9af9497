"""Messages twice, out of order, poisoned, too early, and from many tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from shared import consuming
from shared.consuming import Collecting, Consumer, Handler
from shared.database import Tx
from shared.errors import NotYetError
from shared.messages import EntryRequested
from shared.messages.base import LIVE, encode, subject_of
from shared.service import Service
from tests.stack import Stack, a_request, record
from tests.waiting import until


async def publish(service: Service, message: EntryRequested, times: int = 1, body: bytes | None = None) -> None:
    """Put a message straight into the stream, past the outbox and past the server's own check of ids."""
    for _ in range(times):
        await service.runtime.nats.js.publish(
            subject_of(message),
            encode(message) if body is None else body,
            headers={"Nats-Msg-Id": f"{message.message_id}/{uuid4()}"},
        )


async def dead(stack: Stack) -> list[Any]:
    return await stack.root.fetch("SELECT * FROM sla.dead_letter ORDER BY dead_at")


async def test_what_is_told_is_applied_once_and_in_order(stack: Stack) -> None:
    tenants = [uuid4() for _ in range(3)]
    async with stack.service("intake") as intake, stack.hearing():
        told = {tenant: [a_request(tenant) for _ in range(150)] for tenant in tenants}
        for batch in range(3):
            await asyncio.gather(
                *(stack.tell(intake, *messages[batch * 50 : batch * 50 + 50]) for messages in told.values())
            )
        await until(lambda: applied(stack, 450))
        for tenant, messages in told.items():
            rows = await stack.root.fetch("SELECT message_id FROM sla.effect WHERE tenant_id = $1 ORDER BY id", tenant)
            assert [row["message_id"] for row in rows] == [message.message_id for message in messages]


async def test_what_concerns_all_tenants_waits_for_what_stands_before_it(stack: Stack) -> None:
    """A tick says that every entry before it has been applied, although tenants are served side by side."""
    entries, tick, after = [a_request(uuid4()) for _ in range(3)], a_request(LIVE), a_request(uuid4())
    begun, released = asyncio.Event(), asyncio.Event()

    async def record_slowly(message: EntryRequested, tx: Tx) -> None:
        if message.message_id == entries[0].message_id:
            begun.set()
            await released.wait()
        await record(message, tx)

    async with stack.service("intake") as intake, stack.hearing(record_slowly):
        await stack.tell(intake, entries[0])
        await begun.wait()  # by itself: what comes at one moment shares a transaction
        for message in (*entries[1:], tick, after):
            await stack.tell(intake, message)
        await until(lambda: applied(stack, 3))  # all but the slow one and the tick
        released.set()
        await until(lambda: applied(stack, 5))
        assert (await stack.effects())[-2:] == [entries[0].message_id, tick.message_id]


async def applied(stack: Stack, count: int) -> bool:
    found = await stack.effects()
    assert len(found) == len(set(found)), "a message was applied twice"
    assert len(found) <= count
    return len(found) == count


async def test_a_message_that_comes_again_is_applied_once(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        first, last = a_request(uuid4()), a_request(uuid4())
        await until(lambda: has_stream(intake))
        await publish(intake, first, times=5)
        await until(lambda: applied(stack, 1))
        await publish(intake, first, times=5)
        await publish(intake, last)
        await until(lambda: applied(stack, 2))
        assert set(await stack.effects()) == {first.message_id, last.message_id}


async def test_of_a_group_only_what_is_new_is_applied(stack: Stack) -> None:
    """Some of it was applied before: the group begins with entering all of it, and then asks which those are."""
    tenant = uuid4()
    old, new = [a_request(tenant) for _ in range(10)], [a_request(tenant) for _ in range(10)]
    begun, released = asyncio.Event(), asyncio.Event()

    async def record_slowly(message: EntryRequested, tx: Tx) -> None:
        if message.kind == "withdrawn":
            begun.set()
            await released.wait()
        await record(message, tx)

    async with stack.service("intake") as intake, stack.hearing(record_slowly):
        await until(lambda: has_stream(intake))
        for message in old:
            await publish(intake, message)
        await until(lambda: applied(stack, 10))
        await publish(intake, blocker := a_request(tenant, "withdrawn"))
        await begun.wait()  # the next group holds all that comes meanwhile
        for one, other in zip(old, new, strict=True):
            await publish(intake, one)
            await publish(intake, other)
        released.set()
        await until(lambda: applied(stack, 21))
        assert await stack.effects() == [message.message_id for message in (*old, blocker, *new)]


async def has_stream(service: Service) -> bool:
    return service.relay.is_leader and service.relay.has_repaired


REFUSED = "the text 13800138000 must not be told"


async def refuse_in_the_handler(message: EntryRequested, tx: Tx) -> None:
    await record(message, tx)
    if message.kind == "withdrawn":
        raise ValueError(REFUSED)


async def refuse_at_the_end(message: EntryRequested, tx: Tx) -> None:
    tx.at_the_end(_record_together).append(message)


async def _record_together(tx: Tx, messages: Sequence[EntryRequested]) -> None:
    for message in messages:
        await refuse_in_the_handler(message, tx)


def refuse_to_collect(message: EntryRequested, tx: Tx) -> None:
    if message.kind == "withdrawn":
        raise ValueError(REFUSED)
    tx.at_the_end(_record_together).append(message)


@pytest.mark.parametrize("refuse_one_kind", [refuse_in_the_handler, refuse_at_the_end, Collecting(refuse_to_collect)])
async def test_a_failing_message_does_not_hold_up_the_others(
    stack: Stack, refuse_one_kind: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "BACK_OFF", (0.02,))
    tenant = uuid4()
    async with stack.service("intake") as intake, stack.hearing(refuse_one_kind):
        healthy = [a_request(tenant) for _ in range(60)]
        poison = [a_request(tenant, "withdrawn") for _ in range(3)]
        await stack.tell(intake, *healthy[:30], *poison, *healthy[30:])
        await until(lambda: applied(stack, 60))
        assert await stack.effects() == [message.message_id for message in healthy]

        letters = await until(lambda: three(stack))
        assert {letter["message_key"] for letter in letters} == {str(message.message_id) for message in poison}
        for letter in letters:
            assert (letter["tenant_id"], letter["consumer"], letter["reason"]) == (tenant, "sla-on-entry", "failed")
            assert (letter["error_class"], letter["attempts"]) == ("ValueError", consuming.MAX_FAILURES)
            assert "13800138000" not in letter["error"]
        assert await stack.root.fetchval("SELECT count(*) FROM sla.attempt") == 0
        assert await stack.root.fetchval("SELECT count(*) FROM sla.inbox") == 60


async def test_what_is_done_for_a_group_together_is_done_once_for_each_new_message(stack: Stack) -> None:
    """Also when one of the group fails, and the others are taken one by one."""

    async def count(messages: Sequence[EntryRequested], tx: Tx) -> None:
        for message in messages:
            await record(message, tx)
        tx.kept["counted"] = {message.message_id for message in messages}

    async def refuse(message: EntryRequested, tx: Tx) -> None:
        assert message.message_id in tx.kept["counted"]
        if message.kind == "withdrawn":
            raise NotYetError

    tenant = uuid4()
    told = [a_request(tenant, kind) for kind in ("withdrawn", *["commented"] * 20)]
    async with stack.service("intake") as intake, stack.hearing(refuse, together=count):
        await stack.tell(intake, *told[:11])
        await publish(intake, told[5], times=2)
        await stack.tell(intake, *told[11:])
        await until(lambda: applied(stack, 20))
        assert set(await stack.effects()) == {message.message_id for message in told[1:]}


async def test_tenants_share_a_transaction_and_one_that_fails_leaves_it_to_the_others(stack: Stack) -> None:
    began: dict[UUID, set[UUID]] = {}
    tenants = [uuid4() for _ in range(5)]
    bad = tenants[2]

    async def noted(messages: Sequence[EntryRequested], tx: Tx) -> None:
        for message in messages:
            began[message.message_id] = {each.tenant_id for each in messages}

    async def refuse(message: EntryRequested, tx: Tx) -> None:
        assert tx.tenant_id == message.tenant_id
        if message.kind == "withdrawn":
            raise NotYetError
        await record(message, tx)

    told = [a_request(tenant) for _ in range(4) for tenant in tenants]
    poison = a_request(bad, "withdrawn")
    async with stack.service("intake") as intake:
        await stack.tell(intake, *told[:10], poison, *told[10:])
        async with stack.hearing(refuse, together=noted):
            await until(lambda: applied(stack, 20))
    assert set(await stack.effects()) == {message.message_id for message in told}
    last = {message.tenant_id: began[message.message_id] for message in told}
    assert last[bad] == {bad}, "those of the tenant at fault are taken one by one"
    assert any(len(last[tenant]) > 1 for tenant in tenants if tenant != bad), "no transaction was shared"


async def test_what_may_be_done_later_fails_no_message(stack: Stack) -> None:
    """What is done at last is tried for what comes for the first time, and left out when that has failed."""
    tried: list[UUID] = []

    async def at_last(tx: Tx) -> None:
        tried.append(tx.tenant_id)
        await record(a_request(tx.tenant_id, "counted"), tx)
        if tx.tenant_id == bad:
            raise ValueError

    good, bad = uuid4(), uuid4()
    told = [a_request(tenant) for tenant in (good, bad, bad)]
    async with stack.service("intake") as intake, stack.hearing(at_last=at_last):
        for message in told:
            await stack.tell(intake, message)
        await until(lambda: has_effects(stack, told))
        assert set(tried) == {good, bad}
        assert await dead(stack) == []
    counted = await stack.root.fetch("SELECT DISTINCT tenant_id FROM sla.effect WHERE kind = 'counted'")
    assert [row["tenant_id"] for row in counted] == [good]


async def has_effects(stack: Stack, told: Sequence[EntryRequested]) -> bool:
    return set(await stack.effects()) >= {message.message_id for message in told}


async def test_who_hangs_holds_up_the_other_tenants_of_the_transaction_for_a_moment_only(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go without it, while it has the time that it would have had by itself."""
    monkeypatch.setattr(consuming, "SHARED_SECONDS", 0.05)
    tenants = sorted(uuid4() for _ in range(3))
    slow = tenants[0]
    released = asyncio.Event()

    async def hang(message: EntryRequested, tx: Tx) -> None:
        if message.tenant_id == slow:
            await released.wait()
        await record(message, tx)

    async with stack.service("intake") as intake:
        await stack.tell(intake, *(a_request(tenant) for tenant in tenants))
        async with stack.hearing(hang):
            await until(lambda: applied(stack, 2))
            released.set()
            await until(lambda: applied(stack, 3))
        assert await stack.root.fetchval("SELECT count(*) FROM sla.attempt") == 0, "a failure was counted"


async def three(stack: Stack) -> list[Any]:
    letters = await dead(stack)
    return letters if len(letters) == 3 else []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no json", "invalid character"),
        (b"\xff\xfe", ""),
        (b'{"message_id": 7}', "Expected"),
        (b"[" * 5000, ""),
        (b"", ""),
    ],
)
async def test_what_cannot_be_read_goes_to_the_dead_letters_at_once(stack: Stack, body: bytes, said: str) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        await until(lambda: has_stream(intake))
        message, healthy = a_request(uuid4()), a_request(uuid4())
        await publish(intake, message, body=body)
        await publish(intake, healthy)
        [letter] = await until(lambda: dead(stack))
        assert (letter["reason"], letter["body"], letter["tenant_id"]) == ("malformed", body, message.tenant_id)
        assert said in letter["error"]
        await until(lambda: applied(stack, 1))


async def test_a_message_under_another_tenants_subject_is_refused(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        await until(lambda: has_stream(intake))
        mine, theirs = a_request(uuid4()), a_request(uuid4())
        await publish(intake, mine, body=encode(theirs))
        [letter] = await until(lambda: dead(stack))
        assert "another tenant" in letter["error"]
        assert await stack.effects() == []


async def test_a_text_with_nul_is_refused_before_it_reaches_postgresql(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        await until(lambda: has_stream(intake))
        await publish(intake, a_request(uuid4(), text_id="a\x00b"))
        [letter] = await until(lambda: dead(stack))
        assert letter["reason"] == "malformed"


async def test_what_comes_too_early_is_applied_when_what_it_needs_is_there(stack: Stack) -> None:
    known: set[UUID] = set()
    refused = 0

    async def after_the_first(message: EntryRequested, tx: Tx) -> None:
        nonlocal refused
        if message.kind == "received":
            known.add(message.case_id)
        elif message.case_id not in known:
            refused += 1
            raise NotYetError("the case has not arrived")
        await record(message, tx)

    tenant = uuid4()
    first = a_request(tenant, "received")
    early = [msgspec.structs.replace(a_request(tenant, "replied"), case_id=first.case_id) for _ in range(20)]
    async with stack.service("intake") as intake, stack.hearing(after_the_first):
        await stack.tell(intake, *early, a_request(tenant, "received"))
        await until(lambda: applied(stack, 1))
        assert refused >= 20
        await stack.tell(intake, first)
        await until(lambda: applied(stack, 22))
        assert await dead(stack) == []


async def test_a_handler_that_hangs_is_ended_and_its_message_given_up(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "GROUP_SECONDS", 0.3)
    monkeypatch.setattr(consuming, "SINGLE_SECONDS", 0.1)
    monkeypatch.setattr(consuming, "BACK_OFF", (0.02,))

    async def hang_at_one_kind(message: EntryRequested, tx: Tx) -> None:
        await record(message, tx)
        if message.kind == "paused":
            await tx.execute("SELECT pg_sleep(2.5)")

    async with stack.service("intake") as intake, stack.hearing(hang_at_one_kind):
        tenant = uuid4()
        healthy = [a_request(tenant) for _ in range(5)]
        await stack.tell(intake, a_request(tenant, "paused"), *healthy)
        await until(lambda: applied(stack, 5))
        [letter] = await until(lambda: dead(stack))
        assert (letter["reason"], letter["error_class"]) == ("failed", "TimeoutError")


async def test_an_outage_of_the_database_is_nobodys_failure(stack: Stack) -> None:
    async with stack.service("intake") as intake, stack.hearing():
        tenant = uuid4()
        before, after = [a_request(tenant) for _ in range(50)], [a_request(tenant) for _ in range(50)]
        await stack.tell(intake, *before)
        await until(lambda: applied(stack, 50))
        for _ in range(5):
            await stack.root.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sla_worker' AND datname = current_database()"
            )
            await stack.tell(intake, *after[:10])
            after = after[10:]
        await until(lambda: applied(stack, 100))
        assert await stack.root.fetchval("SELECT count(*) FROM sla.attempt WHERE failures > 0") == 0
        assert await dead(stack) == []


async def test_a_quiet_tenants_message_passes_a_busy_ones(stack: Stack) -> None:
    busy, quiet = uuid4(), uuid4()
    order: list[UUID] = []

    async def slowly(message: EntryRequested, tx: Tx) -> None:
        await asyncio.sleep(0.002)
        await record(message, tx)
        order.append(message.tenant_id)

    async with stack.service("intake") as intake:
        await stack.tell(intake, *(a_request(busy) for _ in range(600)))
        await stack.tell(intake, *(a_request(quiet) for _ in range(5)))
        async with stack.hearing(slowly):
            await until(lambda: applied(stack, 605))
    assert order.index(quiet) < 300, "the quiet tenant waited for most of the busy one's messages"


async def test_a_stop_gives_back_what_it_has_not_begun(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "ACK_SECONDS", 3600)  # longer than anybody waits here
    async with stack.service("intake") as intake:
        await stack.tell(intake, *(a_request(uuid4()) for _ in range(500)))  # more than is in hand when it stops

        async def slowly(message: EntryRequested, tx: Tx) -> None:
            await asyncio.sleep(0.005)
            await record(message, tx)

        async with stack.hearing(slowly):
            await until(stack.effects)
        at_stop = len(await stack.effects())
        assert at_stop < 500
        async with stack.hearing():
            await until(lambda: applied(stack, 500))


async def test_a_consumer_comes_back_after_its_stream_was_lost(stack: Stack) -> None:
    import nats

    async with stack.service("intake") as intake, stack.hearing():
        tenant = uuid4()
        await stack.tell(intake, *(a_request(tenant) for _ in range(10)))
        await until(lambda: applied(stack, 10))
        operator = await nats.connect(stack.infra.nats_url("operator"))
        await operator.jetstream().delete_stream("INTAKE")
        await operator.close()
        await stack.tell(intake, *(a_request(tenant) for _ in range(10)))
        await until(lambda: applied(stack, 20))


async def test_two_consumers_of_one_service_need_two_names() -> None:
    consumer = Consumer("sla", "intake", handlers={EntryRequested: record})
    assert (consumer.name, consumer.stream, consumer.subjects) == (
        "sla-on-intake",
        "INTAKE",
        ["intake.v1.*.entry.requested"],
    )

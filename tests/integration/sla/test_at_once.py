"""Cases folded in the transaction that takes their lines; nothing runs by itself here, tests say what happens when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from services.sla import folding, repository
from services.sla.app import build
from services.sla.folding import SOON, AtOnce
from services.sla.loops import WakeUps
from shared import fail_points
from shared.consuming import AtFaultError, Consumer
from shared.messages import LIVE, EntryAppended, Message, StandingChanged, decode, encode, subject_of
from shared.pending import Delivery, read
from shared.service import Service
from tests.infra import Database, Infra, empty_tables, service_settings
from tests.integration.one_service import database  # noqa: F401 - a fixture
from tests.integration.reporting.told import a_policy, a_tenant
from tests.integration.sla.test_service import DUE, HOUR, NINE, POLICY, WARNED, Story, announced, balance, tick
from tests.waiting import until


@pytest.fixture
async def idle(infra: Infra, database: Database, root: asyncpg.Connection) -> AsyncIterator[Service]:  # noqa: F811
    """The service with its database open and nothing running, which knows nobody."""
    await empty_tables(root, "sla")
    made = build(service_settings(infra, database, "sla"))
    await made.runtime.db.open()
    for consumer in made.consumers:
        consumer._database = made.runtime.db
    yield made
    await made.runtime.db.close()


@pytest.fixture
def woken(idle: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The loops that were woken."""
    found: list[str] = []
    monkeypatch.setattr(type(idle.runtime), "wake", lambda _, loop: found.append(loop))
    return found


async def know(service: Service, *tenants: UUID, sandbox: bool = False) -> None:
    """Have the service know tenants and their policy, compiled, and the time of all of them."""
    reference = service.runtime.reference
    for tenant_id in tenants:
        tenant, policy = a_tenant(tenant_id), a_policy(tenant_id, POLICY)
        async with service.runtime.db.worker_tx(tenant_id) as tx:
            await reference.on_tenant(msgspec.structs.replace(tenant, sandbox=sandbox), tx)
            await reference.on_policy(policy, tx)
        await reference.policy(tenant_id, 1)
    await ticked(service, NINE)


async def ticked(service: Service, at: datetime, tenant_id: UUID = LIVE) -> None:
    async with service.runtime.db.worker_tx(tenant_id) as tx:
        await repository.set_tick(tx, tenant_id, at)


def entry_consumer(service: Service) -> Consumer:
    [consumer] = [consumer for consumer in service.consumers if consumer.name == "sla-on-entry"]
    return consumer


async def tell(service: Service, *messages: Message) -> None:
    """Apply messages as the consumer does with those that it takes together."""
    consumer = entry_consumer(service)
    group = []
    for each in sorted(messages, key=lambda message: message.tenant_id):
        tenant_id, message, flaw = read(subject_of(each), encode(each), consumer.handlers)
        assert flaw is None
        group.append(
            Delivery(
                raw=None,  # type: ignore[arg-type]  # nobody is there to be answered
                subject=subject_of(each),
                body=encode(each),
                key=str(each.message_id),
                times=1,
                tenant_id=tenant_id,
                message=message,
                flaw=None,
                touched=0.0,
                taken_by=consumer,
            )
        )
    await consumer._in_one_transaction(group, 60.0, careful=False)


async def work(service: Service) -> None:
    """What the loop does until nothing is left."""
    wake_ups = WakeUps(service.runtime)
    while await wake_ups.step() == 0:
        pass


async def left(root: asyncpg.Connection, story: Story) -> tuple[int, datetime | None]:
    """How far a case was folded, and when it is looked at next."""
    row = await root.fetchrow("SELECT folded_seq, wake_at FROM watched_case WHERE case_id = $1", story.case_id)
    assert row is not None
    return row["folded_seq"], row["wake_at"]


async def standings(root: asyncpg.Connection, tenant_id: UUID) -> list[StandingChanged]:
    query = "SELECT body FROM outbox WHERE tenant_id = $1 AND subject LIKE '%standing.changed' ORDER BY id"
    return [decode(row["body"], StandingChanged) for row in await root.fetch(query, tenant_id)]


async def test_a_complaint_that_comes_alone_is_folded_along_with_its_lines(
    idle: Service, root: asyncpg.Connection, woken: list[str]
) -> None:
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    await tell(idle, story.received(), story.entry("assigned", NINE, staff="h1"))
    assert await left(root, story) == (2, WARNED)
    [told] = await standings(root, tenant_id)
    assert (told.case_id, told.seq, told.now) == (story.case_id, 2, NINE)
    await tell(idle, story.entry("replied", NINE + HOUR))
    assert await left(root, story) == (3, None)
    assert [each.seq for each in await standings(root, tenant_id)] == [2, 3]
    one = "SELECT count(DISTINCT xmin::text) = 2 FROM (SELECT xmin FROM timeline_entry UNION ALL SELECT xmin FROM watched_case) AS rows"
    assert await root.fetchval(one)  # what stored the last line has left the case as it is
    assert woken == []


async def test_what_is_folded_at_once_is_what_the_loop_would_fold(
    idle: Service, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where limits are over already, amounts owed, and what was said taken back again."""
    at_once, later = uuid4(), uuid4()
    await know(idle, at_once, later)
    await ticked(idle, DUE + timedelta(days=4))
    found = []
    for tenant_id in (at_once, later):
        if tenant_id == later:
            monkeypatch.setattr(folding, "LINES_AT_ONCE", 0)
        story = Story(tenant_id)
        for message in (
            story.received(),
            story.entry("assigned", NINE + HOUR, staff="h1"),
            story.entry("replied", DUE - HOUR),
        ):
            await tell(idle, message)
            if tenant_id == later:
                await work(idle)
        rows = "SELECT key, kind, at, late, withdrawn_at IS NULL FROM announcement WHERE case_id = $1 ORDER BY key"
        ledger = "SELECT key, difference_minor, month FROM ledger_posting WHERE case_id = $1 ORDER BY difference_minor"
        told = [(each.seq, each.now, each.state, each.clocks) for each in await standings(root, tenant_id)]
        subjects = "SELECT split_part(subject, '.', 5), count(*) FROM outbox WHERE tenant_id = $1 GROUP BY 1 ORDER BY 1"
        found.append(
            (
                await left(root, story),
                [tuple(row) for row in await root.fetch(rows, story.case_id)],
                [tuple(row) for row in await root.fetch(ledger, story.case_id)],
                [tuple(row) for row in await root.fetch(subjects, tenant_id)],
                told,
            )
        )
        assert await balance(root, story) == 0
        assert await announced(root, story) == [("warned", WARNED)]
    assert found[0] == found[1]
    assert found[0][2]


async def test_a_case_that_cannot_be_folded_leaves_the_others_of_its_transaction_alone(
    idle: Service, root: asyncpg.Connection, woken: list[str]
) -> None:
    ours, theirs = uuid4(), uuid4()
    await know(idle, ours, theirs)
    broken, sound, other = Story(ours), Story(ours), Story(theirs)
    await tell(
        idle,
        broken.received(),
        broken.entry("policy_changed", NINE, version="no number"),
        sound.received(),
        other.received(),
    )
    assert [await left(root, story) for story in (sound, other)] == [(1, WARNED)] * 2
    assert await left(root, broken) == (0, SOON)
    assert woken == ["wake-ups"]
    await WakeUps(idle.runtime).step()
    query = "SELECT failures, error FROM watched_case WHERE case_id = $1"
    failures, error = await root.fetchrow(query, broken.case_id) or (0, "")
    assert (failures, error.partition(":")[0]) == (1, "ValueError")
    await tell(idle, broken.entry("commented", NINE + HOUR))  # is the loop's from now on
    assert (await left(root, broken))[1] == SOON
    assert await root.fetchval("SELECT count(*) FROM timeline_entry WHERE case_id = $1", broken.case_id) == 3


async def test_what_cannot_be_stored_at_once_is_left_to_the_loop_and_the_lines_are_kept(
    service: Service, tellers: Any, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = uuid4()
    failed = []

    async def store(*_: Any) -> None:
        failed.append(1)
        raise asyncpg.DataError("value out of range")

    monkeypatch.setattr(folding, "store", store)
    await tellers.tell(a_tenant(tenant_id), a_policy(tenant_id, POLICY), tick(NINE))
    await until(lambda: root.fetchval("SELECT EXISTS (SELECT FROM tick)"))
    first, second = Story(tenant_id), Story(tenant_id)
    for story in (first, second):  # the first waits for its policy, so it is the loop's anyway
        await tellers.tell(story.received(), story.entry("assigned", NINE + HOUR, staff="h1"))
        await _folded(root, story)
    assert failed
    assert len(await standings(root, tenant_id)) >= 2
    assert await root.fetchval("SELECT count(*) FROM dead_letter") == 0


async def _folded(root: asyncpg.Connection, story: Story) -> None:
    query = "SELECT folded_seq = 2 AND wake_at = $2 FROM watched_case WHERE case_id = $1"
    await until(lambda: root.fetchval(query, story.case_id, WARNED))


class CrashError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("point", ["sla.entered", "sla.folded", "sla.told", "consumer.handled", "worker.commit"])
async def test_a_crash_before_the_commit_leaves_nothing_and_one_more_delivery_everything_once(
    idle: Service, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    messages = story.received(), story.entry("assigned", NINE, staff="h1")

    def crash(name: str) -> None:
        if name == point:
            raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(fail_points, "reach", crash)
        with pytest.raises((CrashError, AtFaultError)):
            await tell(idle, *messages)
    for table in ("timeline_entry", "watched_case", "outbox", "inbox"):
        assert await root.fetchval(f"SELECT count(*) FROM {table}") == 0
    await tell(idle, *messages)
    await tell(idle, *messages)
    assert await left(root, story) == (2, WARNED)
    assert len(await standings(root, tenant_id)) == 1


async def test_a_line_waits_for_who_folds_its_case_and_then_all_of_it_is_folded(
    idle: Service, root: asyncpg.Connection
) -> None:
    """The loop of another process has claimed the case, and says what was due; the line comes behind it."""
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    await tell(idle, story.received())
    await ticked(idle, DUE + HOUR)
    wake_ups = WakeUps(idle.runtime)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        cases = await repository.claim(tx, tenant_id, DUE + HOUR, 10)
        assert [case.case_id for case in cases] == [story.case_id]
        line = asyncio.create_task(tell(idle, story.entry("replied", DUE - HOUR)))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        await until(lambda: root.fetchval(waits))
        await wake_ups._look(tx, tenant_id, cases, DUE + HOUR)
    await line
    assert (await left(root, story))[0] == 2
    assert await announced(root, story) == [("warned", WARNED)]
    assert await balance(root, story) == 0
    assert await root.fetchval("SELECT count(*) FROM ledger_posting") == 2


async def test_the_loop_passes_by_a_case_whose_line_is_being_taken(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    await tell(idle, story.received())
    await ticked(idle, DUE + HOUR)
    at_once = AtOnce(idle.runtime)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        at_once.take_down(story.entry("assigned", NINE + HOUR, staff="h1"), tx)
        await at_once.close(tx)
        await work(idle)
        assert await announced(root, story) == []
    assert len(await announced(root, story)) == 2
    assert await balance(root, story) == 5000
    await work(idle)
    assert len(await standings(root, tenant_id)) == 2


async def test_who_has_seen_an_earlier_tick_takes_nothing_back(idle: Service, root: asyncpg.Connection) -> None:
    """A process that stood still between its look at the time and its claim."""
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    await ticked(idle, DUE + HOUR)
    await tell(idle, story.received())
    assert await balance(root, story) == 5000
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await repository.add_entries(tx, [_line(story.entry("assigned", NINE + HOUR, staff="h1"))])
    assert not await WakeUps(idle.runtime).batch(tenant_id, NINE, 10)
    assert (await left(root, story))[0] == 2
    assert len(await announced(root, story)) == 2
    assert await balance(root, story) == 5000


async def test_each_tenant_of_a_transaction_has_its_own_time_and_rows(idle: Service, root: asyncpg.Connection) -> None:
    """Also where cases of two tenants bear the same id."""
    live, other, sandbox = sorted(uuid4() for _ in range(3))
    await know(idle, live, other)
    await know(idle, sandbox, sandbox=True)
    await ticked(idle, DUE + HOUR, sandbox)
    stories = [Story(tenant_id) for tenant_id in (live, other, sandbox)]
    for story in stories:
        story.case_id = stories[0].case_id
    firsts = [
        msgspec.structs.replace(story.received(), message_id=uuid4(), number=f"C-{place}")
        for place, story in enumerate(stories)
    ]
    await tell(idle, *firsts)
    rows = await root.fetch("SELECT tenant_id, number, folded_at FROM watched_case ORDER BY tenant_id")
    assert [tuple(row) for row in rows] == [(live, "C-0", NINE), (other, "C-1", NINE), (sandbox, "C-2", DUE + HOUR)]
    said = await root.fetch("SELECT DISTINCT tenant_id FROM announcement")
    assert [row["tenant_id"] for row in said] == [sandbox]
    # Known by now: what is read of them again is each one's own.
    await tell(
        idle,
        *(msgspec.structs.replace(story.entry("replied", NINE), message_id=uuid4()) for story in stories),
    )
    ends = {each.tenant_id: each.seq for story in stories for each in await standings(root, story.tenant_id)}
    assert ends == {live: 2, other: 2, sandbox: 2}
    assert await root.fetchval("SELECT sum(difference_minor)::bigint FROM ledger_posting") == 0


async def test_what_waits_for_an_earlier_line_is_left_to_the_loop(
    idle: Service, root: asyncpg.Connection, woken: list[str]
) -> None:
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    first, second, third = story.received(), story.entry("assigned", NINE, staff="h1"), story.entry("replied", NINE)
    await tell(idle, third)
    assert (await left(root, story), woken) == ((0, SOON), ["wake-ups"])
    await work(idle)
    assert await left(root, story) == (0, None)
    await tell(idle, first)  # the loop's, too: what comes behind the gap is known of
    await work(idle)
    assert await left(root, story) == (1, WARNED)
    woken.clear()
    await tell(idle, second)
    assert await left(root, story) == (3, None)
    assert woken == []


async def test_a_transaction_folds_few_cases_and_short_ones(
    idle: Service, root: asyncpg.Connection, woken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = uuid4()
    await know(idle, tenant_id)
    many = [Story(tenant_id) for _ in range(3)]
    monkeypatch.setattr(folding, "CASES_AT_ONCE", 2)
    await tell(idle, *(story.received() for story in many))
    assert Counter([(await left(root, story))[1] for story in many]) == {SOON: 1, WARNED: 2}
    long, short = Story(tenant_id), Story(tenant_id)
    monkeypatch.setattr(folding, "LINES_AT_ONCE", 2)
    await tell(idle, long.received(), *(long.entry("commented", NINE) for _ in range(2)), short.received())
    assert (await left(root, long), await left(root, short)) == ((0, SOON), (1, WARNED))
    assert woken == ["wake-ups"] * 2
    await work(idle)
    assert [(await left(root, story))[1] for story in (*many, long)] == [WARNED] * 4


async def test_what_is_not_known_yet_is_left_to_the_loop(
    idle: Service, root: asyncpg.Connection, woken: list[str]
) -> None:
    """The tenant, its time, or its policy's version."""
    unknown, tenant_id = uuid4(), uuid4()
    story = Story(unknown)
    await tell(idle, story.received())
    await know(idle, tenant_id)
    newer = msgspec.structs.replace(Story(tenant_id).received(), policy_version=2)
    await tell(idle, newer)
    assert [row["wake_at"] for row in await root.fetch("SELECT wake_at FROM watched_case")] == [SOON, SOON]
    assert woken == ["wake-ups"] * 2


async def test_a_tick_that_the_loop_has_seen_meanwhile_wakes_it_again(
    idle: Service, root: asyncpg.Connection, woken: list[str]
) -> None:
    """The loop could not see the case: its line was not committed."""
    tenant_id = uuid4()
    await know(idle, tenant_id)
    story = Story(tenant_id)
    at_once = AtOnce(idle.runtime)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        at_once.take_down(story.received(), tx)
        await at_once.close(tx)
        await ticked(idle, DUE + HOUR)
        await work(idle)
    assert woken == ["wake-ups"]
    await work(idle)
    assert await balance(root, story) == 5000


def _line(message: EntryAppended) -> repository.Line:
    return repository.Line(
        message.tenant_id, message.case_id, message.entry.seq, "complaint", 1, "C-1", False, message.entry
    )

"""Facts and rollups on a real database: any order, any repetition, and counting anew give the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.reporting import handlers, repository
from services.reporting.loops import Facts, rebuild, refresh_round, refresh_some
from services.reporting.making import making_facts
from shared.database import Tx
from shared.errors import NotYetError
from shared.messages import (
    Message,
)
from shared.reference import Reference
from shared.service import Service
from tests.infra import Database
from tests.integration.reporting.told import NINE, Complaint, a_clock, a_tenant, a_whole_life, again
from tests.plans import read_widely
from tests.waiting import until

BOOK = repository.Book()


async def note_down(tx: Tx, message: Any, book: repository.Book = BOOK) -> None:
    book.take_down(tx, message)


async def known(service: Service, *tenants: UUID) -> None:
    reference = Reference(service.runtime.db)
    for tenant_id in tenants:
        async with service.runtime.db.worker_tx(tenant_id) as tx:
            await reference.on_tenant(a_tenant(tenant_id), tx)


async def tell(service: Service, *messages: Message) -> None:
    for message in messages:
        async with service.runtime.db.worker_tx(message.tenant_id) as tx:
            await note_down(tx, message)


async def tell_at_once(service: Service, *messages: Any, book: repository.Book = BOOK) -> None:
    """As a group of messages is taken down, with the facts made in its transaction."""
    tenants = sorted({message.tenant_id for message in messages})
    async with service.runtime.db.worker_tx(*tenants) as tx:
        for message in messages:
            await note_down(tx.of(message.tenant_id), message, book)
        await making_facts(book)(tx)


async def settle(service: Service) -> None:
    while await refresh_round(service.runtime.db):
        pass


async def facts_of(root: asyncpg.Connection, tenant_id: UUID) -> list[tuple[Any, ...]]:
    rows = await root.fetch(
        "SELECT case_id, seq, day, zone, counted::text, body::text FROM fact WHERE tenant_id = $1 ORDER BY case_id",
        tenant_id,
    )
    return [tuple(row) for row in rows]


async def rollup_of(root: asyncpg.Connection, tenant_id: UUID) -> dict[tuple[str, str, str, str], int]:
    rows = await root.fetch("SELECT day, dimension, part, measure, amount FROM rollup WHERE tenant_id = $1", tenant_id)
    return {(str(row["day"]), row["dimension"], row["part"], row["measure"]): row["amount"] for row in rows}


async def test_a_whole_life_is_counted(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)

    await tell(idle, *a_whole_life(complaint))
    await settle(idle)

    rollup = await rollup_of(root, tenant_id)
    whole = {measure: amount for (_, dimension, _, measure), amount in rollup.items() if dimension == "all"}
    assert whole == {
        "received": 1,
        "accepted": 1,
        "assigned": 1,
        "late": 1,
        "escalated": 1,
        "escalations": 1,
        "closed": 1,
        "amount:fine:CNY": 7_500,
        "messages:sms:delivered": 1,
        "entries": 5,
    }
    assert rollup["2026-03-02", "unit", "centre", "late"] == 1
    assert rollup["2026-03-02", "category", "billing", "amount:fine:CNY"] == 7_500


async def test_facts_of_several_tenants_are_made_together_and_do_not_mix(
    idle: Service, root: asyncpg.Connection
) -> None:
    """The same numbers, the same life, one shorter: each has what it would have by itself."""
    alone, first, second, unknown = uuid4(), uuid4(), uuid4(), uuid4()
    await known(idle, alone, first, second)
    for tenant_id in (alone, first, second, unknown):
        life = a_whole_life(Complaint(tenant_id))
        await tell(idle, *(life[:2] if tenant_id == second else life))
    await refresh_some(idle.runtime.db, [alone])
    together = sorted([first, second, unknown])
    assert set(await refresh_some(idle.runtime.db, together)) == {first, second}
    assert await rollup_of(root, first) == await rollup_of(root, alone)
    [fact], [shorter] = await facts_of(root, first), await facts_of(root, second)
    assert fact[1] > shorter[1] > 0
    assert 0 < len(await rollup_of(root, second)) < len(await rollup_of(root, first))
    assert await facts_of(root, unknown) == []
    assert {row["tenant_id"] for row in await root.fetch("SELECT tenant_id FROM stale")} == {unknown}


@pytest.mark.parametrize("seed", range(6))
async def test_order_and_repetition_do_not_matter(idle: Service, root: asyncpg.Connection, seed: int) -> None:
    """Shuffled, told twice under other ids, with facts made at any moment in between: the same in the end."""
    choice = random.Random(seed)
    straight, shuffled = uuid4(), uuid4()
    await known(idle, straight, shuffled)
    numbers = [f"20260302-{number:04}" for number in range(3)]
    for tenant_id in (straight, shuffled):
        messages = [message for number in numbers for message in a_whole_life(Complaint(tenant_id, number))]
        if tenant_id == shuffled:
            messages += again(messages)
            choice.shuffle(messages)
        for message in messages:
            await tell(idle, message)
            if tenant_id == shuffled and choice.random() < 0.3:
                await refresh_some(idle.runtime.db, [tenant_id], size=choice.randint(1, 5))
        await settle(idle)

    assert await rollup_of(root, shuffled) == await rollup_of(root, straight)
    bodies = {
        tenant_id: sorted(row[5] for row in await facts_of(root, tenant_id)) for tenant_id in (straight, shuffled)
    }
    assert bodies[shuffled] == bodies[straight]
    assert len(bodies[straight]) == 3


async def test_an_older_standing_never_replaces_a_newer_one(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)
    newer, older = complaint.standing(1, 5, [a_clock("met")]), complaint.standing(1, 2, [a_clock("running")])

    await tell(idle, complaint.received(), newer, older)
    await settle(idle)

    assert (await rollup_of(root, tenant_id))["2026-03-02", "all", "", "on_time"] == 1


async def test_what_is_withdrawn_stays_withdrawn(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)

    await tell(
        idle,
        complaint.received(),
        complaint.standing(),
        complaint.announcement("e1", withdrawn=True),
        complaint.announcement("e1"),
        complaint.announcement("e2"),
    )
    await settle(idle)

    assert (await rollup_of(root, tenant_id))["2026-03-02", "all", "", "escalations"] == 1


async def test_a_delivery_does_not_fall_back(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)

    await tell(
        idle,
        complaint.received(),
        complaint.delivery("delivered", 3),
        complaint.delivery("queued", 1),
        complaint.delivery("sent", 3),
    )
    await settle(idle)

    messages = {key[3] for key in await rollup_of(root, tenant_id) if key[3].startswith("messages:")}
    assert messages == {"messages:sms:delivered"}


async def test_a_gap_in_the_timeline_waits_for_what_is_missing(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)
    first, second, third = complaint.first_entry(), complaint.entry("accepted"), complaint.entry("assigned", unit="u1")

    await tell(idle, third)
    await settle(idle)
    assert await facts_of(root, tenant_id) == []
    assert await rollup_of(root, tenant_id) == {}

    await tell(idle, first)
    await settle(idle)
    assert [row[1] for row in await facts_of(root, tenant_id)] == [1]

    await tell(idle, second)
    await settle(idle)
    assert [row[1] for row in await facts_of(root, tenant_id)] == [3]
    assert (await rollup_of(root, tenant_id))["2026-03-02", "unit", "u1", "assigned"] == 1


async def test_a_changed_class_moves_between_parts(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    complaint = Complaint(tenant_id)
    await tell(idle, complaint.received(), complaint.standing())
    await settle(idle)
    classified = complaint.standing(1, 9).classified

    await tell(idle, complaint.standing(2, 9, classified=type(classified)(category="service")))
    await settle(idle)

    received = {
        part: amount
        for (_, dimension, part, measure), amount in (await rollup_of(root, tenant_id)).items()
        if (dimension, measure) == ("category", "received")
    }
    assert received == {"service": 1}


async def test_another_tenants_facts_are_untouched(idle: Service, root: asyncpg.Connection) -> None:
    """The same case id and posting id under two tenants are two cases."""
    first, second = uuid4(), uuid4()
    await known(idle, first, second)
    mine, theirs = Complaint(first), Complaint(second)
    theirs.case_id = mine.case_id
    await tell(idle, *a_whole_life(mine))
    await settle(idle)
    before = await facts_of(root, first), await rollup_of(root, first)

    await tell(idle, theirs.received(), theirs.posting(99))
    await settle(idle)

    assert (await facts_of(root, first), await rollup_of(root, first)) == before
    whole = {key[3]: amount for key, amount in (await rollup_of(root, second)).items() if key[1] == "all"}
    assert whole == {"received": 1, "entries": 1, "amount:fine:CNY": 99}


async def test_row_level_security_holds_where_the_predicate_is_forgotten(idle: Service) -> None:
    first, second = uuid4(), uuid4()
    await known(idle, first, second)
    await tell(idle, *a_whole_life(Complaint(first)), *a_whole_life(Complaint(second)))
    await settle(idle)

    for table in ("entry", "standing", "announcement", "posting", "delivery", "fact", "rollup"):
        for open_tx in (idle.runtime.db.api_tx, idle.runtime.db.worker_tx):
            async with open_tx(first) as tx:
                tenants = await tx.fetch(f"SELECT DISTINCT tenant_id FROM {table}")
            assert [row["tenant_id"] for row in tenants] == [first], table
        async with idle.runtime.db.worker_tx(first) as tx:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):  # of the policy, or of the grants
                async with tx.transaction():
                    await tx.execute(f"UPDATE {table} SET tenant_id = $1", second)


async def test_counting_anew_finds_nothing_to_correct(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    for number in range(5):
        complaint = Complaint(tenant_id, f"20260302-{number:04}")
        await tell(idle, *a_whole_life(complaint)[: 3 * number + 3])
    await settle(idle)
    before = await facts_of(root, tenant_id), await rollup_of(root, tenant_id)

    rebuilt = await rebuild(idle.runtime.db, tenant_id, size=2)

    assert (rebuilt.facts, rebuilt.facts_changed, rebuilt.sums_changed) == (5, 0, 0)
    assert (await facts_of(root, tenant_id), await rollup_of(root, tenant_id)) == before


async def test_what_was_lost_is_made_again(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    for number in range(3):
        await tell(idle, *a_whole_life(Complaint(tenant_id, f"20260302-{number:04}")))
    await settle(idle)
    before = await facts_of(root, tenant_id), await rollup_of(root, tenant_id)
    await root.execute("DELETE FROM fact WHERE tenant_id = $1", tenant_id)
    await root.execute("DELETE FROM rollup WHERE tenant_id = $1", tenant_id)

    await rebuild(idle.runtime.db, tenant_id)

    assert (await facts_of(root, tenant_id), await rollup_of(root, tenant_id)) == before


async def test_a_wrong_sum_is_told_and_put_right(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    await tell(idle, *a_whole_life(Complaint(tenant_id)))
    await settle(idle)
    before = await rollup_of(root, tenant_id)
    await root.execute("UPDATE rollup SET amount = amount + 7 WHERE tenant_id = $1 AND measure = 'late'", tenant_id)
    await root.execute("INSERT INTO rollup VALUES ($1, '2025-01-01', 'all', '', 'received', 3)", tenant_id)

    rebuilt = await rebuild(idle.runtime.db, tenant_id)

    assert rebuilt.sums_changed == 9  # one in each of eight dimensions, and the day without facts
    assert await rollup_of(root, tenant_id) == before


async def test_several_workers_at_once_count_each_case_once(idle: Service, root: asyncpg.Connection) -> None:
    """Every case is noted many times, and all its notes are worked off by workers that know nothing of each other."""
    tenant_id = uuid4()
    await known(idle, tenant_id)
    lives = [a_whole_life(Complaint(tenant_id, f"20260302-{number:04}")) for number in range(12)]

    async def work() -> None:
        for _ in range(12):
            await refresh_some(idle.runtime.db, [tenant_id], size=7)
            await asyncio.sleep(0)

    async def talk(part: int) -> None:
        for life in lives[part::3]:
            await tell(idle, *life)

    async def talk_at_once(part: int) -> None:
        for told in zip(*lives[part::2], strict=True):
            await tell_at_once(idle, *told)

    await asyncio.gather(work(), work(), talk(0), talk(1), talk(2), talk_at_once(0), talk_at_once(1))
    await settle(idle)

    rollup = await rollup_of(root, tenant_id)
    assert rollup["2026-03-02", "all", "", "received"] == 12
    assert rollup["2026-03-02", "all", "", "amount:fine:CNY"] == 12 * 7_500
    assert (await rebuild(idle.runtime.db, tenant_id)).sums_changed == 0


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_told_in_one_transaction_counts_as_told_one_by_one(
    idle: Service, root: asyncpg.Connection, seed: int, at_once: bool
) -> None:
    """Shuffled and told twice, some of it in one transaction: of each thing the same is kept as if it had come singly."""
    choice = random.Random(seed)
    singly, together = uuid4(), uuid4()
    await known(idle, singly, together)
    for tenant_id in (singly, together):
        complaints = [Complaint(tenant_id, f"20260302-{number:04}") for number in range(3)]
        messages = [message for complaint in complaints for message in a_whole_life(complaint)]
        messages += [
            complaints[0].announcement("reply/taken back"),
            complaints[0].announcement("reply/taken back", withdrawn=True),
        ]
        if tenant_id == singly:
            await tell(idle, *messages)
        else:
            messages += again(messages)
            choice.shuffle(messages)
            half = choice.randint(1, len(messages) - 1)
            for part in (messages[:half], messages[half:]):
                if at_once:
                    await tell_at_once(idle, *part)
                    continue
                async with idle.runtime.db.worker_tx(tenant_id) as tx:
                    for message in part:
                        await note_down(tx, message)
    await settle(idle)

    assert await rollup_of(root, together) == await rollup_of(root, singly)
    bodies = [sorted(row[5] for row in await facts_of(root, tenant_id)) for tenant_id in (singly, together)]
    assert bodies[0] == bodies[1]


async def test_a_line_waits_for_the_standing_that_follows_it(idle: Service, root: asyncpg.Connection) -> None:
    """One fact is made of both, at once when the standing has come; the line's own note is gone with it."""
    tenant_id = uuid4()
    await known(idle, tenant_id)
    patient = repository.Book(patience=3600)
    complaint = Complaint(tenant_id)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await note_down(tx, complaint.received(), patient)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await note_down(tx, complaint.delivery("queued", 1), patient)
    assert await refresh_some(idle.runtime.db, [tenant_id]) == {tenant_id: 0}
    assert await facts_of(root, tenant_id) == []

    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await note_down(tx, complaint.standing(), patient)
    assert await refresh_some(idle.runtime.db, [tenant_id]) == {tenant_id: 1}

    [fact] = await facts_of(root, tenant_id)
    assert '"messages:sms:queued": 1' in fact[4]
    assert await root.fetchval("SELECT count(*) FROM stale") == 0


async def test_a_fact_is_made_in_the_transaction_that_takes_in_the_standing(
    idle: Service, root: asyncpg.Connection
) -> None:
    """Of several tenants, with what waited of the case; nothing is left for the loop."""
    first, second = uuid4(), uuid4()
    await known(idle, first, second)
    woken: list[Any] = []
    patient = repository.Book(patience=3600, wake=woken.append, put_off=woken.append)
    mine, theirs = Complaint(first), Complaint(second)
    await tell_at_once(idle, mine.received(), mine.delivery("queued", 1), book=patient)
    assert (await facts_of(root, first), woken) == ([], [3600])

    await tell_at_once(
        idle, mine.standing(), theirs.first_entry(), theirs.standing(), theirs.announcement("e"), book=patient
    )
    await tell_at_once(idle, mine.delivery("sent", 2), book=patient)

    [fact], [other] = await facts_of(root, first), await facts_of(root, second)
    assert '"messages:sms:sent": 1' in fact[4]
    assert '"escalations": 1' in other[4]
    assert (await root.fetchval("SELECT count(*) FROM stale"), woken) == (0, [3600])


@pytest.mark.parametrize("lock", [repository.lock_rollup, repository.lock_cases])
async def test_nobody_waits_for_a_case_that_another_holds(
    idle: Service, root: asyncpg.Connection, lock: Callable[..., Awaitable[None]]
) -> None:
    """What is told of it is stored and noted, and the facts of the others that share the transaction are made."""
    tenant_id, other = uuid4(), uuid4()
    await known(idle, tenant_id, other)
    woken: list[UUID] = []
    book = repository.Book(3600, wake=woken.append)
    held, free = Complaint(tenant_id), Complaint(other)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await lock(tx, tenant_id if lock is repository.lock_rollup else [(tenant_id, held.case_id)])
        await tell_at_once(idle, *(each for it in (held, free) for each in (it.received(), it.standing())), book=book)
        assert (await facts_of(root, tenant_id), len(await facts_of(root, other))) == ([], 1)
    assert woken == [tenant_id]
    await settle(idle)
    assert len(await facts_of(root, tenant_id)) == 1


async def test_what_cannot_be_made_at_once_is_noted(idle: Service, root: asyncpg.Connection) -> None:
    """A case that cannot be made, and one whose tenant is still on its way; the others are made."""
    tenant_id, unknown = uuid4(), uuid4()
    await known(idle, tenant_id)
    bad, good, early = Complaint(tenant_id), Complaint(tenant_id), Complaint(unknown)
    await tell_at_once(idle, bad.received(), good.received())
    await root.execute('UPDATE entry SET body = \'{"seq": "one"}\' WHERE case_id = $1', bad.case_id)

    await tell_at_once(idle, bad.standing(), good.standing(), early.received(), early.standing())

    assert (await rollup_of(root, tenant_id))["2026-03-02", "all", "", "received"] == 1
    notes = await root.fetch("SELECT case_id, failures, not_before > clock_timestamp() AS waits FROM stale")
    assert {tuple(note) for note in notes} == {(bad.case_id, 1, True), (early.case_id, 0, False)}
    await known(idle, unknown)
    await settle(idle)
    assert len(await facts_of(root, unknown)) == 1


async def test_a_line_that_comes_after_its_standing_waits_for_nothing(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    woken: list[UUID] = []
    book = repository.Book(patience=3600, wake=woken.append)
    complaint = Complaint(tenant_id)
    for message in (complaint.standing(seq=1), complaint.first_entry(), complaint.entry("accepted")):
        async with idle.runtime.db.worker_tx(tenant_id) as tx:
            await note_down(tx, message, book)
        await refresh_some(idle.runtime.db, [tenant_id])

    assert woken == [tenant_id] * 2  # for the standing, and for the line that it was made of
    assert [row[1] for row in await facts_of(root, tenant_id)] == [1]
    assert await root.fetchval("SELECT count(*) FROM stale WHERE not_before > clock_timestamp()") == 1


@pytest.mark.parametrize("is_own", [True, False])
async def test_what_was_put_off_is_made_when_its_time_has_come(
    idle: Service, root: asyncpg.Connection, is_own: bool
) -> None:
    """Of what this process has put off it knows the time; what another has left it finds by looking."""
    tenant_id = uuid4()
    await known(idle, tenant_id)
    loop = Facts(idle.runtime.db, size=10, look_seconds=3600 if is_own else 0.02)
    await loop.step()
    book = repository.Book(0.01, put_off=loop.expect if is_own else lambda _: None)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await note_down(tx, Complaint(tenant_id).received(), book)

    async def made() -> int:
        await loop.step()
        return len(await facts_of(root, tenant_id))

    assert await until(made) == 1


async def test_a_case_that_cannot_be_made_holds_up_nobody(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    bad, good = Complaint(tenant_id, "20260302-0001"), Complaint(tenant_id, "20260302-0002")
    await tell(idle, bad.received(), good.received())
    await root.execute('UPDATE entry SET body = \'{"seq": "one"}\' WHERE case_id = $1', bad.case_id)

    await refresh_some(idle.runtime.db, [tenant_id])

    assert (await rollup_of(root, tenant_id))["2026-03-02", "all", "", "received"] == 1
    note = await root.fetchrow("SELECT case_id, failures, not_before > clock_timestamp() AS waits FROM stale")
    assert note is not None
    assert tuple(note) == (bad.case_id, 1, True)
    assert await refresh_some(idle.runtime.db, [tenant_id]) == {tenant_id: 0}


async def test_facts_wait_for_their_tenant(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await tell(idle, Complaint(tenant_id).received())
    await settle(idle)
    assert await facts_of(root, tenant_id) == []

    await known(idle, tenant_id)
    await settle(idle)

    assert len(await facts_of(root, tenant_id)) == 1


async def test_a_new_zone_moves_facts_to_their_new_day(idle: Service, root: asyncpg.Connection) -> None:
    tenant_id = uuid4()
    await known(idle, tenant_id)
    await tell(idle, Complaint(tenant_id, at=NINE).received())
    await settle(idle)
    moved = a_tenant(tenant_id, "America/Los_Angeles", revision=2)

    with pytest.raises(NotYetError):
        async with idle.runtime.db.worker_tx(tenant_id) as tx:
            await handlers.on_zone(moved, tx)
    async with idle.runtime.db.worker_tx(tenant_id) as tx:
        await Reference(idle.runtime.db).on_tenant(moved, tx)
        await handlers.on_zone(moved, tx)
    await settle(idle)

    assert {key[0] for key in await rollup_of(root, tenant_id)} == {"2026-03-01"}


async def test_every_statement_fits_the_schema(root: asyncpg.Connection) -> None:
    statements = {name: text for name, text in vars(repository).items() if name.isupper() and isinstance(text, str)}
    assert len(statements) > 25
    for text in statements.values():
        await root.prepare(text)


async def test_a_fact_is_found_by_its_key_also_where_nobody_has_counted_the_rows(database: Database) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    connection = await asyncpg.connect(
        database.dsn, server_settings={"search_path": "reporting"}, statement_cache_size=0
    )
    try:
        for name in ("TELL", "PUT_FACTS", "DROP_EMPTY", "PAGE"):
            assert await read_widely(connection, getattr(repository, name)) == set(), name
        assert await read_widely(connection, repository.DUE_TENANTS) == set()
        # A tenant is its row's key.
        assert await read_widely(connection, repository.TOLD) == {"tenant"}
        assert await read_widely(connection, repository.CLAIM_STALE) == {"tenant"}
    finally:
        await connection.close()

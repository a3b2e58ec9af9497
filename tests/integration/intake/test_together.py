"""Complaints of several tenants in one transaction: none of them can meet another's rows, or suffer from them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from services.intake import gathering
from services.intake.domain.complaint import Complainant, Draft, NormalisedComplaint
from services.intake.domain.normalising import normalise
from services.intake.parts import parts_of
from services.intake.repository import complaints as rows
from services.intake.storing import Lot, Offer, Outcome, Stored, store, store_plainly
from shared import handover
from shared.database import Tx
from shared.engine.model import SYSTEM
from shared.idempotency import KeyReusedError
from shared.ids import new_id
from shared.messages.intake import ComplaintReceived
from tests.infra import Database, Infra
from tests.integration.intake.world import Tenant, World
from tests.waiting import until

# Tables in which a transaction of the edge may have several tenants: what storing a complaint touches, and nothing else.
TOGETHER = {
    "receipt", "counter", "data_key", "contact_point", "complaint", "free_text", "attachment", "outbox", "policy", "test_clock",
}  # fmt: skip


async def _lot(world: World, tenant: Tenant, *said: tuple[str, str], phone: str = "13812341111") -> Lot:
    """Complaints of a tenant by one and the same telephone number: each a key and a text."""
    runtime = world.service.runtime
    policy = await runtime.reference.current_policy(tenant.tenant_id)
    async with runtime.db.api_tx(tenant.tenant_id) as tx:
        keys = await parts_of(runtime).vault.keys(tx)
    offers = []
    for key, text in said:
        draft = Draft(channel="phone", category="charges", text=text, complainant=Complainant(phone=phone))
        complaint = normalise(draft, policy.document, datetime.now(UTC))
        assert isinstance(complaint, NormalisedComplaint)
        offers.append(
            Offer(
                key=key,
                request_sha256=text.encode(),
                complaint=complaint,
                policy=policy,
                source="api",
                by=SYSTEM,
                complaint_id=new_id(),
            )
        )
    return Lot(tenant=await runtime.reference.tenant(tenant.tenant_id), keys=keys, offers=offers)


async def _stored(world: World, *lots: Lot) -> list[list[Outcome]]:
    async with world.service.runtime.db.api_tx(*(lot.tenant.tenant_id for lot in lots)) as tx:
        return await store(tx, lots)


async def _plainly(world: World, *lots: Lot, about_now: datetime | None = None) -> list[list[Outcome | None]]:
    return await store_plainly(world.service.runtime.db, lots, about_now or datetime.now(UTC), 0.5)


async def test_what_needs_no_look_is_stored_in_one_call_and_the_others_are_left_out(
    world: World, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[handover.Row] = []
    monkeypatch.setattr(world.service.runtime.db.outbox_added, "give", given.extend)
    a, b, c = [await world.tenant() for _ in range(3)]
    await _stored(
        world, await _lot(world, a, ("k-1", "one")), await _lot(world, b, ("k-1", "one"), phone="13812342222")
    )
    found = await _plainly(
        world,
        await _lot(world, a, ("k-2", "known here")),
        await _lot(world, b, ("k-1", "one"), ("k-2", "new here")),  # an answered key, and a new one of the same person
        await _lot(world, c, ("k-1", "one"), ("k-2", "two")),
    )
    assert found[:2] == [[None], [None, None]]
    first, second = found[2]
    assert isinstance(first, Stored)
    assert isinstance(second, Stored)
    assert [each.number[-4:] for each in (first, second)] == ["0001", "0002"]
    assert second.duplicate_of == first.complaint_id
    await _is_whole(world, root, c.tenant_id, ["one", "two"])
    for tenant in (a, b):
        for table in ("complaint", "receipt", "data_key", "contact_point", "free_text"):
            assert await root.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant.tenant_id) == 1
    for row in given:  # as it stands in the table
        told = await root.fetchrow("SELECT * FROM outbox WHERE tenant_id = $1 AND id = $2", row.tenant_id, row.id)
        assert told is not None
        assert (told["message_id"], told["subject"], told["body"]) == (row.message_id, row.subject, row.body)
    assert [row.subject.rpartition(".complaint.")[2] for row in given].count("received") == 4
    body = msgspec.json.decode(given[-1].body, type=ComplaintReceived)
    assert body.case_id == second.complaint_id
    assert body.at == body.entry.at == second.received_at


async def test_a_plain_call_that_goes_beyond_a_plan_or_a_day_leaves_nothing(
    world: World, root: asyncpg.Connection
) -> None:
    short = await world.tenant(limits={"complaints_per_day": 2})
    other = await world.tenant()
    three = [(f"k-{n}", str(n)) for n in range(3)]
    assert await _plainly(world, await _lot(world, short, *three), await _lot(world, other, ("k", "x"))) == [
        [None] * 3,
        [None],
    ]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert await _plainly(world, await _lot(world, other, ("k", "x")), about_now=tomorrow) == [[None]]
    for table in ("complaint", "receipt", "counter", "data_key", "contact_point", "free_text"):
        assert await root.fetchval(f"SELECT count(*) FROM {table}") == 0
    [[outcome]] = await _plainly(world, await _lot(world, other, ("k", "x")))
    assert isinstance(outcome, Stored)
    assert outcome.number.endswith("-0001")


async def test_a_plain_call_whose_commit_fails_is_an_error_and_tells_the_relay_nothing(
    world: World, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await world.tenant()
    given: list[handover.Row] = []
    monkeypatch.setattr(world.service.runtime.db.outbox_added, "give", given.extend)
    await root.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'at the commit'; END $$;"
        " CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON complaint DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    try:
        with pytest.raises(asyncpg.RaiseError):
            await _plainly(world, await _lot(world, tenant, ("k", "x")))
    finally:
        await root.execute("DROP TRIGGER refuse ON complaint; DROP FUNCTION refuse")
    assert not given
    assert await root.fetchval("SELECT count(*) FROM receipt") == 0
    [[outcome]] = await _plainly(world, await _lot(world, tenant, ("k", "x")))
    assert isinstance(outcome, Stored)


async def test_a_plain_call_stores_nothing_for_a_tenant_that_it_does_not_name(
    world: World, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = [await world.tenant() for _ in range(2)]
    arguments = rows._arguments

    def forged(batch: rows.Batch, **how: Any) -> list[object]:
        batch.texts[0] = msgspec.structs.replace(batch.texts[0], tenant_id=b.tenant_id)
        batch.points[0] = msgspec.structs.replace(batch.points[0], tenant_id=b.tenant_id)
        batch.people.append(rows.PersonRow(b.tenant_id, batch.people[0].owner_id, b"key"))
        return arguments(batch, **how)

    monkeypatch.setattr(rows, "_arguments", forged)
    [[outcome]] = await _plainly(world, await _lot(world, a, ("k", "x")))
    assert isinstance(outcome, Stored)
    for table in ("data_key", "contact_point", "free_text"):
        assert await root.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", b.tenant_id) == 0


async def test_only_who_is_known_is_looked_for_beforehand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = await world.tenant()
    looked: list[str] = []

    async def looking(tx: Tx, lots: list[Lot]) -> list[list[Outcome]]:
        looked.extend(offer.key for lot in lots for offer in lot.offers)
        return await store(tx, lots)

    monkeypatch.setattr(gathering, "store", looking)
    storing = parts_of(world.service.runtime).storing
    storing._looking = 0
    keys = iter(range(100))

    async def complain(phone: str) -> bool:
        key = f"k-{next(keys)}"
        answer = await tenant.admin.complain(key=key, complainant={"phone": phone})
        assert answer.status_code == 201
        storing._looking = 0
        return f"api:{key}" in looked

    await complain("13812340001")  # tells the time, if it is the first of all
    assert not await complain("13812340002")
    assert await complain("13812340001")
    assert not await complain("13812340003")


async def test_nothing_of_one_tenant_meets_anothers(world: World, root: asyncpg.Connection) -> None:
    """The same keys, telephone number and words everywhere: whatever is looked up or joined without its tenant shows."""
    tenants = [await world.tenant() for _ in range(3)]
    a, b, c = tenants
    said = (("k-1", "one"), ("k-2", "two"))
    first = await _stored(world, await _lot(world, a, *said), await _lot(world, b, *said))
    for outcomes in first:
        assert [isinstance(each, Stored) and each.number[-4:] for each in outcomes] == ["0001", "0002"]
        assert isinstance(outcomes[0], Stored)
        assert isinstance(outcomes[1], Stored)
        assert outcomes[1].duplicate_of == outcomes[0].complaint_id
    # a repeats, b reuses a key, c is new: each by what is its own
    second = await _stored(
        world,
        await _lot(world, c, ("k-2", "two"), ("k-3", "three")),
        await _lot(world, a, ("k-2", "two"), ("k-3", "three")),
        await _lot(world, b, ("k-2", "other"), ("k-4", "four")),
    )
    of_c, of_a, of_b = second
    assert [isinstance(each, Stored) and each.number[-4:] for each in of_c] == ["0001", "0002"]
    assert isinstance(of_a[0], Stored)
    assert of_a[0].repeated
    assert of_a[0].complaint_id == first[0][1].complaint_id  # type: ignore[union-attr]  # asserted above
    assert isinstance(of_b[0], KeyReusedError)
    for outcome, before in ((of_a[1], first[0]), (of_b[1], first[1])):
        assert isinstance(outcome, Stored)
        assert outcome.number.endswith("-0003")
        assert outcome.duplicate_of == before[0].complaint_id  # type: ignore[union-attr]  # asserted above
    for tenant, texts in ((a, ["one", "two", "three"]), (b, ["one", "two", "four"]), (c, ["two", "three"])):
        await _is_whole(world, root, tenant.tenant_id, texts)
    assert await root.fetchval("SELECT count(DISTINCT complainant_id) FROM contact_point") == 3


async def _is_whole(world: World, root: asyncpg.Connection, tenant_id: UUID, texts: list[str]) -> None:
    """Everything of a tenant's complaints stands under its id, opens with its keys, and is told under its subject."""
    assert await root.fetchval("SELECT count(*) FROM complaint WHERE tenant_id = $1", tenant_id) == len(texts)
    assert await root.fetchval("SELECT count(*) FROM data_key WHERE tenant_id = $1", tenant_id) == 1
    vault = parts_of(world.service.runtime).vault
    async with world.service.runtime.db.api_tx(tenant_id) as tx:
        cases = await root.fetch("SELECT * FROM complaint WHERE tenant_id = $1 ORDER BY number", tenant_id)
        for case, text in zip(cases, texts, strict=True):
            assert [each.text for each in await vault.texts_of_case(tx, case["complaint_id"])] == [text]
            contact = await vault.contact(tx, case["complaint_id"])
            assert contact is not None
            assert contact.phone == "+8613812341111"
            told = await root.fetchrow(
                "SELECT o.subject, o.body FROM receipt r JOIN outbox o ON o.tenant_id = r.tenant_id"
                " AND convert_from(o.body, 'UTF8')::jsonb ->> 'case_id' = r.complaint_id::text"
                " WHERE r.tenant_id = $1 AND r.complaint_id = $2",
                tenant_id,
                case["complaint_id"],
            )
            assert told is not None
            body = msgspec.json.decode(told["body"])
            assert told["subject"] == f"intake.v1.{tenant_id}.complaint.received"
            assert (body["tenant_id"], body["number"], body["entry"]["data"]["number"]) == (
                str(tenant_id),
                case["number"],
                case["number"],
            )
            assert body["entry"]["data"]["complainant"]["id"] == str(case["complainant_id"])
    counts = await root.fetch("SELECT count FROM counter WHERE tenant_id = $1", tenant_id)
    assert {row["count"] for row in counts} == {len(texts)}


async def test_row_level_security_opens_to_the_tenants_of_the_transaction_and_only_where_they_are_stored_together(
    world: World, root: asyncpg.Connection
) -> None:
    a, b, c = [(await world.tenant()).tenant_id for _ in range(3)]
    database = world.service.runtime.db
    names = await root.fetch(
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'intake' AND column_name = 'tenant_id'"
    )
    for tenant_id in (a, b, c):
        await root.execute("INSERT INTO counter (tenant_id, name, count) VALUES ($1, 'x', 1)", tenant_id)
        await root.execute(
            "INSERT INTO source (tenant_id, source_id, name, kind, settings) VALUES ($1, $2, 'x', 'letter', '{}')",
            tenant_id,
            uuid4(),
        )
    seen: dict[str, set[UUID]] = {}
    async with database.api_tx(a, b) as tx:
        for row in names:
            name = row["table_name"]
            if await tx.fetchval("SELECT has_table_privilege(current_user, $1, 'SELECT')", f"intake.{name}"):
                seen[name] = {each["tenant_id"] for each in await tx.fetch(f"SELECT DISTINCT tenant_id FROM {name}")}
    assert not any(c in tenants for tenants in seen.values())
    assert seen["counter"] == {a, b}
    assert seen["source"] == {a}
    assert {name for name, tenants in seen.items() if b in tenants} <= TOGETHER
    open_to_several = await root.fetch(
        "SELECT tablename FROM pg_policies WHERE schemaname = 'intake' AND policyname = 'of_tenant' AND qual LIKE '%tenant_ids%'"
    )
    assert {row["tablename"] for row in open_to_several} == TOGETHER
    for table in ("counter", "source"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.api_tx(a, b) as tx:
                await tx.execute(f"UPDATE {table} SET tenant_id = $1 WHERE tenant_id = $2", c, a)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.api_tx(a, b) as tx:
            await tx.execute("INSERT INTO counter (tenant_id, name, count) VALUES ($1, 'y', 1)", c)


async def test_the_list_alone_is_no_tenant_and_ends_with_the_transaction(
    world: World, root: asyncpg.Connection, infra: Infra, database: Database
) -> None:
    a, b = [(await world.tenant()).tenant_id for _ in range(2)]
    api = await asyncpg.connect(
        database.dsn_as("intake_api", infra.role_passwords["intake_api"]), server_settings={"search_path": "intake"}
    )
    try:
        for _ in range(2):  # also after a first transaction, when the settings are '' and no longer unknown
            await api.execute(f"BEGIN; SELECT set_config('app.tenant_ids', '{{{a},{b}}}', true)")
            with pytest.raises(asyncpg.InvalidTextRepresentationError, match="no tenant is set"):
                await api.fetch("SELECT 1 FROM policy")
            await api.execute("ROLLBACK")
            async with api.transaction():
                await api.execute(f"SELECT set_config('app.tenant_id', '{a}', true)")
                assert {row["tenant_id"] for row in await api.fetch("SELECT tenant_id FROM policy")} == {a}
    finally:
        await api.close()


async def test_a_tenant_whose_plan_is_used_up_costs_nobody_else_a_complaint(
    world: World, root: asyncpg.Connection
) -> None:
    short = await world.tenant(limits={"complaints_per_day": 3})
    others = [await world.tenant() for _ in range(3)]
    senders = [short, *others] * 6
    answers = await asyncio.gather(*(tenant.admin.complain(text=str(n)) for n, tenant in enumerate(senders)))
    by_tenant = {
        tenant.slug: [answer for answer, sender in zip(answers, senders, strict=True) if sender is tenant]
        for tenant in (short, *others)
    }
    assert sorted(answer.status_code for answer in by_tenant[short.slug]) == [201] * 3 + [429] * 3
    for tenant in others:
        assert {answer.status_code for answer in by_tenant[tenant.slug]} == {201}
        numbers = sorted(int(answer.json()["number"].rpartition("-")[2]) for answer in by_tenant[tenant.slug])
        assert numbers == list(range(1, 7))
    assert await root.fetchval("SELECT count(*) FROM complaint") == 3 + 3 * 6
    assert await root.fetchval("SELECT count(*) FROM outbox WHERE subject LIKE '%complaint%'") == 3 + 3 * 6


async def test_who_waits_for_a_lock_keeps_nobody_else_waiting(world: World, root: asyncpg.Connection) -> None:
    locked, other = await world.tenant(), await world.tenant()
    for tenant in (locked, other):
        assert (await tenant.admin.complain()).status_code == 201
    async with root.transaction():
        await root.execute("SELECT 1 FROM counter WHERE tenant_id = $1 FOR UPDATE", locked.tenant_id)
        waiting = [asyncio.create_task(locked.admin.complain(key=f"k-{n}")) for n in range(8)]
        for n in range(8):
            assert (await other.admin.complain(text=str(n))).status_code == 201
        again = [asyncio.create_task(locked.admin.complain(key=f"k-{n}")) for n in range(8, 12)]
        assert (await other.admin.complain()).status_code == 201
    await asyncio.gather(*waiting, *again)

    async def stored() -> bool:
        again = await asyncio.gather(*(locked.admin.complain(key=f"k-{n}") for n in range(12)))
        return {answer.status_code for answer in again} == {201}

    await until(stored)
    assert await root.fetchval("SELECT count(*) FROM complaint WHERE tenant_id = $1", locked.tenant_id) == 13

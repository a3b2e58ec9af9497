from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg

from services.intake.app import build
from shared.messages.intake import ComplaintReceived
from tests.infra import Infra
from tests.integration.intake.world import POLICY, Caller, World, client_of, messages
from tests.waiting import until

ZHANG = {"name": "张三", "phone": "13812341111", "type": "patient"}


async def test_a_complaint_is_stored_numbered_and_told(world: World, streams: Infra, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    answer = await tenant.admin.complain(
        kind="external",
        category="charges",
        text="多收了一百元",
        complainant=ZHANG,
        respondent={"staff": "nurse-1"},
        fields={"loss_cny": "100.00", "complainant_name": "张三"},
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["links"]["self"] == f"/v1/cases/{body['id']}" == answer.headers["location"]
    assert body["number"].endswith("-0001")
    received = (await messages(streams, tenant.tenant_id, 4))[3]
    assert isinstance(received, ComplaintReceived)
    assert (str(received.case_id), received.number, received.policy_version) == (body["id"], body["number"], 1)
    entry = received.entry
    assert (entry.seq, entry.kind, entry.data["number"]) == (1, "received", body["number"])
    assert entry.data["fields"]["loss_cny"] == "100.00"
    assert entry.data["fields"]["complainant_name"].startswith("vault:")
    assert entry.data["complainant"]["type"] == "patient"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_a_repeat_gets_the_stored_answer_and_another_body_is_refused(
    world: World, root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    first = await tenant.admin.complain(key="k-1", text="one")
    again = await tenant.admin.complain(key="k-1", text="one")
    other = await tenant.admin.complain(key="k-1", text="two")
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1
    assert await root.fetchval("SELECT count(*) FROM outbox WHERE subject LIKE '%complaint%'") == 1


async def test_a_key_that_is_being_worked_on_is_a_conflict(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    lock = "SELECT pg_advisory_xact_lock(hashtextextended($1::text || ' receipt ' || $2, 0))"
    async with root.transaction():
        await root.execute(lock, str(tenant.tenant_id), "api:k-2")
        answer = await tenant.admin.complain(key="k-2")
        assert answer.status_code == 409
        assert answer.json()["type"] == "/problems/request-in-progress"
        assert answer.headers["retry-after"] == "1"
    assert (await tenant.admin.complain(key="k-2")).status_code == 201


async def test_many_at_once_under_one_key_are_stored_once(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    answers = await asyncio.gather(*(tenant.admin.complain(key="same", text="x") for _ in range(20)))
    stored = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in stored}) == 1
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_many_at_once_get_numbers_without_gap_or_repeat(world: World) -> None:
    tenant = await world.tenant()
    answers = await asyncio.gather(*(tenant.admin.complain(text=str(place)) for place in range(60)))
    assert {answer.status_code for answer in answers} == {201}
    numbers = sorted(int(answer.json()["number"].rpartition("-")[2]) for answer in answers)
    assert numbers == list(range(1, 61))


async def test_a_key_is_needed(world: World) -> None:
    tenant = await world.tenant()
    answer = await tenant.admin.post("/v1/complaints", {"channel": "phone"})
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/idempotency-key-missing"


async def test_a_tenant_without_a_policy_takes_nothing(world: World) -> None:
    tenant = await world.tenant(policy=None)
    answer = await tenant.admin.complain()
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/no-policy"


async def test_faults_are_told_with_pointers_and_leave_nothing(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    answer = await tenant.admin.complain(category="chargse", complainant={"phone": "secret"}, fields={"loss_cn": "1"})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"] == "/problems/complaint-invalid"
    assert [(error["pointer"], error.get("suggestion")) for error in problem["errors"]] == [
        ("/category", "charges"),
        ("/complainant/phone", "as 13812341111 or +86 138 1234 1111"),
        ("/fields/loss_cn", "loss_cny"),
    ]
    for table in ("complaint", "receipt", "free_text", "data_key", "counter"):
        assert await root.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_body_that_is_none_is_refused(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    bodies = [
        (b'{"channel": "phone", "channl": 1}', 400),
        (b'{"channel": 7}', 400),
        ('{"channel": "phone", "text": "投诉"}'.encode("gb18030"), 400),
        (b'{"channel": "phone", "text": "\\ud800"}', 400),
        (b'{"channel": "phone", "text": "a\\u0000b"}', 400),
        (b'{"channel": "phone", "text": "a\\u001bb"}', 422),
        (b"[" * 100_000, 400),
        (b'{"channel": "phone", "channel": "web"}', 400),
        (b'{"channel": "phone", "text": "' + b"x" * 700_000 + b'"}', 413),
        (b"", 400),
    ]
    for raw, status in bodies:
        headers = {"content-type": "application/json", "idempotency-key": uuid4().hex}
        answer = await tenant.admin.request("POST", "/v1/complaints", content=raw, headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 0


async def test_a_sandbox_has_a_time_of_its_own(world: World, streams: Infra, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(sandbox=True)
    at = datetime(2030, 1, 31, 16, 30, tzinfo=UTC)
    await root.execute("INSERT INTO test_clock (tenant_id, now) VALUES ($1, $2)", tenant.tenant_id, at)
    answer = await tenant.admin.complain(received_at="2030-01-31T12:00:00Z")
    assert answer.status_code == 201, answer.text
    assert answer.json()["number"] == "20300201-0001"  # in the tenant's zone it is the next day already
    received = (await messages(streams, tenant.tenant_id, 4))[3]
    assert isinstance(received, ComplaintReceived)
    assert received.entry.at == received.at == at
    assert received.entry.data["done_at"] == "2030-01-31T12:00:00+00:00"


async def test_the_same_number_is_the_same_complainant_and_a_repetition_is_linked(
    world: World, root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    first = (await tenant.admin.complain(category="charges", complainant=ZHANG)).json()
    again = (await tenant.admin.complain(category="charges", complainant={"phone": "+86 138-1234-1111"})).json()
    third = (await tenant.admin.complain(category="charges", complainant=ZHANG)).json()
    other = (await tenant.admin.complain(category="service_attitude", complainant=ZHANG)).json()
    assert first["duplicate_of"] is None
    assert again["duplicate_of"] == third["duplicate_of"] == first["id"]
    assert other["duplicate_of"] is None
    assert await root.fetchval("SELECT count(DISTINCT complainant_id) FROM complaint") == 1


async def test_two_new_complaints_of_one_person_at_once_have_one_complainant(
    world: World, root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    answers = await asyncio.gather(*(tenant.admin.complain(text=str(n), complainant=ZHANG) for n in range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert await root.fetchval("SELECT count(DISTINCT complainant_id) FROM complaint") == 1
    assert await root.fetchval("SELECT count(*) FROM data_key") == 1


async def test_people_without_contact_are_different_people(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    for _ in range(2):
        stored = (await tenant.admin.complain(category="charges", anonymous=True)).json()
        assert stored["duplicate_of"] is None
        contact = (await tenant.admin.get(stored["links"]["contact"])).json()
        assert (contact["phone"], contact["email"], contact["name"]) == (None, None, None)
    assert await root.fetchval("SELECT count(DISTINCT complainant_id) FROM complaint") == 2


async def test_a_member_of_staff_stands_on_the_timeline(world: World, streams: Infra) -> None:
    tenant = await world.tenant()
    clerk = await tenant.credential("handler", staff_id="clerk-1")
    assert (await clerk.complain()).status_code == 201
    received = (await messages(streams, tenant.tenant_id, 5))[4]
    assert isinstance(received, ComplaintReceived)
    assert received.entry.by.id == "clerk-1"


async def test_what_was_received_earlier_is_told_and_not_backdated(world: World, streams: Infra) -> None:
    tenant = await world.tenant()
    before = datetime.now(UTC)
    assert (await tenant.admin.complain(received_at="2026-03-02T10:00:00+08:00")).status_code == 201
    received = (await messages(streams, tenant.tenant_id, 4))[3]
    assert isinstance(received, ComplaintReceived)
    assert received.entry.at >= before
    assert received.entry.data["done_at"] == "2026-03-02T02:00:00+00:00"


async def test_a_plan_is_kept(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(limits={"complaints_per_day": 3})
    answers = await asyncio.gather(*(tenant.admin.complain(text=str(n)) for n in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["type"] == "/problems/quota-exceeded"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 3


async def test_numbers_that_may_not_grow_run_out(world: World, root: asyncpg.Connection) -> None:
    numbering = {"pattern": "{YYYY}{MM}{DD}{N:1}", "overflow": "refuse"}
    tenant = await world.tenant(POLICY | {"intake": POLICY["intake"] | {"numbering": numbering}})
    answers = [await tenant.admin.complain(text=str(n)) for n in range(10)]
    assert [answer.status_code for answer in answers] == [201] * 9 + [409]
    assert answers[9].json()["type"] == "/problems/numbers-exhausted"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 9


async def test_a_new_policy_is_in_force_for_the_next_complaint(world: World) -> None:
    tenant = await world.tenant()
    changed = POLICY | {"vocabulary": POLICY["vocabulary"] | {"kinds": {"verbal": ""}}}
    assert (await tenant.admin.complain(kind="verbal")).status_code == 422
    await tenant.publish(changed)
    answer = await tenant.admin.complain(kind="verbal")
    assert answer.status_code == 201
    assert answer.json()["policy_version"] == 2


async def test_a_database_that_hangs_is_answered_503_meanwhile_and_a_retry_gets_through(
    world: World, root: asyncpg.Connection, environ: dict[str, str]
) -> None:
    tenant = await world.tenant()
    impatient = build(
        {**environ, "RECOURSE_COMMAND_SECONDS": "1"}
    )  # other tests put up with a machine that stands still
    await impatient.start()
    try:
        async with client_of(impatient) as http, root.transaction():
            admin = Caller(http, tenant.admin.key)
            await root.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(*(admin.complain(key=f"k-{n}") for n in range(150)))
            assert {answer.status_code for answer in answers} == {503}
            assert all("retry-after" in answer.headers for answer in answers)
    finally:
        await impatient.stop()
    again = await asyncio.gather(*(tenant.admin.complain(key=f"k-{n}") for n in range(150)))
    assert {answer.status_code for answer in again} == {201}
    assert await root.fetchval("SELECT count(*) FROM complaint") == 150


async def test_receipts_are_pruned_by_age_and_the_complaints_stay(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    await tenant.admin.complain(key="old")
    await tenant.admin.complain(key="new")
    await root.execute("UPDATE receipt SET created_at = now() - interval '8 days' WHERE key = 'api:old'")
    world.service.runtime.wake("receipts")

    async def pruned() -> bool:
        return bool(await root.fetchval("SELECT count(*) = 1 FROM receipt"))

    await until(pruned)
    assert await root.fetchval("SELECT key FROM receipt") == "api:new"
    assert await root.fetchval("SELECT count(*) FROM complaint") == 2


async def test_an_attachment_is_kept_sealed_and_given_back(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    files = [{"name": "票据.pdf", "media_type": "application/pdf", "content": "JVBERi0="}]
    complaint_id = (await tenant.admin.complain(attachments=files)).json()["id"]
    [listed] = (await tenant.admin.get(f"/v1/complaints/{complaint_id}/attachments")).json()["items"]
    assert (listed["name"], listed["media_type"], listed["bytes"]) == ("票据.pdf", "application/pdf", 5)
    read = await tenant.admin.post(
        f"/v1/complaints/{complaint_id}/attachments/{listed['attachment_id']}/read", {"reason": "to check the bill"}
    )
    assert read.content == b"%PDF-"
    assert read.headers["content-type"] == "application/octet-stream"
    assert await root.fetchval("SELECT act FROM access") == "read_attachment"

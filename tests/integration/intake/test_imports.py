from __future__ import annotations

from typing import Any

import asyncpg
import httpx

from shared.messages.intake import ComplaintReceived
from tests.infra import Infra
from tests.integration.intake.world import Caller, Tenant, World, messages
from tests.waiting import until

HEAD = "姓名,手机,渠道,投诉类别,投诉内容,loss_cny,时间,编号\n"
GOOD = "张三,13812341111,phone,服务态度,等了很久,480.00,2026-03-02 10:00,A1\n"


async def send(caller: Caller, content: bytes, query: str = "", key: str | None = None) -> httpx.Response:
    headers = {"content-type": "text/csv"} | ({"idempotency-key": key} if key else {})
    return await caller.request("POST", f"/v1/imports{query}", content=content, headers=headers)


async def done(tenant: Tenant, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    path = f"/v1/imports/{answer.json()['import_id']}"

    async def report() -> dict[str, Any] | None:
        body: dict[str, Any] = (await tenant.admin.get(path)).json()
        return body if body["state"] == "done" else None

    found: dict[str, Any] = await until(report)
    return found


async def test_a_table_is_stored_whatever_its_encoding(world: World, root: asyncpg.Connection) -> None:
    for encoding in ("utf-8", "utf-8-sig", "gb18030"):
        tenant = await world.tenant()
        report = await done(tenant, await send(tenant.admin, (HEAD + GOOD).encode(encoding)))
        assert (report["rows"], report["stored"], report["refused"]) == (1, 1, 0)
        assert report["encoding"] == encoding.removesuffix("-sig")
        complaint_id = await root.fetchval("SELECT complaint_id FROM complaint WHERE tenant_id = $1", tenant.tenant_id)
        texts = await tenant.admin.post("/v1/vault/texts:read", {"case_id": str(complaint_id), "reason": "a test"})
        assert texts.json()["items"][0]["text"] == "等了很久"


async def test_bad_rows_are_told_one_by_one_and_good_ones_stored(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    table = (
        HEAD
        + GOOD
        + "李四,1.38E+10,phone,服务态度,x,,,A2\n"
        + "王五,13812342222,fax,乱写的类别,x,much,next week,A3\n"
        + '赵六,13812343333,phone,charges,"never closed,,,A4\n'
        + "孙七,13812344444,phone,charges,=cmd|' /C calc'!A0,,,A5\n"
    )
    report = await done(tenant, await send(tenant.admin, table.encode("gb18030")))
    assert (report["rows"], report["stored"], report["refused"]) == (5, 2, 3)
    assert [(error["row"], error["column"]) for error in report["errors"]] == [
        (3, "手机"),
        (4, "时间"),
        (5, ""),
    ]
    assert await root.fetchval("SELECT count(*) FROM complaint") == 2


async def test_every_fault_of_a_row_is_told_by_its_heading_without_the_cell(world: World) -> None:
    tenant = await world.tenant()
    table = HEAD + "王五,secret-phone,fax,secret-category,x,secret-sum,,A3\n"
    report = await done(tenant, await send(tenant.admin, table.encode()))
    assert [error["column"] for error in report["errors"]] == ["渠道", "投诉类别", "手机", "loss_cny"]
    assert "secret" not in str(report)


async def test_a_large_table_is_stored_in_chunks_each_row_once(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    lines = [f"人{n},1381234{n:04d},phone,charges,第{n}件,,,B{n}\n" for n in range(130)]
    report = await done(tenant, await send(tenant.admin, (HEAD + "".join(lines)).encode()))
    assert (report["rows"], report["stored"], report["refused"]) == (130, 130, 0)
    assert await root.fetchval("SELECT count(DISTINCT number) FROM complaint") == 130
    assert await root.fetchval("SELECT count(*) FROM import_chunk") == 0


async def test_a_row_that_was_imported_before_is_not_stored_again(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    await done(tenant, await send(tenant.admin, (HEAD + GOOD).encode()))
    again = await done(tenant, await send(tenant.admin, (HEAD + GOOD + GOOD.replace("A1", "A2")).encode()))
    assert (again["stored"], again["repeated"], again["refused"]) == (1, 1, 0)
    assert await root.fetchval("SELECT count(*) FROM complaint") == 2


async def test_the_same_request_again_is_the_same_import(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    first = await send(tenant.admin, (HEAD + GOOD).encode(), key="import-1")
    again = await send(tenant.admin, (HEAD + GOOD).encode(), key="import-1")
    assert first.json()["import_id"] == again.json()["import_id"]
    assert await root.fetchval("SELECT count(*) FROM import") == 1


async def test_a_silent_import_is_of_the_past(world: World, streams: Infra) -> None:
    tenant = await world.tenant()
    await done(tenant, await send(tenant.admin, (HEAD + GOOD).encode(), "?silent=true"))
    received = (await messages(streams, tenant.tenant_id, 4))[3]
    assert isinstance(received, ComplaintReceived)
    assert received.silent
    assert received.entry.at.isoformat() == "2026-03-02T02:00:00+00:00"
    assert received.number.startswith("20260302-")


async def test_a_source_has_headings_and_a_channel_of_its_own(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    columns = {"Anrufer": "complainant.phone", "Notiz": "text", "intern": ""}
    await tenant.source("csv", "branch", channel="phone", settings={"columns": columns})
    report = await done(
        tenant, await send(tenant.admin, b"Anrufer;Notiz;intern\n13812341111;late;x\n", "?source=branch")
    )
    assert report["stored"] == 1
    assert '"channel": "phone"' in await root.fetchval("SELECT words::text FROM complaint")


async def test_what_is_no_table_is_refused(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    tables = [
        (b"\xff\xff\xff", "text/csv", 422),
        (b"", "text/csv", 422),
        (b"nmae,phone\nx,1\n", "text/csv", 422),
        (b"name,phone\n", "text/csv", 422),
        (b"{}", "application/json", 415),
        (b"x" * 11_000_000, "text/csv", 413),
    ]
    for content, kind, status in tables:
        answer = await tenant.admin.request("POST", "/v1/imports", content=content, headers={"content-type": kind})
        assert answer.status_code == status, answer.text
    assert await root.fetchval("SELECT count(*) FROM import") == 0

"""Nothing of one tenant shows to another, whatever is asked."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.routing.api.routes import ROUTE_HANDLERS
from shared.auth import guards_of
from tests.integration.routing.world import Player, World


@pytest.fixture
async def both(world: World) -> tuple[Player, Player]:
    found = []
    for _ in range(2):
        player = await world.tenant(sandbox=True)
        await player.staff("anna", roles=["clerk"], unit="desk", phone="+8613800138000", name="安娜")
        for role in ("admin", "supervisor", "handler", "auditor", "integration"):
            await player.credential(role, role)
        found.append(player)
    return found[0], found[1]


def _requests(case_id: UUID, mine: UUID, operation_id: UUID, staff_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Every route that names something, with somebody else's ids; the second case is the caller's own."""
    return [
        ("GET", f"/v1/cases/{case_id}", {}),
        ("GET", f"/v1/cases/{case_id}/allowed", {}),
        ("POST", f"/v1/cases/{case_id}/entries", {"kind": "commented", "data": {}}),
        ("POST", f"/v1/cases/{case_id}/merges", {"into": str(mine)}),
        ("POST", f"/v1/cases/{mine}/merges", {"into": str(case_id)}),
        ("POST", f"/v1/cases/{case_id}/links", {"to": str(mine)}),
        ("POST", f"/v1/cases/{mine}/links", {"to": str(case_id)}),
        ("POST", f"/v1/cases/{case_id}/splits", {"parts": [{"category": "billing"}]}),
        ("GET", f"/v1/sandbox/clock/operations/{operation_id}", {}),
        ("GET", f"/v1/staff/{staff_id}", {}),
        ("DELETE", f"/v1/staff/{staff_id}", {}),
    ]


async def test_foreign_and_missing_ids_are_answered_alike(world: World, both: tuple[Player, Player]) -> None:
    ours, theirs = both
    foreign, mine = await theirs.complaint(), await ours.complaint()
    await theirs.staff("zoe", roles=["clerk"])
    operation_id = await theirs.advanced(by="1h")
    before = await _everything(world, theirs.tenant_id), await _everything(world, ours.tenant_id)
    asked = _requests(foreign, mine, operation_id, "zoe")
    missing = _requests(uuid4(), mine, uuid4(), "nobody")
    for (method, path, body), (_, other_path, other_body) in zip(asked, missing, strict=True):
        for role in ("admin", "supervisor", "handler"):
            one = await ours.call(method, path, role, json=body or None)
            other = await ours.call(method, other_path, role, json=other_body or None)
            assert one.status_code == other.status_code, (method, path, role)
            assert one.status_code in (403, 404), (method, path, one.text)
            assert {**one.json(), "trace_id": ""} == {**other.json(), "trace_id": ""}
    assert (await _everything(world, theirs.tenant_id), await _everything(world, ours.tenant_id)) == before


async def _everything(world: World, tenant_id: UUID) -> list[int]:
    tables = ("case", "entry", "assignment", "staff_member", "clock_operation", "outbox")
    return [await world.count(f'"{table}" WHERE tenant_id = $1', tenant_id) for table in tables]


async def test_lists_show_the_callers_own(world: World, both: tuple[Player, Player]) -> None:
    ours, theirs = both
    foreign, mine = await theirs.complaint(), await ours.complaint()
    await theirs.enter(foreign, "approval_requested", "handler")
    await theirs.staff("zoe", roles=["clerk"])
    assert [item["case_id"] for item in (await ours.get("/v1/cases"))["items"]] == [str(mine)]
    assert (await ours.get("/v1/approvals"))["items"] == []
    assert [item["staff_id"] for item in (await ours.get("/v1/staff"))["items"]] == ["anna"]
    assert (await ours.get("/v1/cases", number="N-0001"))["items"][0]["case_id"] == str(mine)


async def test_row_level_security_stands_without_any_predicate(world: World, both: tuple[Player, Player]) -> None:
    ours, theirs = both
    await theirs.complaint()
    database = world.service.runtime.db
    tables = [
        row["tablename"]
        for row in await world.root.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'routing'")
    ]
    crossing = {"schema_migration", "live_tick", "relay_state"}
    readable = [table for table in tables if table not in crossing]
    async with database.api_tx(ours.tenant_id) as tx:
        for table in readable:
            columns = await world.root.fetch(
                "SELECT 1 FROM information_schema.columns WHERE table_schema = 'routing' AND table_name = $1 AND column_name = 'tenant_id'",
                table,
            )
            assert columns, f"{table} has no tenant_id"
            may = await world.root.fetchval(
                "SELECT has_table_privilege('routing_api', $1, 'SELECT')", f'routing."{table}"'
            )
            if may:
                found = await tx.fetchval(f'SELECT count(*) FROM "{table}" WHERE tenant_id = $1', theirs.tenant_id)
                assert found == 0, table
    async with database.worker_tx(ours.tenant_id) as tx:
        for table in ("case", "entry", "assignment", "approval", "staff_member"):
            assert await tx.fetchval(f'SELECT count(*) FROM "{table}" WHERE tenant_id = $1', theirs.tenant_id) == 0


async def test_timelines_cannot_be_changed(world: World, both: tuple[Player, Player]) -> None:
    ours, _ = both
    await ours.complaint()
    for statement in ("UPDATE entry SET kind = 'closed'", "DELETE FROM entry", 'DELETE FROM "case"'):
        for opened in (world.service.runtime.db.api_tx, world.service.runtime.db.worker_tx):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with opened(ours.tenant_id) as tx:
                    await tx.execute(statement)


def test_every_route_says_whom_it_is_for() -> None:
    for handler in ROUTE_HANDLERS:
        roles = {role for guard in guards_of(handler) for role in guard.roles}
        assert roles
        assert "operator" not in roles
        writes = (
            handler.http_methods & {"POST", "PUT", "DELETE"} and handler.status_code != 200
        )  # a question with a long body
        assert not (writes and "auditor" in roles), handler


async def test_auditors_and_integrations_only_do_what_is_theirs(world: World, both: tuple[Player, Player]) -> None:
    ours, _ = both
    case_id = await ours.complaint()
    assert (await ours.enter(case_id, "commented", "auditor")).status_code == 403
    assert (await ours.call("PUT", "/v1/staff/x", "supervisor", json={})).status_code == 403
    passed_on = await ours.enter(case_id, "withdrawn", "integration", as_="complainant")
    assert passed_on.status_code == 201
    assert (await ours.timeline(case_id))[-1]["by"] == {"id": "complainant", "roles": ["complainant"], "unit": None}
    assert (await ours.enter(case_id, "commented", "handler", as_="complainant")).status_code == 403

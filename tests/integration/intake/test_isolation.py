"""Every endpoint of intake with the key of one tenant and the ids of another."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from services.intake.api import ROUTES
from shared.auth import guards_of
from tests.integration.intake.test_imports import GOOD, HEAD, done, send
from tests.integration.intake.world import POLICY, Caller, World

REASON = {"reason": "a test"}
# What each route that takes an id is asked, by its operation; `{…}` is filled with the other tenant's ids.
ASKED: dict[str, tuple[str, str, Any]] = {
    "get_tenant": ("GET", "/v1/tenants/{tenant}", None),
    "change_tenant": ("PATCH", "/v1/tenants/{tenant}", {"name": "x"}),
    "rotate_credential": ("POST", "/v1/credentials/{credential}/rotate", None),
    "revoke_credential": ("DELETE", "/v1/credentials/{credential}", None),
    "approve_policy": ("POST", "/v1/policies/proposals/{proposal}/approve", None),
    "withdraw_policy": ("POST", "/v1/policies/proposals/{proposal}/withdraw", None),
    "get_source": ("GET", "/v1/sources/{source}", None),
    "change_source": ("PATCH", "/v1/sources/{source}", {"active": False}),
    "close_source": ("DELETE", "/v1/sources/{source}", None),
    "rotate_source": ("POST", "/v1/sources/{source}/rotate", None),
    "get_contact": ("GET", "/v1/complaints/{complaint}/contact", None),
    "unmask_contact": ("POST", "/v1/complaints/{complaint}/contact/unmask", REASON),
    "create_text": ("POST", "/v1/cases/{complaint}/texts", {"text": "x"}),
    "get_import": ("GET", "/v1/imports/{import}", None),
    "list_attachments": ("GET", "/v1/complaints/{complaint}/attachments", None),
    "read_attachment": ("POST", "/v1/complaints/{complaint}/attachments/{attachment}/read", REASON),
    "erase_person": ("DELETE", "/v1/complainants/{person}", None),
}


async def the_others(world: World, root: asyncpg.Connection) -> tuple[Caller, dict[str, str]]:
    """A tenant with one of everything, and its ids."""
    tenant = await world.tenant(POLICY | {"title": "canary-title"}, two_admins=False)
    files = [{"name": "canary.txt", "content": "eA=="}]
    complaint = await tenant.admin.complain(text="canary-text", complainant={"name": "canary"}, attachments=files)
    complaint_id = complaint.json()["id"]
    source = await tenant.source("webhook", "canary-source")
    imported = await send(tenant.admin, (HEAD + GOOD).encode())
    await done(tenant, imported)
    path = f"/v1/tenants/{tenant.tenant_id}"
    assert (await tenant.admin.request("PATCH", path, json={"two_admins": True})).status_code == 200
    proposal = (await tenant.publish(POLICY)).json()["proposal_id"]
    contact = (await tenant.admin.get(f"/v1/complaints/{complaint_id}/contact")).json()
    files_ = (await tenant.admin.get(f"/v1/complaints/{complaint_id}/attachments")).json()["items"]
    await tenant.admin.post(f"/v1/complaints/{complaint_id}/contact/unmask", {"reason": "canary-reason"})
    return tenant.admin, {
        "tenant": str(tenant.tenant_id),
        "credential": (await tenant.admin.get("/v1/me")).json()["credential_id"],
        "proposal": proposal,
        "source": source["source_id"],
        "complaint": complaint_id,
        "person": contact["complainant_id"],
        "import": imported.json()["import_id"],
        "attachment": files_[0]["attachment_id"],
        "text": str(
            await root.fetchval("SELECT text_id FROM free_text WHERE kind = 'complaint' AND case_id = $1", complaint_id)
        ),
    }


def test_every_route_is_looked_at() -> None:
    """Who adds a route that takes an id says here what to ask it; what the others give is looked at below."""
    named = {str(route.operation_id) for route in ROUTES if any(":uuid}" in path for path in route.paths)}
    assert named - {"create_admin"} == set(ASKED)  # the operator's, who belongs to no tenant


async def test_ids_of_another_tenant_are_not_there(world: World, root: asyncpg.Connection) -> None:
    mine = await world.tenant()
    theirs, ids = await the_others(world, root)
    before = await _state(root, ids["tenant"])
    for operation, (method, path, body) in ASKED.items():
        foreign = await mine.admin.request(method, path.format(**ids), json=body)
        assert foreign.status_code == 404, f"{operation}: {foreign.status_code} {foreign.text}"
        missing = await mine.admin.request(method, path.format(**{name: str(uuid4()) for name in ids}), json=body)
        assert foreign.content == missing.content, operation
        assert _headers(foreign) == _headers(missing), operation
    assert await _state(root, ids["tenant"]) == before
    assert (await theirs.get(f"/v1/complaints/{ids['complaint']}/contact")).status_code == 200


async def test_lists_and_bodies_give_nothing_of_another_tenant(world: World, root: asyncpg.Connection) -> None:
    mine = await world.tenant()
    _, ids = await the_others(world, root)
    for path in (
        "/v1/tenants", "/v1/me", "/v1/credentials", "/v1/policies", "/v1/policies/current", "/v1/policies/proposals",
        "/v1/calendars", "/v1/sources", "/v1/vault/accesses", "/v1/policies/1",
    ):  # fmt: skip
        answer = await mine.admin.get(path)
        assert answer.status_code in (200, 404), f"{path} {answer.text}"
        assert "canary" not in answer.text
        assert not any(value in answer.text for value in ids.values()), path
    for body in ({"text_ids": [ids["text"]]}, {"case_id": ids["complaint"]}):
        for reason in ({}, REASON):
            answer = await mine.admin.post("/v1/vault/texts:read", body | reason)
            assert answer.status_code == 404
            assert "canary" not in answer.text
    answer = await send(mine.admin, (HEAD + GOOD).encode(), "?source=canary-source")
    assert answer.status_code == 422


async def _state(root: asyncpg.Connection, tenant_id: str) -> list[str]:
    tables = (
        "tenant",
        "credential",
        "policy",
        "policy_proposal",
        "source",
        "complaint",
        "data_key",
        "free_text",
        "access",
    )
    return [
        str(await root.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1 ORDER BY 1, 2", tenant_id))
        for table in tables
    ]


def _headers(answer: Any) -> list[tuple[str, str]]:
    return sorted(each for each in answer.headers.items() if each[0] != "traceresponse")


@pytest.mark.parametrize("role", ["supervisor", "handler", "auditor", "integration"])
async def test_a_role_may_do_what_its_guard_says_and_nothing_else(
    world: World, root: asyncpg.Connection, role: str
) -> None:
    _, ids = await the_others(world, root)
    tenant = await world.tenant()
    caller = await tenant.credential(role)
    for route in ROUTES:
        [guard] = guards_of(route)
        operation = str(route.operation_id)
        if guard.reason is not None or operation not in ASKED:
            continue
        method, path, body = ASKED[operation]
        answer = await caller.request(method, path.format(**ids), json=body)
        assert answer.status_code == (404 if role in guard.roles else 403), f"{operation}: {answer.text}"


async def test_nobody_does_anything_without_a_key(world: World, root: asyncpg.Connection) -> None:
    _, ids = await the_others(world, root)
    for method, path, body in ASKED.values():
        for headers in ({}, {"Authorization": "Bearer rk_x"}, {"Authorization": f"Bearer rk_{'0' * 32}_{'x' * 43}"}):
            answer = await world.http.request(method, path.format(**ids), json=body, headers=headers)
            assert answer.status_code == 401


async def test_the_operator_sees_no_complaints(world: World, root: asyncpg.Connection) -> None:
    _, ids = await the_others(world, root)
    for operation in ("get_contact", "unmask_contact", "create_text", "erase_person", "get_source", "get_import"):
        method, path, body = ASKED[operation]
        answer = await world.operator.request(method, path.format(**ids), json=body)
        assert answer.status_code == 403, operation


async def test_row_level_security_holds_where_a_condition_is_forgotten(world: World, root: asyncpg.Connection) -> None:
    mine = await world.tenant()
    _, ids = await the_others(world, root)
    database = world.service.runtime.db
    tables = await root.fetch(
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'intake' AND column_name = 'tenant_id'"
    )
    assert len(tables) > 15
    for opened in (database.api_tx, database.worker_tx):
        async with opened(mine.tenant_id) as tx:
            for row in tables:
                name = row["table_name"]
                if (
                    await root.fetchval(
                        "SELECT count(*) FROM pg_policies WHERE schemaname = 'intake' AND tablename = $1 AND policyname = 'of_all_tenants'",
                        name,
                    )
                    and opened == database.worker_tx
                ):
                    continue
                if not await tx.fetchval("SELECT has_table_privilege(current_user, $1, 'SELECT')", f"intake.{name}"):
                    continue
                assert await tx.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id <> $1", mine.tenant_id) == 0, (
                    name
                )
    async with database.api_tx(mine.tenant_id) as tx:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await tx.execute("INSERT INTO counter (tenant_id, name, count) VALUES ($1, 'x', 1)", ids["tenant"])

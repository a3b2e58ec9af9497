"""One tenant sees nothing of another, and nothing personal is stored, told or logged."""

from __future__ import annotations

import base64
import inspect
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import structlog

from services.notify import api as notify_api
from services.notify import repository
from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from shared.auth import guards_of
from shared.telemetry import configure
from tests.infra import Database, Infra
from tests.integration.notify.world import EMAIL, NAME, PHONE, Tenant, World, an_announcement

ROLES = ("admin", "supervisor", "handler", "auditor", "integration")
TABLES = "entry event provider receipt_address receipt endpoint delivery delivery_attempt delivery_queue budget day_budget settlement"


async def a_busy_tenant(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink
) -> tuple[Tenant, dict[str, str]]:
    """A tenant with one of everything, and the ids of it."""
    tenant = await world.tenant()
    sms_id = await tenant.sms_provider(sms, secrets={"token": "token-canary-4711"})
    await tenant.email_provider(mail)
    tenant.reachable()
    tenant.staffed("leader", "s7", "s8")
    endpoint_id = await tenant.endpoint(hook)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), an_announcement(complaint))
    await tenant.quiet()
    delivery = (await tenant.deliveries())[0]
    return tenant, {
        "case_id": str(complaint.case_id),
        "delivery_id": delivery["delivery_id"],
        "endpoint_id": endpoint_id,
        "provider_id": sms_id,
    }


BODIES: dict[tuple[str, str], Any] = {
    ("patch", "/v1/webhooks/{endpoint_id}"): {"active": False},
    ("put", "/v1/providers/{provider_id}"): {
        "channel": "sms",
        "name": "x",
        "config": {"url": "http://127.0.0.1:9/x", "lookup_url": "http://127.0.0.1:9/x?{key}"},
    },
}
COMMANDS = {
    "/v1/deliveries/{command}": ("delivery_id", "retry"),
    "/v1/webhooks/{command}": ("endpoint_id", "test rotate"),
}


def operations(world: World, ids: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Every operation with an id in its path: from the OpenAPI document, never from a list."""
    found = []
    for path, methods in world.service.openapi()["paths"].items():
        if "{" not in path or not path.startswith("/v1/") or path.startswith(("/v1/ops/", "/v1/receipts/")):
            continue
        for method in methods:
            for filled in filled_in(path, ids):
                found.append((method, filled, BODIES.get((method, path))))
    return found


def filled_in(path: str, ids: dict[str, str]) -> list[str]:
    if path in COMMANDS:
        name, verbs = COMMANDS[path]
        return [path.replace("{command}", f"{ids[name]}:{verb}") for verb in verbs.split()]
    return [re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)]


async def test_another_tenants_ids_are_not_found_with_any_role(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_api, "ARRIVAL_SECONDS", 0.05)
    _, ids = await a_busy_tenant(world, sms, mail, hook)
    other = await world.tenant()
    missing = {name: str(uuid4()) for name in ids}
    before = await contents(world)
    foreign, absent = operations(world, ids), operations(world, missing)
    assert len(foreign) >= 11
    for (method, path, body), (_, nowhere, _) in zip(foreign, absent, strict=True):
        for role in ROLES:
            answer = await other.call(method.upper(), path, role=role, json=body)
            if answer.status_code == 403:
                continue
            nothing = await other.call(method.upper(), nowhere, role=role, json=body)
            assert (answer.status_code, nothing.status_code) == (404, 404), (method, path, role)
            assert plain(answer) == plain(nothing)
    assert await other.deliveries(case_id=ids["case_id"]) == []
    assert (await other.ok("GET", "/v1/webhooks"))["webhooks"] == []
    assert (await other.ok("GET", "/v1/providers"))["providers"] == []
    assert await contents(world) == before


def plain(answer: Any) -> dict[str, Any]:
    return {key: value for key, value in answer.json().items() if key not in ("trace_id", "instance")}


async def contents(world: World) -> dict[str, int]:
    return {table: await world.root.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES.split()}


async def test_roles_may_do_what_is_theirs(world: World) -> None:
    """Written out once more by hand: whoever loosens a guard has to change this too."""
    expected = {
        "list_deliveries": set(ROLES),
        "get_delivery": set(ROLES),
        "list_case_deliveries": set(ROLES),
        "retry_delivery": {"admin", "supervisor"},
        "create_webhook": {"admin"},
        "list_webhooks": {"admin", "supervisor", "auditor"},
        "get_webhook": {"admin", "supervisor", "auditor"},
        "change_webhook": {"admin"},
        "delete_webhook": {"admin"},
        "command_webhook": {"admin"},
        "create_provider": {"admin"},
        "list_providers": {"admin", "auditor"},
        "get_provider": {"admin", "auditor"},
        "change_provider": {"admin"},
        "delete_provider": {"admin"},
        "take_receipt": set(),
    }
    found = {}
    for route in world.service.litestar.routes:
        for handler in getattr(route, "route_handlers", ()):
            name = getattr(handler, "operation_id", None)
            if isinstance(name, str) and name in expected:
                found[name] = set(guards_of(handler)[0].roles)
    assert found == expected


@pytest.fixture
async def api(infra: Infra, database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        database.dsn_as("notify_api", infra.role_passwords["notify_api"]), server_settings={"search_path": "notify"}
    )
    yield connection
    await connection.close()


async def test_row_level_security_stops_what_a_forgotten_condition_would_show(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink, api: asyncpg.Connection
) -> None:
    await a_busy_tenant(world, sms, mail, hook)
    other = uuid4()
    readable = [table for table in TABLES.split() if table not in ("receipt", "budget", "settlement")]
    for table in readable:
        with pytest.raises(asyncpg.InvalidTextRepresentationError):  # no tenant is set
            await api.fetch(f"SELECT * FROM {table}")
    async with api.transaction():
        await api.execute("SELECT set_config('app.tenant_id', $1, true)", str(other))
        for table in readable:
            assert await api.fetch(f"SELECT * FROM {table}") == [], table
    for table in ("receipt", "budget", "settlement"):
        async with api.transaction():
            await api.execute("SELECT set_config('app.tenant_id', $1, true)", str(other))
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await api.fetch(f"SELECT * FROM {table}")


async def test_every_table_with_a_tenant_is_under_forced_row_level_security(world: World) -> None:
    rows = await world.root.fetch(
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'tenant_id'"
        " WHERE relnamespace = 'notify'::regnamespace AND relkind = 'r'"
    )
    assert {row["relname"] for row in rows} >= set(TABLES.split())
    assert [row["relname"] for row in rows if not (row["relrowsecurity"] and row["relforcerowsecurity"])] == []
    keys = await world.root.fetch(
        "SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint"
        " WHERE connamespace = 'notify'::regnamespace AND contype IN ('p', 'u', 'f') AND conrelid <> 0"
    )
    wrong = [
        row["conname"]
        for row in keys
        if not re.match(r"(PRIMARY KEY|UNIQUE|FOREIGN KEY) \(tenant_id", row["definition"])
        and not row["conname"].startswith(("schema_migration", "relay_state"))
    ]
    assert wrong == []


async def test_every_statement_fits_the_schema(world: World, infra: Infra, database: Database) -> None:
    statements = {
        name: value
        for name, value in inspect.getmembers(repository)
        if isinstance(value, str) and name.isupper() and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value)
    }
    assert len(statements) > 50
    worker = await asyncpg.connect(
        database.dsn_as("notify_worker", infra.role_passwords["notify_worker"]),
        server_settings={"search_path": "notify"},
    )
    try:
        for statement in statements.values():
            await worker.prepare(statement)
            if "tenant_id" in statement:
                assert "$1" in statement or "waiting" in statement or "settlement" in statement or "queue" in statement
    finally:
        await worker.close()


def disguises(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [
        raw,
        raw.hex().encode(),
        base64.b64encode(raw)[:-4].rstrip(b"="),
        secret.encode("utf-16-le"),
        secret.encode("unicode_escape"),
        "".join(f"%{byte:02X}" for byte in raw).encode(),
    ]


CANARIES = (NAME, PHONE, PHONE[3:], EMAIL, "s7@example.org", "+8613900002222", "token-canary-4711")


async def test_no_address_name_or_secret_is_stored_told_or_logged(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level="debug")
    try:
        sms.faults = lambda _, times: "drop_after" if times == 1 else None
        mail.faults = lambda _, times: "busy" if times == 1 else None
        tenant, _ = await a_busy_tenant(world, sms, mail, hook)
        tenant.reachable("c-2", phone="not a phone " + PHONE, email=f"<{EMAIL}>\r\nBcc: x@example.org")
        await world.tell(tenant.complaint("c-2").first_entry())
        await tenant.quiet()
        assert NAME in next(iter(sms.messages.values())).text  # the canaries were there to be found
        stored = b""
        tables = await world.root.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'notify'")
        for table in tables:
            for row in await world.root.fetch(f'SELECT t::text AS line FROM "{table["tablename"]}" AS t'):
                stored += row["line"].encode() + b"\n"
        bodies = b"".join(row["body"] for row in await world.root.fetch("SELECT body FROM outbox"))
        answers = (await tenant.call("GET", "/v1/deliveries", params={"limit": 200})).content
        answers += (await tenant.call("GET", "/v1/providers")).content
        answers += (await tenant.call("GET", "/v1/webhooks")).content
    finally:
        structlog.reset_defaults()
    logged = "".join(capsys.readouterr()).encode()
    assert b"delivery_ended" in logged
    secrets = (*CANARIES, *hook.secrets, hook.secrets[0].removeprefix("whsec_"))
    for place, text in (("tables", stored), ("outbox", bodies), ("answers", answers), ("log", logged)):
        found = [secret for secret in secrets for disguise in disguises(secret) if disguise in text]
        assert found == [], place

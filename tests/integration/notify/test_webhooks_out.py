"""Webhooks to tenants: retried, signed, rotated, stopped."""

from __future__ import annotations

from typing import Any

from services.notify.sinks import Request, WebhookSink, http_server
from shared.webhooks import secret_bytes
from tests.integration.notify.world import Tenant, World
from tests.waiting import until

EVENTS_ONLY: dict[str, Any] = {"policy": 1, "title": "nothing but webhooks"}


async def a_tenant(world: World, hook: WebhookSink) -> tuple[Tenant, str]:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    return tenant, await tenant.endpoint(hook)


async def one_event(world: World, tenant: Tenant) -> dict[str, Any]:
    before = len(await tenant.deliveries(limit=200))
    await world.tell(tenant.complaint().first_entry())

    async def told() -> bool:
        return len(await tenant.deliveries(limit=200)) > before

    await until(told)
    return (await tenant.quiet())[-1]


async def test_a_webhook_is_tried_again_under_the_same_id(world: World, hook: WebhookSink) -> None:
    failures: list[Any] = ["error", "drop_before", "drop_after", "refuse"]
    hook.faults = lambda _, times: failures[times - 1] if times <= len(failures) else None
    tenant, _ = await a_tenant(world, hook)
    found = await one_event(world, tenant)
    assert (found["state"], found["attempts"]) == ("sent", 5)
    assert list(hook.calls.values()) == [5]
    assert (len(hook.events), hook.repeats) == (
        1,
        1,
    )  # taken once before the connection broke, and dropped by its id then
    assert not hook.refused


async def test_a_rotated_secret_signs_beside_the_new_one_until_it_ends(world: World, hook: WebhookSink) -> None:
    tenant, endpoint_id = await a_tenant(world, hook)
    old = hook.secrets[0]
    rotated = await tenant.ok("POST", f"/v1/webhooks/{endpoint_id}:rotate")
    assert rotated["secret"] != old
    assert len(secret_bytes(rotated["secret"])) == 32
    assert (await one_event(world, tenant))["state"] == "sent"  # the receiver still knows the old one alone
    hook.secrets = [rotated["secret"]]
    assert (await one_event(world, tenant))["state"] == "sent"
    last = await tenant.ok("POST", f"/v1/webhooks/{endpoint_id}:rotate", json={"overlap_hours": 0})
    hook.faults = lambda *_: None
    hook.secrets = [last["secret"]]
    assert (await one_event(world, tenant))["state"] == "sent"
    assert len(hook.events) == 3
    assert not hook.refused
    hook.secrets = [old, rotated["secret"]]
    await world.tell(tenant.complaint().first_entry())

    async def refused() -> bool:
        return hook.refused["signature_wrong"] > 0

    await until(refused)


async def test_an_endpoint_that_is_gone_is_not_called_any_more(world: World, hook: WebhookSink) -> None:
    tenant, endpoint_id = await a_tenant(world, hook)
    hook.gone = True
    found = await one_event(world, tenant)
    assert (found["state"], found["reason"]) == ("dead", "http_410")
    endpoint = await tenant.ok("GET", f"/v1/webhooks/{endpoint_id}")
    assert (endpoint["active"], endpoint["stopped_because"]) == (False, "gone")
    hook.gone = False
    changed = await tenant.ok("PATCH", f"/v1/webhooks/{endpoint_id}", json={"active": True})
    assert (changed["active"], changed["stopped_because"], changed["failing_since"]) == (True, None, None)
    assert (await tenant.call("POST", f"/v1/deliveries/{found['delivery_id']}:retry")).status_code == 202
    await tenant.quiet()
    assert len(hook.events) == 1


async def test_an_endpoint_that_has_failed_for_days_is_stopped(world: World, hook: WebhookSink) -> None:
    tenant, endpoint_id = await a_tenant(world, hook)
    hook.faults = lambda *_: "error"
    await world.tell(tenant.complaint().first_entry())

    async def failing() -> Any:
        return (await tenant.ok("GET", f"/v1/webhooks/{endpoint_id}"))["failing_since"]

    await until(failing)
    await world.root.execute("UPDATE endpoint SET failing_since = clock_timestamp() - interval '6 days'")
    found = await tenant.quiet()
    endpoint = await tenant.ok("GET", f"/v1/webhooks/{endpoint_id}")
    assert (endpoint["active"], endpoint["stopped_because"]) == (False, "failing")
    assert [(each["state"], each["reason"]) for each in found] == [("suppressed", "endpoint_stopped")]


async def test_what_is_on_its_way_to_a_deleted_endpoint_is_suppressed(world: World, hook: WebhookSink) -> None:
    tenant, endpoint_id = await a_tenant(world, hook)
    hook.faults = lambda *_: "busy"
    await world.tell(tenant.complaint().first_entry())

    async def tried() -> bool:
        return any(each["attempts"] for each in await tenant.deliveries())

    await until(tried)
    assert (await tenant.call("DELETE", f"/v1/webhooks/{endpoint_id}")).status_code == 204
    assert (await tenant.call("DELETE", f"/v1/webhooks/{endpoint_id}")).status_code == 404
    found = await tenant.quiet()
    assert [(each["state"], each["reason"]) for each in found] == [("suppressed", "endpoint_deleted")]


async def test_a_test_event_is_sent_once_and_says_what_came_of_it(world: World, hook: WebhookSink) -> None:
    tenant, endpoint_id = await a_tenant(world, hook)
    path = f"/v1/webhooks/{endpoint_id}:test"
    first = (await tenant.ok("POST", path))["delivery_id"]
    await tenant.quiet()
    hook.faults = lambda *_: "busy"
    second = (await tenant.ok("POST", path))["delivery_id"]
    found = {each["delivery_id"]: (each["state"], each["reason"], each["attempts"]) for each in await tenant.quiet()}
    assert found == {first: ("sent", "", 1), second: ("dead", "http_503", 1)}
    assert [event.kind for event in hook.events.values()] == ["notify.v1.webhook.tested"]


async def test_a_redirect_is_not_followed(world: World, hook: WebhookSink) -> None:
    calls: list[Request] = []

    async def redirecting(request: Request) -> tuple[int, Any]:
        calls.append(request)
        return 307, None

    async with http_server(redirecting) as address:
        tenant = await world.tenant(policy=EVENTS_ONLY)
        made = await tenant.ok("POST", "/v1/webhooks", json={"url": f"{address}/x"})
        answer = await tenant.ok("POST", f"/v1/webhooks/{made['endpoint']['endpoint_id']}:test")
        found = await tenant.quiet()
    assert [(each["delivery_id"], each["reason"]) for each in found] == [(answer["delivery_id"], "http_307")]
    assert len(calls) == 1
    assert not hook.calls


REFUSED = {
    "http://example.org/x": "port",
    "https://example.org:22/x": "port",
    "ftp://example.org/x": "scheme",
    "https://user:word@example.org/": "user_info",
    "https://exa mple.org/": "malformed",
}


async def test_an_address_that_is_never_called_is_refused_when_it_is_saved(world: World) -> None:
    await world.stop()
    await world.start(RECOURSE_EGRESS_ALLOW="")
    tenant = await world.tenant(policy=EVENTS_ONLY)
    for url, reason in REFUSED.items():
        answer = await tenant.call("POST", "/v1/webhooks", json={"url": url})
        told = answer.json()
        assert (answer.status_code, told["type"], told["reason"]) == (422, "/problems/address-refused", reason), url
        assert told["errors"][0]["pointer"] == "/url"


async def test_a_name_that_leads_into_our_own_network_is_never_called(world: World, hook: WebhookSink) -> None:
    await world.stop()
    await world.start(RECOURSE_EGRESS_ALLOW="127.0.0.2:*")
    tenant = await world.tenant(policy=EVENTS_ONLY)
    port = hook.url.rpartition(":")[2].partition("/")[0]
    for host in ("127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"):
        made = await tenant.ok("POST", "/v1/webhooks", json={"url": f"http://{host}:{port}/hook"})
        await tenant.ok("POST", f"/v1/webhooks/{made['endpoint']['endpoint_id']}:test")
    found = await tenant.quiet()
    assert {each["reason"] for each in found} <= {"egress_address", "egress_unresolved"}
    assert len(found) == 5
    assert (hook.calls, hook.refused) == ({}, {})

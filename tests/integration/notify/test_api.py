"""The HTTP edge: what is refused and how, pages, and repeats."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from tests.integration.notify.world import World
from tests.integration.reporting.told import a_policy
from tests.waiting import until

SOME_ID = "019a0000-0000-7000-8000-000000000001"
EVENTS_ONLY: dict[str, Any] = {"policy": 1, "title": "nothing but webhooks"}
SMS = {"url": "http://127.0.0.1:9/messages", "lookup_url": "http://127.0.0.1:9/messages?key={key}"}
MAIL = {"host": "127.0.0.1", "port": 2525, "tls": "none", "from_address": "a@tenant.example"}


def sms_with(**changes: Any) -> dict[str, Any]:
    return {"channel": "sms", "name": "x", "config": {**SMS, **changes}}


def mail_with(**changes: Any) -> dict[str, Any]:
    return {"channel": "email", "name": "x", "config": {**MAIL, **changes}}


BAD: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/webhooks", {}, 400, "/url"),
    ("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/", "evnts": []}, 400, "/evnts"),
    ("POST", "/v1/webhooks", {"url": "gopher://127.0.0.1/"}, 422, "/url"),
    ("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/", "events": ["sla.*", "Not One"]}, 422, "/events/1"),
    ("POST", "/v1/providers", {"channel": "pigeon", "name": "x", "config": {}}, 400, "/channel"),
    ("POST", "/v1/providers", sms_with(lookup_url="http://127.0.0.1:9/"), 422, "/config/lookup_url"),
    ("POST", "/v1/providers", sms_with(url="file:///etc/passwd"), 422, "/config/url"),
    ("POST", "/v1/providers", sms_with(countries=["China"]), 400, "/config/countries/0"),
    ("POST", "/v1/providers", {**sms_with(), "secrets": {"receipts": ["short"]}}, 422, "/secrets/receipts/0"),
    ("POST", "/v1/providers", mail_with(username="u"), 422, "/config/tls"),
    ("POST", "/v1/providers", mail_with(from_address="a@b\r\nBcc: c@d"), 422, "/config/from_address"),
    ("POST", "/v1/providers", mail_with(port=0), 400, "/config/port"),
]


async def test_bad_requests_say_what_is_wrong_where(world: World) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    for method, path, body, status, pointer in BAD:
        answer = await tenant.call(method, path, json=body)
        assert answer.status_code == status, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert pointer in [error["pointer"] for error in answer.json()["errors"]], (body, answer.text)
    assert await world.root.fetchval("SELECT count(*) FROM endpoint") == 0
    assert await world.root.fetchval("SELECT count(*) FROM provider") == 0


async def test_bad_filters_and_unknown_commands_are_refused(world: World) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    for query in ("cursor=nonsense", "limit=0", "limit=1000", "state=lost", "case_id=1", "channel=pigeon"):
        assert (await tenant.call("GET", f"/v1/deliveries?{query}")).status_code == 400, query
    for command in ("x:retry", f"{SOME_ID}:burn", SOME_ID, f"{SOME_ID}:", ":retry", f"{SOME_ID}:retry"):
        assert (await tenant.call("POST", f"/v1/deliveries/{command}")).status_code in (404, 405), command


async def test_deliveries_come_in_pages_that_join_without_gap_or_repeat(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    await tenant.endpoint(hook)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), *(complaint.entry("commented") for _ in range(24)))

    async def told() -> bool:
        return len(await tenant.deliveries(limit=200)) == 25

    await until(told)
    whole = [each["delivery_id"] for each in await tenant.deliveries(limit=200)]
    paged: list[str] = []
    cursor: str | None = None
    while True:
        page = await tenant.ok("GET", "/v1/deliveries", params={"limit": 7, **({"cursor": cursor} if cursor else {})})
        paged += [each["delivery_id"] for each in page["deliveries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == whole
    path = f"/v1/cases/{complaint.case_id}/deliveries"
    first = await tenant.ok("GET", path, params={"limit": 20})
    second = await tenant.ok("GET", path, params={"limit": 20, "cursor": first["next_cursor"]})
    assert [each["delivery_id"] for each in first["deliveries"] + second["deliveries"]] == list(reversed(whole))
    assert (first["as_of_seq"], second["next_cursor"]) == (25, None)


async def test_making_an_endpoint_twice_with_one_key_makes_one_and_stores_no_secret(
    world: World, hook: WebhookSink
) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    key = {"idempotency-key": "k-1"}
    body = {"url": hook.url, "events": ["sla.*"]}
    first = await tenant.call("POST", "/v1/webhooks", json=body, headers=key)
    second = await tenant.call("POST", "/v1/webhooks", json=body, headers=key)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = await tenant.call("POST", "/v1/webhooks", json={**body, "events": []}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await world.root.fetchval("SELECT count(*) FROM endpoint") == 1
    assert await world.root.fetchval("SELECT count(*) FROM idempotency_key") == 0
    listed = await tenant.call("GET", "/v1/webhooks")
    assert first.json()["secret"] not in listed.text


async def test_a_provider_is_changed_replaced_and_deleted_without_showing_its_secrets(
    world: World, sms: SmsSink
) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    sms.token = "t-4711"
    body = {"channel": "sms", "name": "one", "config": sms.config, "secrets": {"token": "t-4711"}}
    made = await tenant.call("POST", "/v1/providers", json=body, headers={"idempotency-key": "p"})
    again = await tenant.call("POST", "/v1/providers", json=body, headers={"idempotency-key": "p"})
    assert (made.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 201, "true")
    assert made.json() == again.json()
    one = made.json()["provider_id"]
    two = await tenant.ok("POST", "/v1/providers", json={**body, "name": "two"})
    listed = (await tenant.ok("GET", "/v1/providers", role="auditor"))["providers"]
    assert [(each["name"], each["active"]) for each in listed] == [("one", False), ("two", True)]
    change = {"channel": "sms", "name": "uno", "config": {**sms.config, "countries": ["CN", "GB"]}}
    changed = await tenant.ok("PUT", f"/v1/providers/{one}", json=change)
    assert (changed["name"], changed["active"], changed["config"]["countries"]) == ("uno", True, ["CN", "GB"])
    assert (await tenant.ok("GET", f"/v1/providers/{two['provider_id']}"))["active"] is False
    mail = {"channel": "email", "name": "x", "config": MAIL}
    assert (await tenant.call("PUT", f"/v1/providers/{one}", json=mail)).status_code == 422
    assert (await tenant.call("DELETE", f"/v1/providers/{one}")).status_code == 204
    assert (await tenant.call("GET", f"/v1/providers/{one}")).status_code == 404
    assert "t-4711" not in made.text + str(listed) + str(changed)


async def test_a_changed_providers_secret_stays_in_use(world: World, sms: SmsSink) -> None:
    sms.token = "t-4711"
    policy = {
        **EVENTS_ONLY,
        "messages": [{"id": "ack", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "x"}],
    }
    tenant = await world.tenant(policy=policy)
    body = {"channel": "sms", "name": "one", "config": sms.config, "secrets": {"token": "t-4711"}}
    made = await tenant.ok("POST", "/v1/providers", json=body)
    await tenant.ok(
        "PUT",
        f"/v1/providers/{made['provider_id']}",
        json={"channel": "sms", "name": "uno", "config": {**sms.config, "sender": "Recourse"}},
    )
    tenant.reachable()
    await world.tell(tenant.complaint().first_entry())
    (found,) = await tenant.quiet()
    assert (found["state"], sms.unauthorized) == ("sent", 0)


async def test_a_delivery_without_a_provider_waits_for_a_person(world: World, mail: EmailSink) -> None:
    policy = {
        **EVENTS_ONLY,
        "messages": [{"id": "ack", "on": "received", "to": ["complainant"], "channel": ["email"], "template": "x"}],
    }
    tenant = await world.tenant(policy=policy)
    tenant.reachable()
    await world.tell(tenant.complaint().first_entry())
    (found,) = await tenant.quiet()
    assert (found["state"], found["reason"]) == ("dead", "no_provider")
    await tenant.email_provider(mail)
    key = {"idempotency-key": "r"}
    for _ in range(2):
        again = await tenant.call("POST", f"/v1/deliveries/{found['delivery_id']}:retry", headers=key)
        assert again.status_code == 202
    await tenant.quiet()
    assert len(mail.mails) == 1


async def test_a_case_that_is_still_on_its_way_is_waited_for(world: World) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    answer = await tenant.call("GET", f"/v1/cases/{complaint.case_id}/deliveries")
    assert (answer.status_code, answer.json()["as_of_seq"]) == (200, 1)
    assert (await tenant.call("GET", f"/v1/cases/{uuid4()}/deliveries")).status_code == 404


async def test_the_hundredth_endpoint_is_one_too_many(world: World) -> None:
    tenant = await world.tenant(policy=EVENTS_ONLY)
    statuses = [
        (await tenant.call("POST", "/v1/webhooks", json={"url": f"http://127.0.0.1:9/{number}"})).status_code
        for number in range(21)
    ]
    assert statuses == [201] * 20 + [409]


async def test_what_has_passed_its_retention_goes(world: World, hook: WebhookSink) -> None:
    from services.notify.loops import Pruning

    tenant = await world.tenant(policy=EVENTS_ONLY)
    await tenant.endpoint(hook)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), complaint.entry("accepted"))

    async def told() -> bool:
        return len(await tenant.deliveries()) == 2

    await until(told)
    await tenant.quiet()
    old = (await tenant.deliveries())[0]["delivery_id"]
    await world.root.execute("UPDATE event SET created_at = created_at - interval '4 years' WHERE event_id ="
                             " (SELECT event_id FROM delivery WHERE delivery_id = $1)", old)  # fmt: skip
    await world.root.execute(
        "UPDATE delivery SET created_at = created_at - interval '4 years' WHERE delivery_id = $1", old
    )
    await Pruning(world.service.runtime).step()
    assert [each["delivery_id"] for each in await tenant.deliveries()] != [old]
    assert len(await tenant.deliveries()) == 1
    assert await world.root.fetchval("SELECT count(*) FROM event") == 1
    assert await world.root.fetchval("SELECT count(*) FROM delivery_attempt") == 1
    await world.tell(a_policy(tenant.tenant_id, EVENTS_ONLY, version=2))  # and the service goes on
    await world.tell(complaint.entry("closed"))
    await until(told)

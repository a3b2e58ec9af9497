"""Delivery receipts of SMS providers: signed, applied once, and never a way in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec

from services.notify.sinks import SmsSink
from shared import webhooks
from tests.integration.notify.world import Tenant, World

SECRET = webhooks.new_secret()
POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "sms",
    "messages": [
        {"id": "ack", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "{{ number }}"}
    ],
}


async def receipt(
    world: World,
    provider_id: str,
    ref: str,
    status: str,
    *,
    secret: str = SECRET,
    webhook_id: str | None = None,
    at: datetime | None = None,
    body: bytes | None = None,
) -> httpx.Response:
    signed = body if body is not None else msgspec.json.encode({"id": ref, "status": status})
    headers = webhooks.sign([secret], webhook_id or f"r_{uuid4().hex}", at or datetime.now(UTC), signed)
    return await world.http.post(
        f"/v1/receipts/{provider_id}", content=signed, headers={"content-type": "application/json", **headers}
    )


async def one_sent(world: World, sms: SmsSink) -> tuple[Tenant, str, str]:
    tenant = await world.tenant(policy=POLICY)
    provider_id = await tenant.sms_provider(sms, secrets={"receipts": [SECRET]})
    tenant.reachable()
    await world.tell(tenant.complaint().first_entry())
    await tenant.quiet()
    (message,) = sms.messages.values()
    return tenant, provider_id, message.ref


async def test_a_receipt_says_that_a_message_arrived(world: World, sms: SmsSink) -> None:
    tenant, provider_id, ref = await one_sent(world, sms)
    assert (await receipt(world, provider_id, ref, "on its way")).status_code == 204
    assert (await receipt(world, provider_id, ref, "delivered")).status_code == 204
    assert [each["state"] for each in await tenant.deliveries()] == ["delivered"]
    assert [each["state"] for each in await world.told("delivery.changed")] == ["sent", "delivered"]


async def test_a_receipt_of_failure_can_be_overtaken_by_a_retry(world: World, sms: SmsSink) -> None:
    tenant, provider_id, ref = await one_sent(world, sms)
    assert (await receipt(world, provider_id, ref, "undelivered")).status_code == 204
    (found,) = await tenant.deliveries()
    assert (found["state"], found["reason"]) == ("failed", "receipt")
    await tenant.ok("POST", f"/v1/deliveries/{found['delivery_id']}:retry", role="supervisor")
    await tenant.quiet()
    assert len(sms.messages) == 2  # a new message under a new key: the first one did not arrive


async def test_a_receipt_is_applied_once(world: World, sms: SmsSink) -> None:
    tenant, provider_id, ref = await one_sent(world, sms)
    at = datetime.now(UTC)
    answers = await asyncio.gather(
        *(receipt(world, provider_id, ref, "delivered", webhook_id="r_1", at=at) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {204}
    assert [each["state"] for each in await world.told("delivery.changed")] == ["sent", "delivered"]
    assert await world.root.fetchval("SELECT count(*) FROM receipt") == 1
    assert [each["state"] for each in await tenant.deliveries()] == ["delivered"]


async def test_a_receipt_for_what_is_not_known_yet_is_to_be_sent_again(world: World, sms: SmsSink) -> None:
    _, provider_id, _ = await one_sent(world, sms)
    answer = await receipt(world, provider_id, "unknown", "delivered")
    assert answer.status_code == 404
    assert await world.root.fetchval("SELECT count(*) FROM receipt") == 0


async def test_what_is_not_signed_by_the_provider_is_refused_alike(world: World, sms: SmsSink) -> None:
    tenant, provider_id, ref = await one_sent(world, sms)
    other = await world.tenant(policy=POLICY)
    unsigned = await other.sms_provider(sms)
    now = datetime.now(UTC)
    refused = [
        await receipt(world, provider_id, ref, "failed", secret=webhooks.new_secret()),
        await receipt(world, provider_id, ref, "failed", at=now - timedelta(seconds=302)),
        await receipt(world, provider_id, ref, "failed", at=now + timedelta(seconds=302)),
        await receipt(world, str(uuid4()), ref, "failed"),
        await receipt(world, unsigned, ref, "failed"),
        await world.http.post(f"/v1/receipts/{provider_id}", json={"id": ref, "status": "failed"}),
    ]
    bodies = {
        msgspec.json.encode({key: value for key, value in answer.json().items() if key not in ("trace_id", "instance")})
        for answer in refused
    }
    assert {answer.status_code for answer in refused} == {401}
    assert len(bodies) == 1
    assert [each["state"] for each in await tenant.deliveries()] == ["sent"]
    assert await world.root.fetchval("SELECT count(*) FROM receipt") == 0


async def test_a_signed_receipt_that_cannot_be_read_is_malformed(world: World, sms: SmsSink) -> None:
    _, provider_id, ref = await one_sent(world, sms)
    for body in (b"", b"nonsense", b'{"id": 1', b"[" * 10_000, b'"\\ud800"', b"\xff\xfe"):
        assert (await receipt(world, provider_id, ref, "", body=body)).status_code == 400, body[:20]


async def test_a_receipt_of_one_tenant_says_nothing_about_anothers_message(world: World, sms: SmsSink) -> None:
    tenant, _, ref = await one_sent(world, sms)
    other = await world.tenant(policy=POLICY)
    provider_id = await other.sms_provider(sms, secrets={"receipts": [SECRET]})
    assert (await receipt(world, provider_id, ref, "failed")).status_code == 404
    assert [each["state"] for each in await tenant.deliveries()] == ["sent"]

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec

from shared.webhooks import new_secret
from tests.integration.intake.world import Tenant, World, hook

COMPLAINT = {"channel": "phone", "text": "等了很久", "complainant": {"phone": "13812341111"}}


async def a_hook(world: World, **fields: Any) -> tuple[Tenant, dict[str, Any]]:
    tenant = await world.tenant()
    return tenant, await tenant.source("webhook", "call-centre", **fields)


async def test_a_signed_complaint_is_stored(world: World, root: asyncpg.Connection) -> None:
    _, source = await a_hook(world)
    answer = await hook(world.http, source["path"], [source["secret"]], COMPLAINT)
    assert answer.status_code == 201, answer.text
    assert answer.json()["number"].endswith("-0001")
    assert await root.fetchval("SELECT source FROM complaint") == "webhook"


async def test_the_recommended_envelope_is_read_too(world: World) -> None:
    _, source = await a_hook(world)
    good = {"type": "complaint.created", "timestamp": "2026-03-02T10:00:00Z", "data": COMPLAINT}
    assert (await hook(world.http, source["path"], [source["secret"]], good)).status_code == 201
    bad = good | {"data": COMPLAINT | {"category": "chargse"}}
    answer = await hook(world.http, source["path"], [source["secret"]], bad)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/data/category"


async def test_a_signature_is_good_for_five_minutes(world: World) -> None:
    _, source = await a_hook(world)
    for seconds, status in ((-299, 201), (299, 201), (-302, 401), (302, 401)):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        answer = await hook(world.http, source["path"], [source["secret"]], COMPLAINT, at=at)
        assert answer.status_code == status, seconds


async def test_what_is_not_known_and_what_is_not_signed_look_the_same(world: World, root: asyncpg.Connection) -> None:
    tenant, source = await a_hook(world)
    other, others_source = await a_hook(world)
    raw = msgspec.json.encode(COMPLAINT)
    wrong = new_secret()
    answers = [
        await hook(world.http, source["path"], [wrong], raw),
        await hook(world.http, source["path"], [others_source["secret"]], raw),
        await hook(world.http, f"/v1/hooks/{tenant.slug}/nobody", [source["secret"]], raw),
        await hook(world.http, "/v1/hooks/nobody/call-centre", [source["secret"]], raw),
        await hook(world.http, f"/v1/hooks/{'x' * 300}/call-centre", [source["secret"]], raw),
        await hook(world.http, source["path"], [source["secret"]], raw, headers={"webhook-signature": "v1,"}),
        await hook(world.http, source["path"], [source["secret"]], raw, headers={"webhook-id": "other"}),
        await world.http.post(source["path"], content=raw, headers={"content-type": "application/json"}),
        await hook(world.http, source["path"], [source["secret"]], raw, at=datetime.now(UTC) - timedelta(hours=1)),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({_outside(answer) for answer in answers}) == 1
    for table in ("complaint", "receipt", "free_text"):
        assert await root.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert other.slug != tenant.slug


def _outside(answer: httpx.Response) -> bytes:
    """All that the sender sees, but for the id of their own trace."""
    return answer.content + repr(sorted(each for each in answer.headers.items() if each[0] != "traceresponse")).encode()


async def test_one_changed_byte_breaks_the_signature(world: World) -> None:
    _, source = await a_hook(world)
    raw = msgspec.json.encode(COMPLAINT)
    answer = await hook(world.http, source["path"], [source["secret"]], raw)
    headers = {name: value for name, value in answer.request.headers.items() if name.startswith("webhook-")}
    changed = await world.http.post(
        source["path"], content=raw.replace(b"138", b"139"), headers={**headers, "content-type": "application/json"}
    )
    assert changed.status_code == 401


async def test_a_replay_gets_the_stored_answer_and_has_one_effect(world: World, root: asyncpg.Connection) -> None:
    _, source = await a_hook(world)
    first = await hook(world.http, source["path"], [source["secret"]], COMPLAINT, message_id="msg_1")
    later = datetime.now(UTC) + timedelta(seconds=20)
    again = await hook(world.http, source["path"], [source["secret"]], COMPLAINT, message_id="msg_1", at=later)
    other = await hook(world.http, source["path"], [source["secret"]], COMPLAINT | {"text": "x"}, message_id="msg_1")
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.content == again.content
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_many_replays_at_once_have_one_effect(world: World, root: asyncpg.Connection) -> None:
    _, source = await a_hook(world)
    answers = await asyncio.gather(
        *(hook(world.http, source["path"], [source["secret"]], COMPLAINT, message_id="msg_1") for _ in range(50))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_two_sources_may_use_one_id(world: World, root: asyncpg.Connection) -> None:
    tenant, one = await a_hook(world)
    two = await tenant.source("webhook", "second")
    for source in (one, two):
        answer = await hook(world.http, source["path"], [source["secret"]], COMPLAINT, message_id="msg_1")
        assert answer.status_code == 201
    assert await root.fetchval("SELECT count(*) FROM complaint") == 2


async def test_a_rotation_keeps_the_former_secret_for_a_day(world: World) -> None:
    tenant, source = await a_hook(world)
    answer = await tenant.admin.post(f"/v1/sources/{source['source_id']}/rotate")
    fresh = answer.json()["secret"]
    assert answer.json()["source"]["secrets"] == 2
    for secret in (source["secret"], fresh):
        assert (await hook(world.http, source["path"], [secret], COMPLAINT)).status_code == 201
    last = (await tenant.admin.post(f"/v1/sources/{source['source_id']}/rotate")).json()["secret"]
    assert (await hook(world.http, source["path"], [source["secret"]], COMPLAINT)).status_code == 401
    for secret in (fresh, last):
        assert (await hook(world.http, source["path"], [secret], COMPLAINT)).status_code == 201


async def test_a_closed_source_and_an_inactive_tenant_take_nothing(world: World) -> None:
    tenant, source = await a_hook(world)
    changed = await tenant.admin.request("PATCH", f"/v1/sources/{source['source_id']}", json={"active": False})
    assert changed.status_code == 200
    assert (await hook(world.http, source["path"], [source["secret"]], COMPLAINT)).status_code == 401
    await tenant.admin.request("PATCH", f"/v1/sources/{source['source_id']}", json={"active": True})
    assert (await hook(world.http, source["path"], [source["secret"]], COMPLAINT)).status_code == 201
    path = f"/v1/tenants/{tenant.tenant_id}"
    assert (await world.operator.request("PATCH", path, json={"active": False})).status_code == 200
    assert (await hook(world.http, source["path"], [source["secret"]], COMPLAINT)).status_code == 401
    assert (await tenant.admin.get("/v1/me")).status_code == 401


async def test_a_call_centres_own_form_is_mapped_and_its_faults_are_told_in_its_words(
    world: World, root: asyncpg.Connection
) -> None:
    mapping = {
        "map": {
            "text": {"at": "/call/summary"},
            "complainant.phone": {"at": "/call/from"},
            "category": {"at": "/type", "values": {"1": "service_attitude", "2": "charges"}},
            "fields.loss_cny": {"at": "/loss"},
        }
    }
    tenant, source = await a_hook(world, channel="phone", settings={"map": mapping})
    good = {"call": {"summary": "等了很久", "from": "13812341111"}, "type": 2, "loss": "12.00"}
    answer = await hook(world.http, source["path"], [source["secret"]], good)
    assert answer.status_code == 201, answer.text
    words = await root.fetchval("SELECT words FROM complaint")
    assert msgspec.json.decode(words)["category"] == "charges"
    bad = {"call": {"summary": "x", "from": "nobody"}, "type": 2, "loss": "much"}
    answer = await hook(world.http, source["path"], [source["secret"]], bad)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/call/from", "/loss"]
    texts = await tenant.admin.post(
        "/v1/vault/texts:read",
        {"case_id": (await _stored(root)), "reason": "what came in"},
    )
    assert {each["kind"] for each in texts.json()["items"]} == {"complaint", "original"}


async def _stored(root: asyncpg.Connection) -> str:
    return str(await root.fetchval("SELECT complaint_id FROM complaint"))


async def test_a_mapping_that_cannot_work_is_refused_when_it_is_saved(world: World) -> None:
    tenant = await world.tenant()
    settings = {"map": {"map": {"complainant.fone": {"at": "/x"}}}}
    answer = await tenant.admin.post("/v1/sources", {"kind": "webhook", "name": "x", "settings": settings})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "/settings/map/map/complainant.fone"
    assert error["suggestion"] == "complainant.phone"


async def test_a_body_that_is_none_is_refused_after_its_signature(world: World) -> None:
    _, source = await a_hook(world)
    for raw, status in ((b"{", 400), (b'{"channel": 1}', 400), (b"\xff", 400), (b'{"channel": "x"}', 422)):
        assert (await hook(world.http, source["path"], [source["secret"]], raw)).status_code == status
    large = b'{"text": "' + b"x" * 300_000 + b'"}'
    assert (await hook(world.http, source["path"], [source["secret"]], large)).status_code == 413


async def test_a_flood_is_answered_429(world: World) -> None:
    tenant = await world.tenant(limits={"requests_per_second": 1, "burst": 5})
    source = await tenant.source("webhook", "flood")
    answers = await asyncio.gather(
        *(hook(world.http, source["path"], [source["secret"]], COMPLAINT, message_id=uuid4().hex) for _ in range(12))
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) >= 1
    assert set(statuses) == {201, 429}
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)

from __future__ import annotations

import base64
import io
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import nats
import pytest
import structlog

from services.intake.app import build
from shared import telemetry
from shared.messages.contacts import CONTACT_SUBJECT, ContactReply, ContactRequest
from tests.infra import Infra
from tests.integration.intake.world import MASTER_KEY, World, client_of, hook, messages
from tests.waiting import PATIENCE, until

CANARIES = {
    "name": "欧阳震华",
    "phone": "13912345678",
    "email": "canary.person@example.com",
    "address": "幸福路四十二号",
    "words": "夜里的灯一直亮着",
    "field": "皇甫嵩",
}
WHO = {key: CANARIES[key] for key in ("name", "phone", "email", "address")}


def forms(text: str) -> set[bytes]:
    """The ways in which a text may have been written down."""
    raw = text.encode()
    return {
        raw,
        base64.b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        text.encode("utf-16-le"),
        text.encode("gb18030"),
        msgspec.json.encode(text)[1:-1],
        text.encode("ascii", "backslashreplace"),
    }


async def everything(root: asyncpg.Connection) -> bytes:
    """Every row of every table of intake, as text."""
    tables = await root.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'intake'")
    sink = io.BytesIO()
    for row in tables:
        await root.copy_from_table(row["tablename"], schema_name="intake", output=sink)
    for row in await root.fetch("SELECT body FROM outbox"):
        sink.write(row["body"])
    return sink.getvalue()


@pytest.fixture
async def logged(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[io.StringIO]:
    """What the service writes into its log."""
    before = structlog.get_config()
    sink = io.StringIO()
    monkeypatch.setattr(sys, "stderr", sink)
    telemetry.configure()
    yield sink
    structlog.configure(**before)


async def test_no_personal_data_lie_open_anywhere(
    logged: io.StringIO, world: World, streams: Infra, root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    text = f"{CANARIES['words']}，请打 {CANARIES['phone']}"
    first = await tenant.admin.complain(text=text, complainant=WHO, fields={"complainant_name": CANARIES["field"]})
    assert first.status_code == 201, first.text
    source = await tenant.source(
        "webhook", "call-centre", channel="phone", settings={"map": {"map": {"text": {"at": "/t"}}}}
    )
    assert (await hook(world.http, source["path"], [source["secret"]], {"t": text})).status_code == 201
    refused = await tenant.admin.complain(text=text, complainant=WHO | {"phone": CANARIES["words"]})
    assert refused.status_code == 422
    case = f"/v1/cases/{first.json()['id']}/texts"
    assert (await tenant.admin.post(case, {"text": text, "kind": "reply"})).status_code == 201
    unmask = await tenant.admin.post(
        f"/v1/complaints/{first.json()['id']}/contact/unmask", {"reason": f"to call {CANARIES['name']}"}
    )
    assert unmask.json()["phone"] == "+8613912345678"
    told = await messages(streams, tenant.tenant_id, 5)
    lying_about = await everything(root) + msgspec.json.encode(told) + logged.getvalue().encode() + refused.content
    assert b"request_answered" in lying_about
    for name, canary in {**CANARIES, "e164": "+8613912345678", "national": "3912345678"}.items():
        found = [form for form in forms(canary) if form in lying_about]
        assert not found, f"{name} lies open"


async def test_a_contact_is_masked_unless_there_is_a_right_and_a_reason(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    complaint_id = (await tenant.admin.complain(complainant=WHO)).json()["id"]
    path = f"/v1/complaints/{complaint_id}/contact"
    handler = await tenant.credential("handler", staff_id="h1")
    seeing = await tenant.credential("handler", staff_id="h2", sees_personal_data=True)
    for caller in (handler, seeing, tenant.admin):
        body = (await caller.get(path)).json()
        assert (body["masked"], body["name"], body["phone"], body["email"], body["address"]) == (
            True,
            "欧**",
            "139****5678",
            "c***@example.com",
            "***",
        )
    refused = await handler.post(f"{path}/unmask", {"reason": "curiosity"})
    assert refused.status_code == 403
    assert (await seeing.post(f"{path}/unmask", {"reason": ""})).status_code == 400
    assert (await seeing.post(f"{path}/unmask")).status_code == 400
    assert await root.fetchval("SELECT count(*) FROM access") == 0
    body = (await seeing.post(f"{path}/unmask", {"reason": "to call back"})).json()
    assert (body["masked"], body["name"], body["phone"]) == (False, CANARIES["name"], "+8613912345678")
    [access] = (await tenant.admin.get("/v1/vault/accesses")).json()["items"]
    assert (access["act"], access["staff_id"], access["case_id"], access["reason"]) == (
        "unmask_contact",
        "h2",
        complaint_id,
        "to call back",
    )
    assert access["what"] == ["name", "phone", "email", "address"]


async def test_texts_are_masked_unless_there_is_a_right_and_a_reason(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    text = f"{CANARIES['name']}住{CANARIES['address']}，电话 139-1234 5678，{CANARIES['email']}，等了3小时"
    complaint_id = (
        await tenant.admin.complain(text=text, complainant=WHO, fields={"complainant_name": CANARIES["field"]})
    ).json()["id"]
    handler = await tenant.credential("handler")
    found = (await handler.post("/v1/vault/texts:read", {"case_id": complaint_id})).json()["items"]
    shown = {each["kind"]: each["text"] for each in found}
    assert shown == {"complaint": "欧**住***，电话 ****，***@***，等了3小时", "complainant_name": "***"}
    refused = await handler.post("/v1/vault/texts:read", {"case_id": complaint_id, "reason": "curiosity"})
    assert refused.status_code == 403
    ids = [each["text_id"] for each in found]
    full = await tenant.admin.post("/v1/vault/texts:read", {"text_ids": ids, "reason": "to handle it"})
    assert {each["text"] for each in full.json()["items"]} == {text, CANARIES["field"]}
    assert await root.fetchval("SELECT count(*) FROM access WHERE act = 'read_texts'") == 1


async def test_a_text_of_an_entry_is_stored_once_and_read_by_its_id(world: World) -> None:
    tenant = await world.tenant()
    complaint_id = (await tenant.admin.complain()).json()["id"]
    path = f"/v1/cases/{complaint_id}/texts"
    first = await tenant.admin.post(path, {"text": "已回复", "kind": "reply"}, key="t-1")
    again = await tenant.admin.post(path, {"text": "已回复", "kind": "reply"}, key="t-1")
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    read = await tenant.admin.post("/v1/vault/texts:read", {"text_ids": [first.json()["text_id"]]})
    assert read.json()["items"][0]["text"] == "已回复"
    assert (await tenant.admin.post(f"/v1/cases/{uuid4()}/texts", {"text": "x"})).status_code == 404
    assert (await tenant.admin.post(path, {"text": "a\x1bb"})).status_code == 422


async def test_erasing_a_person_is_one_call_and_leaves_the_complaints(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    files = [{"name": "x.txt", "content": "eA=="}]
    ids = [
        (await tenant.admin.complain(text="x", category=category, complainant=WHO, attachments=files)).json()["id"]
        for category in ("charges", "service_attitude")
    ]
    kept = (await tenant.admin.complain(text="other", complainant={"phone": "13812341111"})).json()["id"]
    person = (await tenant.admin.get(f"/v1/complaints/{ids[0]}/contact")).json()["complainant_id"]
    erased = await tenant.admin.request("DELETE", f"/v1/complainants/{person}")
    assert erased.json() == {"complainant_id": person, "already": False}
    again = await tenant.admin.request("DELETE", f"/v1/complainants/{person}")
    assert again.json() == {"complainant_id": person, "already": True}
    for complaint_id in ids:
        assert (await tenant.admin.get(f"/v1/complaints/{complaint_id}/contact")).status_code == 404
        read = await tenant.admin.post("/v1/vault/texts:read", {"case_id": complaint_id, "reason": "why not"})
        assert read.status_code == 404
        assert (await tenant.admin.get(f"/v1/complaints/{complaint_id}/attachments")).json()["items"] == []
        assert (await tenant.admin.post(f"/v1/cases/{complaint_id}/texts", {"text": "x"})).status_code == 404
    assert (await tenant.admin.get(f"/v1/complaints/{kept}/contact")).status_code == 200
    assert await root.fetchval("SELECT count(*) FROM complaint") == 3
    assert await root.fetchval("SELECT count(*) FROM data_key WHERE wrapped_key IS NULL") == 1
    assert await root.fetchval("SELECT count(*) FROM free_text") == 1
    assert await root.fetchval("SELECT count(*) FROM attachment") == 0
    new = (await tenant.admin.complain(category="charges", complainant=WHO)).json()
    assert new["duplicate_of"] is None
    contact = (await tenant.admin.get(f"/v1/complaints/{new['id']}/contact")).json()
    assert contact["complainant_id"] != person


async def test_a_backup_without_the_key_says_nothing(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant()
    complaint_id = (await tenant.admin.complain(complainant=WHO)).json()["id"]
    sealed = await root.fetchval("SELECT sealed_contact FROM complaint")
    other = (await tenant.admin.complain(complainant={"phone": "13812341111"})).json()["id"]
    await root.execute("UPDATE complaint SET sealed_contact = $1 WHERE complaint_id = $2", sealed, other)
    assert (await tenant.admin.get(f"/v1/complaints/{other}/contact")).status_code == 500
    assert (await tenant.admin.get(f"/v1/complaints/{complaint_id}/contact")).status_code == 200


async def test_a_new_master_key_takes_over_at_the_start(
    world: World, environ: dict[str, str], root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    complaint_id = (await tenant.admin.complain(complainant=WHO)).json()["id"]
    before = await root.fetchval("SELECT master_key_id FROM tenant_key")
    fresh = base64.b64encode(b"n" * 32).decode()
    service = build(environ | {"RECOURSE_MASTER_KEY": fresh, "RECOURSE_MASTER_KEY_PREVIOUS": MASTER_KEY})
    await service.start()
    await service.stop()
    assert await root.fetchval("SELECT master_key_id FROM tenant_key") != before
    alone = build(environ | {"RECOURSE_MASTER_KEY": fresh})
    await alone.start()
    try:
        async with client_of(alone) as http:
            answer = await http.get(
                f"/v1/complaints/{complaint_id}/contact", headers={"Authorization": f"Bearer {tenant.admin.key}"}
            )
        assert answer.json()["phone"] == "139****5678"
    finally:
        await alone.stop()


async def test_notify_is_told_how_a_complainant_is_reached_and_nobody_else_may_ask(
    world: World, streams: Infra
) -> None:
    tenant, other = await world.tenant(), await world.tenant()
    first = (await tenant.admin.complain(complainant=WHO, language="zh")).json()["id"]
    person = (await tenant.admin.get(f"/v1/complaints/{first}/contact")).json()["complainant_id"]

    async def ask(user: str, seconds: float = PATIENCE, **request: Any) -> ContactReply:
        client = await nats.connect(streams.nats_url(user), inbox_prefix=f"_INBOX_{user}".encode())
        try:
            body = msgspec.json.encode(ContactRequest(**request))
            answer = await client.request(CONTACT_SUBJECT, body, timeout=seconds)
            return msgspec.json.decode(answer.data, type=ContactReply)
        finally:
            await client.close()

    async def answered() -> ContactReply | None:
        try:
            return await ask("notify", tenant_id=tenant.tenant_id, case_id=first)
        except nats.errors.NoRespondersError:
            return None

    reply = await until(answered)
    assert (reply.found, reply.phone, reply.email, reply.language) == (
        True,
        "+8613912345678",
        CANARIES["email"],
        "zh",
    )
    by_person = await ask("notify", tenant_id=tenant.tenant_id, case_id=uuid4(), complainant_id=person)
    assert by_person.name == CANARIES["name"]
    assert not (await ask("notify", tenant_id=other.tenant_id, case_id=first)).found
    assert not (await ask("notify", tenant_id=other.tenant_id, case_id=first, complainant_id=person)).found
    # A name that is no id of the vault's means the case's own complainant.
    assert (await ask("notify", tenant_id=tenant.tenant_id, case_id=first, complainant_id="c1")).found
    await tenant.admin.request("DELETE", f"/v1/complainants/{person}")
    assert not (await ask("notify", tenant_id=tenant.tenant_id, case_id=first)).found
    with pytest.raises((nats.errors.TimeoutError, nats.errors.Error)):
        await ask("reporting", 1, tenant_id=tenant.tenant_id, case_id=first)

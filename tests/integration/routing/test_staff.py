"""Staff: what is told of them, what is hidden, and how notify gets to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import nats

from services.routing import answering
from shared.messages.contacts import STAFF_SUBJECT, StaffReply, StaffRequest
from tests.infra import Infra
from tests.integration.routing.world import World
from tests.waiting import PATIENCE, until


async def test_ids_and_roles_are_told_and_contacts_are_not(world: World) -> None:
    player = await world.tenant()
    await player.staff(
        "anna",
        roles=["clerk"],
        unit="desk",
        deputy="ben",
        name="安娜",
        phone="+8613800138000",
        email="anna@example.com",
    )
    told = await world.told(player.tenant_id, "staff.changed")
    assert told[-1]["staff"] == {
        "staff_id": "anna",
        "roles": ["clerk"],
        "unit": "desk",
        "active": True,
        "absent_until": None,
        "deputy": "ben",
    }
    sealed = await world.root.fetchval("SELECT contact FROM staff_member WHERE staff_id = 'anna'")
    assert b"13800138000" not in sealed
    for body in await world.root.fetch("SELECT body FROM outbox"):
        assert b"13800138000" not in body["body"]
        assert "安娜".encode() not in body["body"]


async def test_contacts_are_shown_to_those_in_charge_and_to_the_person(world: World) -> None:
    player = await world.tenant()
    await player.staff("anna", roles=["clerk"], name="安娜", phone="+8613800138000")
    await player.credential("anna", "handler", "anna")
    await player.credential("ben", "handler", "ben")
    assert (await player.get("/v1/staff/anna"))["contact"]["phone"] == "+8613800138000"
    assert (await player.get("/v1/staff/anna", "anna"))["contact"]["name"] == "安娜"
    assert (await player.get("/v1/staff/anna", "ben"))["contact"] is None


async def test_a_former_member_gets_nothing_and_has_no_contact(world: World) -> None:
    player = await world.tenant()
    await player.staff("anna", roles=["clerk"], unit="desk", phone="+8613800138000")
    await player.credential("anna", "handler", "anna")
    assert (await player.call("DELETE", "/v1/staff/anna")).status_code == 204
    case_id = await player.complaint()
    assert (await player.get(f"/v1/cases/{case_id}"))["owner"]["staff"] is None
    assert (await player.enter(case_id, "commented", "anna")).status_code == 403
    assert (await player.get("/v1/staff"))["items"] == []
    former = (await player.get("/v1/staff", inactive=True))["items"][0]
    assert (former["active"], former["contact"]) == (False, None)
    assert (await world.told(player.tenant_id, "staff.changed"))[-1]["staff"]["active"] is False


async def test_mistakes_are_pointed_at(world: World) -> None:
    player = await world.tenant()
    now = datetime.now(UTC)
    body = {
        "phone": "13800138000",
        "email": "anna",
        "deputy": "anna",
        "absences": [{"start": now.isoformat(), "end": (now - timedelta(days=1)).isoformat()}],
    }
    response = await player.call("PUT", "/v1/staff/anna", json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [
        "/phone",
        "/email",
        "/deputy",
        "/absences/0/end",
    ]
    unknown = await player.call("PUT", "/v1/staff/anna", json={"role": "clerk"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (400, "/role")


async def test_notify_is_told_who_is_behind_a_name_absent_ones_replaced(world: World, infra: Infra) -> None:
    player = await world.tenant()
    now = datetime.now(UTC)
    away = [{"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}]
    await player.staff("anna", roles=["clerk"], unit="desk", deputy="mia", absences=away, phone="+8613800138000")
    await player.staff("ben", roles=["clerk"], unit="desk", phone="+8613800138001")
    await player.staff("mia", roles=["manager"], email="mia@example.com")
    client = await nats.connect(infra.nats_url("notify"), inbox_prefix=b"_INBOX_notify")
    try:

        async def ask(name: str) -> StaffReply:
            body = msgspec.json.encode(StaffRequest(tenant_id=player.tenant_id, name=name))
            return msgspec.json.decode(
                (await client.request(STAFF_SUBJECT, body, timeout=PATIENCE)).data, type=StaffReply
            )

        await until(_answers(ask))
        clerks = await ask("clerk")
        assert clerks.kind == "role"
        assert {(each.staff_id, each.phone, each.email) for each in clerks.contacts} == {
            ("mia", None, "mia@example.com"),
            ("ben", "+8613800138001", None),
        }
        assert (await ask("anna")).contacts[0].staff_id == "mia"
        assert (await ask("desk")).kind == "unit"
        assert (await ask("nobody")) == StaffReply(kind="unknown")
    finally:
        await client.close()
    stranger = await world.tenant()
    reply = await answering.answer(
        world.service.runtime, msgspec.json.encode(StaffRequest(tenant_id=stranger.tenant_id, name="clerk"))
    )
    assert msgspec.json.decode(reply, type=StaffReply).kind == "unknown"


def _answers(ask: Callable[[str], Awaitable[StaffReply]]) -> Callable[[], Awaitable[bool]]:
    async def answered() -> bool:
        try:
            await ask("clerk")
        except (nats.errors.NoRespondersError, TimeoutError):
            return False
        return True

    return answered

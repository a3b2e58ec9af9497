"""Publications that reach open cases, and duties."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.integration.routing.world import POLICY, Player, World
from tests.waiting import until


def _with_reply(within: str) -> dict[str, Any]:
    document = copy.deepcopy(POLICY)
    document["clocks"][0]["within"] = within
    return document


def _due(case: dict[str, Any]) -> str:
    due: str = next(clock["due_at"] for clock in case["standing"]["clocks"] if clock["state"] == "running")
    return due


@pytest.fixture
async def shop(world: World) -> Player:
    player = await world.tenant()
    await player.staff("anna", roles=["clerk"], unit="desk")
    await player.credential("anna", "handler", "anna")
    return player


async def test_a_draft_shows_which_complaints_it_moves_and_stores_nothing(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    answered = await shop.complaint()
    await shop.enter(answered, "replied", "anna")
    before = _due(await shop.get(f"/v1/cases/{case_id}"))
    response = await shop.call("POST", "/v1/cases:impact", json={"document": _with_reply("10wd"), "effect": "from_now"})
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["looked_at"] == 2
    assert [(item["case_id"], item["clocks"][0]["rule"], item["clocks"][0]["was"]) for item in found["items"]] == [
        (str(case_id), "reply", before)
    ]
    assert found["items"][0]["clocks"][0]["becomes"] > before
    assert _due(await shop.get(f"/v1/cases/{case_id}")) == before
    assert len(await shop.timeline(case_id)) == 1
    kept = await shop.call("POST", "/v1/cases:impact", json={"document": _with_reply("10wd"), "effect": "keep"})
    assert kept.json()["items"] == []
    same = await shop.call("POST", "/v1/cases:impact", json={"document": POLICY, "effect": "retroactive"})
    assert (same.json()["items"], same.json()["follows"]) == ([], False)


async def test_a_draft_that_is_no_policy_is_refused_with_pointers(world: World, shop: Player) -> None:
    broken = _with_reply("soon")
    response = await shop.call("POST", "/v1/cases:impact", json={"document": broken})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith("/document/clocks/0")


async def test_what_is_published_from_now_moves_open_complaints(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    closed = await shop.complaint()
    await shop.enter(closed, "withdrawn", "anna")
    before = _due(await shop.get(f"/v1/cases/{case_id}"))
    await shop.publish(_with_reply("10wd"), 2, "from_now")
    await until(lambda: world.count("entry WHERE case_id = $1 AND kind = 'policy_changed'", case_id))
    case = await shop.get(f"/v1/cases/{case_id}")
    assert case["timeline"][-1]["data"] == {"version": 2, "effect": "from_now"}
    assert (case["policy_version"], case["standing"]["policy_version"]) == (1, 2)
    assert _due(case) > before
    await until(lambda: world.count("move WHERE done_at IS NOT NULL AND tenant_id = $1", shop.tenant_id))
    assert [entry["kind"] for entry in await shop.timeline(closed)] == ["received", "withdrawn"]
    await shop.publish(_with_reply("1wd"), 3, "keep")
    assert len(await shop.timeline(case_id)) == 2


async def test_a_missed_limit_stays_missed_whatever_is_published(world: World, shop: Player) -> None:
    case_id = await shop.complaint(at=datetime.now(UTC) - timedelta(days=30))
    await shop.publish(_with_reply("60wd"), 2, "from_now")
    await until(lambda: world.count("entry WHERE case_id = $1 AND kind = 'policy_changed'", case_id))
    assert (await shop.get(f"/v1/cases/{case_id}"))["standing"]["clocks"][0]["state"] == "breached"


async def test_a_new_text_of_a_message_moves_nobody(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    document = {**POLICY, "title": "The same shop", "guidance": [{"clause": "X.9", "text": "Be kind."}]}
    await shop.publish(document, 2, "from_now")
    await until(lambda: world.count("move WHERE done_at IS NOT NULL AND tenant_id = $1", shop.tenant_id))
    assert len(await shop.timeline(case_id)) == 1


async def test_a_published_calendar_is_entered_where_it_moves_a_clock(world: World, shop: Player) -> None:
    now = datetime.now(UTC)
    case_id = await shop.complaint()
    answered = await shop.complaint()
    await shop.enter(answered, "replied", "anna")
    before = _due(await shop.get(f"/v1/cases/{case_id}"))
    holidays = [f"{(now + timedelta(days=1)).date()}/{(now + timedelta(days=9)).date()}"]
    await world.tellers.tell(shop.calendar(1, {"holidays": holidays}, moves_running=True))
    await until(lambda: world.count("entry WHERE case_id = $1 AND kind = 'calendar_changed'", case_id))
    assert _due(await shop.get(f"/v1/cases/{case_id}")) > before
    await until(lambda: world.count("move WHERE done_at IS NOT NULL AND tenant_id = $1", shop.tenant_id))
    assert "calendar_changed" not in [entry["kind"] for entry in await shop.timeline(answered)]


async def test_duties_have_a_case_of_their_own_each_year(world: World) -> None:
    document = {**POLICY, "duties": [{"id": "box", "every": "working_day", "owner": "clerk", "proof": "step:callback"}]}
    player = await world.tenant(document)
    await player.staff("anna", roles=["clerk"], unit="desk")
    await player.credential("anna", "handler", "anna")
    world.service.runtime.wake("duties")
    await until(lambda: world.count("\"case\" WHERE tenant_id = $1 AND kind = 'duty'", player.tenant_id))
    entered = await player.call(
        "POST", "/v1/duties/entries", "anna", json={"kind": "step", "data": {"step": "callback"}}
    )
    assert entered.status_code == 201, entered.text
    duties = (await player.get("/v1/cases", kind="duty"))["items"]
    assert len(duties) == 1
    case = await player.get(f"/v1/cases/{duties[0]['case_id']}")
    assert [entry["kind"] for entry in case["timeline"]] == ["received", "step"]
    assert all(clock["rule"] == "box" for clock in case["standing"]["clocks"])
    told = [each for each in await world.told(player.tenant_id, "entry.appended") if each["case_kind"] == "duty"]
    assert [each["entry"]["seq"] for each in told] == [1, 2]
    assert UUID(told[0]["case_id"]) == UUID(duties[0]["case_id"])


async def test_a_tenant_without_duties_has_no_case_for_them(world: World, shop: Player) -> None:
    response = await shop.call("POST", "/v1/duties/entries", "anna", json={"kind": "commented", "data": {}})
    assert response.status_code == 404


async def test_one_tenants_broken_policy_holds_up_nobody_else(world: World) -> None:
    broken = await world.tenant({"policy": 1, "title": "No policy", "clocks": [{"id": "x", "start": "nothing"}]})
    document = {**POLICY, "duties": [{"id": "box", "every": "working_day", "owner": "clerk"}]}
    players = [await world.tenant(document) for _ in range(3)]
    world.service.runtime.wake("duties")
    ids = [player.tenant_id for player in players]
    await until(lambda: world.count('"case" WHERE tenant_id = ANY($1) HAVING count(*) = 3', ids))
    assert await world.count('"case" WHERE tenant_id = $1', broken.tenant_id) == 0


async def test_a_case_that_cannot_be_folded_holds_up_nobody_else(world: World, shop: Player) -> None:
    late = datetime.now(UTC) - timedelta(days=2)
    broken, sound = [await shop.complaint(at=late) for _ in range(2)]
    await world.root.execute('UPDATE entry SET data = \'{"received_at": 1, "handler": 5}\' WHERE case_id = $1', broken)
    await world.root.execute("UPDATE wake_up SET wake_at = now() - interval '1 minute'")
    world.service.runtime.wake("ticks")
    world.service.runtime.wake("refresh")
    await until(lambda: world.count("wake_up WHERE case_id = $1 AND wake_at > now() + interval '1 hour'", sound))
    await until(lambda: world.count("wake_up WHERE case_id = $1 AND wake_at > now() + interval '30 seconds'", broken))

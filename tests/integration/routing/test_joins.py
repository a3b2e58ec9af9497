"""Merging, splitting, linking, reopening: no deadline gets lost."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.integration.routing.world import POLICY, Player, World


@pytest.fixture
async def shop(world: World) -> Player:
    document = copy.deepcopy(POLICY)
    document["clocks"][0]["within"] = "72h"  # round the clock, so that an hour's difference shows on any day
    player = await world.tenant(document)
    await player.staff("anna", roles=["clerk"], unit="desk")
    await player.staff("mia", roles=["manager"], unit="workshop")
    await player.credential("anna", "handler", "anna")
    await player.credential("mia", "supervisor", "mia")
    return player


async def _due(shop: Player, case_id: UUID | str) -> str:
    clocks = (await shop.get(f"/v1/cases/{case_id}"))["standing"]["clocks"]
    due: str = next(clock["due_at"] for clock in clocks if clock["rule"] == "reply" and clock["state"] == "running")
    return due


async def _post(shop: Player, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await shop.call("POST", path, "anna", json=body)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("older_ends", [True, False])
async def test_the_case_that_goes_on_keeps_the_strictest_deadline(world: World, shop: Player, older_ends: bool) -> None:
    now = datetime.now(UTC)
    older = await shop.complaint(at=now - timedelta(hours=30))
    younger = await shop.complaint(at=now)
    strictest = await _due(shop, older)
    assert strictest < await _due(shop, younger)
    ending, lasting = (older, younger) if older_ends else (younger, older)
    joined = await _post(shop, f"/v1/cases/{ending}/merges", {"into": str(lasting)})
    assert (joined["case"]["case_id"], joined["others"][0]["case_id"]) == (str(ending), str(lasting))
    assert await _due(shop, lasting) == strictest
    ended = (await shop.get(f"/v1/cases/{ending}"))["standing"]
    assert ended["state"] == "merged"
    assert {clock["state"] for clock in ended["clocks"]} == {"cancelled"}
    refused = await shop.enter(ending, "commented", "anna")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/merged")
    again = await shop.call("POST", f"/v1/cases/{ending}/merges", "anna", json={"into": str(lasting)})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/cannot-join")


async def test_the_parts_of_a_complaint_were_received_when_it_was(world: World, shop: Player) -> None:
    whole = await shop.complaint(at=datetime.now(UTC) - timedelta(hours=20), category="billing", fields={"order": "17"})
    due = await _due(shop, whole)
    joined = await _post(
        shop, f"/v1/cases/{whole}/splits", {"parts": [{"category": "attitude"}, {"respondent": {"staff": "s9"}}]}
    )
    assert len(joined["others"]) == 2
    assert await _due(shop, whole) == due
    for place, part in enumerate(joined["others"], start=1):
        case = await shop.get(f"/v1/cases/{part['case_id']}")
        assert case["number"] == f"N-0001-{place}"
        assert case["timeline"][0]["data"]["fields"] == {"order": "17"}
        assert await _due(shop, part["case_id"]) == due
        assert await world.count("assignment WHERE case_id = $1 AND active", UUID(part["case_id"])) == 1
    first = await shop.get(f"/v1/cases/{joined['others'][0]['case_id']}")
    assert first["standing"]["classified"]["category"] == "attitude"
    told = {each["case_id"] for each in await world.told(shop.tenant_id, "entry.appended")}
    assert {part["case_id"] for part in joined["others"]} <= told


async def test_linked_complaints_both_go_on(world: World, shop: Player) -> None:
    one, other = [await shop.complaint() for _ in range(2)]
    await _post(shop, f"/v1/cases/{one}/links", {"to": str(other)})
    for case_id, named in ((one, other), (other, one)):
        entry = (await shop.timeline(case_id))[-1]
        assert (entry["kind"], entry["data"]) == ("linked", {"linked_to": str(named)})
    itself = await shop.call("POST", f"/v1/cases/{one}/links", "anna", json={"to": str(one)})
    assert itself.status_code == 422


async def test_a_closed_complaint_reopens_under_its_own_id(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    await shop.enter(case_id, "closed", "mia")
    assert (await shop.get(f"/v1/cases/{case_id}"))["standing"]["closed"]
    response = await shop.enter(case_id, "reopened", "anna")
    assert response.json()["standing"]["closed"] is False
    assert [item["case_id"] for item in (await shop.get("/v1/cases"))["items"]] == [str(case_id)]
    assert await world.count("assignment WHERE case_id = $1 AND active", case_id) == 1

"""A sandbox's test clock. sla and notify are played by the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from shared.ids import new_id
from shared.messages import ClockRested, ClockSettled
from tests.integration.routing.world import POLICY, Player, World
from tests.waiting import until

MONDAY = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai


@pytest.fixture
async def sandbox(world: World) -> Player:
    player = await world.tenant(sandbox=True, at=MONDAY)
    await player.staff("anna", roles=["clerk"], unit="desk")
    await player.credential("anna", "handler", "anna")
    return player


async def _settle(player: Player, round_id: UUID, target: datetime, steps: int = 2) -> None:
    await player.world.tellers.tell(
        ClockSettled(
            message_id=new_id(),
            tenant_id=player.tenant_id,
            at=target,
            operation_id=round_id,
            target=target,
            steps=steps,
        )
    )


async def _rest(player: Player, round_id: UUID, target: datetime) -> None:
    await player.world.tellers.tell(
        ClockRested(message_id=new_id(), tenant_id=player.tenant_id, at=target, operation_id=round_id, target=target)
    )


async def _now(player: Player) -> datetime:
    return datetime.fromisoformat((await player.get("/v1/sandbox/clock"))["now"])


async def _state(player: Player, operation_id: UUID, wait: float = 0) -> dict[str, object]:
    found: dict[str, object] = await player.get(f"/v1/sandbox/clock/operations/{operation_id}", wait=wait)
    return found


async def test_a_new_sandbox_has_a_clock_that_stands(world: World, sandbox: Player) -> None:
    assert await _now(sandbox) == MONDAY
    ticks = await world.told(sandbox.tenant_id, "clock.ticked")
    assert [tick["at"] for tick in ticks] == ["2026-03-02T01:00:00Z"]
    case_id = await sandbox.complaint(at=MONDAY)
    await sandbox.enter(case_id, "commented", "anna")
    assert [entry["at"] for entry in await sandbox.timeline(case_id)] == ["2026-03-02T01:00:00Z"] * 2


async def test_the_clock_is_at_its_target_when_sla_has_settled_and_notify_has_rested(
    world: World, sandbox: Player
) -> None:
    operation_id = await sandbox.advanced(by="3wd")
    target = datetime(2026, 3, 5, 10, tzinfo=UTC)  # close of the third working day
    told = await world.told(sandbox.tenant_id, "clock.advanced")
    assert [(each["operation_id"], each["target"]) for each in told] == [(str(operation_id), "2026-03-05T10:00:00Z")]
    assert (await _state(sandbox, operation_id))["waiting_for"] == ["sla", "notify"]
    assert await _now(sandbox) == MONDAY
    await _settle(sandbox, operation_id, target)
    await until(lambda: world.count("clock_operation WHERE settled"))
    assert (await _state(sandbox, operation_id))["waiting_for"] == ["notify"]
    assert await _now(sandbox) == MONDAY
    await _rest(sandbox, operation_id, target)
    assert (await _state(sandbox, operation_id, wait=10)) | {"started_from": ""} == {
        "operation_id": str(operation_id),
        "state": "done",
        "started_from": "",
        "target": "2026-03-05T10:00:00Z",
        "steps": 2,
        "waiting_for": [],
    }
    assert await _now(sandbox) == target
    assert (await world.told(sandbox.tenant_id, "clock.ticked"))[-1]["at"] == "2026-03-05T10:00:00Z"
    await _settle(sandbox, operation_id, target)  # told once more, long after
    later = await sandbox.advanced(by="1h")
    assert (await _state(sandbox, later))["state"] == "running"


async def test_a_test_clock_never_goes_back_and_is_moved_by_one_at_a_time(world: World, sandbox: Player) -> None:
    back = await sandbox.call("POST", "/v1/sandbox/clock:advance", json={"to": "2026-03-01T00:00:00+08:00"})
    assert (back.status_code, back.json()["type"]) == (422, "/problems/clock-backwards")
    for body in ({}, {"to": "2026-04-01T00:00:00+08:00", "by": "1h"}, {"by": "soon"}, {"to": "2026-04-01T00:00:00"}):
        assert (await sandbox.call("POST", "/v1/sandbox/clock:advance", json=body)).status_code == 422
    assert (await sandbox.call("POST", "/v1/sandbox/clock:advance", "anna", json={"by": "1h"})).status_code == 403
    await sandbox.advanced(by="1h")
    second = await sandbox.call("POST", "/v1/sandbox/clock:advance", json={"by": "1h"})
    assert (second.status_code, second.json()["type"]) == (409, "/problems/clock-moving")


async def test_a_live_tenant_has_no_test_clock(world: World) -> None:
    live = await world.tenant()
    assert (await live.call("GET", "/v1/sandbox/clock")).status_code == 404
    assert (await live.call("POST", "/v1/sandbox/clock:advance", json={"by": "1h"})).status_code == 404


async def test_what_is_entered_while_the_clock_moves_bears_the_target_and_asks_for_another_round(
    world: World, sandbox: Player
) -> None:
    case_id = await sandbox.complaint(at=MONDAY)
    target = MONDAY + timedelta(days=1)
    operation_id = await sandbox.advanced(to=target.isoformat())
    await sandbox.enter(case_id, "replied", "anna")
    assert (await sandbox.timeline(case_id))[-1]["at"] == "2026-03-03T01:00:00Z"
    await _rest(sandbox, operation_id, target)  # in either order
    await _settle(sandbox, operation_id, target)
    await until(lambda: world.count("clock_operation WHERE round = 2"))
    again = UUID((await world.told(sandbox.tenant_id, "clock.advanced"))[-1]["operation_id"])
    assert again != operation_id
    assert (await _state(sandbox, operation_id))["state"] == "running"
    await _settle(sandbox, operation_id, target)  # of the round before: means nothing
    await _settle(sandbox, again, target)
    await _rest(sandbox, again, target)
    assert (await _state(sandbox, operation_id, wait=10))["state"] == "done"
    assert await _now(sandbox) == target


async def test_what_changes_by_itself_on_the_way_is_entered_at_its_own_instant(world: World) -> None:
    document = {
        **POLICY,
        "subjects": [{"id": "late", "subject": "=complaint.handler.unit", "on": "breach:reply", "window": "ever"}],
        "routing": [*POLICY["routing"], {"id": "up", "on": "breach:reply", "role": "manager", "auto": True}],
    }
    player = await world.tenant(document, sandbox=True, at=MONDAY)
    case_id = await player.complaint(at=MONDAY, handler={"unit": "desk"})
    target = MONDAY + timedelta(days=14)
    operation_id = await player.advanced(to=target.isoformat())
    await until(lambda: world.count("entry WHERE case_id = $1 AND kind = 'counted'", case_id))
    counted = (await player.timeline(case_id))[1]
    assert counted["at"] == "2026-03-05T10:00:00.000001Z"  # the limit ends at the close of the third working day
    await _settle(player, operation_id, target)
    await _rest(player, operation_id, target)
    await until(lambda: world.count("clock_operation WHERE round = 2 AND tenant_id = $1", player.tenant_id))
    again = UUID((await world.told(player.tenant_id, "clock.advanced"))[-1]["operation_id"])
    await _settle(player, again, target)
    await _rest(player, again, target)
    assert (await _state(player, operation_id, wait=10))["state"] == "done"
    standing = (await player.get(f"/v1/cases/{case_id}"))["standing"]
    assert standing["clocks"][0]["state"] == "breached"


async def test_a_clock_that_crosses_the_new_year_takes_the_next_years_duties_along(world: World) -> None:
    december = datetime(2026, 12, 30, 1, tzinfo=UTC)
    document = {**POLICY, "duties": [{"id": "box", "every": "working_day", "owner": "clerk", "proof": "step:callback"}]}
    player = await world.tenant(document, sandbox=True, at=december)
    await player.advanced(by="7d")
    duties = (await player.get("/v1/cases", kind="duty"))["items"]
    assert sorted(duty["number"] for duty in duties) == ["duties-2026", "duties-2027"]


async def test_a_complaint_that_an_effect_creates_is_waited_for(world: World) -> None:
    document = {
        **POLICY,
        "vocabulary": {**POLICY["vocabulary"], "outcomes": {"internal": ""}},
        "actions": [{"id": "report", "on": "breach:reply", "do": [{"kind": "created", "what": "internal"}]}],
    }
    player = await world.tenant(document, sandbox=True, at=MONDAY)
    await player.complaint(at=MONDAY)
    target = MONDAY + timedelta(days=14)
    operation_id = await player.advanced(to=target.isoformat())
    await until(lambda: world.count("clock_operation WHERE awaited = 1"))
    await _settle(player, operation_id, target)
    await _rest(player, operation_id, target)
    await until(lambda: world.count("clock_operation WHERE settled AND rested"))
    assert (await _state(player, operation_id))["state"] == "running"
    breached_at = datetime(2026, 3, 5, 10, tzinfo=UTC)
    created = player.received(at=breached_at, source="effect")
    await world.tellers.tell(created)
    await until(lambda: world.count("clock_operation WHERE round = 2"))
    again = UUID((await world.told(player.tenant_id, "clock.advanced"))[-1]["operation_id"])
    await _settle(player, again, target)
    await _rest(player, again, target)
    assert (await _state(player, operation_id, wait=10))["state"] == "done"

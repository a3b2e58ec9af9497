"""Complaints come in, are assigned, and are acted on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.routing.repository import cases, staff
from tests.integration.routing.world import POLICY, Player, World, message_id_of
from tests.waiting import until


@pytest.fixture
async def shop(world: World) -> Player:
    player = await world.tenant()
    await player.staff(
        "anna", roles=["clerk"], unit="desk", name="安娜", phone="+8613800138000", email="anna@example.com"
    )
    await player.staff("ben", roles=["clerk"], unit="desk")
    await player.staff("mia", roles=["manager"], unit="workshop")
    for name, role in (("anna", "handler"), ("ben", "handler"), ("mia", "supervisor")):
        await player.credential(name, role, name)
    return player


async def test_a_complaint_becomes_a_case_with_one_assignment_and_is_told(world: World, shop: Player) -> None:
    message = shop.received(severity="grave", respondent={"staff": "s1"})
    await world.tellers.tell(message)
    case = (await shop.call("GET", f"/v1/cases/{message.case_id}", params={"wait": 10})).json()
    assert case["timeline"][0]["data"] == message.entry.data
    assert case["timeline"][0]["at"] == message.entry.at.isoformat().replace("+00:00", "Z")
    assert case["owner"]["unit"] == "desk"
    assert case["owner"]["staff"] in ("anna", "ben")
    assert case["standing"]["classified"]["priority"] == "high"
    assert [clock["rule"] for clock in case["standing"]["clocks"]] == ["reply"]
    assert (
        await world.count(
            "assignment WHERE tenant_id = $1 AND case_id = $2 AND active", shop.tenant_id, message.case_id
        )
        == 1
    )
    told = await world.told(shop.tenant_id, "entry.appended")
    assert [(each["entry"]["seq"], each["message_id"]) for each in told] == [
        (1, str(message_id_of(shop.tenant_id, message.case_id, 1)))
    ]


async def test_complaints_of_a_group_are_stored_together_each_once(world: World, shop: Player) -> None:
    """They share a look at the clock and the statement that stores them; what follows one in the same group finds it."""
    [consumer] = [each for each in world.service.consumers if each.name == "routing-on-complaint"]
    assert consumer.together is not None
    received = [shop.received() for _ in range(4)]
    request = shop.request(received[0].case_id, "commented")
    for group in ([*received[:3], request], received):  # and again, with one that is new
        async with world.service.runtime.db.worker_tx(shop.tenant_id) as tx:
            await consumer.together(group, tx)
            for message in group:
                await consumer.handlers[type(message)](message, tx)

    kinds = [[line["kind"] for line in await shop.timeline(each.case_id)] for each in received]
    assert kinds == [["received", "commented"], ["received"], ["received"], ["received"]]
    owners = [(await shop.get(f"/v1/cases/{each.case_id}"))["owner"]["staff"] for each in received]
    assert sorted(owners) == ["anna", "anna", "ben", "ben"]
    assert await world.count("assignment WHERE tenant_id = $1 AND active", shop.tenant_id) == 4
    assert await world.count("outbox WHERE tenant_id = $1 AND subject LIKE '%.entry.appended'", shop.tenant_id) == 5


async def test_complaints_are_shared_out_among_those_who_hold_the_role(world: World, shop: Player) -> None:
    ids = [await shop.complaint() for _ in range(4)]
    owners = [(await shop.get(f"/v1/cases/{each}"))["owner"]["staff"] for each in ids]
    assert sorted(owners) == ["anna", "anna", "ben", "ben"]


async def test_an_absent_person_is_replaced_by_the_deputy(world: World, shop: Player) -> None:
    now = datetime.now(UTC)
    away = {"start": (now - timedelta(days=1)).isoformat(), "end": (now + timedelta(days=1)).isoformat()}
    await shop.staff("ben", roles=["clerk"], unit="desk", active=False)
    await shop.staff("anna", roles=["clerk"], unit="desk", deputy="mia", absences=[away])
    owner = (await shop.get(f"/v1/cases/{await shop.complaint()}"))["owner"]
    assert (owner["staff"], owner["in_place_of"]) == ("mia", "anna")


async def test_nobody_gets_a_complaint_whom_a_gate_refuses(world: World, shop: Player) -> None:
    for _ in range(3):
        case_id = await shop.complaint(fields={"interested_staff": ["anna"]})
        assert (await shop.get(f"/v1/cases/{case_id}"))["owner"]["staff"] == "ben"


async def test_a_route_with_auto_enters_the_assignment(world: World) -> None:
    document = {**POLICY, "routing": [{"id": "desk", "unit": "desk", "role": "clerk", "auto": True}]}
    player = await world.tenant(document)
    await player.staff("anna", roles=["clerk"], unit="desk")
    case_id = await player.complaint()
    timeline = await player.timeline(case_id)
    assert [entry["kind"] for entry in timeline] == ["received", "assigned"]
    assert timeline[1]["data"] == {"unit": "desk", "staff": "anna"}
    assert timeline[1]["by"]["id"] == "system"
    assert (await player.get(f"/v1/cases/{case_id}"))["owner"]["named_by"] == "desk"
    assert await world.count("assignment WHERE case_id = $1", case_id) == 1


async def test_an_act_is_entered_with_the_roles_of_who_did_it(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    response = await shop.enter(case_id, "replied", "anna", solved=True)
    assert response.status_code == 201, response.text
    assert response.headers["etag"] == '"2"'
    body = response.json()
    assert (body["seq"], body["kind"], body["standing"]["due_at"]) == (2, "replied", None)
    entry = (await shop.timeline(case_id))[1]
    assert entry["by"] == {"id": "anna", "roles": ["clerk", "desk"], "unit": "desk"}
    assert (await shop.get(f"/v1/cases/{case_id}"))["standing"]["clocks"][0]["state"] == "met"


async def test_a_refused_command_says_why_and_changes_nothing(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    told = len(await world.told(shop.tenant_id, "entry.appended"))
    refused = await shop.enter(case_id, "resolved", "anna", outcome="upheld")
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/refused-by-policy"
    assert (problem["rule"], problem["clause"], problem["reason"]) == ("reply_first", "X.2", "reply_missing")
    forbidden = await shop.enter(case_id, "closed", "anna")
    assert (forbidden.status_code, forbidden.json()["reason"]) == (403, "beyond_authority")
    assert forbidden.json()["type"] == "/problems/refused-by-policy"
    assert len(await shop.timeline(case_id)) == 1
    assert len(await world.told(shop.tenant_id, "entry.appended")) == told
    assert (await shop.enter(case_id, "closed", "mia")).status_code == 201


async def test_a_person_acts_only_in_roles_of_their_own(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    assert (await shop.enter(case_id, "closed", "anna", as_="manager")).status_code == 403
    assert (await shop.enter(case_id, "closed", "admin", as_="manager")).status_code == 403
    assert (
        await shop.enter(case_id, "closed", "mia", as_="workshop")
    ).status_code == 403  # in that part only, not as manager
    assert (await shop.enter(case_id, "commented", "anna", as_="clerk")).status_code == 201
    assert (await shop.timeline(case_id))[-1]["by"]["roles"] == ["clerk"]


async def test_unknown_words_are_pointed_at_with_what_was_probably_meant(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    response = await shop.enter(case_id, "step", "anna", step="calback", outcom="upheld", fields={"oder": "1"})
    assert response.status_code == 422
    assert {error["pointer"]: error["suggestion"] for error in response.json()["errors"]} == {
        "/data/outcom": "outcome",
        "/data/fields/oder": "order",
        "/data/step": "callback",
    }
    assert (await shop.enter(case_id, "received", "anna")).status_code == 422
    assert (await shop.enter(case_id, "replied", "anna", amount_cny=4.8)).json()["errors"][0][
        "pointer"
    ] == "/data/amount_cny"


async def test_what_was_done_earlier_is_told_within_bounds(world: World, shop: Player) -> None:
    case_id = await shop.complaint(at=datetime.now(UTC) - timedelta(hours=2))
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    before = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert (await shop.enter(case_id, "replied", "anna", done_at=future)).status_code == 422
    assert (await shop.enter(case_id, "replied", "anna", done_at=before)).status_code == 422
    assert (await shop.enter(case_id, "replied", "anna", done_at=earlier)).status_code == 201


async def test_a_client_that_saw_an_older_version_is_refused(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    body = {"kind": "commented", "data": {}}
    path = f"/v1/cases/{case_id}/entries"
    assert (await shop.call("POST", path, "anna", json=body, headers={"If-Match": '"1"'})).status_code == 201
    late = await shop.call("POST", path, "anna", json=body, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["current_version"]) == (412, 2)


async def test_a_repeated_command_is_entered_once(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    headers = {"Idempotency-Key": "one"}
    path = f"/v1/cases/{case_id}/entries"
    first = await shop.call("POST", path, "anna", json={"kind": "commented", "data": {}}, headers=headers)
    again = await shop.call("POST", path, "anna", json={"kind": "commented", "data": {}}, headers=headers)
    other = await shop.call("POST", path, "anna", json={"kind": "replied", "data": {}}, headers=headers)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.content == again.content
    assert first.headers["etag"] == again.headers["etag"]
    assert len(await shop.timeline(case_id)) == 2


async def test_what_may_be_done_is_shown_to_each_as_it_applies_to_them(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    found = {}
    for name in ("anna", "mia"):
        items = (await shop.get(f"/v1/cases/{case_id}/allowed", name))["items"]
        found[name] = {(item["kind"], item["step"]): item for item in items}
    assert found["anna"]["closed", None] == {
        "kind": "closed",
        "step": None,
        "allowed": False,
        "rule": "only_manager_closes",
        "clause": "X.1",
        "reason": "beyond_authority",
    }
    assert found["mia"]["closed", None]["allowed"]
    assert found["anna"]["step", "callback"]["allowed"]
    assert ("received", None) not in found["anna"]


async def test_the_standing_explains_itself_in_both_languages(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    english = await shop.get(f"/v1/cases/{case_id}", explain="en")
    chinese = await shop.get(f"/v1/cases/{case_id}", explain="zh")
    assert english["explanations"][0]["rule"] == "reply"
    assert english["explanations"][0]["lines"] != chinese["explanations"][0]["lines"]
    assert (await shop.get(f"/v1/cases/{case_id}"))["explanations"] is None


async def test_a_case_is_shown_as_it_stood(world: World, shop: Player) -> None:
    received_at = datetime.now(UTC) - timedelta(hours=2)
    case_id = await shop.complaint(at=received_at)
    await shop.enter(case_id, "replied", "anna")
    then = await shop.get(f"/v1/cases/{case_id}", at=(received_at + timedelta(hours=1)).isoformat())
    assert [entry["kind"] for entry in then["timeline"]] == ["received"]
    assert then["standing"]["clocks"][0]["state"] == "running"
    assert then["as_of_seq"] == 1


async def test_restricted_fields_are_masked_without_the_right_to_see_them(world: World, shop: Player) -> None:
    case_id = await shop.complaint(fields={"order": "17", "diagnosis": "fracture"})
    shown = (await shop.timeline(case_id))[0]["data"]["fields"]
    assert shown == {"order": "17", "diagnosis": "***"}


async def test_the_work_list_puts_the_urgent_first_and_pages(world: World, shop: Player) -> None:
    now = datetime.now(UTC)
    usual = await shop.complaint(at=now - timedelta(hours=1))
    overdue = await shop.complaint(at=now - timedelta(days=20))
    grave = await shop.complaint(severity="grave")
    seen: list[str] = []
    after = None
    while True:
        page = await shop.get("/v1/cases", "anna", limit=1, **({"after": after} if after else {}))
        seen += [item["case_id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == [str(grave), str(overdue), str(usual)]
    assert [item["case_id"] for item in (await shop.get("/v1/cases", overdue=True))["items"]] == [str(overdue)]
    assert [item["case_id"] for item in (await shop.get("/v1/cases", severity="grave"))["items"]] == [str(grave)]
    mine = (await shop.get("/v1/cases", "anna", staff="me"))["items"]
    bens = (await shop.get("/v1/cases", staff="ben"))["items"]
    assert len(mine) + len(bens) == 3
    await shop.enter(usual, "closed", "mia")
    assert str(usual) not in [item["case_id"] for item in (await shop.get("/v1/cases"))["items"]]
    assert str(usual) in [item["case_id"] for item in (await shop.get("/v1/cases", closed=True))["items"]]
    number = (await shop.get(f"/v1/cases/{usual}"))["number"]
    for closed in (False, True):  # whoever asks for a number gets the case, whatever became of it
        found = (await shop.get("/v1/cases", number=number, closed=closed))["items"]
        assert [item["case_id"] for item in found] == [str(usual)]
    assert (await shop.get("/v1/cases", number="no such"))["items"] == []
    bad = await shop.call("GET", "/v1/cases", params={"after": "nonsense"})
    assert (bad.status_code, bad.json()["type"]) == (400, "/problems/bad-cursor")


async def test_a_transfer_gives_the_case_to_the_other_unit_and_a_return_gives_it_back(
    world: World, shop: Player
) -> None:
    case_id = await shop.complaint()
    first = (await shop.get(f"/v1/cases/{case_id}"))["owner"]
    assert (await shop.enter(case_id, "transferred", "anna", unit="workshop")).status_code == 201
    moved = (await shop.get(f"/v1/cases/{case_id}"))["owner"]
    assert (moved["unit"], moved["staff"]) == ("workshop", "mia")
    assert (await shop.enter(case_id, "returned", "mia")).status_code == 201
    back = (await shop.get(f"/v1/cases/{case_id}"))["owner"]
    assert (back["unit"], back["staff"]) == (first["unit"], first["staff"])
    assert await world.count("assignment WHERE case_id = $1 AND active", case_id) == 1
    assert await world.count("assignment WHERE case_id = $1", case_id) == 3


async def test_requests_wait_in_a_list_until_they_are_decided(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    await shop.enter(case_id, "approval_requested", "anna")
    items = (await shop.get("/v1/approvals", "mia"))["items"]
    assert [(item["case_id"], item["seq"], item["requested_by"]) for item in items] == [(str(case_id), 2, "anna")]
    await shop.enter(case_id, "approved", "mia")
    assert (await shop.get("/v1/approvals", "mia"))["items"] == []


async def test_a_complaint_whose_policy_has_not_arrived_waits_for_it(world: World, shop: Player) -> None:
    message = shop.received(policy_version=2)
    await world.tellers.tell(message)
    await until(lambda: world.count("attempt WHERE tenant_id = $1", shop.tenant_id))
    assert await world.count('"case" WHERE case_id = $1', message.case_id) == 0
    await world.tellers.tell(shop.policy(POLICY, 2))
    await until(lambda: world.count('"case" WHERE case_id = $1', message.case_id))
    assert await world.count("assignment WHERE case_id = $1 AND active", message.case_id) == 1


async def test_what_comes_twice_is_taken_once(world: World, shop: Player) -> None:
    message = shop.received()
    request = shop.request(message.case_id, "supplemented", documents=["receipt"])
    await world.tellers.tell(request, message, message, request, message, request)  # the request even comes first
    await until(lambda: world.count("entry WHERE case_id = $1 AND kind = 'supplemented'", message.case_id))
    again = shop.received()
    await world.tellers.tell(again)
    await until(lambda: world.count('"case" WHERE case_id = $1', again.case_id))
    assert [entry["kind"] for entry in await shop.timeline(message.case_id)] == ["received", "supplemented"]
    assert await world.count("dead_letter") == 0


async def test_a_request_that_the_policy_refuses_stays_as_a_comment(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    text_id = str(uuid4())
    await world.tellers.tell(shop.request(case_id, "closed", text_id=text_id))
    await until(lambda: world.count("entry WHERE case_id = $1 AND seq = 2", case_id))
    entry = (await shop.timeline(case_id))[1]
    assert (entry["kind"], entry["data"]["what"], entry["data"]["reason"]) == (
        "commented",
        "closed",
        "beyond_authority",
    )
    assert entry["data"]["text_id"] == text_id


async def test_an_unassigned_complaint_is_swept_up(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    await world.root.execute("DELETE FROM assignment WHERE case_id = $1", case_id)
    world.service.runtime.wake("sweeper")
    await until(lambda: world.count("assignment WHERE case_id = $1 AND active", case_id))
    assert len(await shop.timeline(case_id)) == 1


async def test_all_complaints_are_looked_at_for_their_assignment_some_at_a_time(world: World, shop: Player) -> None:
    known = [await shop.complaint() for _ in range(5)]
    unassigned = [known[1], known[4]]
    await world.root.execute("DELETE FROM assignment WHERE case_id = ANY($1)", unassigned)
    await world.root.execute(  # two that were stored at one moment
        """UPDATE "case" SET stored_at = (SELECT stored_at FROM "case" WHERE case_id = $1) WHERE case_id = $2""",
        known[1],
        known[2],
    )
    looks = []
    after: cases.Place | None = (datetime(2000, 1, 1, tzinfo=UTC), UUID(int=0))
    async with world.service.runtime.db.worker_tx(shop.tenant_id) as tx:
        while after is not None:
            found, after = await cases.unassigned(tx, shop.tenant_id, after, 2)
            looks.append(found)
        assert await cases.unassigned(tx, shop.tenant_id, (datetime.now(UTC), UUID(int=0)), 2) == ([], None)
    assert len(looks) == 3
    assert sorted(each for look in looks for each in look) == sorted(unassigned)


async def test_a_closed_complaint_is_no_load_but_the_latest_one_stays_so(world: World, shop: Player) -> None:
    case_ids = [await shop.complaint() for _ in range(3)]
    owners = {case_id: (await shop.get(f"/v1/cases/{case_id}"))["owner"]["staff"] for case_id in case_ids}
    last = case_ids[-1]
    for kind, key in (("replied", owners[last]), ("resolved", owners[last]), ("closed", "mia")):
        response = await shop.enter(last, kind, key)
        assert response.status_code == 201, response.text
    rows = await world.root.fetch("SELECT case_id, assigned_at FROM assignment WHERE active")
    at = {row["case_id"]: row["assigned_at"] for row in rows}
    async with world.service.runtime.db.worker_tx(shop.tenant_id) as tx:
        loads = await staff.loads(tx, shop.tenant_id)
    assert loads["mia"] == (0, None)
    for name in ("anna", "ben"):
        mine = [case_id for case_id in case_ids if owners[case_id] == name]
        assert loads[name] == (len(set(mine) - {last}), max(at[case_id] for case_id in mine))

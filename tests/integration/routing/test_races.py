"""Two writers at once: one case, one subject, one clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from services.routing import parts
from services.routing.repository import clocks
from shared.database import Tx
from shared.messages.base import LIVE
from tests.integration.routing.world import POLICY, Player, World
from tests.waiting import until


@pytest.fixture
async def shop(world: World) -> Player:
    player = await world.tenant()
    await player.staff("anna", roles=["clerk"], unit="desk")
    await player.credential("anna", "handler", "anna")
    return player


async def test_of_many_commands_at_once_each_is_entered_in_its_own_line(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    answers = await asyncio.gather(*(shop.enter(case_id, "commented", "anna") for _ in range(8)))
    assert [each.status_code for each in answers] == [201] * 8
    assert sorted(each.json()["seq"] for each in answers) == list(range(2, 10))
    timeline = await shop.timeline(case_id)
    assert [entry["seq"] for entry in timeline] == list(range(1, 10))
    instants = [entry["at"] for entry in timeline]
    assert instants == sorted(instants)


async def test_of_two_clients_that_saw_the_same_version_one_is_refused(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    body = {"kind": "commented", "data": {}}
    headers = {"If-Match": '"1"'}
    answers = await asyncio.gather(
        *(shop.call("POST", f"/v1/cases/{case_id}/entries", "anna", json=body, headers=headers) for _ in range(4))
    )
    assert sorted(each.status_code for each in answers) == [201, 412, 412, 412]
    assert len(await shop.timeline(case_id)) == 2


async def _resolved(shop: Player, case_id: UUID) -> None:
    assert (await shop.enter(case_id, "replied", "anna")).status_code == 201
    response = await shop.enter(case_id, "resolved", "anna", outcome="upheld")
    assert response.status_code == 201, response.text


def _stamp(entries: list[dict[str, Any]]) -> dict[str, Any]:
    stamp: dict[str, Any] = next(entry for entry in entries if entry["kind"] == "resolved")["counts"]["upheld"]
    return stamp


async def test_of_two_that_are_both_the_fourth_one_is_the_fourth(world: World, shop: Player) -> None:
    ids = [await shop.complaint(respondent={"staff": "s1"}) for _ in range(5)]
    for case_id in ids[:3]:
        await _resolved(shop, case_id)
    for case_id in ids[3:]:
        await shop.enter(case_id, "replied", "anna")
    answers = await asyncio.gather(*(shop.enter(each, "resolved", "anna", outcome="upheld") for each in ids[3:]))
    assert [each.status_code for each in answers] == [201, 201]
    stamps = sorted([_stamp(await shop.timeline(each)) for each in ids], key=lambda stamp: stamp["before"])
    assert [stamp["before"] for stamp in stamps] == [0, 1, 2, 3, 4]
    assert [stamp["fires"] for stamp in stamps] == [False, False, False, True, False]
    subjects = (await shop.get("/v1/cases", kind="subject"))["items"]
    assert len(subjects) == 1
    lines = await shop.timeline(UUID(subjects[0]["case_id"]))
    assert [(line["seq"], line["kind"], line["data"]["count"]) for line in lines] == [
        (n, "counted", n) for n in range(1, 6)
    ]
    told = [each for each in await world.told(shop.tenant_id, "entry.appended") if each["case_kind"] == "subject"]
    assert [each["entry"]["seq"] for each in told] == [1, 2, 3, 4, 5]


async def test_many_who_count_at_once_for_a_new_subject_make_one(world: World, shop: Player) -> None:
    ids = [await shop.complaint(respondent={"staff": "s7"}) for _ in range(6)]
    for case_id in ids:
        await shop.enter(case_id, "replied", "anna")
    answers = await asyncio.gather(*(shop.enter(each, "resolved", "anna", outcome="upheld") for each in ids))
    assert [each.status_code for each in answers] == [201] * 6
    assert sorted([_stamp(await shop.timeline(each))["before"] for each in ids]) == [0, 1, 2, 3, 4, 5]


async def test_a_reversed_decision_is_not_counted_any_more(world: World, shop: Player) -> None:
    first, second = [await shop.complaint(respondent={"staff": "s2"}) for _ in range(2)]
    await _resolved(shop, first)
    assert (await shop.enter(first, "reconsidered", "anna", outcome="not_upheld")).status_code == 201
    await _resolved(shop, second)
    assert _stamp(await shop.timeline(second))["before"] == 0
    subject = (await shop.get("/v1/cases", kind="subject"))["items"][0]["case_id"]
    assert [line["kind"] for line in await shop.timeline(UUID(subject))] == ["counted", "uncounted", "counted"]


async def test_a_breach_is_counted_although_nobody_did_anything(world: World) -> None:
    document = {
        **POLICY,
        "subjects": [
            {
                "id": "late",
                "subject": "=complaint.handler.unit",
                "on": "breach:reply",
                "window": "ever",
                "threshold": {"at_least": 2},
            }
        ],
        "penalties": {
            "rules": [
                {"id": "fine", "on": "count:late", "party": "=complaint.handler.unit", "impose": [{"amount": "50.00"}]}
            ]
        },
    }
    player = await world.tenant(document)
    late = datetime.now(UTC) - timedelta(days=30)
    ids = [await player.complaint(at=late, handler={"unit": "desk"}) for _ in range(2)]
    timelines = [await player.timeline(each) for each in ids]
    assert [[entry["kind"] for entry in timeline] for timeline in timelines] == [["received", "counted"]] * 2
    assert sorted(timeline[1]["counts"]["late"]["fires"] for timeline in timelines) == [False, True]
    fined = [len((await player.get(f"/v1/cases/{each}"))["standing"]["penalties"]) for each in ids]
    assert sorted(fined) == [0, 1]
    await player.enter(ids[0], "commented", "admin")  # and it is counted once, however often the case is looked at
    assert [entry["kind"] for entry in await player.timeline(ids[0])] == ["received", "counted", "commented"]
    [subject] = (await player.get("/v1/cases", kind="subject"))["items"]
    for line in await player.timeline(
        UUID(subject["case_id"])
    ):  # what was counted is looked for among lines as young as that
        assert datetime.fromisoformat(line["data"]["on"]) < datetime.fromisoformat(line["at"])


async def test_what_a_tick_covers_is_told_before_it(world: World, shop: Player) -> None:
    """The promise of a tick, with writers that commit late: every entry stamped up to it precedes it in the outbox."""
    cases = [await shop.complaint() for _ in range(4)]
    desk = parts.of(world.service.runtime).desk
    stop = asyncio.Event()

    async def write(case_id: UUID, hold: float) -> None:
        while not stop.is_set():
            async with world.service.runtime.db.worker_tx(shop.tenant_id) as tx:
                writing = await desk.begin(tx, case_id)
                assert writing is not None
                await asyncio.sleep(hold)  # stamped, and not committed for a while
                await desk.add(writing, "commented", writing.timeline[0].by, {}, checked=False)
                await desk.save(writing)

    async def tick() -> None:
        while not stop.is_set():
            async with world.service.runtime.db.worker_tx(LIVE) as tx:
                await _tick(tx)
            await asyncio.sleep(0.005)

    writers = [asyncio.create_task(write(case_id, 0.002 * place)) for place, case_id in enumerate(cases)]
    ticker = asyncio.create_task(tick())
    await until(lambda: world.count("entry HAVING count(*) > 120"))
    stop.set()
    await asyncio.gather(*writers, ticker)

    rows = await world.root.fetch("SELECT id, subject, body FROM outbox WHERE subject ~ 'appended|ticked' ORDER BY id")
    last_tick = datetime(1970, 1, 1, tzinfo=UTC)
    ticks = entries = 0
    for row in rows:
        body = msgspec.json.decode(row["body"])
        if row["subject"].endswith("clock.ticked"):
            at = datetime.fromisoformat(body["at"])
            assert at > last_tick
            last_tick, ticks = at, ticks + 1
        elif body["entry"]["seq"] > 1:
            assert datetime.fromisoformat(body["entry"]["at"]) > last_tick
            entries += 1
    assert ticks > 10
    assert entries > 100


async def _tick(tx: Tx) -> None:
    from shared import outbox
    from shared.ids import new_id
    from shared.messages.routing import ClockTicked

    at = await clocks.tick(tx)
    await outbox.add(tx, ClockTicked(message_id=new_id(), tenant_id=LIVE, at=at))
    await clocks.note_tick(tx)


async def test_a_clock_that_is_set_back_stamps_nothing_behind_a_tick(world: World, shop: Player) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await world.root.execute("UPDATE live_tick SET at = $1", ahead)
    async with world.service.runtime.db.worker_tx(shop.tenant_id) as tx:
        assert (await clocks.stamp(tx, shop.tenant_id)).at > ahead
    await world.root.execute("UPDATE live_tick SET at = clock_timestamp()")


async def test_the_service_ticks_while_something_happens(world: World, shop: Player) -> None:
    before = await world.count("outbox WHERE tenant_id = $1", LIVE)
    await shop.complaint()
    await until(lambda: world.count("outbox WHERE tenant_id = $1 HAVING count(*) > $2", LIVE, before))


async def test_writers_in_a_deadlock_are_done_again(world: World, shop: Player) -> None:
    """Two merges that name each other the other way round, and a command on each: all end, nothing is lost."""
    one, other = [await shop.complaint() for _ in range(2)]
    answers = await asyncio.gather(
        shop.call("POST", f"/v1/cases/{one}/links", "anna", json={"to": str(other)}),
        shop.call("POST", f"/v1/cases/{other}/links", "anna", json={"to": str(one)}),
        shop.enter(one, "commented", "anna"),
        shop.enter(other, "commented", "anna"),
    )
    assert [each.status_code for each in answers] == [201] * 4
    for case_id in (one, other):
        assert [entry["seq"] for entry in await shop.timeline(case_id)] == [1, 2, 3, 4]


async def test_a_second_active_assignment_cannot_be_stored(world: World, shop: Player) -> None:
    case_id = await shop.complaint()
    with pytest.raises(asyncpg.UniqueViolationError):
        await world.root.execute(
            "INSERT INTO assignment (tenant_id, assignment_id, case_id, seq, named, assigned_at)"
            " VALUES ($1, gen_random_uuid(), $2, 1, 'x', now())",
            shop.tenant_id,
            case_id,
        )

"""Deadlines, announcements and the ledger from messages alone, whatever their order and number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import pytest

from shared.engine.model import Actor, CountStamp, Entry
from shared.ids import derived_id, new_id
from shared.messages import LIVE, AnnouncementMade, ClockAdvanced, ClockTicked, EntryAppended, decode
from shared.service import Service
from tests.integration.reporting.told import Tellers, a_credential, a_policy, a_tenant
from tests.waiting import until

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # Monday 09:00 in Shanghai
HOUR = timedelta(hours=1)

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "Test regime",
    "vocabulary": {"severities": {"simple": "", "serious": ""}, "tasks": {"look_into_it": ""}},
    "organisation": {"units": {"office": ""}, "roles": {"director": ""}},
    "clocks": [
        {
            "id": "reply",
            "clause": "R04.5",
            "start": "received",
            "stop": "replied",
            "within": "3wd",
            "steps": [
                {"before": "1wd", "do": [{"kind": "warned", "to": "office"}]},
                {"after": "0h", "do": [{"kind": "escalated", "to": "director"}]},
            ],
        }
    ],
    "penalties": {
        "rules": [
            {
                "id": "late",
                "clause": "R03.28",
                "on": "breach:reply",
                "party": ["=complaint.handler.staff", "office"],
                "impose": [{"kind": "fine", "accrual": {"first": "50.00", "per_day": "50.00"}}],
            }
        ]
    },
}


class Story:
    """One complaint as routing tells it."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id, self.case_id = tenant_id, new_id()
        self.seq = 0

    def entry(self, kind: str, at: datetime, counts: dict[str, CountStamp] | None = None, **data: Any) -> EntryAppended:
        self.seq += 1
        return EntryAppended(
            message_id=derived_id("entry", self.case_id, str(self.seq)),
            tenant_id=self.tenant_id,
            at=at,
            case_id=self.case_id,
            case_kind="complaint",
            policy_version=1,
            number="C-1",
            entry=Entry(seq=self.seq, kind=kind, at=at, by=Actor(id="h1"), data=data, counts=counts or {}),
        )

    def received(self, at: datetime = NINE) -> EntryAppended:
        return self.entry("received", at, channel="phone", handler={"staff": "h1"})


def tick(at: datetime, tenant_id: UUID = LIVE) -> ClockTicked:
    return ClockTicked(message_id=new_id(), tenant_id=tenant_id, at=at)


async def subscribe(tellers: Tellers, tenant_id: UUID, sandbox: bool = False) -> str:
    credential, key = a_credential(tenant_id)
    tenant = a_tenant(tenant_id)
    await tellers.tell(
        type(tenant)(**{name: getattr(tenant, name) for name in tenant.__struct_fields__} | {"sandbox": sandbox}),
        credential,
        a_policy(tenant_id, POLICY),
    )
    return key


async def folded(root: asyncpg.Connection, story: Story, seq: int | None = None) -> None:
    query = "SELECT folded_seq >= $2 AND wake_at IS DISTINCT FROM '1900-01-01 00:00:00+00' FROM watched_case WHERE case_id = $1"
    await until(lambda: root.fetchval(query, story.case_id, seq or story.seq))


async def announced(root: asyncpg.Connection, story: Story) -> list[tuple[str, datetime]]:
    rows = await root.fetch(
        "SELECT kind, at FROM announcement WHERE case_id = $1 AND withdrawn_at IS NULL ORDER BY at", story.case_id
    )
    return [(row["kind"], row["at"]) for row in rows]


async def balance(root: asyncpg.Connection, story: Story) -> int:
    total: int = await root.fetchval(
        "SELECT coalesce(sum(difference_minor), 0)::bigint FROM ledger_posting WHERE case_id = $1", story.case_id
    )
    return total


DUE = datetime(2026, 3, 5, 10, tzinfo=UTC)  # Thursday 18:00 in Shanghai
WARNED = datetime(2026, 3, 4, 10, tzinfo=UTC)


async def test_a_deadline_warns_breaks_and_costs_once(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    story = Story(tenant_id)
    first = story.received()
    await tellers.tell(first, first, tick(NINE + HOUR))
    await folded(root, story)
    assert await announced(root, story) == []

    await tellers.tell(tick(DUE))
    await until(lambda: announced(root, story))
    assert await announced(root, story) == [("warned", WARNED)]
    assert await balance(root, story) == 0  # at its due instant it is not broken

    await tellers.tell(tick(DUE + timedelta(seconds=1)), first)
    await until(lambda: balance(root, story))
    assert await announced(root, story) == [("warned", WARNED), ("escalated", DUE)]
    assert await balance(root, story) == 5000

    await tellers.tell(tick(DUE + timedelta(days=4)))  # Monday evening: Friday and Monday are overdue working days
    await until(lambda: root.fetchval("SELECT count(*) = 2 FROM ledger_posting WHERE case_id = $1", story.case_id))
    assert await balance(root, story) == 10000
    assert len(await announced(root, story)) == 2


async def test_a_tenant_with_much_to_do_is_served_by_two_batches_and_each_case_once(
    service: Service, tellers: Tellers, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    [loop] = [loop for loop in service.loops if loop.name == "wake-ups"]
    wake_ups = loop._step.__self__  # type: ignore[attr-defined]  # the method of the object that does the rounds
    monkeypatch.setattr(wake_ups, "settings", msgspec.structs.replace(wake_ups.settings, wake_batch=2))
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    stories = [Story(tenant_id) for _ in range(9)]
    await tellers.tell(*(story.received() for story in stories), tick(NINE + HOUR))
    for story in stories:
        await folded(root, story)
    await tellers.tell(tick(DUE + timedelta(seconds=1)))
    posted = "SELECT count(*) = 9 FROM ledger_posting WHERE tenant_id = $1"
    await until(lambda: root.fetchval(posted, tenant_id))
    for story in stories:
        assert await announced(root, story) == [("warned", WARNED), ("escalated", DUE)]
        assert await balance(root, story) == 5000
    told = "SELECT count(*) FROM outbox WHERE tenant_id = $1 AND subject LIKE '%announcement.made'"
    assert await root.fetchval(told, tenant_id) == 18


async def test_an_answer_in_time_that_comes_late_takes_nothing_back_because_nothing_was_said(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    """Lines may arrive out of order: what is missing is waited for, and the tick comes behind all of them."""
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    story = Story(tenant_id)
    first, assigned, replied = (
        story.received(),
        story.entry("assigned", NINE + HOUR, staff="h1"),
        story.entry("replied", DUE),
    )
    await tellers.tell(replied, first)
    await folded(root, story, seq=1)
    await tellers.tell(assigned, tick(DUE + timedelta(days=1)))
    await folded(root, story, seq=3)
    assert await announced(root, story) == [("warned", WARNED)]
    assert await balance(root, story) == 0
    assert await root.fetchval("SELECT wake_at FROM watched_case WHERE case_id = $1", story.case_id) is None


async def test_what_no_longer_holds_is_withdrawn_as_it_was_said(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    story = Story(tenant_id)
    await tellers.tell(story.received(), tick(DUE + timedelta(seconds=1)))
    await until(lambda: balance(root, story))
    await tellers.tell(story.entry("replied", DUE - HOUR))
    await folded(root, story)
    assert await announced(root, story) == [("warned", WARNED)]
    assert await balance(root, story) == 0
    query = "SELECT body FROM outbox WHERE tenant_id = $1 AND subject LIKE '%announcement.made' ORDER BY id"
    bodies = await root.fetch(query, tenant_id)
    _, said, taken_back = [decode(row["body"], AnnouncementMade) for row in bodies]
    assert (said.withdrawn, taken_back.withdrawn) == (False, True)
    assert taken_back.effect == said.effect
    assert taken_back.message_id != said.message_id


async def test_another_tenant_sees_nothing(service: Service, tellers: Tellers, root: asyncpg.Connection) -> None:
    ours, theirs = uuid4(), uuid4()
    key, other = await subscribe(tellers, ours), await subscribe(tellers, theirs)
    story = Story(ours)
    await tellers.tell(story.received(), tick(DUE + HOUR))
    await until(lambda: balance(root, story))
    async with a_client(service) as client:
        for path in ("clocks", "penalties", "explanations"):
            place = f"/v1/cases/{story.case_id}/{path}"
            assert (await get(client, place, key)).status_code == 200
            assert (await get(client, place, other)).status_code == 404
        assert (await get(client, "/v1/ledger", key)).json()["rows"]
        assert (await get(client, "/v1/ledger", other)).json() == {"rows": [], "next_cursor": None}
        assert (await get(client, "/v1/ledger/balances", other)).json() == {"balances": []}
        assert (await get(client, "/v1/announcements", other)).json() == {"announcements": [], "next_cursor": None}
        assert len((await get(client, "/v1/announcements", key)).json()["announcements"]) == 2


async def test_a_deadline_explains_itself_in_both_languages(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    tenant_id = uuid4()
    key = await subscribe(tellers, tenant_id)
    story = Story(tenant_id)
    await tellers.tell(story.received(), tick(DUE + HOUR))
    await until(lambda: balance(root, story))
    async with a_client(service) as client:
        english = (await get(client, f"/v1/cases/{story.case_id}/explanations", key)).json()
        chinese = (await get(client, f"/v1/cases/{story.case_id}/explanations?lang=zh", key)).json()
    clock, penalty = english["clocks"][0], english["penalties"][0]
    assert clock["clause"] == "R04.5"
    assert any("working day 3" in line for line in clock["lines"])
    assert penalty["result"] == "50.00 CNY"
    assert penalty["lines"] == ["Overdue days: 1", "For the breach: 50.00", "0 further days at 50.00: 0.00"]
    assert len(chinese["clocks"][0]["lines"]) == len(clock["lines"])
    assert "逾期" in chinese["clocks"][0]["lines"][-1]


def a_client(service: Service) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://sla.local")  # type: ignore[arg-type]


async def get(client: httpx.AsyncClient, path: str, key: str) -> httpx.Response:
    return await client.get(path, headers={"Authorization": f"Bearer {key}"})


async def test_a_sandbox_goes_from_one_due_instant_to_the_next(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id, sandbox=True)
    story = Story(tenant_id)
    await tellers.tell(story.received(), tick(NINE, tenant_id))
    await folded(root, story)
    await tellers.tell(tick(DUE + timedelta(days=30)))  # the live time is not the sandbox's
    operation = new_id()
    target = DUE + timedelta(days=4)
    await tellers.tell(
        ClockAdvanced(message_id=new_id(), tenant_id=tenant_id, at=NINE, operation_id=operation, target=target)
    )
    await until(lambda: root.fetchval("SELECT settled_at IS NOT NULL FROM advance WHERE operation_id = $1", operation))
    assert await announced(root, story) == [("warned", WARNED), ("escalated", DUE)]
    assert await balance(root, story) == 10000
    assert await root.fetchval("SELECT at FROM tick WHERE tenant_id = $1", tenant_id) == target
    assert not await root.fetchval("SELECT bool_or(late) FROM announcement WHERE case_id = $1", story.case_id)
    settled = await root.fetchval("SELECT count(*) FROM outbox WHERE subject LIKE 'sla.v1.%.clock.settled'")
    assert settled == 1


async def test_a_fold_that_fails_holds_up_nobody_and_is_tried_again(
    service: Service, tellers: Tellers, root: asyncpg.Connection
) -> None:
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    broken, sound = Story(tenant_id), Story(tenant_id)
    await tellers.tell(
        broken.received(), broken.entry("policy_changed", NINE + HOUR, version="no number"), sound.received()
    )
    await tellers.tell(tick(DUE + HOUR))
    await until(lambda: balance(root, sound))
    assert await until(lambda: root.fetchval("SELECT error FROM watched_case WHERE case_id = $1", broken.case_id))
    assert await balance(root, broken) == 0


@pytest.mark.parametrize("late", [False, True])
async def test_effects_of_downtime_bear_their_due_instants_and_are_marked_late(
    service: Service, tellers: Tellers, root: asyncpg.Connection, late: bool
) -> None:
    tenant_id = uuid4()
    await subscribe(tellers, tenant_id)
    story = Story(tenant_id)
    await tellers.tell(story.received(), tick(NINE))
    await folded(root, story)
    await tellers.tell(tick(WARNED + (timedelta(days=3) if late else timedelta(seconds=1))))
    await until(lambda: announced(root, story))
    row = await root.fetchrow("SELECT at, late FROM announcement WHERE case_id = $1 AND kind = 'warned'", story.case_id)
    assert row is not None
    assert (row["at"], row["late"]) == (WARNED, late)

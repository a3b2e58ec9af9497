"""Quiet hours, budgets, sandboxes that come to rest, and tenants that do not wait for each other."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from services.notify.sinks import EmailSink, SmsSink
from shared.ids import derived_id
from tests.integration.notify.world import PHONE, World, an_announcement, settled
from tests.integration.reporting.told import NINE, Complaint
from tests.waiting import until

SHANGHAI = ZoneInfo("Asia/Shanghai")


def acknowledging(**rule: Any) -> dict[str, Any]:
    return {
        "policy": 1,
        "title": "sms",
        "messages": [
            {
                "id": "ack",
                "on": "received",
                "to": ["complainant"],
                "channel": ["sms"],
                "template": "{{ number }}",
                **rule,
            }
        ],
    }


async def state_of(tenant: Any) -> list[tuple[str, str]]:
    return [(each["state"], each["reason"]) for each in reversed(await tenant.deliveries(limit=200))]


async def rested(world: World) -> list[dict[str, Any]]:
    return await world.told("clock.rested")


async def test_in_quiet_hours_a_live_tenants_message_wakes_when_they_end(world: World, sms: SmsSink) -> None:
    now = datetime.now(SHANGHAI)
    start, end = now - timedelta(hours=1), (now + timedelta(hours=2)).replace(second=0, microsecond=0)
    tenant = await world.tenant(policy=acknowledging(quiet_hours=f"{start:%H:%M}-{end:%H:%M}"))
    await tenant.sms_provider(sms)
    tenant.reachable()
    await world.tell(tenant.complaint().first_entry())
    (found,) = await tenant.quiet()
    assert (found["state"], found["reason"]) == ("held", "quiet_hours")
    assert datetime.fromisoformat(found["due_at"]) == end.astimezone(UTC)
    assert await world.root.fetchval("SELECT wake_at FROM delivery_queue") == end.astimezone(UTC)
    await world.root.execute("UPDATE delivery_queue SET wake_at = clock_timestamp()")

    async def sent() -> bool:
        return await state_of(tenant) == [("sent", "")]

    await until(sent)
    assert len(sms.to(PHONE)) == 1


async def test_a_sandbox_sends_what_was_held_at_its_own_instant_and_rests(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant(policy=acknowledging(quiet_hours="21:00-08:00"), sandbox=True)
    await tenant.sms_provider(sms)
    tenant.reachable()
    at = NINE + timedelta(hours=13)  # 22:00 in Shanghai
    early = Complaint(tenant.tenant_id, number="early", at=at, complainant={"id": "c-1"})
    late = Complaint(tenant.tenant_id, number="late", at=at + timedelta(days=2), complainant={"id": "c-1"})
    await world.tell(early.first_entry(), late.first_entry())

    async def held() -> bool:
        return await state_of(tenant) == [("held", "quiet_hours")] * 2

    await until(held)
    target = at + timedelta(hours=12)
    settling = settled(tenant, target)
    await world.tell(settling)
    (told,) = await until(lambda: rested(world))
    assert (told["operation_id"], datetime.fromisoformat(told["target"])) == (str(settling.operation_id), target)
    assert [message.text for message in sms.to(PHONE)] == ["early"]
    assert await state_of(tenant) == [("sent", ""), ("held", "quiet_hours")]
    (sent,) = await tenant.deliveries(state="sent")
    assert datetime.fromisoformat(sent["sent_at"]) == NINE + timedelta(hours=23)  # 08:00, when the quiet hours ended


async def test_a_sandbox_does_not_rest_before_what_came_earlier_is_sent(world: World, sms: SmsSink) -> None:
    """The settling message overtakes entries, which come on another stream, and a provider needs its time."""
    tenant = await world.tenant(policy=acknowledging(), sandbox=True)
    await tenant.sms_provider(sms)
    complaints = [tenant.complaint(f"c-{number}") for number in range(50)]
    for number in range(50):
        tenant.reachable(f"c-{number}", phone=f"+8613{number + 700:03}001111")
    sms.faults = lambda _, times: "busy" if times == 1 else None
    await world.tell(*(complaint.first_entry() for complaint in complaints), settled(tenant, NINE))
    await until(lambda: rested(world))
    assert len(sms.messages) == 50


async def test_a_sandbox_rests_although_a_provider_is_down(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant(policy=acknowledging(), sandbox=True)
    await tenant.sms_provider(sms)
    tenant.reachable()
    sms.faults = lambda *_: "busy"
    await world.tell(tenant.complaint().first_entry(), settled(tenant, NINE))
    await until(lambda: rested(world))
    assert sum(sms.calls.values()) >= 2


async def test_settling_twice_rests_once(world: World) -> None:
    tenant = await world.tenant(policy=acknowledging(), sandbox=True)
    settling = settled(tenant, NINE)
    await world.tell(settling)
    await until(lambda: rested(world))
    await world.tell(settling, msgspec.structs.replace(settling, message_id=derived_id("again")))

    async def heard_again() -> bool:
        return bool(await world.root.fetchval("SELECT count(*) FROM inbox WHERE message_id = $1", derived_id("again")))

    await until(heard_again)
    assert len(await rested(world)) == 1


async def test_the_fourth_sms_to_a_number_within_ten_minutes_waits(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant(policy=acknowledging(), sandbox=True)
    await tenant.sms_provider(sms)
    tenant.reachable()
    for minute in range(5):
        complaint = Complaint(
            tenant.tenant_id, number=f"m-{minute}", at=NINE + timedelta(minutes=minute), complainant={"id": "c-1"}
        )
        await world.tell(complaint.first_entry())

        async def arrived(count: int = minute + 1) -> bool:
            return len(await tenant.deliveries()) == count

        await until(arrived)
        await tenant.quiet()
    assert await state_of(tenant) == [("sent", "")] * 3 + [("held", "budget_number")] * 2
    held = await tenant.deliveries(state="held")
    assert {each["due_at"] for each in held} == {"2026-03-02T01:10:00Z"}
    await world.tell(settled(tenant, NINE + timedelta(minutes=10)))
    await until(lambda: rested(world))
    assert len(sms.to(PHONE)) == 4  # the fifth waits for the second to be ten minutes old


async def test_a_range_of_numbers_and_a_day_have_their_budgets(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await world.tenant(policy=acknowledging(), sandbox=True)
    await tenant.sms_provider(sms)
    for number in range(35):
        tenant.reachable(f"c-{number}", phone=f"+86138000011{number:02}")
    await world.tell(*(tenant.complaint(f"c-{number}").first_entry() for number in range(35)))

    async def spent() -> bool:
        found = await state_of(tenant)
        return len(found) == 35 and all(state in ("sent", "held") for state, _ in found)

    await until(spent)
    found = await state_of(tenant)
    assert (found.count(("sent", "")), found.count(("held", "budget_prefix"))) == (30, 5)

    policy = acknowledging(channel=["email"])
    other = await world.tenant(policy=policy, sandbox=True)
    await other.email_provider(mail, per_day=2)
    for number in range(3):
        other.reachable(f"c-{number}", email=f"c{number}@example.org")
    await world.tell(*(other.complaint(f"c-{number}").first_entry() for number in range(3)))

    async def day_spent() -> bool:
        return sorted(await state_of(other)) == [("held", "budget_day"), ("sent", ""), ("sent", "")]

    await until(day_spent)
    (held,) = await other.deliveries(state="held")
    assert held["due_at"] == "2026-03-02T16:00:00Z"  # midnight in Shanghai


async def test_a_tenant_with_a_slow_provider_and_a_long_queue_delays_itself_alone(world: World, sms: SmsSink) -> None:
    loud = await world.tenant(policy=acknowledging())
    quiet = await world.tenant(policy=acknowledging())
    async with SmsSink(lambda *_: "slow").running() as slow:
        await loud.sms_provider(slow)
        await quiet.sms_provider(sms)
        quiet.reachable()
        complaints = [loud.complaint(f"c-{number}") for number in range(80)]
        for number in range(80):
            loud.reachable(f"c-{number}", phone=f"+8613{number + 700:03}001111")
        await world.tell(*(complaint.first_entry() for complaint in complaints))

        async def busy() -> bool:
            return sum(slow.calls.values()) >= 8

        await until(busy)
        await world.tell(quiet.complaint().first_entry())

        async def sent() -> bool:
            return len(sms.messages) == 1

        await until(sent)
        assert sum(slow.calls.values()) < 80
        assert slow.repeats == 0
        await world.root.execute("DELETE FROM delivery_queue WHERE tenant_id = $1", loud.tenant_id)
        await asyncio.sleep(0)


async def test_a_late_effect_of_a_live_tenant_is_sent_now(world: World, mail: EmailSink) -> None:
    """Its own instant lies in the past, so nothing waits for it."""
    tenant = await world.tenant()
    await tenant.email_provider(mail)
    tenant.staffed("leader", "s7", kind="staff")
    world.directory.staff[(tenant.tenant_id, "leader")] = world.directory.staff[(tenant.tenant_id, "s7")]
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), an_announcement(complaint, late=True))

    async def sent() -> bool:
        return len(mail.to("s7@example.org")) == 1

    await until(sent)
    await tenant.quiet()
    (found,) = await tenant.deliveries(rule="escalation")
    assert datetime.fromisoformat(found["sent_at"]) > datetime.now(UTC) - timedelta(minutes=5)

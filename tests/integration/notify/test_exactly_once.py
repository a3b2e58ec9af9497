"""Each message once, whatever the provider or our own process does in between."""

from __future__ import annotations

import random
from typing import Any

import pytest

from services.notify import repository
from services.notify.app import build
from services.notify.channels import sms as sms_channel
from services.notify.sinks import EmailSink, Fault, SmsSink
from shared.service import Service
from tests.integration.notify.world import EMAIL, PHONE, Tenant, World
from tests.waiting import until

SMS_ONLY: dict[str, Any] = {
    "policy": 1,
    "title": "sms",
    "messages": [
        {"id": "ack", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "{{ number }}"}
    ],
}
EMAIL_ONLY: dict[str, Any] = {
    "policy": 1,
    "title": "email",
    "messages": [
        {"id": "ack", "on": "received", "to": ["complainant"], "channel": ["email"], "template": "{{ number }}"}
    ],
}


def first(*faults: Fault) -> Any:
    """Fail so for the first calls of each key, then no more."""
    return lambda _, times: faults[times - 1] if times <= len(faults) else None


async def a_tenant(world: World, sms: SmsSink, *, lookup: bool = True) -> Tenant:
    tenant = await world.tenant(policy=SMS_ONLY)
    await tenant.sms_provider(sms, lookup=lookup)
    tenant.reachable()
    return tenant


async def one_message(world: World, tenant: Tenant) -> dict[str, Any]:
    await world.tell(tenant.complaint().first_entry())
    (found,) = await tenant.quiet()
    return found


async def attempts(tenant: Tenant, delivery: dict[str, Any]) -> list[tuple[str | None, str]]:
    found = await tenant.ok("GET", f"/v1/deliveries/{delivery['delivery_id']}")
    return [(each["outcome"], each["detail"]) for each in found["attempts"]]


async def test_a_provider_that_fails_before_taking_is_called_again(world: World, sms: SmsSink) -> None:
    sms.faults = first("drop_before", "busy")
    tenant = await a_tenant(world, sms)
    found = await one_message(world, tenant)
    assert found["state"] == "sent"
    assert (len(sms.messages), sms.repeats, sum(sms.calls.values())) == (1, 0, 3)
    assert await attempts(tenant, found) == [
        ("unavailable", "never_arrived"),
        ("unavailable", "http_503"),
        ("accepted", "http_200"),
    ]


async def test_a_provider_that_fails_after_taking_is_asked_and_not_called_again(world: World, sms: SmsSink) -> None:
    sms.faults = first("drop_after")
    tenant = await a_tenant(world, sms)
    found = await one_message(world, tenant)
    assert found["state"] == "sent"
    assert (len(sms.messages), sum(sms.calls.values()), sum(sms.lookups.values())) == (1, 1, 1)
    assert await attempts(tenant, found) == [("accepted", "found_by_key")]


async def test_an_answer_that_comes_too_late_is_looked_up(world: World, sms: SmsSink) -> None:
    sms.faults = first("slow")
    tenant = await a_tenant(world, sms)
    found = await one_message(world, tenant)
    assert found["state"] == "sent"
    assert (len(sms.messages), sum(sms.calls.values())) == (1, 1)


async def test_a_server_error_is_looked_up_before_it_is_tried_again(world: World, sms: SmsSink) -> None:
    sms.faults = first("error")
    tenant = await a_tenant(world, sms)
    found = await one_message(world, tenant)
    assert found["state"] == "sent"
    assert (len(sms.messages), sum(sms.calls.values()), sum(sms.lookups.values())) == (1, 2, 1)


async def test_a_provider_that_cannot_be_asked_is_called_twice_at_most(world: World, sms: SmsSink) -> None:
    sms.faults = lambda *_: "drop_after"
    tenant = await a_tenant(world, sms, lookup=False)
    found = await one_message(world, tenant)
    assert (found["state"], found["reason"]) == ("dead", "outcome_unknown")
    assert sum(sms.calls.values()) == 2
    assert [outcome for outcome, _ in await attempts(tenant, found)] == ["unknown", "unknown"]


async def test_a_refusal_is_dead_until_a_supervisor_sends_it_again(world: World, sms: SmsSink) -> None:
    sms.faults = lambda *_: "refuse"
    tenant = await a_tenant(world, sms)
    found = await one_message(world, tenant)
    assert (found["state"], found["reason"]) == ("dead", "http_400")
    path = f"/v1/deliveries/{found['delivery_id']}:retry"
    assert (await tenant.call("POST", path, role="handler")).status_code == 403
    sms.faults = lambda *_: None
    assert (await tenant.call("POST", path, role="supervisor")).status_code == 202
    (found,) = await tenant.quiet()
    assert found["state"] == "sent"
    again = await tenant.call("POST", path, role="supervisor")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/delivery-not-retriable")
    assert len(sms.messages) == 1


async def test_a_supervisors_retry_asks_first_what_became_of_the_earlier_attempt(world: World, sms: SmsSink) -> None:
    """Without the look-up the delivery died with an unknown outcome; with it the provider says that it has it."""
    sms.faults = lambda *_: "drop_after"
    tenant = await a_tenant(world, sms, lookup=False)
    found = await one_message(world, tenant)
    assert found["state"] == "dead"
    await tenant.sms_provider(sms)
    await tenant.ok("POST", f"/v1/deliveries/{found['delivery_id']}:retry", role="supervisor")
    (found,) = await tenant.quiet()
    assert found["state"] == "sent"
    assert (len(sms.messages), sum(sms.calls.values())) == (1, 2)


async def end_leases(world: World) -> None:
    await world.root.execute("UPDATE delivery_queue SET wake_at = clock_timestamp()")


class DiedError(Exception):
    """Stands for the end of the process at this point: nothing after it is done."""


async def test_a_crash_between_call_and_record_sends_nothing_twice(
    world: World, sms: SmsSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await a_tenant(world, sms)
    real = repository.record
    died: list[bool] = []

    async def record(*args: Any, **values: Any) -> Any:
        if not died:
            died.append(True)
            raise DiedError
        return await real(*args, **values)

    monkeypatch.setattr(repository, "record", record)
    await world.tell(tenant.complaint().first_entry())
    await until(lambda: _true(died))
    (found,) = await tenant.deliveries()
    assert (found["state"], await attempts(tenant, found)) == ("sending", [(None, "")])
    await end_leases(world)
    (found,) = await tenant.quiet()
    assert (found["state"], await attempts(tenant, found)) == ("sent", [("accepted", "found_by_key")])
    assert (len(sms.messages), sum(sms.calls.values()), sum(sms.lookups.values())) == (1, 1, 1)


async def _true(value: Any) -> bool:
    return bool(value)


async def test_a_crash_between_attempt_and_call_sends_it_once(
    world: World, sms: SmsSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await a_tenant(world, sms)
    real = sms_channel.send
    died: list[bool] = []

    async def send(*args: Any) -> Any:
        if not died:
            died.append(True)
            raise DiedError
        return await real(*args)

    monkeypatch.setattr(sms_channel, "send", send)
    await world.tell(tenant.complaint().first_entry())
    await until(lambda: _true(died))
    await end_leases(world)
    (found,) = await tenant.quiet()
    assert await attempts(tenant, found) == [("unavailable", "never_arrived"), ("accepted", "http_200")]
    assert (len(sms.messages), sum(sms.calls.values())) == (1, 1)


async def test_a_mail_whose_fate_nobody_knows_is_sent_twice_at_most(world: World, mail: EmailSink) -> None:
    tenant = await world.tenant(policy=EMAIL_ONLY)
    await tenant.email_provider(mail)
    tenant.reachable()
    mail.faults = lambda *_: "drop_after"
    found = await one_message(world, tenant)
    assert (found["state"], found["reason"]) == ("dead", "outcome_unknown")
    assert len(mail.to(EMAIL)) == 2
    assert len({each.mail["Message-ID"] for each in mail.to(EMAIL)}) == 1


@pytest.mark.parametrize(
    ("faults", "sent", "state"),
    [(("drop_before", "busy"), 1, "sent"), (("refuse",), 0, "dead"), (("error", "error", "drop_before"), 1, "sent")],
)
async def test_certain_failures_of_a_mail_server(
    world: World, mail: EmailSink, faults: tuple[Fault, ...], sent: int, state: str
) -> None:
    tenant = await world.tenant(policy=EMAIL_ONLY)
    await tenant.email_provider(mail)
    tenant.reachable()
    mail.faults = first(*faults)
    found = await one_message(world, tenant)
    assert (found["state"], len(mail.to(EMAIL))) == (state, sent)


async def test_whoever_is_overtaken_during_the_call_records_nothing(
    world: World, sms: SmsSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await a_tenant(world, sms)
    real = sms_channel.send
    overtaken: list[str] = []

    async def send(*args: Any) -> Any:
        result = await real(*args)
        if not overtaken:  # another replica claims it while the call is under way
            overtaken.append(await world.root.execute("UPDATE delivery_queue SET fence = fence + 1"))
        return result

    monkeypatch.setattr(sms_channel, "send", send)
    await world.tell(tenant.complaint().first_entry())
    await until(lambda: _true(overtaken))
    await world.service.runtime.parts["notify-sender"].finish(5)
    (found,) = await tenant.deliveries()
    assert (found["state"], await attempts(tenant, found)) == ("sending", [(None, "")])
    await end_leases(world)
    (found,) = await tenant.quiet()
    assert (found["state"], await attempts(tenant, found)) == ("sent", [("accepted", "found_by_key")])
    assert (sum(sms.calls.values()), sum(sms.lookups.values())) == (1, 1)


async def test_a_claim_that_has_passed_to_another_sends_nothing(world: World, sms: SmsSink) -> None:
    tenant = await a_tenant(world, sms)
    world.directory.silent = True
    await world.tell(tenant.complaint().first_entry())

    async def put_off() -> Any:
        await world.root.execute("UPDATE delivery_queue SET wake_at = 'infinity' WHERE fence >= 1")
        return await world.root.fetchrow(
            "SELECT queue.* FROM delivery_queue AS queue JOIN delivery USING (tenant_id, delivery_id)"
            " WHERE wake_at = 'infinity' AND reason = 'contact_unavailable'"
        )

    row = await until(put_off)
    world.directory.silent = False
    stale = repository.Claim(row["tenant_id"], row["delivery_id"], row["fence"] - 1)
    await world.service.runtime.parts["notify-sender"].send(stale)
    assert sms.messages == {}
    await end_leases(world)
    await tenant.quiet()
    assert len(sms.messages) == 1


async def test_replicas_share_the_work_and_repeat_nothing(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant(policy=SMS_ONLY)
    await tenant.sms_provider(sms)
    replica: Service = build(world.environment())
    await replica.start()
    try:
        complaints = [tenant.complaint(f"c-{number}") for number in range(60)]
        for number in range(60):
            tenant.reachable(f"c-{number}", phone=f"+8613{number + 700:03}001111")
        await world.tell(*(complaint.first_entry() for complaint in complaints))

        async def told() -> bool:
            return len(await tenant.deliveries(limit=200)) == 60

        await until(told)
        found = await tenant.quiet()
    finally:
        await replica.stop()
    assert {each["state"] for each in found} == {"sent"}
    assert sorted(message.text for message in sms.messages.values()) == sorted(each.number for each in complaints)
    assert sms.repeats == 0


async def test_a_provider_that_fails_at_random_gets_each_message_once(world: World, sms: SmsSink) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    faults: list[Fault | None] = ["drop_before", "drop_after", "error", "busy", None, None, None]
    sms.faults = lambda *_: chance.choice(faults)
    tenant = await world.tenant(policy=SMS_ONLY)
    await tenant.sms_provider(sms)
    complaints = [tenant.complaint(f"c-{number}") for number in range(40)]
    for number in range(40):
        tenant.reachable(f"c-{number}", phone=f"+8613{number + 700:03}001111")
    await world.tell(*(complaint.first_entry() for complaint in complaints))

    async def told() -> bool:
        return len(await tenant.deliveries(limit=200)) == 40

    await until(told)
    found = await tenant.quiet()
    sent = {each["number"] for each in found if each["state"] == "sent"}
    dead = {each["number"] for each in found if each["state"] == "dead"}
    taken = [message.text for message in sms.messages.values()]
    assert len(taken) == len(set(taken)), f"seed {seed}"
    assert sent <= set(taken), f"seed {seed}"
    assert len(sent) + len(dead) == 40, f"seed {seed}"
    assert len(sent) >= 36, f"seed {seed}"
    assert PHONE not in {message.to for message in sms.messages.values()}

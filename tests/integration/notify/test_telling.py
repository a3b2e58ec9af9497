"""Who is told what: from an entry or an effect to the sinks."""

from __future__ import annotations

from typing import Any

import msgspec

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from shared.ids import new_id
from shared.messages.contacts import ContactReply
from tests.integration.notify.world import EMAIL, NAME, PHONE, Tenant, World, a_penalty, an_announcement
from tests.integration.reporting.told import Complaint, a_policy, a_tenant
from tests.waiting import until

SILENT_POLICY: dict[str, Any] = {"policy": 1, "title": "nothing but webhooks"}


async def a_tenant_that_writes(world: World, sms: SmsSink, mail: EmailSink, **changes: Any) -> Tenant:
    tenant = await world.tenant(**changes)
    await tenant.sms_provider(sms)
    await tenant.email_provider(mail)
    tenant.reachable()
    return tenant


def outcome(found: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return sorted((each["rule"], each["channel"], each["state"], each["reason"]) for each in found)


async def test_a_complaint_is_acknowledged_by_sms_and_email(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    found = await tenant.quiet()
    text = f"Dear {NAME}, complaint {complaint.number} (minor) is due 5 March 2026, 23:59."
    assert [message.text for message in sms.to(PHONE)] == [text]
    (taken,) = mail.to(EMAIL)
    assert (taken.text, taken.mail["subject"]) == (text, f"Complaint {complaint.number}")
    assert (taken.mail["Auto-Submitted"], taken.sender) == ("auto-generated", "complaints@tenant.example")
    assert {(each["channel"], each["state"], each["recipient"]) for each in found} == {
        ("email", "sent", "w****@example.org"),
        ("sms", "sent", "+86138****1111"),
    }


async def test_nobody_is_told_that_a_duty_of_the_year_was_received(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    duty, complaint = tenant.complaint(), tenant.complaint()
    await world.tell(msgspec.structs.replace(duty.first_entry(), case_kind="duty"), complaint.first_entry())
    found = await tenant.quiet()
    assert {each["case_id"] for each in found} == {str(complaint.case_id)}


async def test_the_recipient_reads_his_own_language(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    tenant.reachable(language="zh")
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    await tenant.quiet()
    text = f"{NAME}您好，投诉{complaint.number}（轻微）应于2026年3月5日 23:59前答复。"
    assert [message.text for message in sms.to(PHONE)] == [text]
    assert mail.to(EMAIL)[0].mail["subject"] == f"投诉 {complaint.number}"


async def test_a_mail_may_carry_the_null_return_path(world: World, mail: EmailSink) -> None:
    tenant = await world.tenant()
    await tenant.email_provider(mail, null_return_path=True, from_name="医院投诉办")
    tenant.reachable()
    await world.tell(tenant.complaint().first_entry())
    await tenant.quiet()
    (taken,) = mail.to(EMAIL)
    assert taken.sender == ""
    assert taken.mail["from"] == "医院投诉办 <complaints@tenant.example>"


async def test_every_entry_effect_and_posting_goes_to_the_endpoint(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant(policy=SILENT_POLICY)
    await tenant.endpoint(hook)
    complaint = tenant.complaint()
    told = [complaint.first_entry(), complaint.entry("accepted"), an_announcement(complaint), a_penalty(complaint)]
    await world.tell(*told)
    await tenant.quiet()
    assert set(hook.events) == {str(message.message_id) for message in told}
    entry = hook.events[str(told[0].message_id)].event
    assert (entry["specversion"], entry["type"], entry["id"]) == (
        "1.0",
        "routing.v1.entry.appended",
        str(told[0].message_id),
    )
    assert entry["data"]["entry"]["kind"] == "received"
    assert (entry["subject"], entry["tenantid"]) == (f"cases/{complaint.case_id}", str(tenant.tenant_id))
    assert hook.of_kind("sla.v1.announcement.made")[0].event["data"]["effect"]["to"] == "leader"
    assert hook.of_kind("sla.v1.penalty.posted")[0].event["data"]["difference_minor"] == 10_000
    assert not hook.refused


async def test_an_endpoint_gets_only_what_it_wants(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant(policy=SILENT_POLICY)
    await tenant.endpoint(hook, ["sla.*", "closed"])
    complaint = tenant.complaint()
    await world.tell(
        complaint.first_entry(), complaint.entry("accepted"), complaint.entry("closed"), a_penalty(complaint)
    )
    await until(lambda: _count(hook, 2))
    await tenant.quiet()
    kinds = sorted(event.event["data"].get("entry", {}).get("kind", event.kind) for event in hook.events.values())
    assert kinds == ["closed", "sla.v1.penalty.posted"]


async def _count(hook: WebhookSink, count: int) -> bool:
    return len(hook.events) >= count


async def test_without_rules_and_endpoints_nothing_is_stored_but_the_timeline(world: World) -> None:
    tenant = await world.tenant(policy=SILENT_POLICY)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())

    async def arrived() -> bool:
        return bool(await world.root.fetchval("SELECT count(*) FROM entry WHERE case_id = $1", complaint.case_id))

    await until(arrived)
    case = await tenant.ok("GET", f"/v1/cases/{complaint.case_id}/deliveries")
    assert (case["as_of_seq"], case["deliveries"]) == (1, [])
    assert await world.root.fetchval("SELECT count(*) FROM event") == 0


async def test_a_rule_for_the_webhook_words_a_message_for_the_tenants_systems(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant()
    await tenant.endpoint(hook, ["notify.v1.message.worded"])
    complaint = tenant.complaint()
    closed = complaint.entry("closed")
    await world.tell(complaint.first_entry(), closed)
    await until(lambda: _count(hook, 1))
    (event,) = hook.events.values()
    assert event.kind == "notify.v1.message.worded"
    assert event.event["data"]["text"] == f"{complaint.number} is closed"
    assert event.event["data"]["rule"] == "told"


async def test_a_condition_sees_the_case_as_it_was_at_that_moment(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    light, complex_ = tenant.complaint("c-1"), tenant.complaint("c-2", severity="complex")
    tenant.reachable("c-2", phone="+8613700003333")
    await world.tell(light.first_entry(), light.entry("accepted"), light.entry("classified", severity="complex"))
    await world.tell(complex_.first_entry(), complex_.entry("accepted"))
    await until(lambda: _told(tenant, 5))
    found = await tenant.quiet()
    assert [each["case_id"] for each in found if each["rule"] == "grave"] == [str(complex_.case_id)]
    assert f"{complex_.number} is complex" in [message.text for message in sms.to("+8613700003333")]


async def _told(tenant: Tenant, count: int) -> bool:
    return len(await tenant.deliveries(limit=200)) >= count


async def test_an_effect_for_a_role_reaches_each_of_its_holders_once(
    world: World, sms: SmsSink, mail: EmailSink
) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    tenant.staffed("leader", "s7", "s8")
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), an_announcement(complaint, what="late_reply"))
    await until(lambda: _told(tenant, 5))
    found = [each for each in await tenant.quiet() if each["rule"] == "escalation"]
    text = f"{complaint.number}: late reply R99.1 5 March 2026, 23:59"
    assert [each.text for each in mail.to("s7@example.org")] == [text]
    assert [each.text for each in mail.to("s8@example.org")] == [text]
    assert sorted((each["addressee"], each["state"]) for each in found) == [
        ("leader", "expanded"),
        ("s7", "sent"),
        ("s8", "sent"),
    ]


async def test_a_message_without_a_recipient_is_suppressed_with_the_reason(
    world: World, sms: SmsSink, mail: EmailSink
) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    tenant.reachable("c-2", phone="+861065529988", email=None)
    tenant.reachable("c-3", phone=None, email="not an address")
    unknown, landline, odd = tenant.complaint("c-9"), tenant.complaint("c-2"), tenant.complaint("c-3")
    await world.tell(
        unknown.first_entry(), landline.first_entry(), odd.first_entry(), an_announcement(unknown, to="nobody")
    )
    await until(lambda: _told(tenant, 7))
    found = await tenant.quiet()

    def of(complaint: Complaint) -> list[tuple[str, str, str, str]]:
        return outcome([each for each in found if each["case_id"] == str(complaint.case_id)])

    assert of(unknown) == [
        ("escalation", "email", "suppressed", "nobody_holds_the_role"),
        ("receipt", "email", "suppressed", "no_contact"),
        ("receipt", "sms", "suppressed", "no_contact"),
    ]
    assert of(landline) == [
        ("receipt", "email", "suppressed", "no_email"),
        ("receipt", "sms", "suppressed", "number_landline"),
    ]
    assert of(odd) == [
        ("receipt", "email", "suppressed", "address_malformed"),
        ("receipt", "sms", "suppressed", "no_phone"),
    ]
    assert (sms.messages, mail.mails) == ({}, [])


async def test_what_nobody_can_send_is_over_in_the_transaction_that_takes_its_message(
    world: World, mail: EmailSink
) -> None:
    tenant = await world.tenant()
    await tenant.email_provider(mail)
    tenant.reachable()
    complaints = [tenant.complaint() for _ in range(5)]
    await world.tell(*(complaint.first_entry() for complaint in complaints))
    assert outcome(await tenant.quiet()) == sorted(
        [("receipt", "email", "sent", ""), ("receipt", "sms", "dead", "no_provider")] * 5
    )
    written = await world.root.fetch(
        """SELECT delivery.xmin::text AS delivery, inbox.xmin::text AS inbox, delivery.ended_at
             FROM delivery JOIN inbox ON inbox.tenant_id = delivery.tenant_id AND inbox.message_id = delivery.event_id
            WHERE delivery.tenant_id = $1 AND delivery.channel = 'sms'""",
        tenant.tenant_id,
    )
    assert len(written) == 5
    assert all(row["delivery"] == row["inbox"] and row["ended_at"] is not None for row in written)
    told = [each for each in await world.told("delivery.changed") if each["channel"] == "sms"]
    assert {(each["case_id"], each["state"], each["detail"]) for each in told} == {
        (str(complaint.case_id), "dead", "no_provider") for complaint in complaints
    }


async def test_an_effect_withdrawn_with_the_message_that_made_it_is_told_to_nobody(
    world: World, mail: EmailSink
) -> None:
    tenant = await world.tenant()
    await tenant.email_provider(mail)
    tenant.staffed("leader", "s-1")
    complaint = tenant.complaint()
    made = an_announcement(complaint, silent=False)
    withdrawn = msgspec.structs.replace(made, message_id=new_id(), withdrawn=True)
    handlers = world.service.runtime.parts["notify-handlers"]
    await world.tell(complaint.first_entry())
    await tenant.quiet()
    async with world.service.runtime.db.worker_tx(tenant.tenant_id) as tx:  # one group, as a consumer takes it
        await handlers.gather([made, withdrawn], tx)
        await handlers.on_announcement(made, tx)
        await handlers.on_announcement(withdrawn, tx)
    found = [each for each in await tenant.quiet() if each["rule"] == "escalation"]
    assert [(each["state"], each["reason"]) for each in found] == [("suppressed", "withdrawn")]
    assert mail.to("s-1@example.org") == []


async def test_what_is_silent_is_recorded_and_told_to_nobody(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink
) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    await tenant.endpoint(hook)
    complaint = tenant.complaint()
    await world.tell(
        msgspec.structs.replace(complaint.first_entry(), silent=True), an_announcement(complaint, silent=True)
    )
    await until(lambda: _told(tenant, 5))
    found = await tenant.quiet()
    assert outcome(found) == [
        ("escalation", "email", "suppressed", "silent"),
        ("event", "webhook", "suppressed", "silent"),
        ("event", "webhook", "suppressed", "silent"),
        ("receipt", "email", "suppressed", "silent"),
        ("receipt", "sms", "suppressed", "silent"),
    ]
    assert (sms.messages, mail.mails, hook.events) == ({}, [], {})


async def test_what_is_told_twice_and_out_of_order_is_sent_once(
    world: World, sms: SmsSink, mail: EmailSink, hook: WebhookSink
) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    await tenant.endpoint(hook)
    complaint = tenant.complaint(severity="complex")
    first, second = complaint.first_entry(), complaint.entry("accepted")
    effect = an_announcement(complaint)
    again = msgspec.structs.replace(first, message_id=first.message_id)
    anew = msgspec.structs.replace(second, message_id=new_id())  # the same line under another id
    await world.tell(effect, second, anew, first, again, second, effect)
    await until(lambda: _told(tenant, 7))
    await tenant.quiet()
    assert len(sms.messages) == 2
    assert sms.repeats == 0
    assert len(mail.to(EMAIL)) == 1
    assert len(hook.events) == 3
    assert hook.repeats == 0


async def test_an_entry_waits_for_its_policy_and_its_tenant(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant(policy=SILENT_POLICY)
    complaint = tenant.complaint()
    newer = msgspec.structs.replace(complaint.first_entry(), policy_version=2)
    await world.tell(newer)
    await tenant.sms_provider(sms)
    tenant.reachable()
    policy = {
        **SILENT_POLICY,
        "messages": [
            {"id": "ack", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "{{ number }}"}
        ],
    }
    await world.tell(a_policy(tenant.tenant_id, policy, version=2))
    await until(lambda: _told(tenant, 1))
    await tenant.quiet()
    assert [message.text for message in sms.to(PHONE)] == [complaint.number]


async def test_an_effect_that_is_withdrawn_takes_its_held_message_along(world: World, mail: EmailSink) -> None:
    policy: dict[str, Any] = {
        "policy": 1,
        "title": "quiet",
        "messages": [
            {
                "id": "warned",
                "on": "effect:warned",
                "to": ["leader"],
                "channel": ["email"],
                "template": "x",
                "quiet_hours": "00:00-23:59",
            }
        ],
    }
    tenant = await world.tenant(policy=policy, sandbox=True)
    await tenant.email_provider(mail)
    tenant.staffed("leader", "s7")
    complaint = tenant.complaint()
    warned = an_announcement(complaint, "warned", None)
    await world.tell(complaint.first_entry(), warned)
    await until(lambda: _told(tenant, 1))
    assert outcome(await tenant.deliveries()) == [("warned", "email", "held", "quiet_hours")]
    await world.tell(msgspec.structs.replace(warned, message_id=new_id(), withdrawn=True))

    async def suppressed() -> bool:
        return outcome(await tenant.deliveries()) == [("warned", "email", "suppressed", "withdrawn")]

    await until(suppressed)
    assert await world.root.fetchval("SELECT count(*) FROM delivery_queue") == 0
    assert [each["state"] for each in await world.told("delivery.changed")] == ["held", "suppressed"]


async def test_a_message_waits_while_the_vault_does_not_answer(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant()
    await tenant.sms_provider(sms)
    tenant.reachable()
    world.directory.silent = True
    await world.tell(tenant.complaint().first_entry())

    async def waiting() -> bool:
        return any(each["reason"] == "contact_unavailable" for each in await tenant.deliveries(channel="sms"))

    await until(waiting)
    world.directory.silent = False
    await tenant.quiet()
    assert len(sms.to(PHONE)) == 1


async def test_what_became_of_deliveries_is_told_without_addresses(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await a_tenant_that_writes(world, sms, mail)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    await tenant.quiet()
    told = await world.told("delivery.changed")
    assert sorted((each["channel"], each["state"], each["rule"], each["attempts"]) for each in told) == [
        ("email", "sent", "receipt", 1),
        ("sms", "sent", "receipt", 1),
    ]
    assert {each["case_id"] for each in told} == {str(complaint.case_id)}


async def test_the_endpoint_named_by_the_tenant_is_kept(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant(policy=SILENT_POLICY, webhook_url=hook.url)

    async def made() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await tenant.ok("GET", "/v1/webhooks"))["webhooks"]
        return found

    (endpoint,) = await until(made)
    rotated = await tenant.ok("POST", f"/v1/webhooks/{endpoint['endpoint_id']}:rotate")
    hook.secrets.append(rotated["secret"])
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    await until(lambda: _count(hook, 1))
    await world.tell(msgspec.structs.replace(a_tenant(tenant.tenant_id, revision=2), webhook_url=None))

    async def stopped() -> bool:
        return [each["active"] for each in await made()] == [False]

    await until(stopped)


async def test_a_contact_reply_that_names_nobody_is_no_outage(world: World, sms: SmsSink) -> None:
    tenant = await world.tenant()
    await tenant.sms_provider(sms)
    world.directory.complainants[(tenant.tenant_id, "c-1")] = ContactReply(found=False)
    await world.tell(tenant.complaint().first_entry())
    found = await tenant.quiet()
    assert {each["state"] for each in found} == {"suppressed", "dead"}  # no contact; no provider for e-mail

"""Who is told what: from an entry or an effect to the sinks."""

from __future__ import annotations

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from tests.integration.notify.world import EMAIL, NAME, PHONE, World


async def test_a_complaint_is_acknowledged_by_sms_and_email(world: World, sms: SmsSink, mail: EmailSink) -> None:
    tenant = await world.tenant()
    await tenant.sms_provider(sms)
    await tenant.email_provider(mail)
    tenant.reachable()
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    found = await tenant.quiet()
    text = f"Dear {NAME}, complaint {complaint.number} (minor) is due 5 March 2026, 23:59."
    assert [message.text for message in sms.to(PHONE)] == [text]
    assert [(each.text, each.mail["subject"]) for each in mail.to(EMAIL)] == [(text, f"Complaint {complaint.number}")]
    assert [(each["channel"], each["state"], each["recipient"]) for each in sorted(found, key=lambda each: each["channel"])] == [
        ("email", "sent", "w****@example.org"),
        ("sms", "sent", "+86138****1111"),
    ]


async def test_every_entry_goes_to_the_endpoint(world: World, hook: WebhookSink) -> None:
    tenant = await world.tenant(policy={"policy": 1, "title": "nothing but webhooks"})
    await tenant.endpoint(hook)
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry(), complaint.entry("accepted"), complaint.entry("closed"))
    await tenant.quiet()
    kinds = [each.event["data"]["entry"]["kind"] for each in hook.events.values()]
    assert sorted(kinds) == ["accepted", "closed", "received"]

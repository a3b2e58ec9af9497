"""A complaint of each way in, through the public API alone, from its receipt to its closure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import aiosmtplib
import msgspec
import pytest

from services.demo.audit import audit
from services.demo.client import Api
from services.demo.handling import advance
from services.demo.journal import Journal
from services.demo.organisations import SCHOOL, Member
from shared import webhooks
from tests.e2e.conftest import World
from tests.waiting import PATIENCE

DRAFT = {
    "channel": "phone",
    "kind": "problem",
    "category": "teaching",
    "text": "教练收了补课费却没有安排上车。",
    "complainant": {"name": "万里", "phone": "13800000001", "email": "wan.li@example.org"},
    "respondent": {"staff": "coach.li", "supervisor": "head.qian"},
    "fields": {"loss_cny": "3600.00", "superior_management_pay_cny": "2400.00"},
}
DECIDED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("hao.ran", "step", {"step": "form_filled"}),
    ("gu.ming", "step", {"step": "opinion_given"}),
    ("meng.jie", "step", {"step": "instruction_given"}),
    ("hao.ran", "investigated", {}),
    ("gu.ming", "resolved", {"outcome": "upheld"}),
    ("hao.ran", "approval_requested", {"step": "decision"}),
    ("meng.jie", "approved", {"step": "decision"}),
)


async def until(ask: Callable[[], Awaitable[Any]], is_so: Callable[[Any], Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while not is_so(found := await ask()):  # noqa: ASYNC110 - another service tells no event
            await asyncio.sleep(0.05)
    return found


class School:
    """A sandbox tenant with the training school's policy, its staff with keys, and every way in."""

    def __init__(self, world: World, created: dict[str, Any]) -> None:
        self.world = world
        self.tenant_id = UUID(created["tenant"]["tenant_id"])
        self.admin = world.operator.with_key(created["admin_key"])
        self.keys: dict[str, Api] = {}
        self.journal = Journal(self.tenant_id)
        self.hook: dict[str, Any] = {}
        self.mailbox = ""

    @classmethod
    async def open(cls, world: World, slug: str = "school") -> School:
        body = {"slug": slug, "name": "School", "sandbox": True, "language": "zh"}
        school = cls(world, await world.operator.post("/v1/tenants", body))
        admin = school.admin
        await admin.post("/v1/policies:publish", {"document": SCHOOL.document, "reason": "The first."})
        school.hook = await admin.post("/v1/sources", {"name": "calls", "kind": "webhook", "channel": "phone"})
        mail = await admin.post("/v1/sources", {"name": "mail", "kind": "email", "channel": "internet"})
        school.mailbox = f"{mail['source']['address']}@recourse.example"
        await admin.post("/v1/sources", {"name": "tables", "kind": "csv", "channel": "box"})
        await admin.until_known()
        for member in SCHOOL.staff:
            await school._employ(member)
        await admin.post("/v1/providers", {"channel": "sms", "name": "SMS", "config": world.sms.config})
        await admin.post("/v1/providers", {"channel": "email", "name": "Mail", "config": world.email.config})
        endpoint = await admin.post("/v1/webhooks", {"url": world.webhook.url})
        world.webhook.secrets.append(endpoint["secret"])
        return school

    async def _employ(self, member: Member) -> None:
        body = {"role": member.role, "name": member.name, "staff_id": member.id}
        self.keys[member.id] = self.admin.with_key((await self.admin.post("/v1/credentials", body))["key"])
        staff = {"roles": list(member.roles), "unit": member.unit, "email": f"{member.id}@school.example"}
        await self.admin.put(f"/v1/staff/{member.id}", staff)
        await self.keys[member.id].until_known()

    async def case(self, case_id: UUID) -> Any:
        return await self.admin.get(f"/v1/cases/{case_id}", wait=10)

    async def decide(self, case_id: UUID) -> Any:
        """Have a complaint handled to its end and return it."""
        await self.case(case_id)
        for who, kind, data in DECIDED:
            await self.keys[who].post(f"/v1/cases/{case_id}/entries", {"kind": kind, "data": data})
        return await self.case(case_id)

    async def by_api(self) -> UUID:
        witness = self.journal.witness("api", "one")
        stored = await self.admin.post("/v1/complaints", DRAFT, key="one", witness=witness)
        return UUID(stored["id"])

    async def by_webhook(self) -> UUID:
        raw = msgspec.json.encode({"type": "complaint.taken", "data": DRAFT})
        signed = webhooks.sign([self.hook["secret"]], "call_1", datetime.now(UTC), raw)
        headers = {"Content-Type": "application/json", **signed}
        path, witness = self.hook["source"]["path"], self.journal.witness("webhook", "call_1")
        answer = await self.admin.with_key(None).ask("POST", path, raw=raw, headers=headers, witness=witness)
        assert answer.status == 201, answer.body
        return UUID(answer.body["id"])

    async def by_mail(self) -> UUID:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "康泰 <kang@example.org>", self.mailbox, "合同问题"
        message["Message-ID"] = "<one@example.org>"
        message.set_content("合同里没有写明补考费用。")
        port = self.world.stack.smtp_port
        witness = self.journal.witness("smtp", f"{message['Message-ID']} {self.mailbox}")
        witness.attempt(message.as_bytes())
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
            await client.send_message(message)
        witness.answer(250)
        return await self._the_new_one()

    async def by_table(self) -> UUID:
        table = "category,name,phone,text\nteaching,安宁,13800000009,科目二场地线看不清\n".encode("gb18030")
        headers = {"Content-Type": "text/csv"}
        witness = self.journal.witness("csv", "table")
        witness.attempt(table)
        answer = await self.admin.ask("POST", "/v1/imports?source=tables", key="table", raw=table, headers=headers)
        path = f"/v1/imports/{answer.body['import_id']}"
        done = await until(lambda: self.admin.get(path), lambda found: found["state"] == "done")
        witness.answer(200, stored=done["stored"], refused=done["refused"])
        assert (done["stored"], done["refused"], done["encoding"]) == (1, 0, "gb18030")
        return await self._the_new_one()

    async def _the_new_one(self) -> UUID:
        found = await until(lambda: self.admin.get("/v1/cases"), lambda page: page["items"])
        assert len(found["items"]) == 1
        return UUID(found["items"][0]["case_id"])


@pytest.mark.timeout(180)
async def test_a_complaint_goes_from_receipt_to_closure_whatever_way_it_came(world: World) -> None:
    school = await School.open(world)
    ids: list[UUID] = []
    for source, way in (
        ("api", school.by_api),
        ("webhook", school.by_webhook),
        ("smtp", school.by_mail),
        ("csv", school.by_table),
    ):
        case_id = await way()
        school.journal.stored(source, case_id)  # type: ignore[arg-type]
        ids.append(case_id)
        case = await school.decide(case_id)
        assert (case["standing"]["state"], case["standing"]["closed"]) == ("closed", True)
        assert [clock["state"] for clock in case["standing"]["clocks"]] == ["met"]
        assert case["owner"]["staff"] == "hao.ran"
        assert "万里" not in msgspec.json.encode(case).decode()
    assert len(set(ids)) == 4

    await the_amounts_are_explained(school, ids[0])
    await the_complainant_was_told(school, world, ids[0])
    figures = await until(
        lambda: school.admin.get("/v1/statistics"), lambda found: found["closed"] == 4 and not found["behind"]
    )
    assert (figures["received"], figures["assigned"], figures["on_time"], figures["late"]) == (4, 4, 4, 0)
    assert set(figures["by"]["channel"]) == {"phone", "internet", "box"}

    local = world.stack.local

    findings = await audit(
        local.superuser_dsn,
        local.nats.url("operator"),
        [school.journal],
        sms=world.sms,
        email=world.email,
        webhook=world.webhook,
    )
    assert findings.sentences == []
    assert findings.audit.checks > 500


async def the_amounts_are_explained(school: School, case_id: UUID) -> None:
    """The loss in full, and the superior's pay with it; of the webhook's complaint, which says the same, likewise."""

    async def ledger() -> Any:
        return (await school.admin.get("/v1/ledger", case_id=case_id))["rows"]

    rows = await until(ledger, lambda found: len(found) == 2)
    assert {(row["penalty"]["clause"], row["party"], row["difference_minor"]) for row in rows} == {
        ("R18.19", "coach.li", 360_000),
        ("R18.21", "head.qian", 240_000),
    }
    explained = await school.admin.get(f"/v1/cases/{case_id}/explanations")
    assert all(each["lines"] for each in explained["penalties"])
    (due,) = explained["clocks"]
    assert due["clause"] == "R02.7"
    assert len(due["lines"]) >= 3


async def the_complainant_was_told(school: School, world: World, case_id: UUID) -> None:
    path = f"/v1/cases/{case_id}/deliveries"

    async def sent() -> Any:
        return [each for each in (await school.admin.get(path))["deliveries"] if each["state"] == "sent"]

    await until(sent, lambda found: {each["channel"] for each in found} >= {"sms", "email", "webhook"})
    assert len(world.sms.to("+8613800000001")) >= 2
    assert world.email.to("wan.li@example.org")
    kinds = {event.kind for event in world.webhook.events.values()}
    assert {"routing.v1.entry.appended", "sla.v1.penalty.posted"} <= kinds


@pytest.mark.timeout(180)
async def test_what_nobody_handles_is_late_and_escalated_when_its_time_has_come_and_not_before(world: World) -> None:
    school = await School.open(world)
    case_id = await school.by_api()
    await school.case(case_id)
    now = datetime.fromisoformat((await school.admin.get("/v1/sandbox/clock"))["now"])
    await advance(school.admin, (now + timedelta(days=1)).isoformat())
    assert (await school.admin.get("/v1/announcements", kind="escalated"))["announcements"] == []
    await advance(school.admin, (now + timedelta(days=5)).isoformat())
    (escalated,) = (await school.admin.get("/v1/announcements", kind="escalated"))["announcements"]
    (clock,) = (await school.admin.get(f"/v1/cases/{case_id}/clocks"))["clocks"]
    assert (escalated["effect"]["to"], escalated["effect"]["clause"]) == ("vice_principal", "R02.7")
    assert (clock["state"], clock["due_at"]) == ("breached", escalated["effect"]["at"])
    assert world.email.to("meng.jie@school.example")
    figures = await until(lambda: school.admin.get("/v1/statistics"), lambda found: found["late"] == 1)
    assert figures["escalated"] == 1
    answer = await school.keys["hao.ran"].ask(
        "POST", f"/v1/cases/{case_id}/entries", body={"kind": "investigated", "data": {}}
    )
    assert (answer.status, answer.body["clause"]) == (409, "R02.3")

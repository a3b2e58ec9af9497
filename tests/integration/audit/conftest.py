"""A small true state: two tenants, their complaints handled or left to run late, everything told and counted, then stopped."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import aiosmtplib
import asyncpg
import httpx
import msgspec
import pytest
from msgspec import Struct

from services.audit import auditing, sources
from services.audit.findings import Finding, Verdict
from services.audit.journal import JournalFile, Line
from services.audit.look import look_at
from services.audit.provider import Taken, write_record
from services.audit.streams import Stream, Streams
from services.audit.told import gather
from services.demo.audit import record_of
from services.demo.client import Api
from services.demo.handling import advance
from services.demo.journal import Journal
from services.demo.organisations import SCHOOL
from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from services.stack import Stack, running
from shared import webhooks
from shared.embedded.folder import open_folder
from shared.embedded.nats import NatsServer
from shared.embedded.postgres import PostgresServer

DRAFT: dict[str, Any] = {
    "channel": "phone",
    "kind": "problem",
    "category": "teaching",
    "text": "教练收了补课费却没有安排上车。",
    "complainant": {"name": "万里", "phone": "13800000001", "email": "wan.li@example.org"},
    "respondent": {"staff": "coach.li", "supervisor": "head.qian"},
    "fields": {"loss_cny": "3600.00", "superior_management_pay_cny": "2400.00"},
}

FILE = {"name": "contract.txt", "media_type": "text/plain", "content": base64.b64encode(b"Twelve lessons.").decode()}
GONE = {"name": "康泰", "phone": "13800000064"}

UNSAFE = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "checkpoint_timeout": "1h"}
"""What is changed here is rolled back, and the rest thrown away."""


class State(Struct, kw_only=True):
    """Where the state is, and what is in it. `names`: ids for the statements of the corruptions."""

    postgres: PostgresServer
    nats: NatsServer
    journal: list[Line]
    record: list[Taken]
    folder: Path
    names: dict[str, UUID]
    streams: dict[str, Stream] = {}

    @property
    def dsn(self) -> str:
        return self.postgres.dsn_of("recourse")

    @property
    def nats_url(self) -> str:
        return self.nats.url("operator")

    async def read_streams(self) -> dict[str, Stream]:
        async with Streams(self.nats_url) as streams:
            return await streams.read()


class Evidence(Struct, kw_only=True):
    """A journal, a record and streams of one's own; the database is everybody's."""

    state: State
    journal: list[Line]
    record: list[Taken]
    streams: dict[str, Stream]

    async def look(self, connection: asyncpg.Connection) -> list[Finding]:
        """Return what one look finds, in whatever transaction the connection is."""
        async with connection.transaction():
            told = await gather(connection)
            look = await look_at(connection, told, self.streams, self.journal, self.record)
            await auditing.check(look)
            return look.findings.all()

    async def audit(self, *, patience: float = 0.0, secrets: Path | None = None) -> Verdict:
        """The whole audit, with a connection of its own."""
        evidence = sources.Evidence(
            dsn=self.state.dsn,
            nats=self.state.nats_url,
            lines=lambda: self.journal,
            record=lambda: self.record,
            secrets=secrets,
        )
        return await auditing.audit(evidence, patience=patience)


@pytest.fixture(scope="session")
def state() -> Iterator[State]:
    """The state, on servers that nobody else writes to. The services are stopped."""
    folder = Path(tempfile.mkdtemp(prefix="recourse-audit-"))
    try:
        journal, record, names = asyncio.run(_live_through(folder))
        data = open_folder(folder)
        postgres, nats = PostgresServer(data, 0, settings=UNSAFE), NatsServer(data, 0)
        state = State(postgres=postgres, nats=nats, journal=journal, record=record, folder=folder, names=names)

        async def start() -> None:
            await postgres.start()
            await nats.start()
            state.streams = await state.read_streams()

        async def stop() -> None:
            await nats.stop()
            await postgres.stop()

        try:
            asyncio.run(start())
            yield state
        finally:
            asyncio.run(stop())
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def papers(state: State) -> Evidence:
    return Evidence(state=state, journal=list(state.journal), record=list(state.record), streams=dict(state.streams))


async def _live_through(folder: Path) -> tuple[list[Line], list[Taken], dict[str, UUID]]:
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(running(folder, extra={"RECOURSE_EGRESS_ALLOW": "127.0.0.1:*"}))
        sms = await exits.enter_async_context(SmsSink().running())
        email = await exits.enter_async_context(EmailSink().running())
        webhook = await exits.enter_async_context(WebhookSink().running())
        http = await exits.enter_async_context(httpx.AsyncClient(base_url=stack.url, timeout=30, trust_env=False))
        file = JournalFile(folder / "journal.jsonl")
        operator = Api(http, stack.operator_key)
        school = await _School.open(operator, stack, file, (sms, email, webhook), slug="school", sandbox=True)
        other = await _School.open(operator, stack, file, (sms, email, webhook), slug="other", sandbox=False)
        names = await _complain(school, other)
        journals = [school.journal, other.journal]
        evidence = sources.Evidence(
            dsn=stack.local.superuser_dsn,
            nats=stack.local.nats.url("operator"),
            lines=lambda: [line for journal in journals for line in journal.lines],
            record=lambda: record_of(sms, email, webhook),
        )
        verdict = await auditing.audit(evidence, patience=20)
        assert verdict.details == []
        file.close()
        record = record_of(sms, email, webhook)
        write_record(folder / "provider.jsonl", record)
        return [line for journal in journals for line in journal.lines], record, names


class _School:
    """A tenant with the training school's rules, its staff, and its journal."""

    def __init__(self, stack: Stack, journal: Journal, admin: Api) -> None:
        self.stack = stack
        self.journal = journal
        self.admin = admin
        self.keys: dict[str, Api] = {}
        self.hook: dict[str, Any] = {}
        self.mailbox = ""
        self.endpoint_id = ""

    @classmethod
    async def open(
        cls,
        operator: Api,
        stack: Stack,
        file: JournalFile,
        sinks: tuple[SmsSink, EmailSink, WebhookSink],
        *,
        slug: str,
        sandbox: bool,
    ) -> _School:
        sms, email, webhook = sinks
        created = await operator.post("/v1/tenants", {"slug": slug, "name": slug, "sandbox": sandbox, "language": "zh"})
        admin = operator.with_key(created["admin_key"])
        school = cls(stack, Journal(UUID(created["tenant"]["tenant_id"]), file), admin)
        await admin.post("/v1/policies:publish", {"document": SCHOOL.document, "reason": "The first."})
        school.hook = await admin.post("/v1/sources", {"name": "calls", "kind": "webhook", "channel": "phone"})
        mail = await admin.post("/v1/sources", {"name": "mail", "kind": "email", "channel": "internet"})
        school.mailbox = f"{mail['source']['address']}@recourse.example"
        await admin.post("/v1/sources", {"name": "tables", "kind": "csv", "channel": "box"})
        await admin.until_known()
        for member in SCHOOL.staff:
            body = {"role": member.role, "name": member.name, "staff_id": member.id}
            school.keys[member.id] = admin.with_key((await admin.post("/v1/credentials", body))["key"])
            staff = {"roles": list(member.roles), "unit": member.unit, "email": f"{member.id}@{slug}.example"}
            await admin.put(f"/v1/staff/{member.id}", staff)
        for key in school.keys.values():
            await key.until_known()
        await admin.post("/v1/providers", {"channel": "sms", "name": "SMS", "config": sms.config})
        await admin.post("/v1/providers", {"channel": "email", "name": "Mail", "config": email.config})
        endpoint = await admin.post("/v1/webhooks", {"url": webhook.url})
        webhook.secrets.append(endpoint["secret"])
        school.endpoint_id = endpoint["endpoint"]["endpoint_id"]
        return school

    async def take(self, key: str, **changed: Any) -> Any:
        witness = self.journal.witness("api", key)
        return (await self.admin.ask("POST", "/v1/complaints", body=DRAFT | changed, key=key, witness=witness)).body

    async def call(self, message_id: str, secret: str | None = None) -> Any:
        raw = msgspec.json.encode({"type": "complaint.taken", "data": DRAFT})
        signed = webhooks.sign([secret or self.hook["secret"]], message_id, datetime.now(UTC), raw)
        headers = {"Content-Type": "application/json", **signed}
        path, witness = self.hook["source"]["path"], self.journal.witness("webhook", message_id)
        return (await self.admin.with_key(None).ask("POST", path, raw=raw, headers=headers, witness=witness)).body

    async def mail(self) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "康泰 <kang@example.org>", self.mailbox, "合同问题"
        message["Message-ID"] = "<one@example.org>"
        message.set_content("合同里没有写明补考费用。")
        witness = self.journal.witness("smtp", "<one@example.org>")
        witness.attempt(message.as_bytes())
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=self.stack.smtp_port, start_tls=False) as client:
            await client.send_message(message)
        witness.answer(250)

    async def table(self) -> None:
        table = "category,name,phone,text\nteaching,安宁,13800000009,科目二场地线看不清\nnonsense,,,\n".encode()
        witness = self.journal.witness("csv", "table")
        witness.attempt(table)
        headers = {"Content-Type": "text/csv"}
        answer = await self.admin.ask("POST", "/v1/imports?source=tables", raw=table, key="table", headers=headers)
        path = f"/v1/imports/{answer.body['import_id']}"
        async with asyncio.timeout(20):
            while (found := await self.admin.get(path))["state"] != "done":  # noqa: ASYNC110 - another service tells no event
                await asyncio.sleep(0.05)
        assert (found["stored"], found["refused"]) == (1, 1)
        witness.answer(200, stored=found["stored"], refused=found["refused"])

    async def erase(self, case_id: UUID) -> None:
        timeline = (await self.admin.get(f"/v1/cases/{case_id}", wait=10))["timeline"]
        person = timeline[0]["data"]["complainant"]["id"]
        assert (await self.admin.ask("DELETE", f"/v1/complainants/{person}")).is_good

    async def write(self, case_id: UUID, text: str) -> dict[str, Any]:
        """Store a text and return what an entry refers to it by."""
        path, body, key = f"/v1/cases/{case_id}/texts", {"text": text, "kind": "finding"}, f"text-{case_id}"
        found = await self.keys["hao.ran"].ask(
            "POST", path, body=body, key=key, witness=self.journal.witness("act", key)
        )
        return {"text_id": found.body["text_id"]}

    async def split(self, case_id: UUID) -> None:
        witness = self.journal.witness("act", "split")
        path, body = f"/v1/cases/{case_id}/splits", {"parts": [{"category": "operations"}]}
        assert (await self.keys["gu.ming"].ask("POST", path, body=body, key="split", witness=witness)).status == 201

    async def enter(self, case_id: UUID, who: str, kind: str, data: dict[str, Any], key: str) -> int:
        witness = self.journal.witness("entry", key)
        path, body = f"/v1/cases/{case_id}/entries", {"kind": kind, "data": data}
        return (await self.keys[who].ask("POST", path, body=body, key=key, witness=witness)).status


async def _complain(school: _School, other: _School) -> dict[str, UUID]:
    """Complaints by every way, one of them handled to its end, one late; and requests that are refused."""
    settled = UUID((await school.take("settled"))["id"])
    late = UUID((await school.take("late"))["id"])
    await school.take("settled")  # a repeat
    await school.take("settled", text="Another text under the same key.")
    await school.take("malformed", chanel="phone")
    called = UUID((await school.call("call_1"))["id"])
    await school.call("call_forged", webhooks.new_secret())
    await school.mail()
    await school.table()
    running_ = UUID((await other.take("running"))["id"])
    second = UUID((await other.take("second", complainant={"name": "段颖", "phone": "13800000062"}))["id"])
    whole = UUID(
        (await other.take("whole", complainant={"name": "雷鸣", "phone": "13800000063"}, attachments=[FILE]))["id"]
    )
    forgotten = UUID((await other.take("forgotten", complainant=GONE, attachments=[FILE]))["id"])
    await school.admin.get(f"/v1/cases/{settled}", wait=10)
    assert await school.enter(settled, "hao.ran", "step", {"step": "of_no_rule"}, "refused") >= 400
    for place, act in enumerate(SCHOOL.plans["settled"]):
        data = act.data if act.text is None else act.data | await school.write(settled, act.text)
        assert await school.enter(settled, act.by, act.kind, data, f"act-{place}") == 201
    for each in (late, called):
        await school.admin.get(f"/v1/cases/{each}", wait=10)
    for each in (running_, second, whole, forgotten):
        await other.admin.get(f"/v1/cases/{each}", wait=10)
    await other.split(whole)
    assert await other.enter(second, "hao.ran", "approval_requested", {"step": "decision"}, "waiting") == 201
    await other.erase(forgotten)
    await other.admin.post(f"/v1/complaints/{whole}/contact/unmask", {"reason": "To call back."})
    await other.admin.post(f"/v1/webhooks/{other.endpoint_id}:test")
    await other.admin.post(
        "/v1/calendars:publish", {"name": "default", "spec": {"hours": {"mon-fri": ["09:00-17:00"]}}}
    )
    await other.admin.post(
        "/v1/policies:publish", {"document": SCHOOL.document, "reason": "Again.", "effect": "from_now"}
    )
    now = datetime.fromisoformat((await school.admin.get("/v1/sandbox/clock"))["now"])
    await advance(school.admin, (now + timedelta(days=6)).isoformat())
    return {
        "settled": settled,
        "late": late,
        "called": called,
        "running": running_,
        "second": second,
        "whole": whole,
        "forgotten": forgotten,
        "school": school.journal.tenant_id,
        "other": other.journal.tenant_id,
    }

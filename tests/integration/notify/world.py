"""A running notify with everything around it: the services that tell it things, the vault and routing that answer it, and sinks."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.notify.app import build
from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from shared.engine.model import EffectView, PenaltyView
from shared.ids import new_id
from shared.messages import AnnouncementMade, ClockSettled, EntryAppended, PenaltyPosted, TenantChanged
from shared.messages.contacts import (
    CONTACT_SUBJECT,
    STAFF_SUBJECT,
    ContactReply,
    ContactRequest,
    StaffContact,
    StaffReply,
    StaffRequest,
)
from shared.service import Service
from tests.infra import Database, Infra, service_settings
from tests.integration.reporting.told import NINE, Complaint, Tellers, a_credential, a_policy, a_tenant
from tests.waiting import PATIENCE, until

MASTER_KEY = base64.b64encode(b"k" * 32).decode()
PHONE = "+8613800001111"
EMAIL = "wang.fang@example.org"
NAME = "王芳"

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "A regime for tests",
    "vocabulary": {"severities": {"light": {"label": {"en": "minor", "zh": "轻微"}}, "complex": "complex"}},
    "clocks": [
        {"id": "reply", "start": "received", "within": "3d", "stop": "replied", "clause": "R99.1"},
    ],
    "messages": [
        {
            "id": "receipt",
            "on": "received",
            "to": ["complainant"],
            "channel": ["sms", "email"],
            "subject": {"en": "Complaint {{ number }}", "zh": "投诉 {{ number }}"},
            "template": {
                "en": "Dear {{ name }}, complaint {{ number }} ({{ severity }}) is due {{ clocks.reply.due_at }}.",
                "zh": "{{ name }}您好，投诉{{ number }}（{{ severity }}）应于{{ clocks.reply.due_at }}前答复。",
            },
        },
        {
            "id": "escalation",
            "on": "effect:escalated",
            "to": ["=data.to"],
            "channel": ["email"],
            "template": "{{ number }}: {{ what }} {{ clause }} {{ due_at }}{{ name }}",
        },
        {
            "id": "told",
            "on": "closed",
            "to": ["handler"],
            "channel": ["webhook"],
            "template": "{{ number }} is {{ state }}",
        },
        {
            "id": "night",
            "on": "replied",
            "to": ["complainant"],
            "channel": ["sms"],
            "quiet_hours": "21:00-08:00",
            "template": "Reply to {{ number }}",
        },
        {
            "id": "grave",
            "on": "accepted",
            "when": 'complaint.severity == "complex"',
            "to": ["complainant"],
            "channel": ["sms"],
            "template": "{{ number }} is complex",
        },
    ],
}


class Directory:
    """The vault and routing as notify sees them: they answer requests, or do not."""

    def __init__(self, infra: Infra) -> None:
        self._infra = infra
        self._clients: list[Client] = []
        self.complainants: dict[tuple[UUID, str], ContactReply] = {}
        self.staff: dict[tuple[UUID, str], StaffReply] = {}
        self.asked: Counter[str] = Counter()
        self.silent = False

    async def open(self) -> None:
        for user, subject, answer in (
            ("intake", CONTACT_SUBJECT, self._contact),
            ("routing", STAFF_SUBJECT, self._staff),
        ):
            client = await nats.connect(
                self._infra.nats_url(user), connect_timeout=int(PATIENCE), inbox_prefix=f"_INBOX_{user}".encode()
            )
            await client.subscribe(subject, queue="directory", cb=self._answering(answer))
            await client.flush()
            self._clients.append(client)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    def _answering(self, answer: Callable[[bytes], msgspec.Struct]) -> Callable[[Msg], Awaitable[None]]:
        async def on_request(message: Msg) -> None:
            if not self.silent:
                await message.respond(msgspec.json.encode(answer(message.data)))

        return on_request

    def _contact(self, body: bytes) -> ContactReply:
        request = msgspec.json.decode(body, type=ContactRequest)
        self.asked[CONTACT_SUBJECT] += 1
        found = self.complainants.get((request.tenant_id, request.complainant_id or ""))
        return found or ContactReply(found=False)

    def _staff(self, body: bytes) -> StaffReply:
        request = msgspec.json.decode(body, type=StaffRequest)
        self.asked[STAFF_SUBJECT] += 1
        return self.staff.get((request.tenant_id, request.name), StaffReply(kind="unknown"))


class Tenant:
    """One subscriber: its keys, and its complaints."""

    def __init__(self, world: World, tenant_id: UUID) -> None:
        self.world, self.tenant_id = world, tenant_id
        self.keys: dict[str, str] = {}

    async def call(self, method: str, path: str, *, role: str = "admin", **request: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[role]}", **request.pop("headers", {})}
        return await self.world.http.request(method, path, headers=headers, **request)

    async def ok(self, method: str, path: str, **request: Any) -> Any:
        answer = await self.call(method, path, **request)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def sms_provider(self, sink: SmsSink, *, lookup: bool = True, **config: Any) -> str:
        settings = {**sink.config, **config}
        if not lookup:
            settings.pop("lookup_url")
        secrets = config.pop("secrets", {})
        settings.pop("secrets", None)
        body = {"channel": "sms", "name": "SMS", "config": settings, "secrets": secrets}
        made = await self.ok("POST", "/v1/providers", json=body)
        return str(made["provider_id"])

    async def email_provider(self, sink: EmailSink, **config: Any) -> str:
        body = {"channel": "email", "name": "Mail", "config": {**sink.config, **config}}
        made = await self.ok("POST", "/v1/providers", json=body)
        return str(made["provider_id"])

    async def endpoint(self, sink: WebhookSink, events: list[str] | None = None) -> str:
        made = await self.ok("POST", "/v1/webhooks", json={"url": sink.url, "events": events or []})
        sink.secrets.append(made["secret"])
        return str(made["endpoint"]["endpoint_id"])

    def complaint(self, complainant: str = "c-1", **received: Any) -> Complaint:
        data = {"severity": "light", "complainant": {"id": complainant, "type": "customer"}, **received}
        return Complaint(self.tenant_id, number=f"N-{uuid4().hex[:8]}", **data)

    def reachable(self, complainant: str = "c-1", **contact: Any) -> None:
        values = {"phone": PHONE, "email": EMAIL, "name": NAME, **contact}
        self.world.directory.complainants[(self.tenant_id, complainant)] = ContactReply(found=True, **values)

    def staffed(self, name: str, *staff_ids: str, kind: Any = "role") -> None:
        contacts = tuple(
            StaffContact(staff_id=staff_id, email=f"{staff_id}@example.org", phone="+8613900002222")
            for staff_id in staff_ids
        )
        self.world.directory.staff[(self.tenant_id, name)] = StaffReply(kind=kind, contacts=contacts)
        for contact in contacts:
            self.world.directory.staff[(self.tenant_id, contact.staff_id)] = StaffReply(
                kind="staff", contacts=(contact,)
            )

    async def deliveries(self, **filters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.ok("GET", "/v1/deliveries", params=filters))["deliveries"]
        return found

    async def quiet(self) -> list[dict[str, Any]]:
        """Wait until nothing of this tenant is on its way, and return its deliveries, the oldest first."""

        async def settled() -> bool:
            if not await self.world.has_heard(self.tenant_id):
                return False
            found = await self.deliveries(limit=200)
            return bool(found) and all(each["state"] not in ("queued", "sending") for each in found)

        await until(settled)
        return list(reversed(await self.deliveries(limit=200)))


class World:
    """Build with `a_world`."""

    def __init__(self, infra: Infra, database: Database, tellers: Tellers) -> None:
        self.infra, self.database, self.tellers = infra, database, tellers
        self.directory = Directory(infra)
        self.told_ids: dict[UUID, set[UUID]] = defaultdict(set)
        self.service: Service
        self.http: httpx.AsyncClient
        self.root: asyncpg.Connection

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            **service_settings(self.infra, self.database, "notify"),
            "RECOURSE_MASTER_KEY": MASTER_KEY,
            "RECOURSE_EGRESS_ALLOW": "127.0.0.1:*",
            "RECOURSE_NOTIFY_RETRY_SCALE": "0.004",
            "RECOURSE_NOTIFY_SEND_SECONDS": "1.5",
            **changes,
        }

    def forget(self) -> None:
        """Begin anew, as a test finds it."""
        self.told_ids.clear()
        self.directory.complainants.clear()
        self.directory.staff.clear()
        self.directory.asked.clear()
        self.directory.silent = False

    async def start(self, **changes: str) -> None:
        self.service = build(self.environment(**changes))
        await self.service.start()
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.service.app),  # type: ignore[arg-type]  # the types differ in name only
            base_url="http://notify",
            timeout=15,
        )

    async def stop(self) -> None:
        await self.http.aclose()
        await self.service.stop()

    async def tenant(
        self, *, sandbox: bool = False, policy: dict[str, Any] | None = None, language: str = "en", **changes: Any
    ) -> Tenant:
        """A tenant that notify has heard of, with a key for every role."""
        tenant = Tenant(self, uuid4())
        told: list[Any] = [
            msgspec.structs.replace(a_tenant(tenant.tenant_id), sandbox=sandbox, language=language, **changes)
        ]
        for role in ("admin", "supervisor", "handler", "auditor", "integration"):
            credential, tenant.keys[role] = a_credential(tenant.tenant_id, role)
            told.append(credential)
        told.append(a_policy(tenant.tenant_id, policy or POLICY))
        await self.tellers.tell(*told)

        async def known() -> bool:
            answer = await tenant.call("GET", "/v1/deliveries", role="integration")
            rows = await self.root.fetchval("SELECT count(*) FROM policy WHERE tenant_id = $1", tenant.tenant_id)
            return answer.status_code == 200 and rows > 0

        await until(known)
        return tenant

    async def tell(self, *messages: Any) -> None:
        for message in messages:
            if isinstance(message, EntryAppended | AnnouncementMade | PenaltyPosted):
                self.told_ids[message.tenant_id].add(message.message_id)
        await self.tellers.tell(*messages)

    async def has_heard(self, tenant_id: UUID) -> bool:
        """Whether notify has applied every entry, announcement and posting of this tenant that was told here."""
        ids = self.told_ids[tenant_id]
        applied = await self.root.fetch(
            "SELECT message_id FROM inbox WHERE tenant_id = $1 AND message_id = ANY($2)", tenant_id, ids
        )
        return ids <= {row["message_id"] for row in applied}

    async def told(self, subject: str) -> list[dict[str, Any]]:
        """The bodies of what notify has put into its outbox under subjects like this."""
        rows = await self.root.fetch("SELECT body FROM outbox WHERE subject LIKE $1 ORDER BY id", f"%{subject}")
        return [msgspec.json.decode(row["body"]) for row in rows]


@asynccontextmanager
async def a_world(infra: Infra, database: Database, tellers: Tellers) -> AsyncIterator[World]:
    world = World(infra, database, tellers)
    world.root = await asyncpg.connect(database.dsn, server_settings={"search_path": "notify"})
    await world.directory.open()
    try:
        yield world
    finally:
        await world.directory.close()
        await world.root.close()


def an_announcement(
    complaint: Complaint, kind: str = "escalated", to: str | None = "leader", key: str = "reply/1", **changes: Any
) -> AnnouncementMade:
    effect = EffectView(
        key=key,
        rule="reply",
        clause="R99.1",
        kind=kind,
        at=changes.pop("at", complaint.at),
        to=to,
        what=changes.pop("what", None),
    )
    return AnnouncementMade(
        message_id=new_id(),
        tenant_id=complaint.tenant_id,
        at=effect.at,
        case_id=complaint.case_id,
        case_kind="complaint",
        effect=msgspec.structs.replace(effect, silent=changes.pop("silent", False)),
        number=complaint.number,
        **changes,
    )


def a_penalty(complaint: Complaint, minor: int = 10_000) -> PenaltyPosted:
    return PenaltyPosted(
        message_id=new_id(),
        tenant_id=complaint.tenant_id,
        at=complaint.at,
        case_id=complaint.case_id,
        posting_id=new_id(),
        difference_minor=minor,
        penalty=PenaltyView(
            key="p/1", rule="late", clause="R99.2", party="s1", kind="fine", at=complaint.at, amount_minor=minor
        ),
        month="2026-03",
        number=complaint.number,
    )


def settled(tenant: Tenant, target: datetime) -> ClockSettled:
    return ClockSettled(
        message_id=new_id(), tenant_id=tenant.tenant_id, at=target, operation_id=new_id(), target=target, steps=1
    )


__all__ = ["NINE", "TenantChanged", "World", "a_penalty", "a_world", "an_announcement", "settled"]

"""A tenant or several of routing's, played through the messages and the HTTP API that it has in life."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec

from shared.auth import new_key
from shared.engine.model import Actor, Entry
from shared.ids import derived_id, new_id
from shared.messages import (
    CalendarPublished,
    ComplaintReceived,
    CredentialChanged,
    EntryRequested,
    PolicyPublished,
    TenantChanged,
)
from shared.messages.intake import Limits
from shared.service import Service
from tests.integration.reporting.told import Tellers
from tests.waiting import until

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "A shop",
    "vocabulary": {
        "categories": {"billing": "", "attitude": ""},
        "severities": {"light": "", "grave": ""},
        "fields": {
            "interested_staff": {"type": "list"},
            "order": {"type": "text"},
            "diagnosis": {"type": "text", "restricted": True},
        },
        "steps": {"callback": "called back"},
        "states": dict.fromkeys(("received", "accepted", "resolved", "closed", "withdrawn", "reopened"), ""),
    },
    "organisation": {"units": {"desk": "", "workshop": ""}, "roles": {"clerk": "", "manager": ""}},
    "classification": [{"set": {"priority": "high"}, "when": 'complaint.severity == "grave"'}],
    "routing": [
        {"id": "desk", "unit": "desk", "role": "clerk"},
        {"id": "transfer", "on": "transferred", "unit": "=data.unit"},
    ],
    "workflow": {
        "gates": [
            {
                "id": "only_manager_closes",
                "on": "closed",
                "by": ["manager"],
                "reason": "beyond_authority",
                "clause": "X.1",
            },
            {
                "id": "reply_first",
                "on": "resolved",
                "when": '!("replied" in seen)',
                "reason": "reply_missing",
                "clause": "X.2",
            },
            {
                "id": "no_interest",
                "on": "assigned",
                "when": "data.staff != null && fields.interested_staff != null && data.staff in fields.interested_staff",
                "reason": "direct_interest",
            },
        ]
    },
    "clocks": [{"id": "reply", "start": "received", "within": "3wd", "stop": "replied", "clause": "X.3"}],
    "subjects": [
        {
            "id": "upheld",
            "subject": "=complaint.respondent.staff",
            "on": "resolved",
            "when": 'data.outcome == "upheld"',
            "window": "calendar_month",
            "threshold": {"at_least": 4},
            "clause": "X.4",
        }
    ],
}


class Player:
    """One tenant with keys for each role."""

    def __init__(self, world: World, tenant_id: UUID, sandbox: bool) -> None:
        self.world, self.tenant_id, self.sandbox = world, tenant_id, sandbox
        self.keys: dict[str, str] = {}
        self._numbers = 0

    async def call(self, method: str, path: str, key: str = "admin", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[key]}", **options.pop("headers", {})}
        return await self.world.http.request(method, path, headers=headers, **options)

    async def get(self, path: str, key: str = "admin", **params: Any) -> Any:
        response = await self.call("GET", path, key, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def enter(
        self, case_id: UUID, kind: str, key: str = "admin", as_: str | None = None, **data: Any
    ) -> httpx.Response:
        body: dict[str, Any] = {"kind": kind, "data": data}
        if as_ is not None:
            body["as"] = as_
        return await self.call("POST", f"/v1/cases/{case_id}/entries", key, json=body)

    async def staff(self, staff_id: str, **data: Any) -> None:
        response = await self.call("PUT", f"/v1/staff/{staff_id}", json=data)
        assert response.status_code in (200, 201), response.text

    async def credential(self, name: str, role: str, staff_id: str | None = None) -> None:
        credential_id = new_id()
        key, hashed = new_key(credential_id)
        self.keys[name] = key
        await self.world.tellers.tell(
            CredentialChanged(
                message_id=new_id(),
                tenant_id=self.tenant_id,
                at=datetime.now(UTC),
                credential_id=credential_id,
                revision=1,
                key_hash=hashed,
                role=role,  # type: ignore[arg-type]
                name=name,
                active=True,
                staff_id=staff_id,
            )
        )
        await until(lambda: self._knows(credential_id))

    async def _knows(self, credential_id: UUID) -> bool:
        return bool(await self.world.root.fetchval("SELECT 1 FROM credential WHERE credential_id = $1", credential_id))

    async def publish(self, document: dict[str, Any], version: int = 1, effect: Any = "keep") -> None:
        await self.world.tellers.tell(self.policy(document, version, effect))
        await until(lambda: self.world.count("policy WHERE tenant_id = $1 AND version = $2", self.tenant_id, version))

    def policy(self, document: dict[str, Any], version: int, effect: Any = "keep") -> PolicyPublished:
        return PolicyPublished(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=datetime.now(UTC),
            version=version,
            document=document,
            settings={},
            effect=effect,
            published_by="admin",
        )

    def calendar(self, revision: int, spec: dict[str, Any], **options: Any) -> CalendarPublished:
        return CalendarPublished(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=datetime.now(UTC),
            name="default",
            revision=revision,
            spec=spec,
            **options,
        )

    def received(
        self, at: datetime | None = None, policy_version: int = 1, source: Any = "api", **data: Any
    ) -> ComplaintReceived:
        self._numbers += 1
        number = f"N-{self._numbers:04}"
        at = at or datetime.now(UTC)
        values = {
            "channel": "phone",
            "anonymous": False,
            "complainant": {"id": "c-1", "type": "customer"},
            "number": number,
            **data,
        }
        return ComplaintReceived(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=at,
            case_id=new_id(),
            number=number,
            policy_version=policy_version,
            entry=Entry(seq=1, kind="received", at=at, by=Actor(id="intake", roles=("system",)), data=values),
            source=source,
        )

    async def complaint(self, **data: Any) -> UUID:
        """Have a complaint come in, and wait until it is there."""
        message = self.received(**data)
        await self.world.tellers.tell(message)
        response = await self.call("GET", f"/v1/cases/{message.case_id}", params={"wait": 10})
        assert response.status_code == 200, response.text
        return message.case_id

    def request(self, case_id: UUID, kind: str, **data: Any) -> EntryRequested:
        return EntryRequested(
            message_id=new_id(),
            tenant_id=self.tenant_id,
            at=datetime.now(UTC),
            case_id=case_id,
            kind=kind,
            by=Actor(id="complainant", roles=("complainant",)),
            data=data,
        )

    async def timeline(self, case_id: UUID) -> list[dict[str, Any]]:
        timeline: list[dict[str, Any]] = (await self.get(f"/v1/cases/{case_id}"))["timeline"]
        return timeline

    async def advanced(self, **body: Any) -> UUID:
        response = await self.call("POST", "/v1/sandbox/clock:advance", json=body)
        assert response.status_code == 202, response.text
        return UUID(response.json()["operation_id"])


class World:
    def __init__(self, service: Service, tellers: Tellers, root: asyncpg.Connection) -> None:
        self.service, self.tellers, self.root = service, tellers, root
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(service.app),  # type: ignore[arg-type]  # the types differ in name only
            base_url="http://routing",
        )

    async def tenant(
        self, document: dict[str, Any] | None = None, *, sandbox: bool = False, at: datetime | None = None
    ) -> Player:
        player = Player(self, uuid4(), sandbox)
        await self.tellers.tell(
            TenantChanged(
                message_id=new_id(),
                tenant_id=player.tenant_id,
                at=datetime.now(UTC),
                revision=1,
                slug=f"t{player.tenant_id.hex[:8]}",
                name="A tenant",
                zone="Asia/Shanghai",
                sandbox=sandbox,
                active=True,
                limits=Limits(requests_per_second=10_000, burst=10_000),
                created_at=at,
            )
        )
        await player.credential("admin", "admin")
        await player.publish(document or POLICY)
        return player

    async def count(self, what: str, *args: Any) -> int:
        found: int = await self.root.fetchval(f"SELECT count(*) FROM {what}", *args)
        return found

    async def told(self, tenant_id: UUID, noun: str) -> list[dict[str, Any]]:
        """Return what routing has told about a noun, in the order in which it is published."""
        rows = await self.root.fetch(
            "SELECT body FROM outbox WHERE tenant_id = $1 AND subject = $2 ORDER BY id",
            tenant_id,
            f"routing.v1.{tenant_id}.{noun}",
        )
        return [msgspec.json.decode(row["body"]) for row in rows]


def message_id_of(tenant_id: UUID, case_id: UUID, seq: int) -> UUID:
    return derived_id("entry", tenant_id, case_id, seq)

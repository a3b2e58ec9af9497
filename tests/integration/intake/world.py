"""Tenants, their keys and their calls, as tests need them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import nats
from nats.js.api import DeliverPolicy

from services.intake.parts import parts_of
from shared.messages.base import Message, class_of, decode
from shared.service import Service
from shared.webhooks import sign
from tests.infra import Infra
from tests.waiting import PATIENCE, until

MASTER_KEY = base64.b64encode(b"the master key of these tests!!!").decode()

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "A hospital",
    "vocabulary": {
        "kinds": {"external": "", "internal": ""},
        "categories": {"service_attitude": {"label": {"zh": "服务态度", "en": "Attitude"}}, "charges": ""},
        "severities": {"light": "", "complex": ""},
        "fields": {
            "loss_cny": {"type": "money"},
            "signed": {"type": "bool"},
            "complainant_name": {"type": "text", "personal": True},
        },
    },
    "intake": {
        "channels": {"phone": "", "web": "", "email": "", "letter": ""},
        "numbering": {"pattern": "{YYYY}{MM}{DD}-{N:04}"},
        "duplicates": {"window": "7d"},
    },
}


def client_of(service: Service) -> httpx.AsyncClient:
    """A client that calls the service's application; what goes wrong inside is answered, not raised."""
    application: Any = service.app
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://intake")


class World:
    def __init__(self, service: Service, http: httpx.AsyncClient, operator_key: str) -> None:
        self.service = service
        self.http = http
        self.operator = Caller(http, operator_key)

    @property
    def smtp_port(self) -> int:
        server = parts_of(self.service.runtime).mail_server
        assert server is not None
        return server.port

    async def tenant(self, policy: dict[str, Any] | None = POLICY, **fields: Any) -> Tenant:
        """A fresh tenant with its administrator, and a published policy unless None."""
        slug = f"t-{uuid4().hex[:12]}"
        answer = await self.operator.post("/v1/tenants", {"slug": slug, "name": "A hospital", **fields})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        tenant = Tenant(UUID(body["tenant"]["tenant_id"]), slug, Caller(self.http, body["admin_key"]))
        if policy is not None:
            await tenant.publish(policy)
        return tenant


class Caller:
    """Somebody with a key."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self._http = http
        self.key = key

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return await self._http.request(method, path, headers=headers, **options)

    async def get(self, path: str) -> httpx.Response:
        return await self.request("GET", path)

    async def post(self, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key is not None else {}
        return await self.request("POST", path, json=body, headers=headers)

    async def complain(self, key: str | None = None, **fields: Any) -> httpx.Response:
        """Post a complaint under a key of its own."""
        body = {"channel": "phone", **fields}
        return await self.post("/v1/complaints", body, key or uuid4().hex)


class Tenant:
    def __init__(self, tenant_id: UUID, slug: str, admin: Caller) -> None:
        self.tenant_id = tenant_id
        self.slug = slug
        self.admin = admin

    async def publish(self, document: Any, **fields: Any) -> httpx.Response:
        answer = await self.admin.post(
            "/v1/policies:publish", {"document": document, "effect": "keep", "reason": "a test", **fields}
        )
        assert answer.status_code in (200, 201, 202), answer.text
        return answer

    async def credential(self, role: str, **fields: Any) -> Caller:
        answer = await self.admin.post("/v1/credentials", {"role": role, "name": f"a {role}", **fields})
        assert answer.status_code == 201, answer.text
        return Caller(self.admin._http, answer.json()["key"])

    async def source(self, kind: str, name: str = "front", **fields: Any) -> dict[str, Any]:
        answer = await self.admin.post("/v1/sources", {"kind": kind, "name": name, **fields})
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return {**body["source"], "secret": body["secret"]}


async def hook(
    http: httpx.AsyncClient,
    path: str,
    secrets: list[str],
    body: Any,
    *,
    message_id: str | None = None,
    at: datetime | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Post a signed webhook."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    signed = sign(secrets, message_id or f"msg_{uuid4().hex}", at or datetime.now(UTC), raw)
    return await http.post(path, content=raw, headers={**signed, "content-type": "application/json", **(headers or {})})


async def messages(infra: Infra, tenant_id: UUID, count: int) -> list[Message]:
    """Return the first `count` messages about a tenant that intake published, in their order."""
    client = await nats.connect(infra.nats_url("operator"))
    try:
        js = client.jetstream(timeout=PATIENCE)

        async def there() -> bool:
            return "INTAKE" in [stream.config.name for stream in await js.streams_info()]

        await until(there)
        subscription = await js.subscribe(
            f"intake.v1.{tenant_id}.>", stream="INTAKE", ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
        )
        found: list[Message] = []
        while len(found) < count:
            raw = await subscription.next_msg(timeout=PATIENCE)
            kind = class_of(raw.subject)
            assert kind is not None, raw.subject
            found.append(decode(raw.data, kind))
        return found
    finally:
        await client.close()

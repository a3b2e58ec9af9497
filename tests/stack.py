"""A service made of nothing but plumbing, on real servers: what its handlers have applied stands in a table of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec

from shared import outbox
from shared.auth import new_key
from shared.consuming import Consumer
from shared.database import Tx
from shared.engine.model import SYSTEM
from shared.ids import OPERATOR, new_id
from shared.messages import EntryRequested
from shared.messages.intake import Limits
from shared.service import Loop, Runtime, Service, ServiceSpec, build
from shared.settings import ServiceSettings, load
from tests.infra import Database, Infra, service_settings

NOW = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)

EFFECTS = """
CREATE TABLE {schema}.effect (
    tenant_id uuid NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, message_id uuid NOT NULL, kind text NOT NULL,
    PRIMARY KEY (tenant_id, id));
SET search_path = {schema}, public;
SELECT apply_tenant_policy('effect');
RESET search_path"""


def a_request(tenant_id: UUID, kind: str = "supplemented", **data: Any) -> EntryRequested:
    return EntryRequested(
        message_id=new_id(), tenant_id=tenant_id, at=NOW, case_id=new_id(), kind=kind, by=SYSTEM, data=data
    )


async def record(message: EntryRequested, tx: Tx) -> None:
    """The plainest effect there is: a row per application, so that twice shows."""
    await tx.execute(
        "INSERT INTO effect (tenant_id, message_id, kind) VALUES ($1, $2, $3)",
        tx.tenant_id,
        message.message_id,
        message.kind,
    )


class Stack:
    """Two services on one database and one NATS: intake, which tells, and sla, which hears."""

    def __init__(self, infra: Infra, database: Database) -> None:
        self.infra, self.database = infra, database
        self.running: list[Service] = []
        self.root: asyncpg.Connection

    def settings(self, service: str, **changes: str) -> ServiceSettings:
        return load(ServiceSettings, service, {**service_settings(self.infra, self.database, service), **changes})

    @asynccontextmanager
    async def service(
        self,
        name: str,
        consumers: Callable[[Runtime[Any]], Sequence[Consumer]] = lambda _: (),
        routes: Sequence[Any] = (),
        loops: Callable[[Runtime[Any]], Sequence[Loop]] = lambda _: (),
        environ: Mapping[str, str] | None = None,
        **changes: str,
    ) -> AsyncIterator[Service]:
        service = build(
            ServiceSpec(name=name, consumers=consumers, route_handlers=routes, loops=loops),
            self.settings(name, **(environ or {}), **changes),
        )
        await service.start()
        self.running.append(service)
        try:
            yield service
        finally:
            if service in self.running:
                self.running.remove(service)
                await service.stop()

    def hearing(
        self,
        handler: Any = record,
        environ: Mapping[str, str] | None = None,
        *,
        together: Any = None,
        at_last: Any = None,
        **changes: str,
    ) -> Any:
        """sla with one consumer of intake's requests."""

        def consumers(_: Runtime[Any]) -> list[Consumer]:
            return [
                Consumer(
                    "sla",
                    "intake",
                    handlers={EntryRequested: handler},
                    name="sla-on-entry",
                    together=together,
                    at_last=at_last,
                )
            ]

        return self.service("sla", consumers, environ={**(environ or {}), **changes})

    async def tell(self, service: Service, *messages: Any) -> None:
        for tenant_id in dict.fromkeys(message.tenant_id for message in messages):
            async with service.runtime.db.api_tx(tenant_id) as tx:
                await outbox.add_many(tx, [message for message in messages if message.tenant_id == tenant_id])

    async def effects(self, schema: str = "sla") -> list[UUID]:
        return [
            row["message_id"] for row in await self.root.fetch(f"SELECT message_id FROM {schema}.effect ORDER BY id")
        ]

    async def a_tenant(
        self, service: str = "intake", tenant_id: UUID | None = None, sandbox: bool = False, **limits: int
    ) -> UUID:
        """Put a tenant straight into a service's reference tables."""
        tenant_id = tenant_id or uuid4()
        await self.root.execute(
            f"INSERT INTO {service}.tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits)"
            " VALUES ($1, 1, $2, 'A tenant', 'Asia/Shanghai', $3, true, $4)",
            tenant_id,
            tenant_id.hex,
            sandbox,
            msgspec.json.encode(Limits(**limits)).decode(),
        )
        return tenant_id

    async def a_key(self, tenant_id: UUID, role: str = "admin", service: str = "intake", **columns: Any) -> str:
        """Put a credential straight into a service's reference tables, and return its key."""
        credential_id = new_id()
        key, hashed = new_key(credential_id)
        values = {
            "tenant_id": OPERATOR if role == "operator" else tenant_id,
            "credential_id": credential_id,
            "revision": 1,
            "key_hash": hashed,
            "role": role,
            "name": role,
            "active": True,
            **columns,
        }
        marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        await self.root.execute(
            f"INSERT INTO {service}.credential ({', '.join(values)}) VALUES ({marks})", *values.values()
        )
        return key


@asynccontextmanager
async def http(service: Service, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application itself, without a socket."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app=service.app, raise_app_exceptions=True)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        yield client

"""Messages that nobody can apply, put into the streams by hand; healthy ones must pass them by.

They end as dead letters, where an operator sees to them. What was put in by hand is taken out by hand at the end, so that the auditor, who
rightly calls it published past the outbox, sees the system as its own doing.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final, Self
from uuid import UUID, uuid4

import asyncpg
import msgspec
import nats
from nats.js import JetStreamContext

from tests.chaos.frame import CaseFailedError, Tenancy, World, until
from tests.chaos.killer import kill_by_message
from tests.chaos.latency import percentiles
from tests.chaos.load import Load

DEAD_WITHIN: Final = 60.0
ADDED_MS: Final = 250.0

DEAD: Final = """
SELECT DISTINCT message_key FROM {service}.dead_letter WHERE state = 'dead'"""

LETTERS: Final = """
SELECT dead_letter_id, tenant_id, reason, attempts, subject, body_sha256 FROM {service}.dead_letter WHERE message_key = ANY ($1)"""

FORGET: Final = """
DELETE FROM {service}.dead_letter WHERE message_key = ANY ($1) AND tenant_id = ANY ($2)"""


class Poisoner:
    """Publishes as the operator, who may; remembers what, and clears it away."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.placed: dict[str, tuple[str, int]] = {}  # message key → stream, place
        self.strangers: list[UUID] = []

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._world.stack.local.nats.url("operator"), connect_timeout=5)
        self._js: JetStreamContext = self._client.jetstream(timeout=5)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def publish(self, producer: str, what: str, body: bytes, tenant_id: UUID | None = None) -> None:
        tenant = tenant_id or self._world.tenants[0].tenant_id
        key = str(uuid4())
        ack = await self._js.publish(f"{producer}.v1.{tenant}.{what}", body, headers={"Nats-Msg-Id": key})
        self.placed[key] = (producer.upper(), ack.seq)

    async def publish_garbage(self, producer: str, what: str) -> None:
        await self.publish(producer, what, b"this is no JSON")

    async def dead(self, service: str) -> set[str]:
        """The keys of ours that are among the dead letters of a service."""
        connection = await asyncpg.connect(self._world.stack.local.superuser_dsn)
        try:
            found = {row["message_key"] for row in await connection.fetch(DEAD.format(service=service))}
        finally:
            await connection.close()
        return found & self.placed.keys()

    async def wait_dead(self, services: tuple[str, ...], seconds: float) -> None:
        async def all_dead() -> bool:
            return all([self.placed.keys() == await self.dead(service) for service in services])

        await until(all_dead, seconds, f"{len(self.placed)} poison messages are dead letters of {', '.join(services)}")

    async def clear(self, *services: str) -> None:
        """Discard the dead letters as an operator does, and take the messages out of the streams."""
        dsn = self._world.stack.local.superuser_dsn
        for service in ("routing", "sla", "notify", "reporting"):
            if service in services:
                await self.wait_dead((service,), DEAD_WITHIN)
        for service in ("intake", "routing", "sla", "notify", "reporting"):
            connection = await asyncpg.connect(dsn)
            try:
                letters = await connection.fetch(LETTERS.format(service=service), list(self.placed))
                for letter in letters:
                    if not letter["reason"] or not letter["subject"] or not letter["body_sha256"]:
                        raise CaseFailedError(f"dead letter {letter['dead_letter_id']} does not say what it is")
                    path = f"/v1/ops/{service}/dead-letters/{letter['dead_letter_id']}/discard"
                    await self._world.operator.post(path)
                await connection.execute(FORGET.format(service=service), list(self.placed), self.strangers)
            finally:
                await connection.close()
        for stream, place in self.placed.values():
            await self._js.delete_msg(stream, place)
        self.placed.clear()


class Poison:
    name: Final = "poison messages"
    place: Final = "alone"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        """A load without and a load with poison in the streams; the healthy must not wait for the sick. Then one that kills."""
        before, _ = await self._loaded(world)
        async with Poisoner(world) as poisoner:
            began = time.monotonic()
            kinds = await self._place(world, poisoner)
            after, stored = await self._loaded(world)
            services = ("sla", "notify", "reporting")
            await poisoner.wait_dead(services, DEAD_WITHIN)
            took = time.monotonic() - began
            await poisoner.clear()
        if after["p99_ms"] > max(2 * before["p99_ms"], before["p99_ms"] + ADDED_MS):
            raise CaseFailedError(f"healthy messages took {after['p99_ms']} ms instead of {before['p99_ms']} ms (p99)")
        with world.stage("killer"):
            killer = await kill_by_message(world, *stored)
        figures = {"kinds": dict(kinds), "without": before, "with": after, "killer": killer}
        return {**figures, "all_dead_after_seconds": round(took, 1)}

    @staticmethod
    async def _loaded(world: World) -> tuple[dict[str, float], tuple[Tenancy, UUID]]:
        """How long assignments took under some load, and one of the complaints."""
        load = Load(world, rate=10.0)
        await load.last(6.0)
        return await percentiles(world, [case_id for _, case_id in load.stored]), load.stored[-1]

    async def _place(self, world: World, poisoner: Poisoner) -> Counter[str]:
        made: Counter[str] = Counter()
        kinds = bodies(world.tenants[0].tenant_id)
        for number in range(world.size.poison):
            name, body, tenant_id = kinds[number % len(kinds)]
            if tenant_id is not None:
                poisoner.strangers.append(tenant_id)
            await poisoner.publish("routing", "entry.appended", body, tenant_id)
            made[name] += 1
        return made


def bodies(tenant_id: UUID) -> list[tuple[str, bytes, UUID | None]]:
    """What nobody can apply: (kind, body, tenant of the subject where it is not the body's)."""
    stranger = uuid4()
    entry = {
        "seq": 1,
        "kind": "received",
        "at": "2026-01-01T00:00:00Z",
        "by": {"id": "system", "roles": []},
        "data": {},
    }
    whole: dict[str, Any] = {
        "message_id": str(uuid4()),
        "tenant_id": str(tenant_id),
        "at": "2026-01-01T00:00:00Z",
        "case_id": str(uuid4()),
        "case_kind": "complaint",
        "policy_version": 1,
        "entry": entry,
        "number": "X",
    }

    def without(name: str) -> bytes:
        return msgspec.json.encode({key: value for key, value in whole.items() if key != name})

    def changed(**values: Any) -> bytes:
        return msgspec.json.encode({**whole, **values})

    return [
        ("not JSON", b"\xff\xfe this is no JSON", None),
        ("truncated", msgspec.json.encode(whole)[:-20], None),
        ("another shape", b"[1, 2, 3]", None),
        ("wrong types", changed(policy_version="one"), None),
        ("tenant missing", without("tenant_id"), None),
        ("another tenant's body", changed(tenant_id=str(uuid4())), None),
        ("unknown tenant", changed(tenant_id=str(stranger), policy_version="one"), stranger),
        ("NUL in a text", changed(number="X\x00"), None),
        ("of the future", changed(case_kind="a kind of next year"), None),
        ("deep", b"[" * 5000 + b"]" * 5000, None),
        ("a megabyte", changed(number="X" * 900_000, policy_version="one"), None),
        ("entry missing", without("entry"), None),
    ]

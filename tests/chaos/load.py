"""The load: clients that send complaints at a steady rate, repeat what got no answer, and write everything down."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec

from services.audit.journal import Source, Witness
from services.demo.client import Answer, Api
from shared import webhooks
from tests.chaos.frame import Tenancy, World

CLIENTS: Final = 10
PATIENCE_SECONDS: Final = 60.0
"""So long does a client repeat a request; then it counts as never answered."""

MOST_BEHIND: Final = 2.0
"""So many seconds of its turns does a client make up for that has waited for an answer."""

CATEGORIES: Final = ("billing", "attitude", "quality")


class Load:
    """Counts what was sent. `running` sends for as long as its block lasts; what is under way at its end is seen through."""

    def __init__(
        self,
        world: World,
        *,
        rate: float,
        tenants: list[Tenancy] | None = None,
        acts: float = 0.1,
        among: int = 200,
    ) -> None:
        """Args:
        rate: requests a second, of all clients together.
        acts: so many of them are entries of staff, in one of the `among` last complaints.
        """
        self._world = world
        self._rate = rate
        self._tenants = list(tenants or world.tenants)
        # Half as much for the first, whose endpoint is told of everything that happens: some ten calls for each complaint.
        self._shares = [1 if place == 0 else 2 for place in range(len(self._tenants))]
        self._chance = random.Random(world.chance.random())
        self._acts = acts
        self._among = among
        self._stopping = False
        self._began = self._ended = time.monotonic()
        self.stored: list[tuple[Tenancy, UUID]] = []
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        self.answered_ms: list[float] = []  # of complaints over the API, with all their repeats

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        self._began = time.monotonic()
        clients = [asyncio.create_task(self._client(random.Random(self._chance.random()))) for _ in range(CLIENTS)]
        try:
            yield self
        except asyncio.CancelledError:  # everything ends; nobody wants the answers any more
            for client in clients:
                client.cancel()
            raise
        finally:
            self._stopping = True
            self._ended = time.monotonic()
            await asyncio.gather(*clients, return_exceptions=True)

    async def last(self, seconds: float) -> None:
        """Send for a while."""
        async with self.running():
            await asyncio.sleep(seconds)

    @property
    def figures(self) -> dict[str, Any]:
        per_second = self.counts["requests"] / max(self._ended - self._began, 0.1)
        return {**self.counts, "per_second": round(per_second, 1), "slowest_answer_seconds": round(self.slowest, 1)}

    async def _client(self, chance: random.Random) -> None:
        """Send at a pace of its own; what could not be sent in time is made good for, as far as it is no more than some seconds."""
        turn = time.monotonic()
        while not self._stopping:
            began = time.monotonic()
            [tenant] = chance.choices(self._tenants, self._shares)
            try:
                await self._one(tenant, chance)
            except Exception as failure:
                self._world.broken.append(f"a client: {type(failure).__name__}: {str(failure)[:200]}")
            now = time.monotonic()
            self.slowest = max(self.slowest, now - began)
            self.counts["requests"] += 1
            turn = max(turn + CLIENTS / self._rate * chance.uniform(0.5, 1.5), now - MOST_BEHIND)
            await asyncio.sleep(max(0.0, turn - now))

    async def _one(self, tenant: Tenancy, chance: random.Random) -> None:
        drawn = chance.random()
        if drawn < self._acts and self.stored:
            await self._enter(*chance.choice(self.stored[-self._among :]), chance)
        elif drawn > 0.95:
            await self._misspell(tenant, chance)
        elif drawn > 0.85:
            await self._call_in(tenant, chance)
        else:
            await self._complain(tenant, chance)

    async def _complain(self, tenant: Tenancy, chance: random.Random) -> None:
        key, draft = self._key(), self._draft(chance)
        began = time.monotonic()
        answer = await self._send(tenant, "api", key, tenant.systems, "/v1/complaints", draft)
        self.answered_ms.append((time.monotonic() - began) * 1000)
        self._note(tenant, answer)
        if chance.random() < 0.1:
            again = await self._send(tenant, "api", key, tenant.systems, "/v1/complaints", draft)
            self.counts["repeated"] += 1
            if answer.is_good and again.body != answer.body:
                self._world.broken.append(f"key {key} was answered in two ways")

    async def _call_in(self, tenant: Tenancy, chance: random.Random) -> None:
        draft = {name: value for name, value in self._draft(chance).items() if name != "channel"}
        raw = msgspec.json.encode({"type": "complaint.taken", "data": draft})
        message_id = f"call_{self._key()}"
        witness = self._witness(tenant, "webhook", message_id)

        def headers() -> dict[str, str]:
            signed = webhooks.sign([tenant.hook_secret], message_id, datetime.now(UTC), raw)
            return {"Content-Type": "application/json", **signed}

        answer = await self._until_answered(
            lambda: tenant.systems.with_key(None).ask(
                "POST", tenant.hook_path, raw=raw, headers=headers(), witness=witness
            )
        )
        self._note(tenant, answer)

    async def _misspell(self, tenant: Tenancy, chance: random.Random) -> None:
        draft = {**self._draft(chance), "categroy": "billing"}
        answer = await self._send(tenant, "api", self._key(), tenant.systems, "/v1/complaints", draft)
        self.counts["refused"] += 1
        if answer.status != 400:
            self._world.broken.append(f"a misspelt complaint was answered {answer.status}")

    async def _enter(self, tenant: Tenancy, case_id: UUID, chance: random.Random) -> None:
        kind = chance.choice(("replied", "investigated", "commented"))
        path = f"/v1/cases/{case_id}/entries"
        answer = await self._send(tenant, "entry", self._key(), tenant.clerk, path, {"kind": kind, "data": {}})
        # A complaint that was stored this moment may not have come to routing yet; a refusal leaves nothing.
        self.counts["entries" if answer.is_good else f"entry {answer.problem}"] += 1

    async def _send(self, tenant: Tenancy, source: Source, key: str, api: Api, path: str, body: Any) -> Answer:
        witness = self._witness(tenant, source, key)
        return await self._until_answered(lambda: api.ask("POST", path, body=body, key=key, witness=witness))

    async def _until_answered(self, ask: Any) -> Answer:
        """Go on where the client of the API gives up, until an answer settles it or the patience ends."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer: Answer = await ask()
            except httpx.TransportError:
                if time.monotonic() > end:
                    raise
                continue
            if answer.status < 500 or time.monotonic() > end:
                if answer.status >= 500:
                    self._world.broken.append(
                        f"answered {answer.status} {answer.problem} after {PATIENCE_SECONDS:.0f} s"
                    )
                return answer
            await asyncio.sleep(0.2)

    def _note(self, tenant: Tenancy, answer: Answer) -> None:
        if answer.is_good:
            self.counts["stored"] += 1
            self.stored.append((tenant, UUID(answer.body["id"])))
        else:
            self.counts[f"not stored: {answer.status} {answer.problem}"] += 1

    def _witness(self, tenant: Tenancy, source: Source, key: str) -> Witness:
        return Witness(self._world.write, tenant.tenant_id, source, key)

    def _key(self) -> str:
        return f"chaos-{self._chance.getrandbits(96):024x}"

    def _draft(self, chance: random.Random) -> dict[str, Any]:
        number = self._chance.getrandbits(32) % 100_000_000
        person = {"name": "Somebody", "phone": f"+86138{number:08d}", "email": f"c{number}@example.org"}
        return {
            "channel": "phone",
            "category": chance.choice(CATEGORIES),
            "text": "The bill is wrong, and nobody answers.",
            "complainant": person,
        }

"""One tenant floods; the quiet ones must hardly notice, and the flood is turned away at the door, kindly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, Final
from uuid import uuid4

import httpx
import msgspec

from services.audit.journal import Line, Witness
from tests.chaos.frame import CaseFailedError, Tenancy, World
from tests.chaos.latency import percentiles
from tests.chaos.load import Load
from tests.chaos.speed import machine_speed
from tests.chaos.tenants import subscribe

QUIET_RATE: Final = 4.0  # of all quiet tenants together
FLOOD_FACTOR: Final = 100
QUOTA: Final = {"requests_per_second": 10, "burst": 20, "complaints_per_day": 1_000_000}
ADDED_MS: Final = 100.0
AT_ONCE: Final = 40


class Flood:
    name: Final = "flood"
    place: Final = "alone"

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        """What looks slow is measured once more: the slowest of a hundred answers may be the machine's own, twice it is the flood's."""
        quiet = list(world.tenants)
        await subscribe(world, 1, limits=QUOTA)
        flooder = world.tenants.pop()
        figures, slow = await self._measure(world, quiet, flooder)
        if first := slow:
            figures, slow = await self._measure(world, quiet, flooder)
        if slow:
            raise CaseFailedError(f"quiet tenants, measured twice: {'; '.join(slow)}")
        return {**figures, "slow_at_first": first}

    async def _measure(self, world: World, quiet: list[Tenancy], flooder: Tenancy) -> tuple[dict[str, Any], list[str]]:
        """Half of the time alone is before the flood and half after it: what else the machine does meanwhile is in both."""
        added = ADDED_MS / machine_speed()
        before = await self._quiet(world, quiet, world.size.flood_seconds / 2)
        answers: Counter[str] = Counter()
        flood = asyncio.create_task(self._flood(world, flooder, answers))
        try:
            flooded = await self._quiet(world, quiet, world.size.flood_seconds)
        finally:
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
        after = await self._quiet(world, quiet, world.size.flood_seconds / 2)
        alone, beside = await self._taken(world, before, after), await self._taken(world, flooded)
        if not answers["429"]:
            raise CaseFailedError(f"the flood was never turned away: {dict(answers)}")
        if answers["429 without Retry-After"] or any(name.startswith("5") for name in answers):
            raise CaseFailedError(f"the flood was answered {dict(answers)}")
        slow = [
            f"{name} {beside[name]}, and {alone[name]} alone"
            for name in ("p99_ms", "answer_p99_ms")
            if beside[name] > max(2 * alone[name], alone[name] + added)
        ]
        return {"alone": alone, "beside_the_flood": beside, "answers_to_the_flood": dict(answers)}, slow

    async def _quiet(self, world: World, tenants: list[Tenancy], seconds: float) -> Load:
        load = Load(world, rate=QUIET_RATE * 2.5, tenants=tenants)
        before = len(world.broken)
        await load.last(seconds)
        if len(world.broken) > before:
            raise CaseFailedError(f"quiet tenants: {world.broken[before:]}")
        return load

    @staticmethod
    async def _taken(world: World, *loads: Load) -> dict[str, float]:
        """How long assignments and answers took, of all these loads together."""
        taken = await percentiles(world, [case_id for load in loads for _, case_id in load.stored])
        times = sorted(ms for load in loads for ms in load.answered_ms)
        return {**taken, "answer_p99_ms": round(times[int(len(times) * 0.99)], 1) if times else 0.0}

    async def _flood(self, world: World, tenant: Tenancy, answers: Counter[str]) -> None:
        """A hundred times a quiet tenant's rate, with no patience at all: no pause after a refusal, no repeat.

        Its journal goes to the disk at the end: to wait for the disk at each line would slow down the quiet tenants' clients.
        """
        lines: list[Line] = []

        def note(line: Line) -> None:
            lines.append(line)
            world.lines.append(line)

        key = tenant.systems_key
        pause = 1.0 / (QUIET_RATE / len(world.tenants) * FLOOD_FACTOR)
        limit = asyncio.Semaphore(AT_ONCE)
        draft = {"channel": "phone", "category": "billing", "text": "Again.", "complainant": {"name": "Somebody"}}
        body = msgspec.json.encode(draft)
        async with (
            httpx.AsyncClient(base_url=world.stack.url, timeout=20, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):

            async def one() -> None:
                name = f"flood-{uuid4()}"
                witness = Witness(note, tenant.tenant_id, "api", name)
                headers = {
                    "Authorization": f"Bearer {key}",
                    "Idempotency-Key": name,
                    "Content-Type": "application/json",
                }
                async with limit:
                    witness.attempt(body)
                    answer = await http.post("/v1/complaints", content=body, headers=headers)
                    witness.answer(answer.status_code, answer.content)
                answers[str(answer.status_code)] += 1
                if answer.status_code == 429 and "retry-after" not in answer.headers:
                    answers["429 without Retry-After"] += 1

            try:
                while True:
                    began = time.monotonic()
                    group.create_task(one())
                    await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))
            except asyncio.CancelledError:
                pass  # those under way are seen through: the journal wants their answers
        with world.journal.path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

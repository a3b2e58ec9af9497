"""Processes that end, without warning, at each of the places where it would hurt most; what was answered 2xx is there exactly once."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from shared.fail_points import POINTS
from shared.ids import derived_id
from shared.messages.base import encode
from tests.infra import service_settings
from tests.stack import Stack, a_request
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent.parent
ELSEWHERE = {"relay.leads", "relay.repaired", "consumer.claimed", "consumer.handled"}  # with all services: make chaos
AT_SLA = sorted(point for point in POINTS - ELSEWHERE if point.startswith(("worker.", "consumer.")))
AT_INTAKE = sorted(point for point in POINTS - ELSEWHERE if point.startswith(("api.", "relay.")))


class Child:
    """One service, in a process of its own that crashes at each of its points in turn and runs on after the last."""

    def __init__(self, stack: Stack, service: str, port: int, points: list[str]) -> None:
        self._environ = {**os.environ, **service_settings(stack.infra, stack.database, service, port)}
        self._service = service
        self._process: asyncio.subprocess.Process
        self._listening: asyncio.Task[None]
        self.to_come = list(points)

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.shared.crashing",
            self._service,
            *self.to_come,
            cwd=ROOT,
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            assert line.decode().strip() == self.to_come.pop(0)

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()
        await self._listening


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@pytest.mark.timeout(300)
async def test_a_crash_anywhere_loses_nothing_and_repeats_nothing(stack: Stack) -> None:
    tenant = await stack.a_tenant()
    key = await stack.a_key(tenant)
    port = free_port()
    intake, sla = Child(stack, "intake", port, AT_INTAKE), Child(stack, "sla", 0, AT_SLA)
    answered: set[UUID] = set()
    dead: set[str] = set()

    async def send(client: httpx.AsyncClient, name: str) -> None:
        async with asyncio.timeout(30):
            while True:
                with suppress(httpx.HTTPError):
                    answer = await client.post("/v1/notes", json={"name": name}, headers={"Idempotency-Key": name})
                    if answer.status_code == 201:
                        assert UUID(answer.json()["message_id"]) == derived_id("note", name)
                        answered.add(derived_id("note", name))
                        return
                    assert answer.status_code in (409, 429, 503), answer.text
                await asyncio.sleep(0.05)

    async def poison() -> None:
        """A message that will be given up, put into the outbox as intake would."""
        message = a_request(tenant, "withdrawn")
        await stack.root.execute(
            "INSERT INTO intake.outbox (tenant_id, message_id, subject, body) VALUES ($1, $2, $3, $4)",
            tenant,
            message.message_id,
            f"intake.v1.{tenant}.entry.requested",
            encode(message),
        )
        dead.add(str(message.message_id))

    async def settled() -> bool:
        heard = await stack.effects("sla")
        assert len(heard) == len(set(heard)), "a message was applied twice"
        letters = [row["message_key"] for row in await stack.root.fetch("SELECT message_key FROM sla.dead_letter")]
        return set(heard) == answered and sorted(letters) == sorted(dead)

    async def marked() -> bool:
        return not await stack.root.fetchval("SELECT count(*) FROM intake.outbox WHERE published_at IS NULL")

    try:
        await sla.start()
        await intake.start()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=10
        ) as client:
            async with asyncio.timeout(200):
                number = 0
                while intake.to_come or sla.to_come:
                    number += 1
                    await asyncio.gather(*(send(client, f"{number}/{place}") for place in range(3)))
                    if number % 4 == 1:
                        await poison()
            await send(client, "last")
            await until(settled)
            await until(marked)
    finally:
        await intake.stop()
        await sla.stop()

    stored = await stack.effects("intake")
    assert sorted(stored) == sorted(answered)

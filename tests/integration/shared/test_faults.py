"""Servers that die, freeze, lose their disk or fall silent: nothing hangs, nothing is lost, and it all comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from shared.database import Database, is_outage
from shared.embedded.folder import open_folder
from shared.embedded.nats import NatsServer
from shared.messages.base import LIVE
from shared.service import Runtime, Service, ServiceSpec, StartError, build
from shared.serving import serve
from shared.settings import ServiceSettings, load
from tests.infra import STRICT, Infra, service_settings
from tests.infra import Database as OwnDatabase
from tests.integration.shared.test_crashes import free_port
from tests.stack import Stack, a_request
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A NATS that this test may kill."""
    server = NatsServer(open_folder(tmp_path / "stack"), 0)
    await server.start()
    yield server
    await server.stop()


def on(server: NatsServer, service: str) -> dict[str, str]:
    return {
        "RECOURSE_NATS_URL": server.address,
        f"RECOURSE_NATS_PASSWORD_{service.upper()}": server.passwords[service],
        "RECOURSE_NATS_MONITOR_URL": server.monitor_url,
    }


async def heard(stack: Stack, count: int) -> bool:
    found = await stack.effects()
    assert len(found) == len(set(found)), "a message was applied twice"
    return len(found) == count


async def test_nats_killed_again_and_again_and_its_disk_lost_loses_and_repeats_nothing(
    stack: Stack, own_nats: NatsServer
) -> None:
    tenant = uuid4()
    told = 0
    async with (
        stack.service("intake", environ=on(own_nats, "intake")) as intake,
        stack.hearing(environ=on(own_nats, "sla")),
    ):

        async def tell(count: int) -> None:
            nonlocal told
            for _ in range(count):
                await stack.tell(intake, a_request(tenant))
            told += count

        await tell(20)
        await until(lambda: heard(stack, told))
        for loses_its_disk in (False, True):
            await tell(10)
            await own_nats.kill()
            await tell(20)  # the database alone is enough to take it
            assert (await intake.readiness()).ready
            if loses_its_disk:
                own_nats.delete_store()
            await own_nats.restart()
            await tell(10)
            await until(lambda: heard(stack, told))
        await until(lambda: marked(stack))
        assert await stack.root.fetchval("SELECT count(*) FROM sla.dead_letter") == 0


async def test_a_frozen_nats_is_noticed_and_work_goes_on_when_it_thaws(stack: Stack, own_nats: NatsServer) -> None:
    tenant = uuid4()
    async with (
        stack.service("intake", environ=on(own_nats, "intake")) as intake,
        stack.hearing(environ=on(own_nats, "sla")),
    ):
        await stack.tell(intake, a_request(tenant))
        await until(lambda: heard(stack, 1))
        own_nats.freeze()
        try:
            await stack.tell(intake, *(a_request(tenant) for _ in range(10)))  # waits for nothing
            await until(lambda: failing(intake))
        finally:
            os.kill(own_nats.pid, signal.SIGCONT)
        await until(lambda: heard(stack, 11))


async def marked(stack: Stack) -> bool:
    """Whether everything in the outbox is known to be published."""
    return not await stack.root.fetchval("SELECT count(*) FROM intake.outbox WHERE published_at IS NULL")


async def failing(service: Service) -> bool:
    return service.relay.failing_since is not None or not service.runtime.nats.is_connected


class Wire:
    """A TCP connection to PostgreSQL that can fall silent: nothing passes, nothing is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        self._passes.clear()

    def heal(self) -> None:
        self._passes.set()

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                await self._passes.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def wired(infra: Infra, database: OwnDatabase, **changes: str) -> AsyncIterator[tuple[Wire, Database]]:
    environ = service_settings(infra, database, "sla")
    place = urlsplit(environ["RECOURSE_DATABASE_URL"])
    wire = Wire(place.hostname or "", place.port or 0)
    port = await wire.open()
    url = place._replace(netloc=f"127.0.0.1:{port}").geturl()
    db = Database(load(ServiceSettings, "sla", {**environ, "RECOURSE_DATABASE_URL": url, **changes}))
    await db.open()
    try:
        yield wire, db
    finally:
        wire.heal()
        await db.close()
        await wire.close()


async def test_a_database_that_falls_silent_hangs_nobody_and_leaks_no_connection(
    infra: Infra, database: OwnDatabase
) -> None:
    limits = {"RECOURSE_COMMAND_SECONDS": "1", "RECOURSE_ACQUIRE_SECONDS": "0.5", "RECOURSE_API_CONNECTIONS": "3"}
    tenant = uuid4()
    async with wired(infra, database, **limits) as (wire, db):

        async def ask() -> None:
            try:
                async with db.api_tx(tenant) as tx:
                    assert await tx.fetchval("SELECT 1") == 1
                    await asyncio.sleep(0.05)
                    await tx.fetchval("SELECT 2")
            except Exception as error:
                if not is_outage(error):
                    raise

        await asyncio.gather(*(ask() for _ in range(6)))
        for _ in range(2):
            in_flight = [asyncio.create_task(ask()) for _ in range(3)]
            await asyncio.sleep(0.02)
            wire.cut()
            async with asyncio.timeout(PATIENCE):  # each ends, although nothing answers any more
                await asyncio.gather(*in_flight, *(ask() for _ in range(9)))
            wire.heal()

            async def answers() -> bool:
                try:
                    async with db.api_tx(tenant) as one, db.api_tx(tenant) as two, db.api_tx(tenant) as three:
                        return [await tx.fetchval("SELECT 1") for tx in (one, two, three)] == [1, 1, 1]
                except Exception as error:
                    if not is_outage(error):
                        raise
                    return False

            await until(answers)


async def test_the_service_waits_for_a_database_that_comes_late_and_gives_up_in_a_sentence(stack: Stack) -> None:
    settings = stack.settings(
        "intake", RECOURSE_DATABASE_URL="postgresql://127.0.0.1:9/none", RECOURSE_START_SECONDS="0.5"
    )
    with pytest.raises(StartError, match="RECOURSE_DATABASE_URL"):
        await build(ServiceSpec(name="intake"), settings).start()


async def test_a_database_that_dies_while_the_service_starts_is_waited_for_and_an_error_of_ours_is_not(
    stack: Stack,
) -> None:
    tried = 0

    async def prepare(runtime: Runtime[Any]) -> None:
        nonlocal tried
        tried += 1
        async with runtime.db.worker_tx(LIVE) as tx:
            await tx.fetchval("SELECT pg_terminate_backend(pg_backend_pid())" if tried == 1 else "SELECT 1")

    service = build(ServiceSpec(name="intake", prepare=prepare), stack.settings("intake"))
    await service.start()
    try:
        assert (await service.readiness()).ready
        assert tried == 2
    finally:
        await service.stop()

    async def err(_: Runtime[Any]) -> None:
        raise LookupError("ours")

    faulty = build(ServiceSpec(name="intake", prepare=err), stack.settings("intake"))
    with pytest.raises(LookupError):
        await faulty.start()
    await faulty.stop()


async def test_a_taken_address_is_said_in_a_sentence(stack: Stack) -> None:
    taken = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    try:
        with pytest.raises(StartError, match=f"127.0.0.1:{port} is taken"):
            await serve(
                build(ServiceSpec(name="intake"), stack.settings("intake", RECOURSE_INTAKE_PORT=str(port))),
                asyncio.Event(),
            )
    finally:
        taken.close()
        await taken.wait_closed()


async def test_a_served_process_answers_and_ends_cleanly_when_asked(stack: Stack) -> None:
    """The request in hand is answered, what was taken is kept, the exit code is 0 and nothing is left behind."""
    tenant = await stack.a_tenant()
    key = await stack.a_key(tenant)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tests.integration.shared.crashing import main; main('intake')",
        cwd=ROOT,
        env={**os.environ, **service_settings(stack.infra, stack.database, "intake", port)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}
        ) as client:

            async def send(name: str) -> int:
                try:
                    answer = await client.post("/v1/notes", json={"name": name}, headers={"Idempotency-Key": name})
                except httpx.HTTPError:
                    return 0
                return answer.status_code

            async def answers() -> bool:
                return await send("first") == 201

            await until(answers)
            in_hand = [asyncio.create_task(send(f"n{number}")) for number in range(5)]
            await asyncio.sleep(0.002)
            process.terminate()
            statuses = await asyncio.gather(*in_hand)
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert len(await stack.effects("intake")) == 1 + statuses.count(201)
    finally:
        with suppress(ProcessLookupError):
            process.kill()


async def test_a_nats_that_acknowledges_before_it_has_written_is_refused(stack: Stack) -> None:
    """The monitoring pages tell the effective setting; here they tell the server's default."""

    async def lazy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"config": {"sync_interval": 120000000000}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        assert (await client.get(f"{stack.infra.monitor_url}/jsz")).json()["config"]["sync_always"] is True
    pages = await asyncio.start_server(lazy, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{pages.sockets[0].getsockname()[1]}"
    try:
        async with stack.service("intake", environ={**STRICT, "RECOURSE_NATS_MONITOR_URL": url}) as intake:

            async def refused() -> bool:
                return any("sync_interval" in note.what for note in (await intake.readiness()).notes)

            await until(refused)
            await stack.tell(intake, a_request(uuid4()))
            assert not intake.runtime.nats.is_connected
            assert await stack.root.fetchval("SELECT count(*) FROM intake.outbox WHERE published_at IS NULL") == 1
    finally:
        pages.close()
        await pages.wait_closed()

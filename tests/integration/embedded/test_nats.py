"""NATS from its wheel: starts, recovers, loses its store, and lets each service do what is listed and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import nats
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

from shared.embedded.access import SERVICES, stream_of
from shared.embedded.errors import FolderInUseError
from shared.embedded.nats import NatsServer, embedded_nats, processors
from tests.waiting import PATIENCE

TENANT = "018f2f60-0000-7000-8000-000000000001"


class Guest:
    """A connection that remembers what the server forbade."""

    def __init__(self, client: Client, refusals: list[str]) -> None:
        self.client = client
        self.js = client.jetstream(timeout=PATIENCE)
        self.refusals = refusals

    async def publish_is_refused(self, subject: str) -> bool:
        self.refusals.clear()
        await self.client.publish(subject, b"{}")
        return await self.was_refused("publish")

    async def subscribe_is_refused(self, subject: str) -> bool:
        self.refusals.clear()
        await self.client.subscribe(subject)
        return await self.was_refused("subscription")

    async def was_refused(self, what: str) -> bool:
        """Whether the server has complained; it does so asynchronously, mostly before it answers a ping."""
        for _ in range(20):
            await self.client.flush(int(PATIENCE))
            if any(f"permissions violation for {what}" in refusal for refusal in self.refusals):
                return True
            await asyncio.sleep(0.02)
        return False


@asynccontextmanager
async def guest(url: Callable[[str], str], user: str) -> AsyncIterator[Guest]:
    refusals: list[str] = []

    async def remember(error: Exception) -> None:
        refusals.append(str(error).lower())

    client = await nats.connect(url(user), inbox_prefix=f"_INBOX_{user}".encode(), error_cb=remember)
    try:
        yield Guest(client, refusals)
    finally:
        await client.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with embedded_nats(tmp_path) as running:
        yield running


async def add_stream(service: Guest, name: str) -> None:
    config = StreamConfig(name=stream_of(name), subjects=[f"{name}.v1.>"], allow_direct=True)
    await service.js.add_stream(config)


async def test_it_writes_to_the_disk_before_it_acknowledges_and_its_streams_are_bounded(server: NatsServer) -> None:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        effective = (await http.get(f"{server.monitor_url}/varz")).json()["jetstream"]["config"]
    assert effective["sync_always"] is True
    assert 0 < effective["max_storage"] <= 8 * 1024**3
    assert effective["max_memory"] == 256 * 1024**2


async def test_it_leaves_most_processors_to_the_others(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def allowed() -> int:
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            return int((await http.get(f"{server.monitor_url}/varz")).json()["gomaxprocs"])

    assert await allowed() == processors()
    monkeypatch.setenv("GOMAXPROCS", str(processors() + 1))
    await server.restart()
    assert await allowed() == processors() + 1


async def test_what_was_acknowledged_survives_kill_and_restart(server: NatsServer) -> None:
    async with guest(server.url, "intake") as intake:
        await add_stream(intake, "intake")
        await intake.js.publish(f"intake.v1.{TENANT}.complaint.received", b"1")
    port = server.port
    await server.kill()
    assert not server.is_running()
    await server.start()
    assert server.port == port
    async with guest(server.url, "intake") as intake:
        assert (await intake.js.stream_info("INTAKE")).state.messages == 1
    await server.stop()
    server.delete_store()
    await server.restart()
    async with guest(server.url, "intake") as intake:
        with pytest.raises(NotFoundError):
            await intake.js.stream_info("INTAKE")


async def test_a_second_stack_on_the_folder_is_refused(server: NatsServer) -> None:
    with pytest.raises(FolderInUseError):
        await NatsServer(server.folder, 0).start()
    assert server.is_running()


async def test_a_stranger_is_not_let_in(server: NatsServer) -> None:
    for url in (f"nats://127.0.0.1:{server.port}", f"nats://intake:wrong@127.0.0.1:{server.port}"):
        stranger = Client()
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await stranger.connect(url, allow_reconnect=False, error_cb=_ignore)
        await stranger.close()  # the client leaves a connection open that was refused


async def _ignore(_: Exception) -> None:
    pass


async def test_a_service_publishes_consumes_and_acknowledges_what_it_may(server: NatsServer) -> None:
    async with guest(server.url, "intake") as intake, guest(server.url, "routing") as routing:
        await add_stream(intake, "intake")
        await intake.js.update_stream(StreamConfig(name="INTAKE", subjects=["intake.v1.>"], allow_direct=True))
        await intake.js.publish(f"intake.v1.{TENANT}.complaint.received", b"1")
        assert (await intake.js.get_msg("INTAKE", 1)).data == b"1"
        assert (await intake.js.get_msg("INTAKE", 1, direct=True)).data == b"1"
        for config in (
            ConsumerConfig(durable_name="routing-on-tenant", filter_subject="intake.v1.*.tenant.>"),
            ConsumerConfig(
                name="routing-on-complaint",
                durable_name="routing-on-complaint",
                filter_subject="intake.v1.*.complaint.>",
            ),
        ):
            await routing.js.add_consumer("INTAKE", config)
        await routing.js.add_consumer(
            "INTAKE", ConsumerConfig(name="routing-on-intake", durable_name="routing-on-intake")
        )
        subscription = await routing.js.pull_subscribe_bind("routing-on-complaint", stream="INTAKE")
        (message,) = await subscription.fetch(1, timeout=PATIENCE)
        await message.ack_sync(timeout=PATIENCE)
        assert (await routing.js.consumer_info("INTAKE", "routing-on-complaint")).num_ack_pending == 0
        assert intake.refusals == []
        assert routing.refusals == []


async def test_notify_asks_the_vault_and_intake_answers(server: NatsServer) -> None:
    async with guest(server.url, "intake") as intake, guest(server.url, "notify") as notify:
        vault = await intake.client.subscribe("vault.v1.contact")
        await intake.client.flush()
        question = asyncio.create_task(notify.client.request("vault.v1.contact", b"who", timeout=PATIENCE))
        asked = await vault.next_msg(PATIENCE)
        await asked.respond(b"this one")
        assert (await question).data == b"this one"
        await asked.respond(b"and more")  # one answer a question
        assert await intake.was_refused("publish")


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_is_refused_everything_that_is_not_listed(server: NatsServer, service: str) -> None:
    other = next(name for name in SERVICES if name != service)
    async with guest(server.url, other) as owner, guest(server.url, service) as intruder:
        await add_stream(owner, other)
        await owner.js.publish(f"{other}.v1.{TENANT}.thing.happened", b"1")
        forbidden = [
            f"{other}.v1.{TENANT}.thing.happened",
            f"$JS.API.STREAM.CREATE.{stream_of(other)}",
            f"$JS.API.STREAM.MSG.GET.{stream_of(other)}",
            f"$JS.API.DIRECT.GET.{stream_of(other)}",
            f"$JS.API.STREAM.PURGE.{stream_of(service)}",
            f"$JS.API.STREAM.DELETE.{stream_of(service)}",
            f"$JS.API.STREAM.MSG.DELETE.{stream_of(service)}",
            "$JS.API.STREAM.RESTORE.STOLEN",
            "$JS.API.STREAM.CREATE.STOLEN",
            f"$JS.API.CONSUMER.CREATE.{stream_of(other)}",
            f"$JS.API.CONSUMER.CREATE.{stream_of(other)}.{other}-on-entry",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(other)}.{other}-on-entry",
            f"$JS.API.CONSUMER.DELETE.{stream_of(other)}.{other}-on-entry",
            f"$JS.ACK.{stream_of(other)}.{other}-on-entry.1.1.1.1.1",
            "$SYS.REQ.SERVER.PING",
            f"_INBOX_{other}.forged",
        ]
        if service != "notify":
            forbidden.append("vault.v1.contact")
        assert [subject for subject in forbidden if not await intruder.publish_is_refused(subject)] == []
        overheard = [f"{other}.v1.>", f"_INBOX_{other}.>", "_INBOX.>", "$JS.EVENT.>", "$SYS.>", ">"]
        if service not in ("intake", "routing"):
            overheard.append("vault.v1.staff")
        if service != "intake":
            overheard.append("vault.v1.contact")
        assert [subject for subject in overheard if not await intruder.subscribe_is_refused(subject)] == []
        assert (await owner.js.stream_info(stream_of(other))).state.messages == 1


async def test_the_operator_may_purge_and_delete(server: NatsServer) -> None:
    async with guest(server.url, "sla") as sla, guest(server.url, "operator") as operator:
        await add_stream(sla, "sla")
        await sla.js.publish(f"sla.v1.{TENANT}.penalty.posted", b"1")
        assert await operator.js.purge_stream("SLA")
        assert (await sla.js.stream_info("SLA")).state.messages == 0
        assert await operator.js.delete_stream("SLA")

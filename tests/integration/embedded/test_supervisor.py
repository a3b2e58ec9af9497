"""What runs under the supervisor comes back when it dies or hangs, and is gone when the supervisor is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services import supervisor as supervision
from services.supervisor import Endpoint, Event, ServiceProcess, Supervisor, run_services, stop_on_signals
from shared.embedded.errors import PortBusyError, ServerStartError
from shared.embedded.folder import open_folder
from shared.embedded.nats import NatsServer
from shared.embedded.probe import get
from shared.embedded.processes import free_port
from tests.processes import is_alive, wait_until_gone
from tests.waiting import until

# A service as the supervisor sees one: answers /livez at once and /readyz once the file that it waits for is there.
SERVICE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/livez" or os.path.exists(sys.argv[2])
        body = b"" if ready else b"the file is not there"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
"""

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from services.supervisor import Supervisor, stop_on_signals
from shared.embedded.nats import NatsServer
from shared.embedded.postgres import PostgresServer
from tests.integration.embedded.test_supervisor import a_service
async def main():
    folder = Path(sys.argv[1])
    with stop_on_signals() as stop:
        async with Supervisor() as supervisor:
            await supervisor.add_together([PostgresServer(folder, 0), NatsServer(folder, 0)])
            await supervisor.add(a_service(folder))
            print(*(supervisor.unit(name).pid for name in ("postgres", "nats", "intake")), flush=True)
            await stop.wait()
asyncio.run(main())
"""


def a_service(folder: Path, code: str = SERVICE, name: str = "intake") -> ServiceProcess:
    port = free_port()
    return ServiceProcess(name, folder, port, {}, [sys.executable, "-c", code, str(port), str(folder / "ready")])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_folder(tmp_path / "data")


async def test_a_killed_service_and_a_killed_server_come_back_on_their_ports(folder: Path) -> None:
    told: list[Event] = []
    async with Supervisor(told.append) as supervisor:
        units = (NatsServer(folder, 0), a_service(folder))
        for unit in units:
            await supervisor.add(unit)
        for unit in units:
            pid, port = unit.pid, unit.port
            os.kill(pid, signal.SIGKILL)
            await until(lambda unit=unit, pid=pid: unit.is_running() and unit.pid != pid)  # type: ignore[misc]
            await until(lambda unit=unit: told[-1] == Event(unit.name, "started"))  # type: ignore[misc]
            assert unit.port == port
            assert await unit.is_healthy()
    assert [(event.unit, event.what) for event in told] == [
        ("nats", "started"),
        ("intake", "started"),
        ("nats", "died"),
        ("nats", "started"),
        ("intake", "died"),
        ("intake", "started"),
        ("intake", "stopped"),
        ("nats", "stopped"),
    ]


async def test_a_hanging_service_is_restarted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "HEALTH_SECONDS", 0.05)
    monkeypatch.setattr(supervision, "UNHEALTHY_LOOKS", 2)
    told: list[Event] = []
    async with Supervisor(told.append) as supervisor:
        service = a_service(folder)
        await supervisor.add(service)
        pid = service.pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: len(told) == 3)
        assert [event.what for event in told] == ["started", "unhealthy", "started"]
        assert not is_alive(pid)


async def test_a_held_unit_stays_down_until_it_is_let_go(folder: Path) -> None:
    async with Supervisor() as supervisor:
        nats = NatsServer(folder, 0)
        await supervisor.add(nats)
        with supervisor.held("nats") as unit:
            await unit.kill()
            await asyncio.sleep(1.0)  # several times the first delay
            assert not unit.is_running()
            nats.delete_store()
        await until(nats.is_running)


async def test_what_its_holder_has_started_again_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY", 0.2)
    told: list[Event] = []
    async with Supervisor(told.append) as supervisor:
        nats = NatsServer(folder, 0)
        await supervisor.add(nats)
        with supervisor.held("nats"):
            await nats.kill()
            await until(lambda: told[-1].what == "died")  # now it makes its pause
            await nats.start()
        pid = nats.pid
        await asyncio.sleep(0.5)
        assert nats.pid == pid
    assert [event.what for event in told] == ["started", "died", "stopped"]


async def test_readiness_is_awaited_and_its_reasons_are_told(folder: Path) -> None:
    async with Supervisor() as supervisor:
        await supervisor.add(a_service(folder))
        with pytest.raises(ServerStartError, match="intake: the file is not there"):
            await supervisor.wait_ready(0.2)
        (folder / "ready").touch()
        await supervisor.wait_ready(10)


async def test_a_service_that_cannot_start_says_why(folder: Path) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(
            ServerStartError, match=r"sla did not start: ValueError: no such policy \(more in .*sla\.log\)"
        ):
            await supervisor.add(a_service(folder, "raise ValueError('no such policy')", "sla"))


async def test_a_busy_port_of_a_service_is_refused_in_a_sentence(folder: Path) -> None:
    async with Supervisor() as supervisor:
        first = a_service(folder)
        await supervisor.add(first)
        with pytest.raises(PortBusyError, match=f"Port {first.port} for sla is in use"):
            ServiceProcess("sla", folder, first.port, {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_nothing_is_left_running_however_the_supervisor_ends(folder: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(folder), stdout=asyncio.subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    assert len(pids) == 3
    assert all(is_alive(pid) for pid in pids)
    process.send_signal(number)
    assert await process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert all(wait_until_gone(pid) for pid in pids)


Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """An ASGI application that notes when it starts and stops."""

    def __init__(self, name: str, notes: list[str], broken: bool) -> None:
        self.name = name
        self.notes = notes
        self.broken = broken

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if self.broken:
                await send({"type": "lifespan.startup.failed", "message": "broken"})
                return
            self.notes.append(f"{self.name} started")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.notes.append(f"{self.name} stopped")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            size = str(len(self.name)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
            await send({"type": "http.response.body", "body": self.name.encode()})


async def test_services_in_one_process_start_in_order_and_stop_in_reverse() -> None:
    notes: list[str] = []
    ports = {"intake": free_port(), "sla": free_port()}
    stop = asyncio.Event()

    async def ask() -> None:
        for name, port in ports.items():
            assert (await get(port, "/")).body == name.encode()
        stop.set()

    def build(name: str, _: None) -> Endpoint:
        return Endpoint(App(name, notes, broken=False), ports[name])

    await run_services(list(ports), None, build, stop=stop, ready=ask)
    assert notes == ["intake started", "sla started", "sla stopped", "intake stopped"]


async def test_one_service_that_cannot_start_ends_the_others_cleanly() -> None:
    notes: list[str] = []

    def build(name: str, _: None) -> Endpoint:
        return Endpoint(App(name, notes, broken=name == "sla"), free_port())

    with pytest.raises(ServerStartError, match="sla did not start"):
        await run_services(["intake", "sla", "notify"], None, build, stop=asyncio.Event())
    assert notes == ["intake started", "intake stopped"]


@asynccontextmanager
async def sent_to_us(number: signal.Signals) -> AsyncIterator[None]:
    os.kill(os.getpid(), number)
    yield


async def test_a_signal_stops_and_does_nothing_else() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with stop_on_signals(number) as stop:
            assert not stop.is_set()
            async with sent_to_us(number):
                await asyncio.wait_for(stop.wait(), 5)


async def test_a_frozen_nats_is_not_healthy(folder: Path) -> None:
    nats = NatsServer(folder, 0)
    await nats.start()
    try:
        assert await nats.is_healthy()
        nats.freeze()
        async with asyncio.timeout(20):  # the signal may come a moment after the question
            while await nats.is_healthy():
                pass
        nats.thaw()
        assert await nats.is_healthy()
    finally:
        await nats.stop()

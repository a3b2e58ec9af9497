"""Runs servers and services together: starts them in order, restarts what dies or hangs, and leaves nothing behind.

Two ways: every service a process of its own (`Supervisor` with `ServiceProcess`), or all services in this one
(`run_services`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import msgspec
import uvicorn

from shared.embedded.errors import LocalStackError, ServerStartError
from shared.embedded.probe import get
from shared.embedded.processes import LOOPBACK, Child, claim_port

FIRST_DELAY = 0.2  # seconds before the first restart; doubled each time, up to
LONGEST_DELAY = 5.0
STEADY_SECONDS = 30.0  # after running for so long a death counts as the first again
HEALTH_SECONDS = 2.0  # between two looks
UNHEALTHY_LOOKS = 5  # in a row, before what runs but does not answer is restarted

S = TypeVar("S")
What = Literal["started", "died", "unhealthy", "not started", "stopped"]


class Event(msgspec.Struct, frozen=True):
    """Something that the supervisor tells: about which unit, what, and why."""

    unit: str
    what: What
    detail: str = ""


class Unit(Protocol):
    """What can be supervised: PostgreSQL, NATS, a service. Its `start` may be called again after its end."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def is_running(self) -> bool: ...

    async def start(self) -> None:
        """Return when it serves. Raises LocalStackError, in a sentence."""

    async def wait(self) -> None:
        """Return when it has ended."""

    async def is_healthy(self) -> bool: ...

    def last_words(self) -> str:
        """How it ended, as far as is known: its exit code or signal."""

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...


class ServiceProcess:
    """One service as a child process: `recourse serve <name>`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        port: int,
        environment: Mapping[str, str],
        command: Sequence[str | Path] | None = None,
    ) -> None:
        self.name = name
        self.port = claim_port(port, name)
        self._log = folder / "logs" / f"{name}.log"
        # Only what it needs is added: a service never sees another's secrets.
        self.environment = {**os.environ, **environment}
        self.command = command or [sys.executable, "-m", "services.cli", "serve", name]
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def log(self) -> Path:
        return self._log

    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    async def start(self, seconds: float = 60.0) -> None:
        """Return when the process answers; whether it can work yet is told by `not_ready`."""
        if self.is_running():
            return
        claim_port(self.port, self.name)
        self._child = Child(
            self.command,
            log=self._log,
            death_signal=signal.SIGKILL,  # a service loses nothing by it, and a hanging one goes too
            environment=self.environment,
        )
        end = time.monotonic() + seconds
        while not await self.is_healthy():
            if self._child.returncode is not None:
                reason = self._child.log_tail(1) or f"exit code {self._child.returncode}"
                raise ServerStartError(f"{self.name} did not start: {reason} (more in {self._log})")
            if time.monotonic() > end:
                await self.kill()
                raise ServerStartError(f"{self.name} did not answer after {seconds:.0f} s; its log is {self._log}")
            await asyncio.sleep(0.05)

    async def is_healthy(self) -> bool:
        return (await get(self.port, "/livez")).status == 200

    def last_words(self) -> str:
        return "" if self._child is None else self._child.last_words()

    async def not_ready(self) -> str:
        """Why it cannot work yet, in the words of its readiness page; empty when it can."""
        answer = await get(self.port, "/readyz")
        return "" if answer.status == 200 else answer.body.decode(errors="replace") or "it does not answer"

    async def wait(self) -> None:
        if self._child is not None:
            await self._child.wait()

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, 15.0)

    async def kill(self) -> None:
        if self._child is not None:
            self._child.send(signal.SIGKILL)
            await self._child.wait()


class Supervisor:
    """Keeps units running from `add` until the block ends, then stops them in reverse order, those added together at once.

    A unit that ends is started again with growing delays; so is one that runs and has not been healthy for a while.
    """

    def __init__(self, tell: Callable[[Event], object] = lambda _: None) -> None:
        self._tell = tell
        self._units: dict[str, Unit] = {}
        self._groups: list[list[Unit]] = []  # in the order of their start; members of one do not need each other
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._held: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        self._watchers.clear()
        for group in reversed(self._groups):
            await asyncio.gather(*(self._stop(unit) for unit in group))

    async def _stop(self, unit: Unit) -> None:
        await unit.stop()
        self._tell(Event(unit.name, "stopped"))

    async def add(self, unit: Unit) -> None:
        """Start a unit and watch it from now on. Raises LocalStackError if it does not start the first time."""
        self._groups.append([unit])
        await self._add(unit)

    async def _add(self, unit: Unit) -> None:
        self._units[unit.name] = unit
        await unit.start()
        self._tell(Event(unit.name, "started"))
        self._watchers[unit.name] = asyncio.create_task(self._watch(unit), name=f"watch {unit.name}")

    async def add_together(self, units: Sequence[Unit]) -> None:
        """Start several units that do not need each other, all at once; in the end they are stopped together, too."""
        self._groups.append(list(units))
        results = await asyncio.gather(*(self._add(unit) for unit in units), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def unit(self, name: str) -> Unit:
        return self._units[name]

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[Unit]:
        """Within the block the unit is not started again, whatever happens to it: for faults that need it down."""
        self._held.add(name)
        try:
            yield self._units[name]
        finally:
            self._held.discard(name)

    async def wait_ready(self, seconds: float = 60.0) -> None:
        """Return when every service says that it can work. Raises ServerStartError with the reasons of the others."""
        end = time.monotonic() + seconds
        waiting = {name: "" for name, unit in self._units.items() if isinstance(unit, ServiceProcess)}
        while waiting:
            for name in list(waiting):
                unit = self._units[name]
                assert isinstance(unit, ServiceProcess)
                waiting[name] = await unit.not_ready()
                if not waiting[name]:
                    del waiting[name]
            if waiting and time.monotonic() > end:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
                raise ServerStartError(f"Not ready after {seconds:.0f} s: {reasons}")
            if waiting:
                await asyncio.sleep(0.05)

    async def _watch(self, unit: Unit) -> None:
        delay = FIRST_DELAY
        while True:
            since = time.monotonic()
            what = await self._ended(unit)
            if time.monotonic() - since > STEADY_SECONDS:
                delay = FIRST_DELAY
            self._tell(Event(unit.name, what, unit.last_words()))
            while not unit.is_running() or what == "unhealthy":
                await asyncio.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY)
                if unit.name in self._held:
                    delay = FIRST_DELAY
                    continue
                if unit.is_running() and what == "died":
                    break  # whoever held it has started it during the pause
                try:
                    await unit.kill()  # what hangs would not hear a request
                    await unit.stop()  # lets go of what the dead one held
                    what = "died"
                    await unit.start()
                except (LocalStackError, OSError) as failure:
                    self._tell(Event(unit.name, "not started", str(failure)))
                else:
                    self._tell(Event(unit.name, "started"))

    async def _ended(self, unit: Unit) -> What:
        """Return when the unit has ended, or runs and has been unhealthy for too long."""
        ended = asyncio.create_task(unit.wait())
        try:
            looks = 0
            while True:
                await asyncio.wait([ended], timeout=HEALTH_SECONDS)
                if ended.done():
                    return "died"
                looks = 0 if unit.name in self._held or await unit.is_healthy() else looks + 1
                if looks >= UNHEALTHY_LOOKS:
                    return "unhealthy"
        finally:
            ended.cancel()


class _Server(uvicorn.Server):
    """A server among several in one loop: signals are for whoever runs them all."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Endpoint(msgspec.Struct, frozen=True):
    """An ASGI application and where it answers."""

    app: Any
    port: int
    host: str = LOOPBACK


@contextlib.asynccontextmanager
async def serving(name: str, endpoint: Endpoint, stop_seconds: float = 10.0) -> AsyncIterator[None]:
    """Serve one application inside this loop for as long as the block lasts.

    Raises ServerStartError when its start-up fails, and cancels the block with that error should it end by itself.
    """
    server = _Server(
        uvicorn.Config(
            endpoint.app,
            host=endpoint.host,
            port=endpoint.port,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, int(stop_seconds)),
        )
    )

    async def serve() -> None:
        try:
            await server.serve()
        except SystemExit as failure:  # how uvicorn says that it could not start
            raise ServerStartError(f"{name} did not start; the log says why.") from failure
        if not server.should_exit:
            raise ServerStartError(f"{name} ended by itself; the log says why.")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(), name=f"serve {name}")
        while not server.started:  # noqa: ASYNC110 - uvicorn tells its start by a flag alone
            # The group ends this wait if the start fails.
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            server.should_exit = True
            await asyncio.wait([task])  # or the group would cancel it in the middle of its ending


async def run_services(
    names: Sequence[str],
    settings: S,
    build: Callable[[str, S], Endpoint],
    *,
    stop: asyncio.Event,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run services inside this process until `stop` is set: started in the order given, stopped in the reverse.

    Args:
        build: makes the application of one service; its lifespan holds the service's consumers and loops.
        ready: awaited once all of them serve.

    Raises ServerStartError when one does not start, or ends by itself; the others are stopped first.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            for name in names:
                await stack.enter_async_context(serving(name, build(name, settings)))
            if ready is not None:
                await ready()
            await stop.wait()
    except ExceptionGroup as failures:
        raise _first(failures) from failures


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    """The cause that a person should see, however many groups are around it."""
    failure: Exception = failures
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    return failure


@contextlib.contextmanager
def stop_on_signals(*numbers: int) -> Iterator[asyncio.Event]:
    """An event that is set by Ctrl-C and by the usual requests to end; the signals do nothing else within the block."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = numbers or (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)

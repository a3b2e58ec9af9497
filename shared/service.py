"""One service: an HTTP application, consumers, loops, a relay, and their orderly start and stop.

A service says what it is made of in a `ServiceSpec`; `build` makes a `Service` of it. Handlers ask for `caller`, `tx`
and `runtime` by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import structlog
from litestar import Litestar, Request, Response, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send

from shared import VERSION, dead_letters, housekeeping, migrations, problems
from shared.api_document import described
from shared.auth import Caller, check_guarded, public
from shared.body import RecourseRequest
from shared.consuming import Consumer
from shared.database import Database, Tx, UnsafeServerError, dsn_for, is_outage
from shared.errors import MalformedError
from shared.express import Express
from shared.messages.base import LIVE
from shared.messaging import Messaging
from shared.rate_limit import RateLimiter
from shared.reference import Reference
from shared.relay import Relay
from shared.settings import ServiceSettings
from shared.telemetry import Metrics, Watch, continued_trace, describe
from shared.time_source import DatabaseTime, TimeSource
from shared.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

S = TypeVar("S", bound=ServiceSettings)

LOOP_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class Runtime(Generic[S]):
    """What everything in a service may use."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.service = settings.service
        self.metrics = Metrics(settings.service)
        self.db = Database(settings)
        self.nats = Messaging(settings, self.metrics)
        self.reference = Reference(self.db)
        self.time: TimeSource = DatabaseTime(self.db)
        self.parts: dict[str, Any] = {}  # what a service keeps for itself, filled by `on_start`
        self._loops: dict[str, Loop] = {}

    def wake(self, loop: str) -> None:
        """Start the next round of a loop now. Call it after the commit: `tx.after_commit(lambda: runtime.wake("wake-ups"))`."""
        found = self._loops.get(loop)
        if found is not None:
            found.wake()


class Loop:
    """Work in rounds. `step` does one round and returns the seconds to rest before the next: 0 for at once, None for `idle_seconds`.

    A round that raises is logged, counted and tried again with growing rests. Loops run on every replica, so a round takes its rows with
    `FOR UPDATE SKIP LOCKED`, or asks `runtime.db` for a lock.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[float | None]], idle_seconds: float = 1.0) -> None:
        self.name = name
        self._step = step
        self._idle_seconds = idle_seconds
        self._woken = asyncio.Event()
        self.failing_since: float | None = None

    def wake(self) -> None:
        self._woken.set()

    async def run(self, runtime: Runtime[Any]) -> None:
        log = structlog.get_logger().bind(service=runtime.service, loop=self.name)
        failures = 0
        while True:
            self._woken.clear()
            try:
                with continued_trace(None):
                    rest = await self._step()
                rest = self._idle_seconds if rest is None else rest
                failures, self.failing_since = 0, None
                runtime.metrics.loop_rounds.labels(runtime.service, self.name, "done").inc()
            except Exception as error:
                failures += 1
                rest = LOOP_BACK_OFF[min(failures, len(LOOP_BACK_OFF)) - 1]
                self.failing_since = self.failing_since or time.monotonic()
                runtime.metrics.loop_rounds.labels(runtime.service, self.name, "failed").inc()
                log.warning("loop_failed", failures=failures, **describe(error))
                await asyncio.sleep(rest)
                continue
            if rest > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._woken.wait()
            else:
                await asyncio.sleep(0)


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a service is made of.

    Args:
        name: intake, routing, sla, notify or reporting.
        route_handlers: Litestar handlers, controllers or routers; their paths begin with /v1/.
        consumers: made when the runtime exists; `runtime.reference.consumers(name)` keeps the copies of reference data.
        loops: likewise.
        on_start: called with both pools open, before anything is served; what it opens, `on_stop` closes.
        prepare: what `on_start` leaves to be done with the database; done again when the database fails it.
    """

    name: str
    route_handlers: Sequence[ControllerRouterHandler] = ()
    consumers: Callable[[Runtime[Any]], Sequence[Consumer]] = lambda _: ()
    loops: Callable[[Runtime[Any]], Sequence[Loop]] = lambda _: ()
    on_start: Callable[[Runtime[Any]], Awaitable[None]] | None = None
    prepare: Callable[[Runtime[Any]], Awaitable[object]] | None = None
    on_stop: Callable[[Runtime[Any]], Awaitable[None]] | None = None
    description: str = ""


class Reason(msgspec.Struct, frozen=True):
    """Why a service is not ready, and what to do about it."""

    what: str
    do: str


class Readiness(msgspec.Struct, frozen=True):
    service: str
    ready: bool
    reasons: list[Reason]  # of not being ready
    notes: list[Reason]  # what is impaired although requests are served


class StartError(Exception):
    """The service cannot start; the sentence says why and what to do."""


class Service:
    """A service that can be started, served and stopped. `app` is the ASGI application; it may be served before `start` has ended."""

    def __init__(self, spec: ServiceSpec, settings: ServiceSettings) -> None:
        self.spec = spec
        self.settings = settings
        self.runtime: Runtime[Any] = Runtime(settings)
        self.relay = Relay(self.runtime.db, self.runtime.nats, self.runtime.metrics)
        self.consumers: list[Consumer] = list(spec.consumers(self.runtime))
        self.loops: list[Loop] = [*spec.loops(self.runtime), *self._own_loops()]
        self.runtime._loops = {loop.name: loop for loop in self.loops}
        self.litestar = self._application()
        check_guarded(self.litestar)
        self.app: ASGIApp = Watch(_Gate(Express(self.litestar, self.runtime, self.litestar)), self.runtime.metrics)
        self._traces: TracerProvider | None = None
        self.dead_letters = 0  # given up and not looked at, as of a few seconds ago
        self._openapi: dict[str, Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self._stopping = False

    # -- life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the database, check it, run `on_start` and `prepare`, and set everything going. NATS may come later.

        Raises StartError when the database is unsafe, newer or not migrated, or does not answer within `start_seconds`.
        """
        with structlog.contextvars.bound_contextvars(service=self.spec.name):
            if self.settings.otlp_endpoint is not None:
                self._traces = start_tracing(self.spec.name, self.settings.otlp_endpoint, self.settings.trace_share)
            await self._patiently(self._open_database)
            if self.spec.on_start is not None:
                await self.spec.on_start(self.runtime)
            if self.spec.prepare is not None:
                await self._patiently(functools.partial(self.spec.prepare, self.runtime))
            self._go("nats", self.runtime.nats.connect())
            self._go("relay", self.relay.run())
            for consumer in self.consumers:
                self._go(consumer.name, consumer.run(self.runtime.db, self.runtime.nats, self.runtime.metrics))
            for loop in self.loops:
                self._go(loop.name, loop.run(self.runtime))
            self._started = True
            structlog.get_logger().info("service_started")

    async def stop(self) -> None:
        """Stop taking messages, let transactions in hand end, give back what was not begun, close everything."""
        self._stopping = True
        with structlog.contextvars.bound_contextvars(service=self.spec.name):
            await asyncio.gather(*(consumer.stop() for consumer in self.consumers))
            # Once is not enough: wait_for, here and inside the NATS client, loses a cancellation that comes together with its result.
            running = set(self._tasks)
            while running:
                for task in running:
                    task.cancel()
                _, running = await asyncio.wait(running, timeout=0.2)
            await asyncio.gather(
                *self._tasks, return_exceptions=True
            )  # they have ended; whatever they raised was logged
            self._tasks.clear()
            if self.spec.on_stop is not None:
                await self.spec.on_stop(self.runtime)
            await self.runtime.nats.close()
            await self.runtime.db.close()
            if self._traces is not None:
                stop_tracing(self.spec.name)
                await asyncio.to_thread(self._traces.shutdown)
            structlog.get_logger().info("service_stopped")

    def openapi(self) -> dict[str, Any]:
        """Return the service's part of the OpenAPI 3.1 document."""
        if self._openapi is None:
            self._openapi = described(self.litestar)
        return self._openapi

    async def readiness(self) -> Readiness:
        """Ready: requests are answered. Without NATS they are, since PostgreSQL is the record; then a note says so."""
        reasons: list[Reason] = []
        notes: list[Reason] = []
        if self._stopping:
            reasons.append(Reason("The service is stopping.", "Send requests to another replica."))
        elif not self._started:
            reasons.append(Reason("The service is starting.", "Wait; its log says what it waits for."))
        else:
            try:
                async with asyncio.timeout(self.settings.command_seconds), self.runtime.db.api_tx(LIVE) as tx:
                    await tx.fetchval("SELECT 1")
            except Exception as error:
                reasons.append(
                    Reason(
                        f"PostgreSQL does not answer ({type(error.__cause__ or error).__name__}).",
                        "Check that it runs, that RECOURSE_DATABASE_URL leads to it, and how many connections it has.",
                    )
                )
        if self.runtime.nats.unsafe:
            notes.append(Reason(self.runtime.nats.unsafe, "Set jetstream { sync_interval: always } and restart NATS."))
        elif not self.runtime.nats.is_connected:
            notes.append(
                Reason(
                    "NATS is not connected: messages wait in the outbox.",
                    "Check that it runs, and RECOURSE_NATS_URL with its password.",
                )
            )
        if self.relay.failing_since is not None and time.monotonic() - self.relay.failing_since > 30:
            notes.append(
                Reason(
                    "Publishing has failed for more than 30 s.",
                    "Look at the disk of NATS; after a write error it must be restarted.",
                )
            )
        notes += [
            Reason(f"Consumer {each.name} {each.problem}.", "If it lasts, check NATS and the producing service.")
            for each in self.consumers
            if each.problem is not None
        ]
        if self.dead_letters:
            notes.append(
                Reason(
                    f"{self.dead_letters} messages were given up.",
                    "Look at them with `recourse dlq list`, then retry or discard them.",
                )
            )
        now = time.monotonic()
        notes += [
            Reason(f"Loop {each.name} has been failing for {now - each.failing_since:.0f} s.", "Its log says why.")
            for each in self.loops
            if each.failing_since is not None and now - each.failing_since > 10
        ]
        return Readiness(self.spec.name, not reasons, reasons, notes)

    async def _patiently(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do some work, and again while the database fails it, for up to `start_seconds`."""
        until = time.monotonic() + self.settings.start_seconds
        while True:
            try:
                await work()
                return
            except Exception as outage:
                if not is_outage(outage):
                    raise
                if time.monotonic() > until:
                    raise StartError(
                        f"PostgreSQL does not answer ({type(outage).__name__}): check that it runs and RECOURSE_DATABASE_URL."
                    ) from outage
                structlog.get_logger().info("database_awaited", **describe(outage))
                await asyncio.sleep(0.5)

    async def _open_database(self) -> None:
        name = self.spec.name
        try:
            await self.runtime.db.open()
            missing = await migrations.pending(
                dsn_for(self.settings.database_url, f"{name}_worker", self.settings.worker_password), name
            )
            if missing:
                raise StartError(f"The database lacks {len(missing)} migrations of {name}: run `recourse migrate`.")
        except Exception as failure:
            await self.runtime.db.close()
            if isinstance(failure, UnsafeServerError | migrations.MigrationError):
                raise StartError(str(failure)) from failure
            raise

    def _go(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"{self.spec.name} {name}"))

    def _own_loops(self) -> list[Loop]:
        by_name = {consumer.name: consumer for consumer in self.consumers}

        async def retry() -> float | None:
            return 0 if await dead_letters.retry_round(self.runtime.db, by_name) else None

        async def count() -> float | None:
            async with self.runtime.db.worker_tx(LIVE) as tx:
                self.dead_letters = await dead_letters.count_letters(tx)
            self.runtime.metrics.dead_letters_waiting.labels(self.spec.name).set(self.dead_letters)
            return None

        async def prune() -> float | None:
            return 0.05 if await housekeeping.prune(self.runtime.db, self.runtime.metrics) else None

        return [
            Loop(
                "dead-letters", retry, idle_seconds=5.0
            ),  # woken by a request here; another replica's is found by looking
            Loop("dead-letter-count", count, idle_seconds=15.0),
            Loop("housekeeping", prune, idle_seconds=housekeeping.REST_SECONDS),
        ]

    # -- HTTP --------------------------------------------------------------------------------------------------------------

    def _application(self) -> Litestar:
        limiter = RateLimiter()
        return Litestar(
            route_handlers=[
                *self.spec.route_handlers,
                *dead_letters.routes(self.spec.name, self.runtime.db, lambda: self.runtime.wake("dead-letters")),
                *self._watching_routes(),
            ],
            dependencies={
                "caller": Provide(_caller, sync_to_thread=False),
                "runtime": Provide(self._runtime, sync_to_thread=False),
                "tx": Provide(self._tx),
            },
            exception_handlers={HTTPException: problems.handle, Exception: problems.handle},
            request_class=RecourseRequest,
            request_max_body_size=self.settings.max_body_bytes,
            state=State({"authenticator": _Authenticator(self.runtime.reference, limiter)}),
            tags=[self.spec.name],
            openapi_config=OpenAPIConfig(
                title=f"Recourse {self.spec.name}",
                version=VERSION,
                description=self.spec.description or None,
                render_plugins=[JsonRenderPlugin()],
                openapi_router=Router(path="/openapi", route_handlers=[], guards=[public("no data")]),
                use_handler_docstrings=True,
                components=Components(
                    security_schemes={"key": SecurityScheme(type="http", scheme="bearer", bearer_format="rk_…")}
                ),
                security=[{"key": []}],
                servers=[Server(url="/")],
            ),
            logging_config=None,
            signature_types=[Caller, Tx, Runtime],
        )

    def _runtime(self) -> Runtime[Any]:
        return self.runtime

    async def _tx(self, caller: NamedDependency[Caller]) -> AsyncIterator[Tx]:
        """One transaction of the caller's tenant; committed before the answer is sent, rolled back when the handler raises."""
        async with self.runtime.db.api_tx(caller.tenant_id) as tx:
            yield tx

    def _watching_routes(self) -> list[HTTPRouteHandler]:
        @get("/livez", guards=[public("no data")], include_in_schema=False, sync_to_thread=False)
        def livez() -> dict[str, str]:
            return {"service": self.spec.name, "alive": "yes"}

        @get("/readyz", guards=[public("no data")], include_in_schema=False)
        async def readyz() -> Response[Readiness]:
            found = await self.readiness()
            return Response(found, status_code=200 if found.ready else 503)

        @get("/metrics", guards=[public("figures without tenants")], include_in_schema=False, sync_to_thread=False)
        def metrics() -> Response[bytes]:
            return Response(self.runtime.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

        @get("/openapi.json", guards=[public("no data")], include_in_schema=False, sync_to_thread=False)
        def openapi() -> dict[str, Any]:
            return self.openapi()

        return [livez, readyz, metrics, openapi]


def build(spec: ServiceSpec, settings: ServiceSettings) -> Service:
    """Return the service, not started yet. UnguardedRouteError when a route says nothing about who may call it."""
    return Service(spec, settings)


class _Authenticator:
    def __init__(self, reference: Reference, limiter: RateLimiter) -> None:
        self._reference, self._limiter = reference, limiter

    async def authenticate(self, key: str) -> Caller:
        return await self._reference.authenticate(key)

    def admit(self, caller: Caller) -> None:
        self._limiter.take(caller.tenant_id, caller.limits.requests_per_second, caller.limits.burst)


def _caller(request: Request[Any, Any, Any]) -> Caller:
    caller: Caller = request.scope["state"]["caller"]
    return caller


class _Gate:
    """Refuses, before any routing, what no route could read: NUL in a path or a query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (  # type: ignore[comparison-overlap]  # Litestar types it as its enum
            "\x00" in scope["path"] or b"%00" in scope["query_string"]
        ):
            answer = problems.response(MalformedError("The address holds the character NUL."))
            await answer.to_asgi_response(None, Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

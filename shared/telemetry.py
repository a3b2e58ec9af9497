"""Logs, metrics and trace context. Logs are JSON lines with allow-listed fields only, so nothing personal can slip in
by being passed along.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import asyncpg
import msgspec
import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shared.errors import DomainError, NotYetError
from shared.tracing import continued_trace, trace_id, traceparent

_FIELDS: set[str] = {
    "event", "level", "timestamp", "logger", "service", "tenant_id", "complaint_id", "case_id", "message_id",
    "credential_id", "dead_letter_id", "consumer", "stream", "subject", "loop", "worker", "rule", "clause", "kind",
    "state", "status", "method", "route", "seconds", "count", "batch", "attempts", "failures", "begun", "seq",
    "version", "revision", "reason", "error", "error_class", "where", "sqlstate", "constraint", "trace_id",
    "number", "due_at", "wake_at", "at", "port", "host", "role", "origin", "name", "added", "removed", "published",
    "resent", "holes", "last_seq", "slug", "channel", "provider", "source", "delivery_id", "webhook_id",
    "operation_id", "step", "size", "limit", "lag_seconds", "signal", "pid", "policy_version", "effect",
    "addressed", "row", "rows", "line"
}  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent
_OURS = f"{_ROOT}/"

__all__ = [
    "Metrics",
    "Watch",
    "allow",
    "configure",
    "continued_trace",
    "describe",
    "error_text",
    "trace_id",
    "traceparent",
    "without_values",
]

log = structlog.get_logger()


def configure(service: str | None = None, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up JSON logs for this process, on stderr or on another stream. In an all-in-one process each service binds its own name."""
    threshold = {"debug": 10, "info": 20, "warning": 30, "error": 40}[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: msgspec.json.encode(value).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries log quotes what they were given, so only their names and levels are let through.
    root = logging.getLogger()
    root.handlers = [_Quiet()]
    root.setLevel(logging.WARNING)
    if service is not None:
        structlog.contextvars.bind_contextvars(service=service)
    global _answers
    _answers = _Answers(stream or sys.stderr) if threshold <= logging.INFO else None


def allow(*fields: str) -> None:
    """Let further fields into the log; only for values that can never be personal data or free text."""
    _FIELDS.update(fields)


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The line of one request; nothing else gets into it."""

    service: str
    method: str
    route: str
    status: int
    seconds: float
    trace_id: str | None
    tenant_id: UUID | None
    event: str = "request_answered"
    level: str = "info"
    timestamp: datetime


class _Answers:
    """Writes the lines of requests: those of one turn of the event loop together, past the chain that all other lines go through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()

    def add(self, line: _Answered) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._write)
        self._encoder.encode_into(line, self._lines, -1)
        self._lines += b"\n"

    def _write(self) -> None:
        text = self._lines.decode()
        self._lines.clear()
        self._stream.write(text)
        self._stream.flush()


_answers: _Answers | None = None


def _only_allowed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in event.items():
        if name in _FIELDS:
            kept[name] = value if value is None or isinstance(value, bool | int | float) else str(value)[:500]
        else:
            kept.setdefault("dropped", []).append(name)
    return kept


class _Quiet(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().warning(
            "library_warned",
            logger=record.name,
            level=record.levelname.lower(),
            **(describe(error) if error is not None else {}),
        )


def describe(error: BaseException) -> dict[str, Any]:
    """Return what may be said of an error in a log, a dead letter or an answer: class, place and codes.

    Texts of PostgreSQL, msgspec and the standard library quote the value they are about, so they stay out; those of our own refusals are
    written without personal data and stay in.
    """
    said: dict[str, Any] = {"error_class": type(error).__name__}
    if isinstance(error, asyncpg.PostgresError):
        said["sqlstate"] = error.sqlstate
        if error.constraint_name:
            said["constraint"] = error.constraint_name
        said["error"] = " ".join(filter(None, ("SQLSTATE", error.sqlstate, error.constraint_name)))
    elif isinstance(error, DomainError | NotYetError) or type(error).__module__.startswith(("shared.", "services.")):
        said["error"] = str(error)[:500]
    elif isinstance(error, msgspec.ValidationError):
        said["error"] = without_values(str(error))
    elif isinstance(error, msgspec.DecodeError):
        said["error"] = str(error)  # the place of the mistake, no value
    # Not `extract_tb`, which reads the lines of source as well: a message that waits for another is no rarity.
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if frames:
        ours = [each for each in frames if each[0].startswith(_OURS) and "site-packages" not in each[0]] or frames
        said["where"] = " < ".join(f"{_module(file)}:{line}" for file, line in reversed(ours[-4:]))
    return said


def error_text(error: BaseException) -> str:
    """Return one line for a dead letter: what `describe` says."""
    said = describe(error)
    return (
        f"{said.get('error', said['error_class'])} ({said['where']})"
        if "where" in said
        else str(said.get("error", said["error_class"]))
    )


def without_values(text: str) -> str:
    """Return msgspec's message without the value it quotes: "Invalid enum value 'x' - at `$.kind`" loses the 'x'.

    A pattern is no value: it says what would fit.
    """
    return re.sub(r"(?<!matching regex )'[^']*'", "'…'", text)[:300]


def _module(filename: str) -> str:
    return filename.removeprefix(_OURS) if filename.startswith(_OURS) else filename.rpartition("/")[2]


# -- metrics ---------------------------------------------------------------------------------------------------------


class Metrics:
    """One registry per service, so that several can live in one process. Services add their own with `counter`, `gauge`, `histogram`."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self.http_requests = self.counter("http_requests", "Requests answered.", "method", "route", "status")
        self.http_seconds = self.histogram("http_seconds", "Time to the answer.", "route")
        self.messages = self.counter("messages", "Messages by outcome.", "consumer", "outcome")
        self.message_seconds = self.histogram(
            "message_batch_seconds", "Time of one transaction of messages.", "consumer"
        )
        self.consumer_backlog = self.gauge(
            "consumer_backlog", "Messages not yet delivered to the consumer.", "consumer"
        )
        self.dead_letters = self.counter("dead_letters", "Messages given up.", "consumer", "reason")
        self.dead_letters_waiting = self.gauge("dead_letters_waiting", "Messages given up and not resolved.")
        self.outbox_waiting = self.gauge("outbox_waiting", "Messages in the outbox that are not published.")
        self.outbox_oldest_seconds = self.gauge("outbox_oldest_seconds", "Age of the oldest of them.")
        self.outbox_published = self.counter("outbox_published", "Messages published.", "way")
        self.outbox_repaired = self.counter(
            "outbox_repaired", "Messages published again because the stream had lost them."
        )
        self.loop_rounds = self.counter("loop_rounds", "Rounds of background loops.", "loop", "outcome")
        self.housekeeping_rows = self.counter("housekeeping_rows", "Rows removed by age.", "table")
        self.nats_connected = self.gauge("nats_connected", "1 while connected to NATS.")

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"recourse_{name}", text, ("service", *labels), registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"recourse_{name}", text, ("service", *labels), registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"recourse_{name}", text, ("service", *labels), registry=self.registry)

    def render(self) -> bytes:
        """Return the Prometheus text format."""
        return generate_latest(self.registry)


# -- one middleware for log, metrics and trace --------------------------------------------------------------------------


class Watch:
    """ASGI middleware: continues the caller's trace, counts, measures, and writes one line per request; no bodies, headers or query."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # type: ignore[comparison-overlap]  # Litestar types it as its enum
            await self._app(scope, receive, send)
            return
        incoming = None
        for name, value in scope["headers"]:
            if name == b"traceparent":
                incoming = value.decode("latin-1")
                break
        began = time.perf_counter()
        status = 500
        with continued_trace(
            incoming, f"{scope.get('method')} request", service=self._metrics.service, kind="server"
        ) as trace:

            async def told(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message.get("headers", []), (b"traceresponse", trace.encode())]
                await send(message)

            try:
                await self._app(scope, receive, told)
            finally:
                self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: Any, status: int, seconds: float) -> None:
        handler = scope.get("route_handler")
        route = scope.get("path_template") or ("unknown" if handler is None else next(iter(sorted(handler.paths)), "/"))
        service = self._metrics.service
        counted = self._counted.get((scope["method"], route, status))
        if counted is None:  # as few as there are routes and kinds of answers
            counted = self._counted[scope["method"], route, status] = (
                self._metrics.http_requests.labels(service, scope["method"], route, str(status)),
                self._metrics.http_seconds.labels(service, route),
            )
        counted[0].inc()
        counted[1].observe(seconds)
        if route in ("/livez", "/readyz", "/metrics"):
            return
        if _answers is None:
            return
        caller = scope.get("state", {}).get("caller")
        _answers.add(
            _Answered(
                service=service,
                method=scope["method"],
                route=route,
                status=status,
                seconds=round(seconds, 6),
                trace_id=trace_id(),
                tenant_id=caller.tenant_id if caller is not None else None,
                timestamp=datetime.now(UTC),
            )
        )

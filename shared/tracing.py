"""Trace context (W3C) through requests and messages, and OpenTelemetry spans where an exporter is set up.

Without one, a span is two random numbers: enough for logs to be followed across services, and next to free. Spans carry ids and
codes, never texts of errors, which may quote what people wrote.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

Kind = Literal["internal", "server", "consumer"]
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_context: ContextVar[str | None] = ContextVar("traceparent", default=None)
_tracers: dict[str, Tracer] = {}  # by service


def traceparent() -> str | None:
    """Return the current trace context in the form of W3C Trace Context, or None outside any."""
    return _context.get()


def trace_id() -> str | None:
    current = _context.get()
    return current[3:35] if current else None


@contextlib.contextmanager
def continued_trace(
    value: str | None, name: str = "work", *, service: str = "", kind: Kind = "internal", **attributes: str
) -> Iterator[str]:
    """Continue the trace `value`, or begin one, for the block: the trace id stays, the span id is new."""
    tracer = _tracers.get(service)
    if tracer is not None:
        with _exported(tracer, value, name, kind, attributes) as current:
            yield current
        return
    match = _TRACEPARENT.fullmatch(value) if value else None
    if match is None:
        made = os.urandom(24).hex()
        current = f"00-{made[:32]}-{made[32:]}-01"
    else:
        trace = match[1] if match[1] != "0" * 32 else os.urandom(16).hex()
        current = f"00-{trace}-{os.urandom(8).hex()}-{match[3]}"
    token = _context.set(current)
    try:
        yield current
    finally:
        _context.reset(token)


def start_tracing(
    service: str, endpoint: str, share: float = 1.0, exporter: SpanExporter | None = None
) -> TracerProvider:
    """Export the service's spans from now on, over OTLP/HTTP to `endpoint`; `share` of the traces that begin here are taken.

    The caller shuts the provider down at the end, which sends what is left.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create({"service.name": service, "service.namespace": "recourse"}),
        shutdown_on_exit=False,
    )
    if exporter is None:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    _tracers[service] = provider.get_tracer("recourse")
    return provider


def is_exported(service: str) -> bool:
    """Tell whether somebody is told of the service's spans."""
    return service in _tracers


def stop_tracing(service: str) -> None:
    _tracers.pop(service, None)


@contextlib.contextmanager
def _exported(tracer: Tracer, value: str | None, name: str, kind: Kind, attributes: dict[str, str]) -> Iterator[str]:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({"traceparent": value}, Context()) if value else Context()
    span = tracer.start_span(
        name,
        context=parent,
        kind=SpanKind[kind.upper()],
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    )
    found = span.get_span_context()
    current = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
    token = _context.set(current)
    try:
        yield current
    except BaseException as error:
        span.set_attribute("error.type", type(error).__name__)
        raise
    finally:
        _context.reset(token)
        span.end()

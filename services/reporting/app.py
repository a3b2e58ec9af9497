"""Composition root of reporting: what the service is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from services.reporting.api import routes
from services.reporting.handlers import SERVICE, consumers
from services.reporting.loops import Facts
from services.reporting.repository import Book
from services.reporting.settings import ReportingSettings
from shared.consuming import Consumer
from shared.service import Loop, Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import load

FACTS = "facts"


def _facts(runtime: Runtime[Any]) -> Facts:
    settings: ReportingSettings = runtime.settings
    if FACTS not in runtime.parts:
        runtime.parts[FACTS] = Facts(runtime.db, settings.fact_batch, settings.fact_idle_seconds)
    facts: Facts = runtime.parts[FACTS]
    return facts


def _consumers(runtime: Runtime[Any]) -> Sequence[Consumer]:
    settings: ReportingSettings = runtime.settings
    facts = _facts(runtime)

    def wake(tenant_id: UUID) -> None:
        facts.note(tenant_id)
        runtime.wake(FACTS)

    def put_off(seconds: float) -> None:
        if facts.expect(seconds):
            runtime.wake(FACTS)

    return [*runtime.reference.consumers(SERVICE), *consumers(Book(settings.fact_patience_seconds, wake, put_off))]


def _loops(runtime: Runtime[Any]) -> Sequence[Loop]:
    settings: ReportingSettings = runtime.settings
    return [Loop(FACTS, _facts(runtime).step, idle_seconds=settings.fact_idle_seconds)]


SPEC = ServiceSpec(
    name=SERVICE,
    route_handlers=routes,
    consumers=_consumers,
    loops=_loops,
    description="Statistics, reports and exports. What was just stored may not be counted yet: `as_of_seq` says how far it goes.",
)


def build(environ: Mapping[str, str]) -> Service:
    """Return the service as the environment sets it up, not started yet."""
    return build_service(SPEC, load(ReportingSettings, SERVICE, environ))

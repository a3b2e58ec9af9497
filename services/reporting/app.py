"""Composition root of reporting: what the service is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.reporting.api import routes
from services.reporting.handlers import SERVICE, consumers
from services.reporting.loops import refresh_round
from services.reporting.settings import ReportingSettings
from shared.consuming import Consumer
from shared.service import Loop, Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import load


def _consumers(runtime: Runtime[Any]) -> Sequence[Consumer]:
    return [*runtime.reference.consumers(SERVICE), *consumers(lambda: runtime.wake("facts"))]


def _loops(runtime: Runtime[Any]) -> Sequence[Loop]:
    settings: ReportingSettings = runtime.settings

    async def facts() -> float | None:
        return 0 if await refresh_round(runtime.db, settings.fact_batch) else None

    return [Loop("facts", facts, idle_seconds=settings.fact_idle_seconds)]


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

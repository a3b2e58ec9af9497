"""Composition root of routing: what the service is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.routing import answering, parts
from services.routing.api.backtest import WORKERS
from services.routing.api.routes import ROUTE_HANDLERS
from services.routing.handlers import consumers
from services.routing.loops import loops
from services.routing.settings import RoutingSettings
from shared.service import Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import load

SERVICE = "routing"


async def _on_start(runtime: Runtime[Any]) -> None:
    parts.make(runtime)
    await answering.listen(runtime)


async def _on_stop(runtime: Runtime[Any]) -> None:
    workers = runtime.parts.get(WORKERS)
    if workers is not None:
        workers.close()


SPEC = ServiceSpec(
    name=SERVICE,
    route_handlers=ROUTE_HANDLERS,
    consumers=consumers,
    loops=loops,
    on_start=_on_start,
    on_stop=_on_stop,
    description="Cases and their timelines: what happened, whose it is, what may happen next; staff; the test clock of sandboxes.",
)


def build(environ: Mapping[str, str]) -> Service:
    """Return the service as the environment sets it up, not started yet."""
    return build_service(SPEC, load(RoutingSettings, SERVICE, environ))

"""The gateway as a process of its own: `recourse serve gateway`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.gateway.app import over_http
from services.gateway.settings import settings_of
from services.supervisor import Endpoint, serving, stop_on_signals
from shared.embedded.processes import claim_port


async def serve(environ: Mapping[str, str]) -> None:
    """Serve until somebody asks to stop. Raises SettingsError, LocalStackError."""
    settings = settings_of(environ)
    if settings.port:
        claim_port(settings.port, "the gateway")
    gateway = over_http(settings)
    with stop_on_signals() as stop:
        try:
            async with serving("gateway", Endpoint(gateway.app, settings.port, settings.host), settings.stop_seconds):
                await stop.wait()
        finally:
            await gateway.close()


def run(environ: Mapping[str, str]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(environ))

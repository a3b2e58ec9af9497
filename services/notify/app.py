"""The composition root of notify: the only place that puts its parts together."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from services.notify import api
from services.notify.handlers import Handlers
from services.notify.loops import PRUNE_REST_SECONDS, QUEUE_REST_SECONDS, Measuring, Pruning, Resting
from services.notify.parts import Parts
from services.notify.sealing import Sealer
from services.notify.sending import Sender
from services.notify.settings import NotifySettings
from shared.consuming import Consumer
from shared.egress import Egress, EgressRules, openings
from shared.service import Loop, Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import load

FINISH_SECONDS = 5.0


def parts_of(settings: NotifySettings) -> Parts:
    """Return what notify needs beside the runtime. SettingsError, ValueError for settings that do not fit."""
    rules = EgressRules(
        openings=openings(",".join(settings.egress_allow)),
        plain_http=settings.plain_http,
        timeout_seconds=settings.send_seconds,
    )
    return Parts(
        settings=settings,
        sealer=Sealer(*settings.keys()),
        egress=Egress(rules),
        tls=ssl.create_default_context(),
    )


def spec(settings: NotifySettings) -> ServiceSpec:
    """What notify is made of."""
    parts = parts_of(settings)
    made: dict[str, Any] = {}

    def consumers(runtime: Runtime[Any]) -> Sequence[Consumer]:
        runtime.parts["notify"] = parts
        made["handlers"] = runtime.parts["notify-handlers"] = Handlers(runtime)
        made["consumers"] = made["handlers"].consumers()
        return list(made["consumers"])

    def loops(runtime: Runtime[Any]) -> Sequence[Loop]:
        made["sender"] = runtime.parts["notify-sender"] = Sender(runtime)
        return [
            Loop("sender", made["sender"].step),
            Loop("rest", Resting(runtime, made["consumers"]).step),
            Loop("measure", Measuring(runtime).step, idle_seconds=QUEUE_REST_SECONDS),
            Loop("prune", Pruning(runtime).step, idle_seconds=PRUNE_REST_SECONDS),
        ]

    async def on_stop(_: Runtime[Any]) -> None:
        await made["sender"].finish(FINISH_SECONDS)

    return ServiceSpec(
        name="notify",
        route_handlers=api.ROUTES,
        consumers=consumers,
        loops=loops,
        on_stop=on_stop,
        description="Who was told what, when, and whether it arrived.",
    )


def build(environ: Mapping[str, str] = os.environ) -> Service:
    """Return the service, not started yet. SettingsError names what is missing or does not fit."""
    settings = load(NotifySettings, "notify", environ)
    return build_service(spec(settings), settings)

"""Composition root of sla: the only place that puts its parts together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from services.sla import handlers
from services.sla.api import HANDLERS
from services.sla.folding import WAKE_UPS
from services.sla.loops import WakeUps
from services.sla.settings import SlaSettings
from shared.service import Loop, Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import load


def _loops(runtime: Runtime[Any]) -> list[Loop]:
    return [Loop(WAKE_UPS, WakeUps(runtime).step, idle_seconds=1.0)]


SPEC = ServiceSpec(
    name="sla",
    route_handlers=HANDLERS,
    consumers=handlers.consumers,
    loops=_loops,
    description="Deadlines, escalations, penalties: by when, are we late, who pays what, and why.",
)


def build(environ: Mapping[str, str] = os.environ) -> Service:
    """The service from its settings. SettingsError names what is missing."""
    return build_service(SPEC, load(SlaSettings, "sla", environ))

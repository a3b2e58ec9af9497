"""`recourse serve <service>`: one service, or the gateway, as a process."""

from __future__ import annotations

import os
from typing import Literal


def serve(name: Literal["intake", "routing", "sla", "notify", "reporting", "gateway"], /) -> None:
    """Run one service, or the gateway, until it is asked to stop (SIGTERM, Ctrl-C).

    Settings come from the environment, RECOURSE_…; what is missing or does not fit is named. Logs are JSON lines on stderr.
    """
    from shared import telemetry

    telemetry.configure(name)
    if name == "gateway":
        from services.gateway.serving import run as run_gateway

        run_gateway(os.environ)
        return
    from services import composing
    from shared import serving

    serving.run(composing.build(name, os.environ))

"""What the gateway reads from the environment."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from shared.settings import load


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """A field `intake_url` is RECOURSE_INTAKE_URL; the port is RECOURSE_GATEWAY_PORT."""

    service: str
    intake_url: str  # http://host:port
    routing_url: str
    sla_url: str
    notify_url: str
    reporting_url: str
    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    max_body_bytes: int = 12_582_912  # of any request; the services are stricter
    stop_seconds: float = 10.0

    def url(self, service: str) -> str:
        found: str = getattr(self, f"{service}_url")
        return found


def settings_of(environ: Mapping[str, str]) -> GatewaySettings:
    """SettingsError names every variable that is missing or does not fit."""
    return load(GatewaySettings, "gateway", environ)

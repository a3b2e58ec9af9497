"""What notify keeps for itself beside the runtime: made once at start by `app.py`, found under `runtime.parts["notify"]`."""

from __future__ import annotations

import ssl
from uuid import UUID

from msgspec import Struct

from services.notify.sealing import Sealer
from services.notify.settings import NotifySettings
from shared.egress import Egress


class Parts(Struct, frozen=True, kw_only=True):
    settings: NotifySettings
    sealer: Sealer
    egress: Egress
    tls: ssl.SSLContext  # for SMTP; HTTP has its own in egress


def endpoint_place(endpoint_id: UUID) -> str:
    """Where the secrets of an endpoint are sealed."""
    return f"endpoint.sealed|{endpoint_id}"


def provider_place(provider_id: UUID) -> str:
    return f"provider.sealed|{provider_id}"

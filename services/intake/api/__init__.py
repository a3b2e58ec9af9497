"""HTTP edge of intake: decode, call, encode; no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from litestar.types import ControllerRouterHandler

from services.intake.api import complaints, credentials, hooks, imports, publications, sources, tenants, vault

ROUTES: Final[Sequence[ControllerRouterHandler]] = (
    *tenants.ROUTES,
    *credentials.ROUTES,
    *publications.ROUTES,
    *sources.ROUTES,
    *complaints.ROUTES,
    *hooks.ROUTES,
    *imports.ROUTES,
    *vault.ROUTES,
)

"""HTTP edge of intake: decode, call, encode; no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from litestar.handlers import HTTPRouteHandler

from services.intake.api import (
    complaints,
    credentials,
    hooks,
    imports,
    policy_tools,
    publications,
    sources,
    tenants,
    vault,
)

ROUTES: Final[Sequence[HTTPRouteHandler]] = (
    *tenants.ROUTES,
    *credentials.ROUTES,
    *policy_tools.ROUTES,
    *publications.ROUTES,
    *sources.ROUTES,
    *complaints.ROUTES,
    *hooks.ROUTES,
    *imports.ROUTES,
    *vault.ROUTES,
)

"""Which services there are, and how one is made: the step that `recourse serve` and the all-in-one process share."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from shared.embedded.access import SERVICES
from shared.service import Service

__all__ = ["SERVICES", "build"]


def build(name: str, environ: Mapping[str, str]) -> Service:
    """Return a service as the environment sets it up, not started yet. Raises SettingsError.

    Only that service is imported.
    """
    if name not in SERVICES:
        raise ValueError(f"there is no service {name!r}")
    made: Service = import_module(f"services.{name}.app").build(environ)
    return made

"""One OpenAPI document out of five: paths side by side, each operation tagged with its service, schemas kept apart where two
services use one name for different things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared import VERSION

_REF = "#/components/schemas/"

ABOUT = {
    "intake": "Tenants and what they publish, complaints as they come in, and the vault with all personal data.",
    "routing": "Cases and their timelines: what happened, whose it is, what may happen next; staff; test clocks.",
    "sla": "Deadlines, escalations and penalties: by when, are we late, who pays what, and why.",
    "notify": "Who was told what, when, and whether it arrived.",
    "reporting": "Statistics, reports and exports.",
}


def merged(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one document; `documents` by service, in the order in which they are shown. ValueError for a path told twice."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    security: dict[str, Any] = {}
    for service, document in documents.items():
        components = document.get("components", {})
        own = components.get("schemas", {})
        names = _names(service, own, schemas)
        schemas |= {names[name]: _renamed(schema, names) for name, schema in own.items()}
        security |= components.get("securitySchemes", {})
        for path, item in document.get("paths", {}).items():
            if not path.startswith("/v1/"):
                continue  # pages of the service about itself
            if path in paths:
                raise ValueError(f"two services describe {path}")
            paths[path] = _renamed(item, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Recourse",
            "version": VERSION,
            "description": "Complaint handling by each organisation's own rules. Send the API key as a bearer token.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": service, "description": ABOUT.get(service, "")} for service in documents],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": security},
    }


def _names(service: str, own: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """Under which name each schema of a service goes: its own, unless another service's of that name is different."""
    names = {name: name for name in own}
    while True:
        clashing = [
            name
            for name, shown in names.items()
            if shown == name and name in taken and _renamed(own[name], names) != taken[name]
        ]
        if not clashing:
            return names
        # What refers to a renamed schema has changed by that, so it is compared again.
        names |= {name: f"{service.capitalize()}{name}" for name in clashing}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _REF + names.get(item.removeprefix(_REF), item.removeprefix(_REF))
            if key == "$ref" and isinstance(item, str) and item.startswith(_REF)
            else _renamed(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value

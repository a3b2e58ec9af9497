"""The OpenAPI 3.1 document of a service: what Litestar derives from the handlers, with our problems, roles and security put right."""

from __future__ import annotations

from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

from shared.auth import Guard, guards_of

PROBLEM = {
    "type": "object",
    "description": "Why a request was not answered as wished (RFC 9457). Match on `type`.",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "examples": ["/problems/malformed"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "trace_id": {"type": "string", "description": "Of a failure on our side: under this id the log tells more."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "RFC 6901, into the body.",
                        "examples": ["/complainant/phone"],
                    },
                    "detail": {"type": "string"},
                    "suggestion": {"type": "string", "description": "The name that was probably meant."},
                },
            },
        },
    },
}
ANSWERS = {
    "4XX": "The request is refused; nothing of it is kept.",
    "5XX": "A failure on our side. The same request, with the same Idempotency-Key, may be sent again.",
}


def described(app: Litestar) -> dict[str, Any]:
    """Return the document: every operation with problem answers, the roles it is for (`x-roles`), and no key where none is needed."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    guards = _guards(app)
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            operation["responses"].pop("400", None)  # Litestar's own form of an error, which we never send
            for status, meaning in ANSWERS.items():
                operation["responses"][status] = {
                    "description": meaning,
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            guard = guards[path, method.upper()]
            if guard.reason is None:
                operation["x-roles"] = sorted(guard.roles)
            else:
                operation["security"] = []
                operation["x-public"] = guard.reason
    return document


def _guards(app: Litestar) -> dict[tuple[str, str], Guard]:
    return {
        (route.path_format, method): guard
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler)
        for guard in guards_of(handler)
        for method in handler.http_methods
    }

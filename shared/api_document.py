"""The OpenAPI 3.1 document of a service: what Litestar derives from the handlers, with our problems, roles and security put right."""

from __future__ import annotations

import re
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
DONE = {
    "200": "Done: the answer.",
    "201": "Made: what there is now.",
    "202": "Taken, and under way.",
    "204": "Done; there is nothing to say.",
}
ANSWERS = {
    "4XX": "The request is refused; nothing of it is kept.",
    "5XX": "A failure on our side. The same request, with the same Idempotency-Key, may be sent again.",
}


def described(app: Litestar) -> dict[str, Any]:
    """Return the document: every operation with problem answers, the roles it is for (`x-roles`), and no key where none is needed.

    Its summary is the first sentence of the handler's docstring. A handler that reads a body in a form of its own names it: `opt={"body":
    "text/csv"}`.
    """
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    guards, bodies = _guards(app), _bodies(app)
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            operation["summary"] = summary_of(operation.get("description", "")) or operation["summary"]
            if (kind := bodies.get((path, method.upper()))) is not None:
                schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
                operation["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
            for status, answer in operation["responses"].items():
                answer["description"] = DONE.get(status, answer["description"])
                for form, content in answer.get("content", {}).items():
                    if form.startswith("text/") and not content.get("schema"):
                        content["schema"] = {"type": "string"}
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


def summary_of(description: str) -> str:
    """Return what an operation does in one line: the first sentence, without its full stop and what follows a semicolon."""
    sentence = re.split(r"(?<=[.;])\s|\n\s*\n", description.strip(), maxsplit=1)[0]
    return " ".join(sentence.rstrip(".;").replace("`", "").split())


def _bodies(app: Litestar) -> dict[tuple[str, str], str]:
    return {
        (route.path_format, method): handler.opt["body"]
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler) and "body" in handler.opt
        for method in handler.http_methods
    }


def _guards(app: Litestar) -> dict[tuple[str, str], Guard]:
    return {
        (route.path_format, method): guard
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler)
        for guard in guards_of(handler)
        for method in handler.http_methods
    }

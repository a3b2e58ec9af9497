"""What the description of the API says of each operation."""

from __future__ import annotations

from importlib import import_module

import pytest
from litestar.handlers import HTTPRouteHandler

from shared.api_document import summary_of
from shared.embedded.access import SERVICES


@pytest.mark.parametrize(
    ("description", "summary"),
    [
        ("Take a complaint. `Idempotency-Key` is required: …", "Take a complaint"),
        ("Revoke a key, for good; it is refused everywhere within a second.", "Revoke a key, for good"),
        ("`{delivery_id}:retry`: send a dead or failed\n    delivery again.", "{delivery_id}:retry: send a dead or failed delivery again"),
        ("The facts as CSV (RFC 4180, v1.2)", "The facts as CSV (RFC 4180, v1.2)"),
        ("One source\n\nMore of it.", "One source"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_summary_is_the_first_sentence(description: str, summary: str) -> None:
    assert summary_of(description) == summary


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_says_what_it_does(service: str) -> None:
    app = import_module(f"services.{service}.app")
    routes = (
        app.SPEC.route_handlers if hasattr(app, "SPEC") else vars(import_module(f"services.{service}.api")).values()
    )
    handlers = [one for one in routes if isinstance(one, HTTPRouteHandler)]
    assert handlers
    assert [one.operation_id for one in handlers if not summary_of(one.fn.__doc__ or "")] == []

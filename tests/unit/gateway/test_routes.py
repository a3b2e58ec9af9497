"""Every path of every service leads to that service, and to no other."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import pytest
from litestar.routes import HTTPRoute

from services import composing
from services.gateway.description import merged
from services.gateway.routes import route
from shared.service import Service

ENVIRON = {
    "RECOURSE_DATABASE_URL": "postgresql://nowhere/none",
    "RECOURSE_NATS_URL": "nats://nowhere",
    "RECOURSE_MASTER_KEY": base64.b64encode(bytes(32)).decode(),
}


@cache
def service(name: str) -> Service:
    return composing.build(name, ENVIRON)


def paths(name: str) -> list[str]:
    return [each.path for each in service(name).litestar.routes if isinstance(each, HTTPRoute)]


@pytest.mark.parametrize("name", composing.SERVICES)
def test_a_service_is_asked_for_everything_it_answers(name: str) -> None:
    public = [path for path in paths(name) if path.startswith("/v1/")]
    assert len(public) > 5
    elsewhere = {path: found.service if (found := route(path)) else None for path in public}
    assert {path: owner for path, owner in elsewhere.items() if owner != name} == {}


def test_no_path_is_answered_by_two_services() -> None:
    own = [path for name in composing.SERVICES for path in paths(name) if path.startswith("/v1/")]
    assert len(own) == len(set(own))


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v2/cases", "/v1/nothing", "/v1/ops/nobody/x", "v1/cases", "/v1/ops"]
)
def test_what_belongs_to_nobody_is_asked_of_nobody(path: str) -> None:
    assert route(path) is None


def test_requests_are_counted_under_few_forms() -> None:
    forms = {found.form for name in composing.SERVICES for path in paths(name) if (found := route(path))}
    assert len(forms) < 50
    assert not any("{" in form for form in forms)


def test_one_document_describes_them_all() -> None:
    documents = {name: service(name).openapi() for name in composing.SERVICES}
    document = merged(documents)
    assert [tag["name"] for tag in document["tags"]] == list(composing.SERVICES)
    operations = [
        operation
        for item in document["paths"].values()
        for method, operation in item.items()
        if method in ("get", "post", "put", "patch", "delete")
    ]
    assert len(operations) > 80
    assert {tag for operation in operations for tag in operation["tags"]} == set(composing.SERVICES)
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert set(references(document)) <= set(document["components"]["schemas"])


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].removeprefix("#/components/schemas/")] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    return []


def test_schemas_of_one_name_and_different_form_are_kept_apart() -> None:
    def document(kind: str, path: str) -> dict[str, Any]:
        page = {"type": "object", "properties": {"item": {"$ref": "#/components/schemas/Item"}}}
        answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}}}
        return {
            "paths": {path: {"get": {"responses": {"200": answer}}}, "/livez": {}},
            "components": {"schemas": {"Item": {"type": kind}, "Page": page, "Same": {"type": "null"}}},
        }

    found = merged({"one": document("string", "/v1/one"), "two": document("integer", "/v1/two")})
    schemas = found["components"]["schemas"]
    assert set(schemas) == {"Item", "Page", "Same", "TwoItem", "TwoPage"}
    assert schemas["TwoPage"]["properties"]["item"] == {"$ref": "#/components/schemas/TwoItem"}
    shown = found["paths"]["/v1/two"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown == {"$ref": "#/components/schemas/TwoPage"}
    assert "/livez" not in found["paths"]


def test_a_path_that_two_services_describe_is_a_mistake() -> None:
    document: dict[str, Any] = {"paths": {"/v1/x": {}}}
    with pytest.raises(ValueError, match="/v1/x"):
        merged({"one": document, "two": document})

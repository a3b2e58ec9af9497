"""A route answers the same whether it is reached by the short way or by Litestar's."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar, Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from shared import problems
from shared.auth import Caller, requires
from shared.body import RecourseRequest
from shared.errors import ConflictError, TooManyError, UnauthorizedError
from shared.express import Express
from shared.messages.intake import Limits

TENANT = uuid4()


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    times: int = 1


class Granted(Struct, frozen=True):
    text: str
    by: str
    knows: str


class _Authenticator:
    async def authenticate(self, key: str) -> Caller:
        if key not in ("admin", "auditor"):
            raise UnauthorizedError()
        role: Any = key
        return Caller(tenant_id=TENANT, role=role, name=key, credential_id=UUID(int=1), limits=Limits(body_bytes=200))

    def admit(self, caller: Caller) -> None:
        if caller.name == "flooding":
            raise TooManyError(retry_after_seconds=3)


def _wishes(path: str, *, express: bool) -> HTTPRouteHandler:
    @post(path, guards=[requires("admin")], status_code=201, request_max_body_size=300, opt={"express": express})
    async def wish(
        data: JSONBody[Wish],
        request: Request[Any, Any, Any],
        caller: NamedDependency[Caller],
        runtime: NamedDependency[str],
    ) -> Response[Granted]:
        if data.text == "clash":
            raise ConflictError("It clashes.", rule="R1")
        if data.text == "bug":
            raise ZeroDivisionError
        granted = Granted(text=data.text * data.times, by=caller.name, knows=runtime)
        return Response(granted, status_code=201, headers={"Location": request.headers.get("x-place", "")})

    return wish


def _caller(request: Request[Any, Any, Any]) -> Caller:
    caller: Caller = request.scope["state"]["caller"]
    return caller


def _runtime() -> str:
    return "everything"


def _application() -> tuple[Litestar, Express]:
    application = Litestar(
        route_handlers=[_wishes("/v1/short", express=True), _wishes("/v1/long", express=False)],
        dependencies={
            "caller": Provide(_caller, sync_to_thread=False),
            "runtime": Provide(_runtime, sync_to_thread=False),
        },
        exception_handlers={HTTPException: problems.handle, Exception: problems.handle},
        request_class=RecourseRequest,
        state=State({"authenticator": _Authenticator()}),
        openapi_config=None,
        logging_config=None,
        signature_types=[Caller],
    )
    return application, Express(application, "everything", application)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (JSON, b'{"text": "more", "times": 2}', 201),
        ({**JSON, "x-place": "/there"}, b'{"text": "more"}', 201),
        ({"content-type": "application/json; charset=utf-8"}, b'{"text": "more"}', 201),
        (JSON, b'{"text": "clash"}', 409),
        (JSON, b'{"text": "bug"}', 500),
        (JSON, b'{"txet": "more", "times": "2"}', 400),
        (JSON, b'{"text": ', 400),
        (JSON, b'{"text": "a", "text": "b"}', 400),
        (JSON, b"", 400),
        (JSON, b'{"text": "' + b"x" * 250 + b'"}', 413),
        (JSON, b'{"text": "' + b"x" * 350 + b'"}', 413),
        ({"content-type": "text/plain"}, b'{"text": "more"}', 415),
        ({**JSON, "content-encoding": "gzip"}, b'{"text": "more"}', 415),
        ({**JSON, "authorization": "Bearer auditor"}, b'{"text": "more"}', 403),
        ({**JSON, "authorization": "Bearer nobody"}, b'{"text": "more"}', 401),
        ({**JSON, "authorization": "Basic admin"}, b'{"text": "more"}', 401),
    ],
)
async def test_both_ways_answer_the_same(headers: dict[str, str], body: bytes, status: int) -> None:
    _, express = _application()
    transport = httpx.ASGITransport(app=express, raise_app_exceptions=True)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        short, long = [
            await client.post(path, content=body, headers={"authorization": "Bearer admin", **headers})
            for path in ("/v1/short", "/v1/long")
        ]
    assert short.status_code == status
    assert (short.status_code, short.json()) == (long.status_code, long.json())
    assert dict(short.headers) == dict(long.headers)


async def test_other_methods_and_paths_go_on_to_litestar() -> None:
    _, express = _application()
    transport = httpx.ASGITransport(app=express, raise_app_exceptions=True)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/v1/short")).status_code == 405
        assert (await client.post("/v1/nowhere")).status_code == 404


def test_a_route_with_other_arguments_cannot_be_express() -> None:
    @post("/v1/things/{thing:str}", guards=[requires("admin")], opt={"express": True})
    async def thing(thing: FromPath[str]) -> None: ...

    application = Litestar(route_handlers=[thing], openapi_config=None)
    with pytest.raises(ValueError, match="cannot be an express route"):
        Express(application, None, application)

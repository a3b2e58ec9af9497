"""A short way for the few routes that nearly all requests go to.

Between the server and a handler Litestar makes a dozen objects and a task group for each request. A route that says `opt={"express": True}`
is called straight away: guard, body, handler, answer. It stays a route of the application, with the same guard, limits, refusals and
description; only its arguments are few: `data`, `request`, `caller`, `runtime`.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import msgspec
from litestar import Litestar, Response
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from shared import problems
from shared.auth import Guard, guards_of
from shared.body import RecourseRequest

_ARGUMENTS: Final = {"data", "request", "caller", "runtime"}
_JSON: Final = (b"content-type", b"application/json")


class _Lane:
    """One route: what is called, and with what."""

    def __init__(self, path: str, handler: HTTPRouteHandler) -> None:
        wanted = set(inspect.signature(handler.fn).parameters)
        if not wanted <= _ARGUMENTS or "{" in path:
            raise ValueError(f"{path} cannot be an express route: it takes {', '.join(sorted(wanted - _ARGUMENTS))}")
        self.path = path
        self.handler = handler
        self.guard: Guard = guards_of(handler)[0]
        self.wanted = wanted


class Express:
    """ASGI: takes the express routes, and passes everything else on."""

    def __init__(self, application: Litestar, runtime: Any, beyond: ASGIApp) -> None:
        self._application = application
        self._runtime = runtime
        self._beyond = beyond
        self._lanes: dict[tuple[str, str], _Lane] = {}
        for route in application.routes:
            for handler in getattr(route, "route_handlers", ()):
                if isinstance(handler, HTTPRouteHandler) and handler.opt.get("express"):
                    for method in handler.http_methods:
                        self._lanes[str(method), route.path] = _Lane(route.path, handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = self._lanes.get((str(scope.get("method")), scope["path"])) if scope["type"] == "http" else None  # type: ignore[comparison-overlap]
        if lane is None:
            await self._beyond(scope, receive, send)
            return
        whole: Any = scope
        whole["litestar_app"] = self._application
        whole["route_handler"] = lane.handler
        whole["path_template"] = lane.path
        whole["path_params"] = {}
        whole.setdefault("state", {})
        request = RecourseRequest(whole, receive, send)
        try:
            answer = await self._answer(lane, request)
        except Exception as error:
            answer = problems.response(problems.refusal_of(request, error))
        await _send(answer, send)

    async def _answer(self, lane: _Lane, request: RecourseRequest) -> Response[Any]:
        await lane.guard(request, lane.handler)
        arguments: dict[str, Any] = {}
        wanted = lane.wanted
        if "data" in wanted:
            arguments["data"] = await request.json()
        if "request" in wanted:
            arguments["request"] = request
        if "caller" in wanted:
            arguments["caller"] = request.scope["state"]["caller"]
        if "runtime" in wanted:
            arguments["runtime"] = self._runtime
        answer: Response[Any] = await lane.handler.fn(**arguments)
        return answer


async def _send(answer: Response[Any], send: Send) -> None:
    content = answer.content
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    media_type = answer.media_type
    headers.append(_JSON if media_type is None else (b"content-type", str(media_type).encode("latin-1")))
    headers.append((b"content-length", b"%d" % len(body)))
    start: Any = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
    await send(start)
    last: Any = {"type": "http.response.body", "body": body, "more_body": False}
    await send(last)

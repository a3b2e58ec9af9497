"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, Final, cast

import msgspec
import structlog
from litestar.types import ASGIApp
from prometheus_client import CONTENT_TYPE_LATEST

from services.gateway.backends import Backend, OverHttp, Receive, Send
from services.gateway.description import merged
from services.gateway.routes import route
from services.gateway.settings import GatewaySettings
from shared import problems
from shared.embedded.access import SERVICES
from shared.errors import DomainError, NotFoundError, TooLargeError, UnavailableError
from shared.telemetry import Metrics, Watch, describe

_FRESH_SECONDS: Final = 60.0  # how long the merged description is kept
_PAGES: Final = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/docs/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/docs/page.css": ("page.css", "text/css; charset=utf-8"),
}
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_JSON: Final = b"application/json"

Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]


class Gateway:
    """Passes requests on to the service whose path it is. Wrapped in `Watch`, which logs, counts and continues traces."""

    def __init__(self, backends: Mapping[str, Backend], most_body_bytes: int = 12_582_912) -> None:
        self.backends = backends
        self.metrics = Metrics("gateway")
        self._most_body_bytes = most_body_bytes
        self._description: tuple[float, bytes] | None = None
        self._own: dict[str, Callable[[], Awaitable[Answer]]] = {
            "/": _to_the_pages,
            "/livez": _alive,
            "/readyz": self._ready,
            "/metrics": self._figures,
            "/openapi.json": self._openapi,
            **{path: _page(*page) for path, page in _PAGES.items()},
        }

    @property
    def app(self) -> ASGIApp:
        return Watch(cast(ASGIApp, self), self.metrics)

    async def close(self) -> None:
        for backend in self.backends.values():
            await backend.close()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        begun = False

        async def told(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._answer(scope, receive, told)
        except DomainError as refusal:
            if begun:  # half an answer is out; only the broken connection can say so
                raise
            await _send(send, _refused(refusal))
        except Exception as error:
            structlog.get_logger().error("request_failed", service="gateway", **describe(error))
            if begun:
                raise
            await _send(send, _refused(problems.InternalError("The failure has been logged under the trace id.")))

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        own = self._own.get(path)
        if own is not None:
            scope["path_template"] = path
            if scope["method"] not in ("GET", "HEAD"):
                raise problems.MethodNotAllowedError()
            status, body, headers = await own()
            await _send(send, (status, b"" if scope["method"] == "HEAD" else body, headers))
            return
        service, _, of_service = path.removeprefix("/metrics/").partition("/")
        if path.startswith("/metrics/") and not of_service and service in self.backends:
            scope["path_template"] = "/metrics/*"
            scope = {**scope, "path": "/metrics", "raw_path": b"/metrics"}
        else:
            found = route(path)
            scope["path_template"] = "unknown" if found is None else found.form
            if found is None:
                raise NotFoundError()
            service = found.service
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._most_body_bytes:
            raise TooLargeError(f"No request here may have more than {self._most_body_bytes} bytes.")
        await self.backends[service].forward(scope, receive, send)

    async def _ready(self) -> Answer:
        """Ready when every service is; the reasons are the services' own."""
        found = await asyncio.gather(*(backend.get("/readyz") for backend in self.backends.values()))
        services = [
            msgspec.json.decode(body)
            if body
            else {
                "service": name,
                "ready": False,
                "reasons": [{"what": "The service does not answer.", "do": "Start it; its log says why it ended."}],
                "notes": [],
            }
            for name, (_, body) in zip(self.backends, found, strict=True)
        ]
        ready = all(each["ready"] for each in services)
        return _json(200 if ready else 503, {"service": "gateway", "ready": ready, "services": services})

    async def _figures(self) -> Answer:
        return 200, self.metrics.render(), [(b"content-type", CONTENT_TYPE_LATEST.encode())]

    async def _openapi(self) -> Answer:
        """The merged description; a service that is down is described as it was."""
        if self._description is None or time.monotonic() - self._description[0] > _FRESH_SECONDS:
            found = await asyncio.gather(*(backend.get("/openapi.json") for backend in self.backends.values()))
            missing = [name for name, (status, _) in zip(self.backends, found, strict=True) if status != 200]
            if not missing:
                documents = {
                    name: msgspec.json.decode(body) for name, (_, body) in zip(self.backends, found, strict=True)
                }
                self._description = (time.monotonic(), msgspec.json.encode(merged(documents)))
            elif self._description is None:
                raise UnavailableError(f"These services do not answer: {', '.join(missing)}.", retry_after_seconds=2)
        return 200, self._description[1], [(b"content-type", _JSON)]


def over_http(settings: GatewaySettings) -> Gateway:
    """The gateway in front of services that run elsewhere."""
    return Gateway(
        {name: OverHttp(settings.url(name), settings.max_body_bytes) for name in SERVICES}, settings.max_body_bytes
    )


async def _live(receive: Receive, send: Send) -> None:
    """Nothing is opened before the first request, and whoever made the backends closes them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _alive() -> Answer:
    return _json(200, {"service": "gateway", "alive": "yes"})


async def _to_the_pages() -> Answer:
    return 307, b"", [(b"location", b"/docs")]


def _page(file: str, media_type: str) -> Callable[[], Awaitable[Answer]]:
    async def answer() -> Answer:
        content = resources.files("services.gateway").joinpath("pages", file).read_bytes()
        headers = [(b"content-type", media_type.encode()), (b"content-security-policy", _POLICY)]
        return 200, content, headers

    return answer


def _json(status: int, value: Any) -> Answer:
    return status, msgspec.json.encode(value), [(b"content-type", _JSON)]


def _refused(refusal: DomainError) -> Answer:
    response = problems.response(refusal)
    headers = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    return problems.status_of(refusal), response.content, [*headers, (b"content-type", problems.CONTENT_TYPE.encode())]


async def _send(send: Send, answer: Answer) -> None:
    status, body, headers = answer
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""How a request reaches a service: in memory where it runs in this process, else by HTTP over kept connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

import httpcore

from shared import telemetry
from shared.errors import TooLargeError, UnavailableError

Scope = Mapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Any], Any]

_OF_ONE_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
     b"transfer-encoding", b"upgrade", b"proxy-connection")
)  # fmt: skip
"""Headers that concern one connection and go no further. Source: RFC 9110, 7.6.1."""

_CONNECT_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 75.0  # some requests wait up to 60 s for something to happen
_PATIENCE_SECONDS = 3.0  # how long a service that is being restarted is waited for; nothing was sent yet
_STEP_SECONDS: Final = 0.1
_CONNECTIONS: Final = 200  # to one service
_KEPT_SECONDS: Final = 15.0  # less than the services keep an idle connection, so that we never speak into a closing one


class Backend(Protocol):
    """One service, seen from the gateway."""

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request and its answer. UnavailableError when the service does not answer."""

    async def get(self, path: str) -> tuple[int, bytes]:
        """Ask the service something of our own; status 0 when it does not answer."""

    async def close(self) -> None: ...


class InMemory:
    """A service of this process: its application is called."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = {**scope, "headers": _with_trace(scope["headers"]), "state": {}}
        inner.pop("path_template", None)
        await self._app(inner, receive, send)

    async def get(self, path: str) -> tuple[int, bytes]:
        status, body = 0, b""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                body += message.get("body", b"")

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"gateway")],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
        }
        await self._app(scope, receive, send)
        return status, body

    async def close(self) -> None:
        """Nothing is held."""


class OverHttp:
    """A service elsewhere: connections are kept and used again, bodies are passed on as they come."""

    def __init__(self, url: str, most_body_bytes: int) -> None:
        """`url`: http://host:port."""
        base = httpcore.URL(url)
        self._origin = (base.scheme, base.host, base.port)
        self._host = base.host + (b":%d" % base.port if base.port else b"")
        self._most_body_bytes = most_body_bytes
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEPT_SECONDS,
        )

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (name, value)
            for name, value in _with_trace(scope["headers"])
            if name not in _OF_ONE_HOP and name != b"host"
        ]
        headers.append((b"host", self._host))
        names = {name for name, _ in headers}
        has_body = b"content-length" in names or _is_chunked(scope["headers"])
        if has_body and b"content-length" not in names:
            headers.append((b"transfer-encoding", b"chunked"))
        target = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        body = _Body(receive, self._most_body_bytes) if has_body else None
        answer = await self._ask(scope["method"].encode(), target, headers, body)
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [
                        (name.lower(), value) for name, value in answer.headers if name.lower() not in _OF_ONE_HOP
                    ],
                }
            )
            async for chunk in answer.aiter_stream():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await answer.aclose()

    async def get(self, path: str) -> tuple[int, bytes]:
        timeouts = {"connect": _CONNECT_SECONDS, "read": 5.0, "write": 5.0, "pool": 5.0}
        try:
            answer = await self._pool.request(
                b"GET", self._url(path.encode()), headers=[(b"host", self._host)], extensions={"timeout": timeouts}
            )
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            return 0, b""
        return answer.status, answer.content

    async def close(self) -> None:
        await self._pool.aclose()

    def _url(self, target: bytes) -> httpcore.URL:
        scheme, host, port = self._origin
        return httpcore.URL(scheme=scheme, host=host, port=port, target=target)

    async def _ask(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: _Body | None
    ) -> httpcore.Response:
        until = time.monotonic() + _PATIENCE_SECONDS
        timeouts = {"connect": _CONNECT_SECONDS, "read": _ANSWER_SECONDS, "write": 30.0, "pool": 5.0}
        while True:
            request = httpcore.Request(
                method, self._url(target), headers=headers, content=body, extensions={"timeout": timeouts}
            )
            try:
                return await self._pool.handle_async_request(request)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                # Nothing was sent. A service that was killed is back within moments.
                if time.monotonic() > until:
                    raise UnavailableError(
                        "The service that answers this is not running.", retry_after_seconds=2
                    ) from None
                await asyncio.sleep(_STEP_SECONDS)
            except httpcore.PoolTimeout:
                raise UnavailableError(
                    "The service that answers this has too many requests in hand.", retry_after_seconds=1
                ) from None
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
                if method in (b"GET", b"HEAD") and time.monotonic() < until:
                    await asyncio.sleep(_STEP_SECONDS)
                    continue
                # It may have been done. Whoever repeats the request under its Idempotency-Key finds out.
                raise UnavailableError(
                    "The service that answers this broke off; repeat the request with the same Idempotency-Key.",
                    retry_after_seconds=1,
                ) from None


class _Body:
    """The request's body as it comes, cut off where it grows too large."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive = receive
        self._most_bytes = most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise UnavailableError("The sender broke off.")
            taken += len(message.get("body", b""))
            if taken > self._most_bytes:
                raise TooLargeError(f"No request here may have more than {self._most_bytes} bytes.")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return


def _is_chunked(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" for name, _ in headers)


def _with_trace(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with our own place in the trace."""
    trace = telemetry.traceparent()
    kept = [(name, value) for name, value in headers if name != b"traceparent"]
    return kept if trace is None else [*kept, (b"traceparent", trace.encode())]

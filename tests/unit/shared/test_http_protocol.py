"""An answer goes out as uvicorn would send it, and in one piece where it is there as a whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from shared.http_protocol import WholeAnswers

ASK = b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
PLAIN = [(b"content-length", b"3"), (b"x-place", b"/there")]


class _Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        """There is always room."""

    def resume_reading(self) -> None:
        """There is always room."""


async def _exchange(kind: type[asyncio.Protocol], requests: bytes, *messages: dict[str, Any]) -> _Transport:
    """What comes of requests to an application that answers each with these messages, and raises where one is empty."""

    async def application(_: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            if not message:
                raise ZeroDivisionError
            await send(dict(message))

    config = uvicorn.Config(
        application,
        http=kind,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    protocol: Any = config.http_protocol_class(config, ServerState(), {}, asyncio.get_running_loop())  # type: ignore[call-arg]
    transport = _Transport()
    protocol.connection_made(transport)
    protocol.data_received(requests)
    for _ in range(50):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport


def _start(headers: list[tuple[bytes, bytes]], status: int = 201) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(body: bytes, *, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


@pytest.mark.parametrize(
    ("requests", "messages"),
    [
        (ASK, [_start(PLAIN), _body(b"abc")]),
        (ASK + ASK, [_start(PLAIN), _body(b"abc")]),
        (ASK, [_start([(b"content-length", b"0")], 204), _body(b"")]),
        (ASK, [_start([(b"x-place", b"/there")]), _body(b"abc")]),
        (ASK, [_start(PLAIN), _body(b"a", more_body=True), _body(b"bc")]),
        (ASK, [_start([*PLAIN, (b"connection", b"close")]), _body(b"abc")]),
        (ASK.replace(b"host: a", b"connection: close"), [_start(PLAIN), _body(b"abc")]),
        (ASK.replace(b"1.1", b"1.0"), [_start(PLAIN), _body(b"abc")]),
        (b"HEAD /v1/x HTTP/1.1\r\nhost: a\r\n\r\n", [_start(PLAIN), _body(b"abc")]),
        (ASK, [_start(PLAIN), _body(b"more than was announced")]),
        (ASK, [_start([*PLAIN, (b"x-forged", b"a\r\nset-cookie: b")]), _body(b"abc")]),
        (ASK, [{}]),
        (ASK, []),
    ],
)
async def test_it_answers_as_uvicorn_does(requests: bytes, messages: list[dict[str, Any]]) -> None:
    ours = await _exchange(WholeAnswers, requests, *messages)
    theirs = await _exchange(HttpToolsProtocol, requests, *messages)
    assert b"".join(ours.written) == b"".join(theirs.written)
    assert ours.is_closed == theirs.is_closed


async def test_a_whole_answer_is_one_write() -> None:
    transport = await _exchange(WholeAnswers, ASK + ASK, _start(PLAIN), _body(b"abc"))
    assert transport.written == [b"HTTP/1.1 201 Created\r\ncontent-length: 3\r\nx-place: /there\r\n\r\nabc"] * 2


async def test_who_fails_after_the_head_is_answered_with_an_error() -> None:
    transport = await _exchange(WholeAnswers, ASK, _start(PLAIN), {})
    assert b"".join(transport.written).startswith(b"HTTP/1.1 500 ")

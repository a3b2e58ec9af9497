"""Messages are taken from the wire whole, wherever the server's bytes are cut, and nothing that it says is taken for one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.audit.wire import Message, Wire, WireError

INBOX = b"_INBOX.me"
HEADERS = b"NATS/1.0\r\nNats-Msg-Id: one\r\n\r\n"
PLACE = b"$JS.ACK.SLA.x.1.7.1.1790000000000000000.2"


def told(subject: bytes, headers: bytes, body: bytes) -> bytes:
    return b"HMSG %b 1 %b %d %d\r\n%b%b\r\n" % (subject, PLACE, len(headers), len(headers) + len(body), headers, body)


def said(status: bytes) -> bytes:
    headers = b"NATS/1.0 %b\r\n\r\n" % status
    return b"HMSG %b 1 %d %d\r\n%b\r\n" % (INBOX, len(headers), len(headers), headers)


class Writer:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


async def taken(data: bytes, number: int, piece: int) -> tuple[list[Message], list[bytes]]:
    """What is taken of these bytes when they come in pieces of this length."""
    reader: Any = asyncio.StreamReader()
    writer: Any = Writer()
    wire = Wire(reader, writer, INBOX)

    async def feed() -> None:
        for start in range(0, len(data), piece):
            reader.feed_data(data[start : start + piece])
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    try:
        return await wire.next_messages("SLA", "x", number), writer.written
    finally:
        await feeding


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
async def test_messages_are_whole_wherever_the_bytes_are_cut(piece: int) -> None:
    data = told(b"sla.v1.a.b", HEADERS, b"{}\r\nPING\r\n") + b"PING\r\n" + b"MSG sla.v1.c 1 %b 2\r\nhi\r\n" % PLACE
    found, written = await taken(data + said(b"404 No Messages"), 5, piece)
    assert found == [Message(b"sla.v1.a.b", PLACE, HEADERS, b"{}\r\nPING\r\n"), Message(b"sla.v1.c", PLACE, b"", b"hi")]
    assert written[1:] == [b"PONG\r\n"]


@pytest.mark.parametrize(
    "data", [said(b"503"), said(b"409 Consumer Deleted"), b"-ERR 'Permissions Violation'\r\n", b""]
)
async def test_what_goes_wrong_is_no_end(data: bytes) -> None:
    with pytest.raises(WireError):
        await taken(data, 5, 64)

"""Messages of a stream as NATS sends them, taken from the wire many at a time: a client library takes too long for each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import create_default_context
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

DEADLINE_SECONDS: Final = 10.0
_BUFFER: Final = 1 << 20
_SUBSCRIPTION: Final = b"1"
_NO_MORE: Final = (b"NATS/1.0 404", b"NATS/1.0 408")


class WireError(OSError):
    """What the server said is not what was asked for."""


class Message(Struct, frozen=True, gc=False):
    """`place`: where it comes from, as the server writes it into the address for the answer."""

    subject: bytes
    place: bytes
    headers: bytes
    body: bytes


class Wire:
    """A connection to NATS that asks a consumer for messages and takes what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, inbox: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._inbox = inbox
        self._rest = b""

    async def next_messages(self, stream: str, consumer: str, number: int) -> list[Message]:
        """Return so many messages, or as many as there are."""
        asked = msgspec.json.encode({"batch": number, "no_wait": True})
        self._writer.write(
            b"PUB $JS.API.CONSUMER.MSG.NEXT.%b.%b %b %d\r\n%b\r\n"
            % (stream.encode(), consumer.encode(), self._inbox, len(asked), asked)
        )
        found: list[Message] = []
        async with asyncio.timeout(DEADLINE_SECONDS) as deadline:
            while len(found) < number:
                more, is_end = self._parsed(await self._reader.read(_BUFFER))
                found += more
                if is_end:
                    break
                deadline.reschedule(asyncio.get_running_loop().time() + DEADLINE_SECONDS)
        return found

    def _parsed(self, read: bytes) -> tuple[list[Message], bool]:
        """Return the messages that are whole by now, and whether the server says that there are no more."""
        if not read:
            raise WireError("the connection to NATS is broken")
        data, at = self._rest + read, 0
        found: list[Message] = []
        is_end = False
        while (end := data.find(b"\r\n", at)) >= 0:
            words = data[at:end].split(b" ")
            if words[0] == b"HMSG":
                headers, total = int(words[-2]), int(words[-1])
                body = end + 2 + headers
                if len(data) < end + total + 4:
                    break
                # A message bears the subject it was published under; what the server says itself comes to the inbox.
                if words[1] == self._inbox:
                    if not data.startswith(_NO_MORE, end + 2):
                        raise WireError(f"NATS says {data[end + 2 : body].decode(errors='replace').strip()}")
                    is_end = True
                else:
                    found.append(Message(words[1], words[3], data[end + 2 : body], data[body : end + 2 + total]))
                at = end + total + 4
            elif words[0] == b"MSG":
                total = int(words[-1])
                if len(data) < end + total + 4:
                    break
                found.append(Message(words[1], words[3], b"", data[end + 2 : end + 2 + total]))
                at = end + total + 4
            else:
                if words[0] == b"PING":
                    self._writer.write(b"PONG\r\n")
                elif words[0] == b"-ERR":
                    raise WireError(f"NATS says {data[at:end].decode(errors='replace')}")
                at = end + 2
        self._rest = data[at:]
        return found, is_end


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """Connect as `url` says."""
    where = urlsplit(url)
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection(where.hostname, where.port or 4222, limit=_BUFFER)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            info = msgspec.json.decode((await reader.readline()).removeprefix(b"INFO "))
            if info.get("tls_required") or where.scheme == "tls":
                await writer.start_tls(create_default_context(), server_hostname=where.hostname)
            inbox = b"_INBOX." + secrets.token_hex(12).encode()
            said = msgspec.json.encode(_who(where.username, where.password))
            writer.write(b"CONNECT %b\r\nSUB %b %b\r\nPING\r\n" % (said, inbox, _SUBSCRIPTION))
            while (answer := await reader.readline()) != b"PONG\r\n":
                if not answer or answer.startswith(b"-ERR"):
                    raise WireError(f"NATS says {answer.decode(errors='replace').strip()}")
        yield Wire(reader, writer, inbox)
    finally:
        writer.close()


def _who(user: str | None, password: str | None) -> dict[str, Any]:
    said = {
        "verbose": False,
        "pedantic": False,
        "headers": True,
        "no_responders": True,
        "lang": "python",
        "version": "1",
    }
    if password is not None:
        return said | {"user": user, "pass": password}
    return said if user is None else said | {"auth_token": user}

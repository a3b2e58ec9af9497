"""One GET on the loopback address: how a supervisor asks a server whether it is well."""

from __future__ import annotations

import asyncio

import msgspec

from shared.embedded.processes import LOOPBACK

_BODY_BYTES = 64 * 1024


class Answer(msgspec.Struct, frozen=True):
    """`status` is 0 when nobody answered in time."""

    status: int
    body: bytes = b""


async def get(port: int, path: str, seconds: float = 2.0) -> Answer:
    """Return the answer; a longer body is cut off."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                # HTTP/1.0: the body ends with the connection, so there is no chunk to decode.
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
                status = int((await reader.readline()).split()[1])
                while (await reader.readline()).strip():
                    pass
                return Answer(status, await reader.read(_BODY_BYTES))
            finally:
                writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        return Answer(0)

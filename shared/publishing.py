"""Puts a few messages into a stream one right behind the other, with one wait for all of them.

The server stores an atomic batch in files of its own before it takes it over, which takes several times as long as the messages of a small
one. These go by themselves, all at once, and each but the first bears the id of the one before it, which must be the stream's last when it
comes: what follows one that is refused is refused as well, so the order is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from shared.handover import Row


class Answer(msgspec.Struct):
    """What the server says of a message, or of the last of a batch."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


class Line:
    """Publishes over one connection; the answers come to an inbox of its own."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._inbox = ""
        self._numbers = count(1)
        self._awaited: dict[str, asyncio.Future[Msg]] = {}

    async def publish(self, client: Client, rows: Sequence[Row], seconds: float) -> list[int]:
        """Publish rows in their order and return the places of the first of them, as many as are stored one right behind the other.

        What comes after these is not stored, or was there already: a message that is refused or known ends the line.

        Raises:
            TimeoutError, nats.errors.Error: what became of them is not known.
        """
        if not client.is_connected:
            raise nats.errors.ConnectionClosedError
        if client is not self._client:
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
            self._client = client
        awaited: dict[str, asyncio.Future[Msg]] = {}
        loop = asyncio.get_running_loop()
        try:
            before: Row | None = None
            for row in rows:
                reply = f"{self._inbox}.{next(self._numbers)}"
                awaited[reply] = self._awaited[reply] = loop.create_future()
                await client._send_command(_frame(row, reply, before))
                before = row
            await client._flush_pending()
            async with asyncio.timeout(seconds):
                answers = [_answer(await future) for future in awaited.values()]
        finally:
            for reply in awaited:
                self._awaited.pop(reply, None)
        places: list[int] = []
        for answer in answers:
            if answer.error is not None or answer.duplicate or (places and answer.seq != places[-1] + 1):
                break
            places.append(answer.seq)
        return places

    async def _on_answer(self, message: Msg) -> None:
        future = self._awaited.get(message.subject)
        if future is not None and not future.done():
            future.set_result(message)


def _answer(message: Msg) -> Answer:
    if not message.data:  # nobody is there: the stream is gone
        raise nats.errors.NoRespondersError
    return msgspec.json.decode(message.data, type=Answer)


def headers(row: Row) -> dict[str, str]:
    """CloudEvents attributes as headers; the body is the message itself."""
    message_id = str(row.message_id)
    return {"Nats-Msg-Id": message_id, "ce-id": message_id, **attributes(row.subject)}


def attributes(subject: str) -> dict[str, str]:
    """Those that all messages of a subject share."""
    producer, version, _tenant, noun, verb = subject.split(".")
    return {
        "ce-specversion": "1.0",
        "ce-type": f"{producer}.{version}.{noun}.{verb}",
        "ce-source": f"/recourse/{producer}",
        "content-type": "application/json",
    }


@lru_cache(maxsize=4096)
def shared_lines(subject: str) -> bytes:
    """The part of the headers that all messages of a subject share, as the protocol has it."""
    return b"NATS/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in attributes(subject).items())


def _frame(row: Row, reply: str, before: Row | None) -> bytes:
    """One message as the protocol has it.

    The client's own `publish` formats and checks each header, which takes longer; ours are ids and tokens of subjects.
    """
    message_id = str(row.message_id).encode()
    lines = b"%bNats-Msg-Id: %b\r\nce-id: %b\r\n" % (shared_lines(row.subject), message_id, message_id)
    if before is not None:
        lines += b"Nats-Expected-Last-Msg-Id: %b\r\n" % str(before.message_id).encode()
    lines += b"\r\n"
    body = row.body
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        row.subject.encode(),
        reply.encode(),
        len(lines),
        len(lines) + len(body),
        lines,
        body,
    )

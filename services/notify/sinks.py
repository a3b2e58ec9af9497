"""The other side of notify, for demonstrations and tests: an SMS provider, a mail server and a webhook receiver.

Each really speaks its protocol on the loopback interface, keeps what it took, counts, and can be told to fail: before or
after it has taken a message, which is all that a sender can tell apart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as parsing
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session
from msgspec import Struct

from shared import webhooks

Fault = Literal["drop_before", "drop_after", "error", "busy", "refuse", "slow"]
# drop_before: the connection breaks, nothing is taken. drop_after: the message is taken, then the connection breaks.
# error: 500, nothing taken. busy: 503, or 451 in mail. refuse: for good. slow: taken, and answered after a while.
Faults = Callable[[str, int], Fault | None]
"""Given a key and how often it has come, this time included: how to fail, if at all."""

SLOW_SECONDS = 2.0
MOST_BYTES = 1_048_576


def no_fault(_: str, __: int) -> Fault | None:
    return None


class Request(Struct, frozen=True):
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


class Dropped(Exception):  # noqa: N818 - what a handler raises to break the connection
    """Break the connection instead of answering."""


Answering = Callable[[Request], Awaitable[tuple[int, Any]]]


@contextlib.asynccontextmanager
async def http_server(answer: Answering, port: int = 0) -> AsyncIterator[str]:
    """Serve HTTP/1.1 on the loopback interface, one request a connection; the value is the address."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, body = await answer(await _read(reader))
            payload = b"" if body is None else msgspec.json.encode(body)
            head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n"
            writer.write(f"{head}connection: close\r\n\r\n".encode() + payload)
            await writer.drain()
        except Dropped:
            writer.transport.abort()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = [
        (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:] if line)
    ]
    length = int(next((value for name, value in headers if name == "content-length"), "0"))
    if length > MOST_BYTES:
        raise ValueError("too long")
    parts = urlsplit(target)
    return Request(method, parts.path, parse_qs(parts.query), headers, await reader.readexactly(length))


class TakenSms(Struct, frozen=True, kw_only=True):
    key: str
    ref: str
    to: str
    text: str


class SmsSink:
    """A provider that knows each message by its key: the same key twice is one message."""

    def __init__(self, faults: Faults = no_fault, token: str = "") -> None:
        self.faults = faults
        self.token = token
        self.url = ""
        self.messages: dict[str, TakenSms] = {}
        self.calls: Counter[str] = Counter()  # submissions by key
        self.lookups: Counter[str] = Counter()
        self.repeats = 0  # submissions of a key that had been taken already
        self.unauthorized = 0

    @property
    def config(self) -> dict[str, Any]:
        """What `POST /v1/providers` takes as the provider's settings."""
        return {"url": f"{self.url}/messages", "lookup_url": f"{self.url}/messages?key={{key}}"}

    def to(self, number: str) -> list[TakenSms]:
        return [message for message in self.messages.values() if message.to == number]

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[SmsSink]:
        async with http_server(self._answer, port) as self.url:
            yield self

    async def _answer(self, request: Request) -> tuple[int, Any]:
        if self.token and request.header("authorization") != f"Bearer {self.token}":
            self.unauthorized += 1
            return 401, {"status": "refused"}
        if request.path != "/messages":
            return 404, None
        if request.method == "GET":
            return self._look_up(request.query.get("key", [""])[0])
        return await self._submit(request)

    def _look_up(self, key: str) -> tuple[int, Any]:
        self.lookups[key] += 1
        found = self.messages.get(key)
        return (404, None) if found is None else (200, {"id": found.ref, "status": "accepted"})

    async def _submit(self, request: Request) -> tuple[int, Any]:
        body = msgspec.json.decode(request.body, type=dict[str, Any])
        key = request.header("idempotency-key")
        if not key or body.get("key") != key:
            return 400, {"status": "refused"}
        self.calls[key] += 1
        fault = self.faults(key, self.calls[key])
        if fault == "drop_before":
            raise Dropped
        if fault == "error":
            return 500, None
        if fault == "busy":
            return 503, None
        if fault == "refuse":
            return 400, {"status": "refused"}
        if key in self.messages:
            self.repeats += 1
        else:
            self.messages[key] = TakenSms(key=key, ref=f"sms-{uuid4().hex}", to=body["to"], text=body["text"])
        if fault == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if fault == "drop_after":
            raise Dropped
        return 200, {"id": self.messages[key].ref, "status": "accepted"}

    async def send_receipt(
        self, url: str, secret: str, ref: str, status: str, *, webhook_id: str = "", at: datetime | None = None
    ) -> int:
        """Tell the sender what became of a message; return the HTTP status."""
        body = msgspec.json.encode({"id": ref, "status": status})
        headers = webhooks.sign([secret], webhook_id or f"receipt_{uuid4().hex}", at or datetime.now(UTC), body)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(url, content=body, headers={"content-type": "application/json", **headers})
        return answer.status_code


class TakenMail(Struct, frozen=True, kw_only=True):
    sender: str  # of the envelope; empty: the null return path
    to: str
    mail: EmailMessage

    @property
    def text(self) -> str:
        return str(self.mail.get_content()).replace("\r\n", "\n").strip()


class EmailSink:
    """A mail server that takes everything for everybody. Faults are by recipient."""

    def __init__(self, faults: Faults = no_fault) -> None:
        self.faults = faults
        self.port = 0
        self.mails: list[TakenMail] = []
        self.calls: Counter[str] = Counter()

    @property
    def config(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "tls": "none", "from_address": "complaints@tenant.example"}

    def to(self, address: str) -> list[TakenMail]:
        return [mail for mail in self.mails if mail.to == address]

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[EmailSink]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(self, enable_SMTPUTF8=True, loop=loop, hostname="sink.invalid"), "127.0.0.1", port
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def handle_RCPT(  # noqa: N802 - named by aiosmtpd
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.calls[address] += 1
        fault = self.faults(address, self.calls[address])
        if fault == "refuse":
            return "550 5.1.1 no such mailbox"
        if fault in ("busy", "error"):
            return "451 4.3.0 try again later"
        if fault == "drop_before":
            _abort(server)
            return "451 4.3.0 dropped"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        for address in envelope.rcpt_tos:
            mail = message_from_bytes(content, policy=parsing)
            self.mails.append(TakenMail(sender=(envelope.mail_from or "").strip("<>"), to=address, mail=mail))
        faults = {self.faults(address, self.calls[address]) for address in envelope.rcpt_tos}
        if "slow" in faults:
            await asyncio.sleep(SLOW_SECONDS)
        if "drop_after" in faults:
            _abort(server)
        return "250 OK"


def _abort(server: SMTP) -> None:
    if isinstance(server.transport, asyncio.WriteTransport):
        server.transport.abort()


class TakenEvent(Struct, frozen=True, kw_only=True):
    webhook_id: str
    event: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.event["type"])


class WebhookSink:
    """A tenant's own system: takes events that are signed with its secret, each id once."""

    def __init__(self, secrets: list[str] | None = None, faults: Faults = no_fault) -> None:
        self.secrets = secrets or []
        self.faults = faults
        self.url = ""
        self.events: dict[str, TakenEvent] = {}
        self.calls: Counter[str] = Counter()
        self.repeats = 0
        self.refused: Counter[str] = Counter()  # by reason
        self.gone = False

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[WebhookSink]:
        async with http_server(self._answer, port) as address:
            self.url = f"{address}/hook"
            yield self

    def of_kind(self, kind: str) -> list[TakenEvent]:
        return [event for event in self.events.values() if event.kind == kind]

    async def _answer(self, request: Request) -> tuple[int, Any]:
        if self.gone:
            return 410, None
        try:
            signed = webhooks.verify(self.secrets, request.headers, request.body, datetime.now(UTC))
        except webhooks.SignatureError as error:
            self.refused[error.reason] += 1
            return 401, None
        self.calls[signed.message_id] += 1
        fault = self.faults(signed.message_id, self.calls[signed.message_id])
        if fault == "drop_before":
            raise Dropped
        if fault == "error":
            return 500, None
        if fault == "busy":
            return 503, None
        if fault == "refuse":
            return 400, None
        if signed.message_id in self.events:
            self.repeats += 1
        self.events[signed.message_id] = TakenEvent(
            webhook_id=signed.message_id, event=msgspec.json.decode(request.body)
        )
        if fault == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        if fault == "drop_after":
            raise Dropped
        return 204, None

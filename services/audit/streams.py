"""The streams of NATS as they are, and the durable consumers on them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import nats
from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingMore
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

SERVICES: Final = ("intake", "routing", "sla", "notify", "reporting")
_AT_ONCE: Final = 500


class Held(Struct, frozen=True):
    """A message in a stream."""

    seq: int
    message_id: str  # of its header, without what was added to send it a second time
    subject: str
    at: datetime
    body: bytes


class Durable(Struct, frozen=True):
    name: str
    filters: tuple[str, ...]


class Stream(Struct, frozen=True, kw_only=True):
    """`last_seq`: as it was before the database was looked at; what came later may be newer than that look."""

    service: str
    last_seq: int
    messages: list[Held]
    durables: tuple[Durable, ...]


class Streams:
    """Opened before the database is looked at, read afterwards: so what the database says was published must be found."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ends: dict[str, int] = {}

    async def __aenter__(self) -> Streams:
        self._client = await nats.connect(self._url, connect_timeout=5, max_reconnect_attempts=3)
        self._js: JetStreamContext = self._client.jetstream(timeout=10)
        for service in SERVICES:
            try:
                self._ends[service] = (await self._js.stream_info(service.upper())).state.last_seq
            except NotFoundError:
                continue
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def read(self) -> dict[str, Stream]:
        """Return the streams that exist, by service."""
        return {service: await self._stream(service, last_seq) for service, last_seq in self._ends.items()}

    async def _stream(self, service: str, last_seq: int) -> Stream:
        name = service.upper()
        durables = tuple(
            Durable(each.name, tuple(each.config.filter_subjects or filter(None, (each.config.filter_subject,))))
            for each in await self._js.consumers_info(name)
            if each.config.durable_name
        )
        return Stream(service=service, last_seq=last_seq, messages=await self._messages(name), durables=durables)

    async def _messages(self, name: str) -> list[Held]:
        """Read everything through a consumer that goes by itself and changes nothing."""
        count = (await self._js.stream_info(name)).state.messages
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=30,
            mem_storage=True,
        )
        subscription = await self._js.pull_subscribe(">", stream=name, config=config)
        found: list[Held] = []
        try:
            while len(found) < count:
                try:
                    batch = await subscription.fetch(min(_AT_ONCE, count - len(found)), timeout=2)
                except (TimeoutError, NothingMore):
                    break
                found += map(_held, batch)
        finally:
            await subscription.unsubscribe()
        return found


def _held(message: Msg) -> Held:
    return Held(
        message.metadata.sequence.stream,
        (message.headers or {}).get("Nats-Msg-Id", "").partition("/")[0],
        message.subject,
        message.metadata.timestamp.astimezone(UTC),
        message.data,
    )


def tenant_in(subject: str) -> UUID | None:
    """The tenant that a subject names, if it names one."""
    parts = subject.split(".")
    try:
        return UUID(parts[2]) if len(parts) == 5 else None
    except ValueError:
        return None

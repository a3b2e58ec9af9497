"""The streams of NATS as they are, and the durable consumers on them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

import nats
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from services.audit.wire import Message, wire

SERVICES: Final = ("intake", "routing", "sla", "notify", "reporting")
_AT_ONCE: Final = 5000
_WITHOUT_DOMAIN: Final = 9
"""So many parts has the place of a message in its older form, which names neither domain nor account."""


class Held(Struct, frozen=True, gc=False):
    """A message in a stream."""

    seq: int
    message_id: str  # of its header, without what was added to send it a second time
    subject: str
    at: datetime
    body: bytes


class Durable(Struct, frozen=True):
    """`fault`: why it does not hand out every message until each is acknowledged, if so."""

    name: str
    filters: tuple[str, ...]
    fault: str = ""


class Stream(Struct, frozen=True, kw_only=True):
    """`last_seq`: as it was before the database was looked at; what came later may be newer than that look. `fault`: why it does not keep
    on the disk whatever its service tells, if so."""

    service: str
    last_seq: int
    messages: list[Held]
    durables: tuple[Durable, ...]
    fault: str = ""
    created: datetime | None = None


class Streams:
    """Opened before the database is looked at, read afterwards: so what the database says was published must be found."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ends: dict[str, int] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Streams:
        self._client = await nats.connect(self._url, connect_timeout=5, max_reconnect_attempts=3)
        self._exits.push_async_callback(self._client.close)
        self._js: JetStreamContext = self._client.jetstream(timeout=10)
        try:
            await self._find_ends()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _find_ends(self) -> None:
        for service in SERVICES:
            try:
                self._ends[service] = (await self._js.stream_info(service.upper())).state.last_seq
            except NotFoundError:
                continue

    async def read(self) -> dict[str, Stream]:
        """Return the streams that exist, by service."""
        async with wire(
            self._url
        ) as of_messages:  # not before: nobody would answer the server while the database is read
            self._wire = of_messages
            return {service: await self._stream(service, last_seq) for service, last_seq in self._ends.items()}

    async def _stream(self, service: str, last_seq: int) -> Stream:
        name = service.upper()
        info = await self._js.stream_info(name)
        return Stream(
            service=service,
            last_seq=last_seq,
            messages=await self._messages(name),
            durables=tuple(_durable(each) for each in await self._js.consumers_info(name) if each.config.durable_name),
            fault=_stream_fault(service, info.config),
            created=info.created,
        )

    async def _messages(self, name: str) -> list[Held]:
        """Read everything through a consumer that goes by itself and changes nothing."""
        count = (await self._js.stream_info(name)).state.messages
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=30,
            mem_storage=True,
        )
        consumer = (await self._js.add_consumer(name, config)).name
        found: list[Held] = []
        try:
            while len(found) < count:
                batch = await self._wire.next_messages(name, consumer, min(_AT_ONCE, count - len(found)))
                if not batch:
                    break
                found += map(_held, batch)
        finally:
            await self._js.delete_consumer(name, consumer)
        return found


def _durable(consumer: ConsumerInfo) -> Durable:
    config = consumer.config
    filters = tuple(config.filter_subjects or filter(None, (config.filter_subject,)))
    return Durable(consumer.name, filters, _consumer_fault(consumer))


def _consumer_fault(consumer: ConsumerInfo) -> str:
    config = consumer.config
    if consumer.paused:
        return "is paused"
    if config.ack_policy not in (AckPolicy.EXPLICIT, AckPolicy.EXPLICIT.value):
        return "takes messages for applied before they are"
    if (config.max_deliver or -1) > 0:
        return "gives messages up by itself"
    if config.headers_only:
        return "is not told what messages say"
    if config.deliver_policy not in (DeliverPolicy.ALL, DeliverPolicy.ALL.value):
        return "does not begin at the beginning"
    return ""


def _stream_fault(service: str, config: StreamConfig) -> str:
    if config.storage not in (StorageType.FILE, StorageType.FILE.value):
        return "is not on the disk"
    if config.retention not in (RetentionPolicy.LIMITS, RetentionPolicy.LIMITS.value):
        return "lets go what somebody has read"
    if config.discard not in (DiscardPolicy.NEW, DiscardPolicy.NEW.value) or (config.max_msgs_per_subject or -1) > 0:
        return "pushes out what is old"
    if config.subjects != [f"{service}.v1.>"]:
        return "takes other messages than its service's"
    return ""


def _held(message: Message) -> Held:
    # $JS, ACK, domain, account, stream, consumer, times delivered, place in the stream, in the consumer, nanoseconds, …
    place = message.place.split(b".")
    first = 7 if len(place) > _WITHOUT_DOMAIN else 5
    _, _, message_id = message.headers.partition(b"\r\nNats-Msg-Id:")
    return Held(
        int(place[first]),
        message_id.partition(b"\r\n")[0].strip().decode(errors="replace").partition("/")[0],
        message.subject.decode(errors="replace"),
        datetime.fromtimestamp(int(place[first + 2]) / 1e9, UTC),
        message.body,
    )


@lru_cache(maxsize=10_000)
def tenant_in(subject: str) -> UUID | None:
    """The tenant that a subject names, if it names one."""
    parts = subject.split(".")
    try:
        return UUID(parts[2]) if len(parts) == 5 else None
    except ValueError:
        return None

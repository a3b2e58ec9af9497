"""What a consumer has pulled and not applied yet: how a message is read, and whose turn it is.

Tenants take turns, some messages of each at a time, so a quiet tenant's pass those of a busy one. What lingers waits for more of its
tenant; what has failed before, or may have ended a process, is kept apart.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Collection
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import nats.errors
from nats.aio.msg import Msg

from shared.messages.base import LIVE, Message, class_of, decode
from shared.telemetry import error_text

if TYPE_CHECKING:
    from shared.consuming import Consumer

BATCH = 100  # messages of a consumer in one transaction
FAIR_BATCH = 25  # of one tenant, while several wait


class Delivery(msgspec.Struct, eq=False):
    """One message in hand."""

    raw: Msg
    subject: str
    body: bytes
    key: str  # the Nats-Msg-Id, or the place in the stream
    times: int  # how often it has been delivered
    tenant_id: UUID  # of the subject; UUID(0) when it has none
    message: Message | None
    flaw: str | None  # why it cannot be read
    touched: float  # when the server last heard that we still have it
    taken_by: Consumer
    suspect: bool = False  # handled by itself: it has failed before, or
    accused: bool = False  # may have ended a process, and is handled with nothing else in hand
    place: int = 0  # in the stream
    came: float = 0.0  # when it was read


def tenant_of(delivery: Delivery) -> UUID:
    return delivery.tenant_id


def identity(delivery: Delivery) -> tuple[UUID, str, UUID]:
    """What makes two deliveries the same message for the same consumer; of those that can be read."""
    assert delivery.message is not None
    return delivery.tenant_id, delivery.taken_by.name, delivery.message.message_id


class Pending:
    """What was pulled and is not applied yet, and who is at it: of one consumer, or of several that share their workers."""

    def __init__(self) -> None:
        self.consumers = 0  # that share it
        self.waiting: OrderedDict[UUID, deque[Delivery]] = OrderedDict()  # by tenant, whose turn it is first
        self.due: dict[UUID, tuple[float, float]] = {}  # of who waits: since when, and when it goes at the latest
        self.busy: set[UUID] = set()  # tenants that a worker is at
        self.suspects: deque[Delivery] = deque()  # have failed before
        self.accused: deque[Delivery] = deque()  # were in hand when a process ended
        self.known_suspects: set[str] = set()  # keys of messages that have failed in this process
        self.interrupted: set[str] = set()  # keys of messages that an outage of ours interrupted
        self.arrived = asyncio.Event()
        self.set_apart = asyncio.Event()  # something is there that is handled by itself
        self.at_work = 0
        self.is_stopping = False
        self.rest = asyncio.Event()
        self._alarm_at = math.inf

    def put(self, delivery: Delivery, linger: float) -> None:
        """Let a message wait for its turn, and for others for so many seconds."""
        tenant_id = delivery.tenant_id
        queue = self.waiting.setdefault(tenant_id, deque())
        queue.append(delivery)
        since, due = self.due.get(tenant_id, (delivery.came, math.inf))
        self.due[tenant_id] = since, min(due, delivery.came + linger)
        if linger > 0 and len(queue) < BATCH * self.consumers:
            self._set_alarm(delivery.came + linger)
        else:
            self.arrived.set()

    def put_back(self, delivery: Delivery) -> None:
        """Let a message be the next of its tenant."""
        self.waiting.setdefault(delivery.tenant_id, deque()).appendleft(delivery)
        self.due[delivery.tenant_id] = delivery.came, 0.0

    def take(self, tenant_id: UUID, count: int) -> list[Delivery]:
        """Take some of a tenant's messages; it then stands at the end of the queue, and what is left of its messages has waited enough."""
        queue = self.waiting[tenant_id]
        taken = [queue.popleft() for _ in range(min(count, len(queue)))]
        if queue:
            self.waiting.move_to_end(tenant_id)
            self.due[tenant_id] = queue[0].came, 0.0
        else:
            del self.waiting[tenant_id], self.due[tenant_id]
        self.busy.add(tenant_id)
        return taken

    def goes_along(self, tenant_id: UUID, now: float) -> bool:
        """Tell whether a tenant's messages have waited for a quarter of their time: they go with whatever goes."""
        since, due = self.due[tenant_id]
        return now - since >= (due - since) / 4

    def next_group(self) -> list[Delivery]:
        """Take the next messages of the tenants whose turn it is, a few of each; they then go to the end of the queue.

        Where several consumers share, a group may be the larger, but takes no further tenant than makes it a full one of one consumer: the
        rest is for another worker.

        What concerns all live tenants, a tick, waits until everything in hand that stands before it has been applied: that is what it says.
        """
        now = asyncio.get_running_loop().time()
        group: list[Delivery] = []
        size = self.consumers * (FAIR_BATCH if len(self.waiting) > 1 else BATCH)
        patient: list[UUID] = []
        for tenant_id in list(self.waiting):
            if len(group) >= BATCH:
                break
            if tenant_id in self.busy:
                continue
            queue = self.waiting[tenant_id]
            if len(queue) < size and self.due[tenant_id][1] > now:
                if tenant_id != LIVE and self.goes_along(tenant_id, now):
                    patient.append(tenant_id)
                continue
            if tenant_id == LIVE:
                ready = 0 if group else min(size, _up_to_what_is_in_hand(queue))
                if ready == 0:
                    continue
                group = self.take(tenant_id, ready)
                patient.clear()
                break
            group += self.take(tenant_id, size)
        for tenant_id in patient:
            if 0 < len(group) < BATCH:
                group += self.take(tenant_id, size)
        group.sort(key=tenant_of)  # whoever locks rows of several tenants locks them in the same order
        return group

    def next_suspect(self) -> list[Delivery]:
        """Take one message that has failed before: alone, and apart, so that healthy ones do not wait for it."""
        return [self.suspects.popleft()] if self.suspects else []

    def next_accused(self) -> list[Delivery]:
        """Take one message that may have ended a process. What concerns all live tenants waits here, too, for what stands before it."""
        for delivery in self.accused:
            if delivery.tenant_id == LIVE and not _up_to_what_is_in_hand([delivery]):
                continue
            self.accused.remove(delivery)
            return [delivery]
        return []

    def _set_alarm(self, at: float) -> None:
        """Have the workers look when the first of what lingers has waited long enough: one alarm at a time, since most is taken before."""
        if at < self._alarm_at:
            self._alarm_at = at
            asyncio.get_running_loop().call_at(at + 0.01, self._ring)

    def _ring(self) -> None:
        self._alarm_at = math.inf
        now = asyncio.get_running_loop().time()
        later = [due for _, due in self.due.values() if due > now]
        if len(later) < len(self.due):
            self.arrived.set()
        if later:
            self._set_alarm(min(later))


def _up_to_what_is_in_hand(queue: Collection[Delivery]) -> int:
    """Return how many of the first of what concerns all tenants stand before everything that is in hand from the same stream."""
    firsts = {each: each.first_in_hand() for each in {delivery.taken_by for delivery in queue}}
    return sum(1 for _ in takewhile(lambda each: each.place < firsts[each.taken_by], queue))


def told_by(reply: str) -> tuple[int, int, int]:
    """Return how often a message was delivered, its place in the stream, and how many are behind it, from where its answer goes to.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<place>.<consumer's>.<time>.<behind>`; with a domain two more stand before the stream, and a
    token may stand last. The client's own reading makes six objects of it, for each message.
    """
    tokens = reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    if len(tokens) < first + 5 or tokens[1] != "ACK":
        raise nats.errors.NotJSMessageError
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 4])


@lru_cache(maxsize=4096)
def _tenant_of(subject: str) -> UUID:
    """Return the tenant that a subject names. Raises IndexError or ValueError."""
    return UUID(subject.split(".")[2])


def read(subject: str, body: bytes, handlers: Collection[type[Any]]) -> tuple[UUID, Message | None, str | None]:
    """Return the subject's tenant, and the message or what is wrong with it."""
    tenant_id = UUID(int=0)
    try:
        tenant_id = _tenant_of(subject)
    except (IndexError, ValueError):
        return tenant_id, None, "the subject names no tenant"
    kind = class_of(subject)
    if kind is None or kind not in handlers:
        return tenant_id, None, "the subject belongs to no message that is handled here"
    try:
        message = decode(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return tenant_id, None, error_text(error)
    if message.tenant_id != tenant_id:
        return tenant_id, None, "the body names another tenant than the subject"
    if b"\\u0000" in body and _has_nul(msgspec.to_builtins(message)):
        return tenant_id, None, "a text holds the character NUL"
    return tenant_id, message, None


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
    return isinstance(value, list | tuple) and any(map(_has_nul, value))

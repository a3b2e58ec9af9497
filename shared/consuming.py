"""Taking messages: pulled in batches, applied with their inbox rows in one transaction per tenant, then acknowledged.

A handler is `async def on_entry(message: EntryAppended, tx: Tx) -> None`. `tx` is a worker transaction with the message's tenant set. Handlers
never begin, commit, publish or acknowledge; what they tell goes through `outbox.add(tx, …)`.

Messages come twice and out of order; the inbox drops the second of two, handlers bear the rest. A handler that needs what has not come yet raises
`NotYetError`. A message that keeps failing, that cannot be read, or that kills its process goes to the dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.database import Database, Tx
from shared.errors import NotYetError, UnavailableError
from shared.ids import new_id
from shared.messages.base import Message, class_of, decode
from shared.messaging import Messaging, stream_of
from shared.telemetry import Metrics, continued_trace, describe, error_text

Handler = Callable[[Any, Tx], Awaitable[None]]

BATCH = 100  # messages in one transaction
FAIR_BATCH = 25  # while several tenants wait
BACKLOG = 400  # messages held here, so that a quiet tenant's can pass those of a busy one
ACK_SECONDS = 15.0  # after a crash, what was in hand comes again this late
KEEP_ALIVE_SECONDS = 5.0
HANDLER_SECONDS = 10.0
MAX_FAILURES = 8
HANGING_COUNTS = 2  # a handler that runs into its deadline counts double, so that it does not block for minutes
MAX_NOT_YET = 60
MAX_DEATHS = 3
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
NOT_YET_BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0)

CLAIM = """
INSERT INTO inbox (tenant_id, consumer, message_id)
SELECT $1, $2, message_id
  FROM unnest($3::uuid[]) AS new (message_id)
    ON CONFLICT DO NOTHING
RETURNING message_id"""

BEGIN = """
INSERT INTO attempt (tenant_id, consumer, message_key, begun)
SELECT tenant_id, $1, message_key, 1
  FROM unnest($2::uuid[], $3::text[]) AS new (tenant_id, message_key)
    ON CONFLICT (tenant_id, consumer, message_key) DO UPDATE SET begun = attempt.begun + 1, last_at = clock_timestamp()
RETURNING message_key, begun, failures"""

FAIL = """
INSERT INTO attempt (tenant_id, consumer, message_key, failures, last_error)
VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (tenant_id, consumer, message_key) DO UPDATE
   SET failures = attempt.failures + excluded.failures, begun = 0, last_error = excluded.last_error, last_at = clock_timestamp()
RETURNING failures, first_at"""

FORGET = """
DELETE FROM attempt
 WHERE tenant_id = $1 AND consumer = $2 AND message_key = ANY ($3::text[])"""

BURY = """
INSERT INTO dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, body, body_sha256, reason, error_class, error, attempts, first_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
        coalesce((SELECT first_at FROM attempt WHERE tenant_id = $1 AND consumer = $3 AND message_key = $4), clock_timestamp()))
    ON CONFLICT ON CONSTRAINT dead_letter_once DO UPDATE
   SET state = 'dead', reason = excluded.reason, error_class = excluded.error_class, error = excluded.error,
       attempts = dead_letter.attempts + excluded.attempts, dead_at = clock_timestamp(), resolved_at = NULL, resolved_by = NULL"""


class Malformed(Exception):  # noqa: N818 - a verdict on a message, not a failure of ours
    """The message cannot be read: unknown subject, no JSON, wrong shape, another tenant's subject."""


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
    suspect: bool = False


class Consumer:
    """One durable consumer of one stream.

    Args:
        service: whose consumer it is.
        stream: the producing service's name ("intake"); its stream is derived from it.
        subjects: what it takes: derived from the handlers' classes unless given.
        handlers: by message class.
        name: the durable's name, `<service>-on-<noun>`, or `<service>-on-<producer>` unless given. Two consumers of one service on one
            stream need two names.
    """

    def __init__(
        self,
        service: str,
        stream: str,
        subjects: Sequence[str] | None = None,
        *,
        handlers: Mapping[type[Any], Handler],
        name: str | None = None,
    ) -> None:
        self.service = service
        self.stream = stream_of(stream)
        self.name = name or f"{service}-on-{stream.lower()}"
        self.handlers = dict(handlers)
        self.subjects = (
            list(subjects) if subjects else sorted({kind.SUBJECT.format(tenant_id="*") for kind in handlers})
        )
        self._log = structlog.get_logger().bind(service=service, consumer=self.name)
        self._tenants: OrderedDict[UUID, deque[Delivery]] = OrderedDict()
        self._suspects: deque[Delivery] = deque()
        self._known_suspects: set[str] = set()
        self._in_hand: set[Delivery] = set()
        self._arrived = asyncio.Event()
        self._database: Database | None = None
        self._metrics: Metrics | None = None
        self.problem: str | None = "has not begun"
        self._stopping = False
        self._at_work = 0

    # -- pulling -----------------------------------------------------------------------------------------------------------

    async def run(self, database: Database, messaging: Messaging, metrics: Metrics) -> None:
        """Pull and apply until cancelled; whatever fails is tried again."""
        self._database, self._metrics = database, metrics
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pull(messaging))
            group.create_task(self._work_off(self._take_fresh))
            group.create_task(self._work_off(self._take_suspect))
            group.create_task(self._keep_alive())

    async def _pull(self, messaging: Messaging) -> None:
        while not self._stopping:
            try:
                await messaging.wait_connected()
                generation = messaging.generation
                await self._ensure(messaging)
                subscription = await messaging.js.pull_subscribe_bind(durable=self.name, stream=self.stream)
                self.problem = None
                while generation == messaging.generation and not self._stopping:
                    await self._fetch(subscription)
            except asyncio.CancelledError:
                raise
            except (nats.errors.Error, nats.js.errors.Error, UnavailableError, OSError, TimeoutError) as error:
                self.problem = f"cannot pull from {self.stream}: {type(error).__name__}"
                self._log.info("consumer_interrupted", **describe(error))
                await asyncio.sleep(0.5)

    async def _fetch(self, subscription: Any) -> None:
        room = BACKLOG - len(self._in_hand)
        if room < BACKLOG // 4:
            await asyncio.sleep(0.01)
            return
        try:
            messages = await subscription.fetch(min(room, BACKLOG), timeout=5)
        except (TimeoutError, nats.errors.TimeoutError):
            return
        for raw in messages:
            self._sort_in(raw)
        self._arrived.set()

    async def _ensure(self, messaging: Messaging) -> None:
        """Create the durable, or bring it to our configuration. A stream that is not there yet is its owner's business: try again."""
        await messaging.js.add_consumer(
            self.stream,
            ConsumerConfig(
                durable_name=self.name,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_SECONDS,
                max_deliver=-1,
                max_ack_pending=BACKLOG * 4,
                filter_subjects=self.subjects,
            ),
        )

    def _sort_in(self, raw: Msg) -> None:
        delivery = self._read(raw)
        self._in_hand.add(delivery)
        if delivery.suspect:
            self._suspects.append(delivery)
        else:
            self._tenants.setdefault(delivery.tenant_id, deque()).append(delivery)

    def _read(self, raw: Msg) -> Delivery:
        metadata = raw.metadata
        headers = raw.headers or {}
        key = headers.get("Nats-Msg-Id") or f"{self.stream}:{metadata.sequence.stream}"
        tenant_id, message, flaw = read(raw.subject, raw.data, self.handlers)
        return Delivery(
            raw=raw,
            subject=raw.subject,
            body=raw.data,
            key=key.partition("/")[0],
            times=metadata.num_delivered,
            tenant_id=tenant_id,
            message=message,
            flaw=flaw,
            touched=asyncio.get_running_loop().time(),
            suspect=flaw is not None or metadata.num_delivered >= 3 or key in self._known_suspects,
        )

    async def _keep_alive(self) -> None:
        """Tell the server that what waits here is still being worked on, lest it be delivered to another replica."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS / 2)
            now = asyncio.get_running_loop().time()
            for delivery in [each for each in self._in_hand if now - each.touched > KEEP_ALIVE_SECONDS]:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                    await delivery.raw.in_progress()
                    delivery.touched = now

    # -- applying ------------------------------------------------------------------------------------------------------------

    async def _work_off(self, take: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                if await take():
                    continue
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 1.0)
            except Exception as error:
                self._log.error("consumer_failed", **describe(error))
                await asyncio.sleep(0.5)

    async def _take_fresh(self) -> bool:
        """Apply the next tenant's next messages; the tenant then goes to the end of the queue."""
        if not self._tenants or self._stopping:
            return False
        tenant_id, waiting = self._tenants.popitem(last=False)
        size = FAIR_BATCH if self._tenants else BATCH
        group = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        if waiting:
            self._tenants[tenant_id] = waiting
        await self._apply(group)
        return True

    async def _take_suspect(self) -> bool:
        """Apply one message that has failed before, alone, so that healthy ones do not wait for it."""
        if not self._suspects or self._stopping:
            return False
        await self._apply([self._suspects.popleft()])
        return True

    async def _apply(self, group: list[Delivery]) -> None:
        self._at_work += 1
        try:
            await self._apply_or_isolate(group)
        finally:
            self._at_work -= 1

    async def _apply_or_isolate(self, group: list[Delivery]) -> None:
        assert self._metrics is not None
        try:
            group = await self._without_the_dead(group)
            if not group:
                return
            with self._metrics.message_seconds.labels(self.service, self.name).time():
                await self._transact(group)
        except Exception as error:
            if len(group) > 1:  # find the one at fault; the others must not wait for it
                for delivery in group:
                    self._known_suspects.add(delivery.key)
                    await self._apply([delivery])
            else:
                await self._failed(group[0], error)
        else:
            for delivery in group:
                await self._settle(delivery, delivery.raw.ack())
            self._count("applied", len(group))

    async def _without_the_dead(self, group: list[Delivery]) -> list[Delivery]:
        """Bury what cannot be read and what has killed its process; return the rest. Redelivered messages are marked as begun."""
        assert self._database is not None
        alive = []
        for delivery in group:
            if delivery.flaw is not None:
                await self._bury(delivery, "malformed", Malformed(delivery.flaw), delivery.flaw)
            else:
                alive.append(delivery)
        again = [each for each in alive if each.times >= 2]
        if not again:
            return alive
        async with self._database.worker_tx(again[0].tenant_id) as tx:
            rows = await tx.fetch(BEGIN, self.name, [each.tenant_id for each in again], [each.key for each in again])
        begun = {row["message_key"]: row["begun"] for row in rows}
        # The first delivery left no mark, so a message begun for the third time here has ended a process twice or, with the first, thrice.
        for delivery in [each for each in again if begun.get(each.key, 0) >= MAX_DEATHS]:
            await self._bury(
                delivery, "killed its process", None, f"handling was begun {MAX_DEATHS} times and never ended"
            )
            alive.remove(delivery)
        return alive

    async def _transact(self, group: list[Delivery]) -> None:
        """Apply the messages of one tenant, each once, in one transaction."""
        assert self._database is not None
        messages = {each.message.message_id: each.message for each in reversed(group) if each.message is not None}
        async with self._database.worker_tx(group[0].tenant_id) as tx:
            rows = await tx.fetch(CLAIM, tx.tenant_id, self.name, list(messages))
            new = {row["message_id"] for row in rows}
            async with asyncio.timeout(HANDLER_SECONDS):
                for delivery in group:
                    message = delivery.message
                    if message is None or message.message_id not in new:
                        continue
                    new.discard(message.message_id)
                    await self._handle(message, tx)
            again = [each.key for each in group if each.times >= 2]
            if again:
                await tx.execute(FORGET, tx.tenant_id, self.name, again)

    async def _handle(self, message: Message, tx: Tx) -> None:
        with (
            continued_trace(message.traceparent),
            structlog.contextvars.bound_contextvars(
                tenant_id=str(message.tenant_id), message_id=str(message.message_id)
            ),
        ):
            await self.handlers[type(message)](message, tx)

    async def apply_again(self, tenant_id: UUID, subject: str, body: bytes) -> None:
        """Apply one message given up before, in a transaction of its own; raises what the handler raises. For dead letters."""
        assert self._database is not None
        _, message, flaw = read(subject, body, self.handlers)
        if message is None:
            raise Malformed(flaw)
        async with self._database.worker_tx(tenant_id) as tx:
            if await tx.fetch(CLAIM, tenant_id, self.name, [message.message_id]):
                async with asyncio.timeout(HANDLER_SECONDS):
                    await self._handle(message, tx)

    # -- failing ---------------------------------------------------------------------------------------------------------------

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        """Count the failure and try again later, or give the message up. An outage of ours is nobody's failure and is not counted."""
        assert self._database is not None
        self._known_suspects.add(delivery.key)
        if _is_outage(error):
            self._log.warning("message_postponed", subject=delivery.subject, **describe(error))
            await self._settle(delivery, delivery.raw.nak(delay=2.0))
            self._count("postponed")
            await asyncio.sleep(0.5)
            return
        not_yet = isinstance(error, NotYetError)
        weight = HANGING_COUNTS if isinstance(error, TimeoutError) else 1
        try:
            async with self._database.worker_tx(delivery.tenant_id) as tx:
                row = await tx.fetchrow(
                    FAIL, delivery.tenant_id, self.name, delivery.key, weight, error_text(error)[:500]
                )
        except Exception as outage:
            self._log.warning("message_postponed", subject=delivery.subject, **describe(outage))
            await self._settle(delivery, delivery.raw.nak(delay=2.0))
            return
        failures = row["failures"] if row is not None else 1
        if failures >= (MAX_NOT_YET if not_yet else MAX_FAILURES):
            await self._bury(delivery, "failed", error, error_text(error), failures)
            return
        delays = NOT_YET_BACK_OFF if not_yet else BACK_OFF
        delay = delays[min(failures, len(delays)) - 1]
        (self._log.info if not_yet else self._log.warning)(
            "message_failed", subject=delivery.subject, failures=failures, **describe(error)
        )
        await self._settle(delivery, delivery.raw.nak(delay=delay))
        self._count("not_yet" if not_yet else "failed")

    async def _bury(
        self, delivery: Delivery, reason: str, error: Exception | None, text: str, attempts: int | None = None
    ) -> None:
        """Put the message into the dead letters, then have the server forget it."""
        assert self._database is not None and self._metrics is not None
        async with self._database.worker_tx(delivery.tenant_id) as tx:
            await tx.execute(
                BURY,
                delivery.tenant_id,
                new_id(),
                self.name,
                delivery.key,
                delivery.subject,
                delivery.body,
                hashlib.sha256(delivery.body).hexdigest(),
                reason,
                type(error).__name__ if error is not None else "ProcessDied",
                text[:500],
                attempts or delivery.times,
            )
            await tx.execute(FORGET, delivery.tenant_id, self.name, [delivery.key])
        self._metrics.dead_letters.labels(self.service, self.name, reason).inc()
        self._log.error(
            "message_given_up", subject=delivery.subject, reason=reason, attempts=attempts or delivery.times
        )
        await self._settle(delivery, delivery.raw.term())
        self._count("dead")

    async def _settle(self, delivery: Delivery, answer: Awaitable[None]) -> None:
        """Answer the server; an answer that gets lost means one more delivery, which the inbox drops."""
        self._in_hand.discard(delivery)
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
            await answer

    async def stop(self) -> None:
        """Begin nothing more, wait for the transaction in hand, and give the rest back: another replica gets it without delay."""
        self._stopping = True
        self._arrived.set()
        until = asyncio.get_running_loop().time() + HANDLER_SECONDS
        while self._at_work and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        for delivery in list(self._in_hand):
            await self._settle(delivery, delivery.raw.nak())

    def _count(self, outcome: str, count: int = 1) -> None:
        assert self._metrics is not None
        self._metrics.messages.labels(self.service, self.name, outcome).inc(count)


def read(subject: str, body: bytes, handlers: Mapping[type[Any], Handler]) -> tuple[UUID, Message | None, str | None]:
    """Return the subject's tenant, and the message or what is wrong with it."""
    tenant_id = UUID(int=0)
    try:
        tenant_id = UUID(subject.split(".")[2])
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


def _is_outage(error: Exception) -> bool:
    """Tell whether the database or the link failed rather than the handling. A handler's deadline and a cancelled statement are the message's own."""
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return False
    return isinstance(
        error,
        UnavailableError
        | OSError
        | asyncpg.PostgresConnectionError
        | asyncpg.InterfaceError
        | asyncpg.CannotConnectNowError
        | asyncpg.AdminShutdownError
        | asyncpg.CrashShutdownError
        | asyncpg.TooManyConnectionsError
        | asyncpg.DeadlockDetectedError
        | asyncpg.SerializationError
        | asyncpg.LockNotAvailableError
        | asyncpg.DiskFullError
        | asyncpg.OutOfMemoryError,
    )

"""Taking messages: pulled in batches, applied with their inbox rows in one transaction, then acknowledged.

A handler is `async def on_entry(message: EntryAppended, tx: Tx) -> None`. `tx` is a worker transaction with the
message's tenant set. Handlers never begin, commit, publish or acknowledge; what they tell goes through
`outbox.add(tx, …)`.

What several tenants are told at about one moment is applied together, some messages of each: with many quiet tenants, each one's message by
itself would cost a transaction. Where one fails, the others of the group are applied without those of its tenant. For the same reason
consumers of several streams may share their workers: what has come from all of them is taken together, entered under each one's own name,
and acknowledged to each one's own stream.

Messages come twice and out of order; the inbox drops the second of two, handlers bear the rest. A handler that needs
what has not come yet raises `NotYetError`. A message that keeps failing, that cannot be read, or that kills its
process goes to the dead letters; JetStream's own limit of deliveries is off, since what it gives up it forgets.

What comes again was perhaps in hand when its process ended, and may have been what ended it. It is handled alone, with nothing
else in hand in this process, after a mark that it was begun has been committed. Only what leaves two such marks is taken for the
culprit, of three deaths with the first; whatever else was in hand is applied as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections import Counter
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
from prometheus_client import Gauge

from shared import fail_points
from shared.database import Database, Opening, Tx, is_outage
from shared.errors import NotFoundError, NotYetError, UnavailableError
from shared.ids import new_id
from shared.messages.base import LIVE
from shared.messaging import Messaging, stream_of
from shared.pending import Delivery, Pending, identity, read, tenant_of, told_by
from shared.solitude import room
from shared.telemetry import Metrics, continued_trace, describe, error_text
from shared.tracing import is_exported

Handler = Callable[[Any, Tx], Awaitable[None]]
Collect = Callable[[Any, Tx], None]
Together = Callable[[Sequence[Any], Tx], Awaitable[None]]
AtLast = Callable[[Tx], Awaitable[None]]

BACKLOG = 1000  # messages held here, so that a quiet tenant's can pass those of a busy one
WORKERS = 2  # groups applied at once; a tenant's own messages follow one another
ACK_SECONDS = 15.0  # after a crash, what was in hand comes again this late
KEEP_ALIVE_SECONDS = 5.0
PULL_SECONDS = 20.0  # one request for messages
HEARTBEAT_SECONDS = 4.0  # the server says so often that the request stands
GROUP_SECONDS = 10.0  # to apply one message of a tenant's group
SHARED_SECONDS = 2.0  # to apply one message while other tenants' wait for the same transaction
SINGLE_SECONDS = 5.0  # to apply one message that has failed before
MAX_FAILURES = 8
HANGING_COUNTS = 2  # a handler that runs into its deadline counts double, so that it does not block for minutes
MAX_NOT_YET = 60  # some ten minutes
MAX_DEATHS = 3  # of the process: the one by which it came under suspicion, and those with nothing else in hand
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
NOT_YET_BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
OUTAGE_SECONDS = 0.5
MAX_SUSPECTS = 10_000

CLAIM = """
INSERT INTO inbox (tenant_id, consumer, message_id)
SELECT tenant_id, consumer, message_id
  FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS new (tenant_id, consumer, message_id)
    ON CONFLICT DO NOTHING
RETURNING tenant_id, consumer, message_id"""

# Which of them this very transaction has entered.
ENTERED = """
SELECT tenant_id, consumer, message_id
  FROM unnest($1::uuid[], $2::text[], $3::uuid[]) AS asked (tenant_id, consumer, message_id)
  JOIN inbox USING (tenant_id, consumer, message_id)
 WHERE inbox.xmin = pg_current_xact_id()::xid"""

# $4: whether this process has begun it before and outlived that (an outage interrupted it); then the count starts again.
BEGIN_ALONE = """
INSERT INTO attempt (tenant_id, consumer, message_key, begun)
VALUES ($1, $2, $3, 1)
    ON CONFLICT (tenant_id, consumer, message_key) DO UPDATE
   SET begun = CASE WHEN $4 THEN 1 ELSE attempt.begun + 1 END, last_at = clock_timestamp()
RETURNING begun"""

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
INSERT INTO dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, body, body_sha256, reason, error_class, error,
                         attempts, first_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
        coalesce((SELECT first_at FROM attempt WHERE tenant_id = $1 AND consumer = $3 AND message_key = $4), clock_timestamp()))
    ON CONFLICT ON CONSTRAINT dead_letter_once DO UPDATE
   SET state = 'dead', reason = excluded.reason, error_class = excluded.error_class, error = excluded.error,
       attempts = dead_letter.attempts + excluded.attempts, dead_at = clock_timestamp(), resolved_at = NULL, resolved_by = NULL"""


class Malformed(Exception):  # noqa: N818 - a verdict on a message, not a failure of ours
    """The message cannot be read: unknown subject, no JSON, wrong shape, another tenant's subject."""


class Collecting:
    """A handler that waits for nothing: it leaves each message to the end of the transaction, where all are stored.

    It is called as it is, without a deadline and a log's context for each message, which take longer than it does.
    """

    def __init__(self, collect: Collect) -> None:
        self.collect = collect

    async def __call__(self, message: Any, tx: Tx) -> None:
        self.collect(message, tx)


class AtFaultError(Exception):
    """Handling one message of a group failed; the group was rolled back."""

    def __init__(self, delivery: Delivery, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.delivery, self.error = delivery, error


def _claiming(group: Sequence[Delivery]) -> Opening:
    """The opening of a transaction that enters these messages into the inbox, each once."""
    columns = zip(*dict.fromkeys(map(identity, group)), strict=True)
    arguments = tuple(f"{{{','.join(map(str, column))}}}" for column in columns)
    return Opening("claim", "uuid[], text[], uuid[]", CLAIM, arguments)


class Consumer:
    """One durable consumer of one stream.

    Args:
        service: whose consumer it is.
        stream: the producing service's name ("intake"); its stream is derived from it.
        subjects: what it takes: derived from the handlers' classes unless given.
        handlers: by message class.
        name: the durable's name, `<service>-on-<noun>`, or `<service>-on-<producer>` unless given. Two consumers of one service on one
            stream need two names.
        together: called with a group's new messages, of one tenant or of several, before the first is handled: what can be stored or looked
            up for all of them in one statement. What it leaves for the handlers goes into `tx.kept`. It may be called with one message, and
            a second time.
        at_last: called in the group's transaction after the handlers, for what may be done at once or later: it is left out where messages
            are taken one by one, or again, so nothing of it is a message's failure for long.
        linger: seconds for which a tenant's first message waits for more, so that they share a transaction; for what nobody waits for. It
            goes earlier with a message of the tenant that does not linger, or, after a quarter of the time, with any group.
        beside: another consumer of the service, whose workers also apply what this one pulls: what has come from several streams shares
            transactions. `together` and `at_last` are then those of the other.
    """

    def __init__(
        self,
        service: str,
        stream: str,
        subjects: Sequence[str] | None = None,
        *,
        handlers: Mapping[type[Any], Handler],
        name: str | None = None,
        together: Together | None = None,
        at_last: AtLast | None = None,
        linger: Callable[[UUID], float] = lambda _: 0.0,
        beside: Consumer | None = None,
    ) -> None:
        self.service = service
        self.stream = stream_of(stream)
        self.name = name or f"{service}-on-{stream.lower()}"
        self.handlers = dict(handlers)
        self.together: Together | None = together if beside is None else beside.together
        self.at_last: AtLast | None = at_last if beside is None else beside.at_last
        self.linger = linger
        self.subjects = (
            list(subjects) if subjects else sorted({kind.SUBJECT.format(tenant_id="*") for kind in handlers})
        )
        self._log = structlog.get_logger().bind(service=service, consumer=self.name)
        self._pending: Pending = beside._pending if beside is not None else Pending()
        self._pending.consumers += 1
        self._applies = beside is None
        self._in_hand: set[Delivery] = set()
        self._asked = 0  # messages that the server may still send on our request
        self._heard_at = 0.0
        self._gone = False  # the server says that there is no such consumer
        self._turn = asyncio.Event()  # something has changed for the puller
        self._database: Database | None = None
        self._metrics: Metrics | None = None
        self._backlog: Gauge | None = None
        self._pulling: asyncio.Task[None] | None = None
        self.problem: str | None = "has not begun"

    # -- pulling -----------------------------------------------------------------------------------------------------------

    async def run(self, database: Database, messaging: Messaging, metrics: Metrics) -> None:
        """Pull and apply until cancelled; whatever fails is tried again."""
        self._database, self._metrics = database, metrics
        self._backlog = metrics.consumer_backlog.labels(self.service, self.name)
        async with asyncio.TaskGroup() as group:
            self._pulling = group.create_task(self._pull(messaging))
            group.create_task(self._keep_alive())
            if not self._applies:
                return
            for _ in range(WORKERS):
                group.create_task(self._work_off(self._pending.next_group, GROUP_SECONDS, self._pending.arrived))
            for take in (self._pending.next_suspect, self._pending.next_accused):
                group.create_task(self._work_off(take, SINGLE_SECONDS, self._pending.set_apart))

    async def stop(self) -> None:
        """Begin nothing more, wait for the transactions in hand, and give the rest back: another replica gets it without delay."""
        self._pending.is_stopping = True
        self._turn.set()
        if self._pulling is not None:  # what the server has sent already comes in, and is given back
            await asyncio.wait([self._pulling], timeout=HEARTBEAT_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GROUP_SECONDS):
                while self._pending.at_work:
                    self._pending.rest.clear()
                    await self._pending.rest.wait()
        for delivery in list(self._in_hand):
            await self._settle(delivery, delivery.raw.nak())

    async def _pull(self, messaging: Messaging) -> None:
        while not self._pending.is_stopping:
            try:
                await messaging.wait_connected()
                await self._ensure(messaging)
                await self._stream_in(messaging, messaging.generation)
            except asyncio.CancelledError:
                raise
            except (nats.errors.Error, nats.js.errors.Error, UnavailableError, OSError, TimeoutError) as error:
                self.problem = f"cannot pull from {self.stream} ({type(error).__name__})"
                self._log.info("consumer_interrupted", **describe(error))
                await asyncio.sleep(0.5)

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

    async def _stream_in(self, messaging: Messaging, generation: int) -> None:
        """Ask for as many messages as there is room for, again and again, until the connection or the consumer is another.

        This asks by itself rather than by the client's `fetch`, which collects before it returns and waits out its time with less.
        """
        client = messaging.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=self._on_message)
        self._asked, self._gone = 0, False
        self.problem = None
        loop = asyncio.get_running_loop()
        try:
            while generation == messaging.generation and not self._pending.is_stopping:
                self._turn.clear()  # an end of the request, room again, or the stop sets it
                room = BACKLOG - len(self._in_hand)
                if self._gone:
                    raise nats.js.errors.NotFoundError(description="the consumer is gone")
                if self._asked and loop.time() - self._heard_at > HEARTBEAT_SECONDS * 2.5:
                    raise TimeoutError  # the request is lost; ask anew, on a consumer that surely exists
                if self._asked <= 0 and room >= BACKLOG // 4:
                    self._asked, self._heard_at = room, loop.time()
                    await client.publish(
                        f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.name}",
                        msgspec.json.encode(
                            {
                                "batch": room,
                                "expires": int(PULL_SECONDS * 1e9),
                                "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
                            }
                        ),
                        reply=inbox,
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):  # wait_for would swallow the end of this task
                        await self._turn.wait()
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                if self._pending.is_stopping:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                else:
                    await subscription.unsubscribe()

    async def _on_message(self, raw: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        status = raw.headers.get("Status") if raw.headers else None
        if status is None:
            self._asked -= 1
            if self._pending.is_stopping:
                await raw.nak()
                return
            self._sort_in(raw)
        elif (
            status != "100"
        ):  # 100 is a heartbeat; 404 and 408 end a request; 409 ends it for a reason; 503: nobody there
            self._asked = 0
            reason = (raw.headers or {}).get("Description", "")
            self._gone = status == "503" or (status == "409" and "Consumer" in reason)
        if self._asked <= 0:
            self._turn.set()

    def _sort_in(self, raw: Msg) -> None:
        delivery = self._read(raw)
        self._in_hand.add(delivery)
        if delivery.accused:
            self._pending.accused.append(delivery)
        elif delivery.suspect:
            self._pending.suspects.append(delivery)
        else:
            # One that comes again has waited.
            self._pending.put(delivery, self.linger(delivery.tenant_id) if delivery.times == 1 else 0.0)
            return
        self._pending.set_apart.set()

    def _read(self, raw: Msg) -> Delivery:
        times, place, pending = told_by(raw.reply)
        if self._backlog is not None:
            self._backlog.set(pending)
        headers = raw.headers or {}
        key = (headers.get("Nats-Msg-Id") or f"{self.stream}:{place}").partition("/")[0]
        tenant_id, message, flaw = read(raw.subject, raw.data, self.handlers)
        has_failed = flaw is not None or key in self._pending.known_suspects
        accused = times >= 2 and not has_failed
        now = asyncio.get_running_loop().time()
        return Delivery(
            raw=raw,
            subject=raw.subject,
            body=raw.data,
            key=key,
            times=times,
            tenant_id=tenant_id,
            message=message,
            flaw=flaw,
            touched=now,
            taken_by=self,
            came=now,
            suspect=has_failed or accused,
            accused=accused,
            place=place,
        )

    async def _keep_alive(self) -> None:
        """Tell the server that what waits here is still being worked on, lest it be delivered to another replica."""
        while True:
            await asyncio.sleep(KEEP_ALIVE_SECONDS / 2)
            now = asyncio.get_running_loop().time()
            for delivery in [each for each in self._in_hand if now - each.touched > KEEP_ALIVE_SECONDS]:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                    await delivery.raw.in_progress()
                    delivery.touched = now

    # -- applying ------------------------------------------------------------------------------------------------------------

    async def _work_off(self, take: Callable[[], list[Delivery]], seconds: float, arrived: asyncio.Event) -> None:
        """One worker: takes what is next, applies it, settles it. It looks when it is told that something has arrived."""
        while True:
            group = [] if self._pending.is_stopping else take()
            if not group:
                arrived.clear()  # nothing happens between the look and this, so no arrival goes unnoticed
                await arrived.wait()
                continue
            self._pending.at_work += 1
            try:
                async with room().alone() if group[0].accused else room().among_others():
                    await self._apply(group, seconds)
            except Exception as error:  # the database or the link; the messages are not at fault
                self._log.warning("messages_postponed", count=len(group), **describe(error))
                self._put_back(group)
                await asyncio.sleep(OUTAGE_SECONDS)
            finally:
                self._pending.at_work -= 1
                if not group[0].suspect:
                    self._pending.busy.difference_update(each.tenant_id for each in group)
                for consumer in {each.taken_by for each in group}:
                    if consumer._asked <= 0:  # there may be room again
                        consumer._turn.set()
                if self._pending.waiting:
                    self._pending.arrived.set()
                if self._pending.suspects or self._pending.accused:
                    self._pending.set_apart.set()
                if not self._pending.at_work:
                    self._pending.rest.set()

    def first_in_hand(self) -> float:
        """The first place in its stream that some tenant's message in hand has; those that have failed before hold up nobody."""
        return min(
            (each.place for each in self._in_hand if each.tenant_id != LIVE and (each.accused or not each.suspect)),
            default=math.inf,
        )

    async def _apply(self, group: list[Delivery], seconds: float) -> None:
        """Apply and settle a group of messages. Raises only what is no message's fault."""
        fail_points.reach("consumer.taken")
        group = await self._without_the_dead(group)
        apart: list[list[Delivery]] = []
        while group:
            is_shared = len(set(map(tenant_of, group))) > 1
            try:
                faults = await self._transact(group, min(seconds, SHARED_SECONDS) if is_shared else seconds)
            except AtFaultError as error:
                if is_shared:
                    # The others go without its tenant's, and these afterwards: none waits for the one at fault.
                    own = error.delivery.tenant_id
                    apart.append([each for each in group if each.tenant_id == own])
                    group = [each for each in group if each.tenant_id != own]
                    continue
                # Once more, each behind its own savepoint.
                faults = [error] if len(group) == 1 else await self._transact(group, seconds, careful=True)
            await self._settle_applied(group, faults)
            group = apart.pop() if apart else []

    async def _settle_applied(self, part: list[Delivery], faults: list[AtFaultError]) -> None:
        """Acknowledge what was applied, and have the rest come again."""
        fail_points.reach("consumer.applied")
        at_fault = {fault.delivery for fault in faults}
        for delivery in part:
            if delivery not in at_fault:
                await delivery.taken_by._settle(delivery, delivery.raw.ack())
                self._pending.known_suspects.discard(delivery.key)
        fail_points.reach("consumer.acknowledged")
        for consumer, count in Counter(each.taken_by for each in part if each not in at_fault).items():
            consumer._count("applied", count)
        for fault in faults:
            await fault.delivery.taken_by._failed(fault.delivery, fault.error)

    async def _without_the_dead(self, group: list[Delivery]) -> list[Delivery]:
        """Bury what cannot be read and what has killed its process; return the rest, an accused one marked as begun alone."""
        alive = []
        for delivery in group:
            consumer = delivery.taken_by
            if delivery.flaw is not None:
                await consumer._bury(delivery, "malformed", "Malformed", delivery.flaw, delivery.times)
            elif delivery.accused and (begun := await consumer._begin_alone(delivery)) >= MAX_DEATHS:
                text = f"deaths of the process with nothing else in hand: {begun - 1}"
                await consumer._bury(delivery, "killed its process", "ProcessDied", text, begun)
            else:
                alive.append(delivery)
        return alive

    async def _begin_alone(self, delivery: Delivery) -> int:
        """Mark that the message is about to be handled alone, and return how often that has been so without coming to an end."""
        assert self._database is not None
        survived = delivery.key in self._pending.interrupted
        async with self._database.worker_tx(delivery.tenant_id) as tx:
            begun: int = await tx.fetchval(BEGIN_ALONE, tx.tenant_id, self.name, delivery.key, survived)
        return begun

    async def _transact(self, group: list[Delivery], seconds: float, *, careful: bool = False) -> list[AtFaultError]:
        """As `_in_one_transaction`, observed."""
        assert self._metrics is not None
        with (
            self._metrics.message_seconds.labels(self.service, self.name).time(),
            structlog.contextvars.bound_contextvars(service=self.service),
        ):
            return await self._in_one_transaction(group, seconds, careful=careful)

    async def _in_one_transaction(self, group: list[Delivery], seconds: float, *, careful: bool) -> list[AtFaultError]:
        """Apply messages, each once, in one transaction.

        Raises AtFaultError for the first that fails; when `careful`, undoes and returns those that fail and commits the rest.
        """
        assert self._database is not None
        faults: list[AtFaultError] = []
        opening = None if careful else _claiming(group)
        async with self._database.worker_tx(*dict.fromkeys(map(tenant_of, group)), opening=opening) as tx:
            new = {} if careful else await self._claim(tx, group)
            fail_points.reach("consumer.claimed")
            fresh = set(new.values())
            if new:
                await self._prepare(list(new.values()), tx, seconds)
            for delivery in group:
                own = tx.of(delivery.tenant_id)
                try:
                    if careful:
                        async with tx.transaction():
                            if await self._claim(tx, [delivery]):
                                await self._prepare([delivery], tx, SINGLE_SECONDS)
                                await self._handle(delivery, own, SINGLE_SECONDS)
                                await self._finish(delivery, tx)
                    elif delivery in fresh:
                        await self._handle(delivery, own, seconds)
                except AtFaultError as error:
                    if not careful:
                        raise
                    faults.append(error)
            await self._finish(group[0], tx, self.at_last if new and not group[0].suspect else None)
            at_fault = {each.delivery for each in faults}
            again: dict[tuple[UUID, str], list[str]] = {}
            for each in group:
                if each.times >= 2 and each not in at_fault:
                    again.setdefault((each.tenant_id, each.taken_by.name), []).append(each.key)
            for (tenant_id, name), keys in again.items():
                await tx.execute(FORGET, tenant_id, name, keys)
            fail_points.reach("consumer.handled")
        return faults

    async def _claim(self, tx: Tx, group: Sequence[Delivery]) -> dict[tuple[UUID, str, UUID], Delivery]:
        """Enter messages into the inbox, unless the transaction began with that, and return those that were not there, each once."""
        once = {identity(each): each for each in reversed(group)}
        if tx.opened == 0:
            return {}
        if tx.opened == len(once):
            return dict(reversed(once.items()))
        rows = await tx.fetch(CLAIM if tx.opened is None else ENTERED, *map(list, zip(*once, strict=True)))
        entered = {(row["tenant_id"], row["consumer"], row["message_id"]) for row in rows}
        return {key: each for key, each in reversed(once.items()) if key in entered}

    async def _prepare(self, fresh: Sequence[Delivery], tx: Tx, seconds: float) -> None:
        """Do what can be done for several messages at once; each of them may be at fault when it fails."""
        if self.together is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.together([each.message for each in fresh], tx)
        except Exception as error:
            if _is_outage(error):
                raise
            raise AtFaultError(fresh[0], error) from error

    async def _finish(self, delivery: Delivery, tx: Tx, at_last: AtLast | None = None) -> None:
        """Do what the handlers left to the end; likewise."""
        try:
            if at_last is not None:
                await at_last(tx)
            await tx.finish()
        except Exception as error:
            if _is_outage(error):
                raise
            raise AtFaultError(delivery, error) from error

    async def _handle(self, delivery: Delivery, tx: Tx, seconds: float) -> None:
        """Run the handler within its deadline. Raises AtFaultError, or what shows an outage as it is."""
        message = delivery.message
        assert message is not None
        handler = delivery.taken_by.handlers[type(message)]
        if isinstance(handler, Collecting) and not is_exported(self.service):
            try:
                handler.collect(message, tx)
            except Exception as error:
                raise AtFaultError(delivery, error) from error
            return
        with (
            continued_trace(
                message.traceparent, f"{self.name} {type(message).__name__}", service=self.service, kind="consumer"
            ),
            structlog.contextvars.bound_contextvars(
                tenant_id=str(delivery.tenant_id), message_id=str(message.message_id)
            ),
        ):
            try:
                async with asyncio.timeout(seconds):
                    await handler(message, tx)
            except Exception as error:
                if _is_outage(error):
                    raise
                raise AtFaultError(delivery, error) from error

    async def apply_again(self, tenant_id: UUID, subject: str, body: bytes) -> None:
        """Apply one message that was given up, in a transaction of its own; raises what the handler raises. For dead letters."""
        assert self._database is not None
        _, message, flaw = read(subject, body, self.handlers)
        if message is None:
            raise Malformed(flaw)
        async with self._database.worker_tx(tenant_id) as tx:
            if await tx.fetch(CLAIM, [tenant_id], [self.name], [message.message_id]):
                with continued_trace(message.traceparent):
                    async with asyncio.timeout(GROUP_SECONDS):
                        if self.together is not None:
                            await self.together([message], tx)
                        await self.handlers[type(message)](message, tx)

    # -- failing ---------------------------------------------------------------------------------------------------------------

    async def _failed(self, delivery: Delivery, error: Exception) -> None:
        """Count the failure and have the message come again later, or give it up."""
        assert self._database is not None
        if (
            len(self._pending.known_suspects) >= MAX_SUSPECTS
        ):  # another replica may have taken them over; to forget one costs little
            self._pending.known_suspects.clear()
        self._pending.known_suspects.add(delivery.key)
        not_yet = isinstance(error, NotYetError | NotFoundError)  # what it waits for may be on its way
        weight = HANGING_COUNTS if isinstance(error, TimeoutError) else 1
        async with self._database.worker_tx(delivery.tenant_id) as tx:
            failures: int = await tx.fetchval(
                FAIL, tx.tenant_id, self.name, delivery.key, weight, error_text(error)[:500]
            )
        if failures >= (MAX_NOT_YET if not_yet else MAX_FAILURES):
            await self._bury(delivery, "failed", type(error).__name__, error_text(error), failures)
            return
        delays = NOT_YET_BACK_OFF if not_yet else BACK_OFF
        said = self._log.info if not_yet else self._log.warning
        said(
            "message_failed",
            tenant_id=str(delivery.tenant_id),
            subject=delivery.subject,
            failures=failures,
            **describe(error),
        )
        await self._settle(delivery, delivery.raw.nak(delay=delays[min(failures, len(delays)) - 1]))
        self._count("not_yet" if not_yet else "failed")

    def _put_back(self, group: list[Delivery]) -> None:
        """Keep messages for another attempt after an outage of ours, which is nobody's failure and is not counted."""
        kept = [each for each in group if each in each.taken_by._in_hand]
        self._pending.interrupted.update(each.key for each in kept)
        for delivery in reversed(kept):
            if delivery.accused:
                self._pending.accused.appendleft(delivery)
            elif delivery.suspect:
                self._pending.suspects.appendleft(delivery)
            else:
                self._pending.put_back(delivery)
        for consumer, count in Counter(each.taken_by for each in kept).items():
            consumer._count("postponed", count)

    async def _bury(self, delivery: Delivery, reason: str, error_class: str, text: str, attempts: int) -> None:
        """Put the message into the dead letters, then have the server forget it."""
        assert self._database is not None
        assert self._metrics is not None
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
                error_class,
                text[:500],
                attempts,
            )
            await tx.execute(FORGET, delivery.tenant_id, self.name, [delivery.key])
        self._metrics.dead_letters.labels(self.service, self.name, reason).inc()
        fail_points.reach("consumer.buried")
        self._log.error(
            "message_given_up",
            tenant_id=str(delivery.tenant_id),
            subject=delivery.subject,
            reason=reason,
            attempts=attempts,
        )
        await self._settle(delivery, delivery.raw.term())
        self._pending.known_suspects.discard(delivery.key)
        self._count("dead")

    async def _settle(self, delivery: Delivery, answer: Awaitable[None]) -> None:
        """Answer the server; an answer that gets lost means one more delivery, which the inbox drops."""
        self._in_hand.discard(delivery)
        self._pending.interrupted.discard(delivery.key)
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
            await answer

    def _count(self, outcome: str, count: int = 1) -> None:
        assert self._metrics is not None
        if count:
            self._metrics.messages.labels(self.service, self.name, outcome).inc(count)


def _is_outage(error: Exception) -> bool:
    """Tell whether the database or the link failed rather than the handling.

    A handler that ran into its deadline, or whose statement did, is a message's own failure.
    """
    return not isinstance(error, TimeoutError | asyncpg.QueryCanceledError) and is_outage(error)

"""The relay: publishes what is in the outbox, as it is committed and in the order of its ids, and refills a stream that has lost messages.

One relay per service works at a time; it holds a session lock of PostgreSQL, replicas wait for it. PostgreSQL is the
record and the stream is transport: an acknowledgement is a strong hint, not proof. So rows stay after publishing,
with their place in the stream, and

- before the first publish after every connection made, the stream is compared with what was published: rows above its
  end are published again, all retained rows if it is gone or is not the one we knew (`repair`);
- now and then an audit looks for holes in the middle (`audit`).

Consumers drop what they have seen, so publishing again is always safe.

What was published is marked later, many rows at once, and before anything that goes by the marks. What this process's
own transactions add comes by hand (`handover.py`); the table is read for what others add, and whenever it is not certain
that nothing else is to be published before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.js.api import StreamInfo

from shared import fail_points
from shared.database import Database
from shared.errors import UnavailableError
from shared.handover import Known, Row
from shared.ids import new_id
from shared.messaging import API_SECONDS, Messaging, stream_of
from shared.publishing import Answer, Line, headers, shared_lines
from shared.telemetry import Metrics, describe

LOOK_FROM, LOOK_TO = 0.05, 1.0  # seconds between two looks into the table for what nobody told of
MARK_SECONDS = 0.5  # from publishing to marking
MARK_MANY = 200  # rows that are marked without waiting; a look into the table passes over them one by one
LEAVE_SECONDS = 2.0  # for the last marks
RETRY_SECONDS = 0.5
LOCK_SECONDS = 1.0  # between two attempts to take over
RESET_CHUNK = 5_000
AUDIT_SAMPLE = 50  # places whose message is looked at
MEASURE_SECONDS = 2.0
LINE_MANY = 16  # rows that are published one behind the other; more go as an atomic batch
DUPLICATE_IN_BATCH = 10201

LOCK = """
SELECT pg_try_advisory_lock(hashtext($1))"""

# The relay finds rows by their keys alone. Planned while the outbox was small, marking a batch read the whole table, for as long as nobody
# had counted its rows anew. Left to choose, PostgreSQL plans a mark of few rows anew each time, which takes as long as the mark.
BY_KEY = """
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan"""

NEXT = """
SELECT tenant_id, id, message_id, subject, body
  FROM outbox
 WHERE published_at IS NULL AND id <> ALL ($2::bigint[])
 ORDER BY id
 LIMIT $1"""

# Tells besides which transaction it was, and which was the oldest under way.
MARK = """
WITH marked AS (
     UPDATE outbox
        SET published_at = clock_timestamp() - make_interval(secs => done.seconds_ago), stream_seq = done.stream_seq
       FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::float8[]) AS done (tenant_id, id, stream_seq, seconds_ago)
      WHERE outbox.tenant_id = done.tenant_id AND outbox.id = done.id)
SELECT pg_current_xact_id()::text::bigint AS own, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest"""

WAITING = """
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_seconds
  FROM (SELECT created_at FROM outbox WHERE published_at IS NULL AND id <> ALL ($1::bigint[]) ORDER BY id LIMIT 10000) AS queue"""

KNOWN_STREAM = """
SELECT stream_created
  FROM relay_state"""

REMEMBER_STREAM = """
INSERT INTO relay_state (stream_created)
VALUES ($1)
    ON CONFLICT (one) DO UPDATE SET stream_created = excluded.stream_created, repaired_at = clock_timestamp()"""

HIGHEST = """
SELECT message_id, stream_seq
  FROM outbox
 WHERE stream_seq <= $1
 ORDER BY stream_seq DESC
 LIMIT 1"""

UNPUBLISH_ABOVE = """
UPDATE outbox
   SET published_at = NULL, stream_seq = NULL
 WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM outbox WHERE stream_seq > $1 LIMIT $2)"""

UNPUBLISH_PLACES = """
UPDATE outbox
   SET published_at = NULL, stream_seq = NULL
 WHERE stream_seq = ANY ($1::bigint[])"""

LOWEST = """
SELECT min(stream_seq)
  FROM outbox
 WHERE stream_seq IS NOT NULL"""

AT_PLACES = """
SELECT message_id, stream_seq
  FROM outbox
 WHERE stream_seq = ANY ($1::bigint[])"""


class Published(NamedTuple):
    """A row that is in the stream and not marked so; `at` by the clock of the event loop."""

    tenant_id: UUID
    place: int
    at: float


class Relay:
    """Run `run` as a task. `is_leader` tells whether this process publishes; `ready` whether the stream has been repaired."""

    def __init__(self, database: Database, messaging: Messaging, metrics: Metrics) -> None:
        self._database = database
        self._messaging = messaging
        self._metrics = metrics
        self._service = database.service
        self._settings = database.settings
        self._repaired_generation = 0
        self._may_have_duplicates = False
        self._audit_at = 0.0
        self._measure_at = 0.0
        self._highest = 0  # the last place of the stream, as far as we know
        self._added = database.outbox_added
        self._line = Line()
        self._known = Known()
        self._unmarked: dict[int, Published] = {}
        self._mark_at = math.inf
        self._look_at = 0.0
        self._look_seconds = LOOK_FROM
        self.is_leader = False
        self.failing_since: float | None = None
        self._log = structlog.get_logger().bind(service=self._service)

    @property
    def has_repaired(self) -> bool:
        """Whether the stream has been compared on this connection, and so may be published to."""
        return self._repaired_generation == self._messaging.generation > 0

    async def run(self) -> None:
        """Wait for the lock, then publish until cancelled; whatever fails is tried again."""
        while True:
            connection = None
            try:
                connection = await self._database.connect()
                await self._lead(connection)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._log.warning("relay_interrupted", **describe(error))
                self._failed()
                await asyncio.sleep(1.0)
            finally:
                self.is_leader = False
                self._repaired_generation = 0
                self._added.set()  # nobody takes what is given
                if connection is not None:
                    await _to_the_end(self._leave(connection))

    async def _leave(self, connection: asyncpg.Connection) -> None:
        """Mark what was published, if the connection still serves; what is not marked will be published again."""
        with contextlib.suppress(Exception):
            if not connection.is_closed():
                await asyncio.wait_for(self._mark(connection), LEAVE_SECONDS)
        self._unmarked.clear()
        self._mark_at = math.inf
        with contextlib.suppress(Exception):
            await connection.close(timeout=2)

    async def _lead(self, connection: asyncpg.Connection) -> None:
        await connection.execute(BY_KEY)
        while True:
            if await connection.fetchval(LOCK, f"recourse relay {self._service}"):
                break
            await asyncio.sleep(LOCK_SECONDS)
        self.is_leader = True
        self._known = Known()
        self._log.info("relay_leads")
        fail_points.reach("relay.leads")
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() >= self._measure_at:
                self._measure_at = loop.time() + MEASURE_SECONDS
                await self.measure(connection)
            try:
                busy = await self.round(connection)
            except (nats.errors.Error, nats.js.errors.Error, UnavailableError, TimeoutError) as error:
                if connection.is_closed():
                    raise  # the lock went with the connection
                self._log.warning("relay_failed", **describe(error))
                self._failed()
                self._repaired_generation = 0  # what got through is not known: compare before going on
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.failing_since = None
            if not busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(min(self._look_at, self._mark_at)):
                        await self._added.wait()

    async def round(self, connection: asyncpg.Connection) -> bool:
        """Repair if need be, publish one batch, mark what is due, and return whether there may be more to publish."""
        if not self._messaging.is_connected:
            await self._mark(connection)  # nobody knows for how long
        await self._messaging.wait_connected()
        generation = self._messaging.generation
        now = asyncio.get_running_loop().time()
        if generation != self._repaired_generation:
            await self.repair(connection)
            fail_points.reach("relay.repaired")
            self._repaired_generation = generation
            self._audit_at = now + self._settings.audit_seconds
        elif now >= self._audit_at:
            self._audit_at = now + self._settings.audit_seconds
            await self.audit(connection)
        rows = await self._next(connection)
        if rows:
            if connection.is_closed():
                raise ConnectionError("the lock went with the connection")
            fail_points.reach("relay.picked")
            await self._publish(connection, rows)
        if len(self._unmarked) >= MARK_MANY or asyncio.get_running_loop().time() >= self._mark_at:
            await self._mark(connection)
        return self._added.in_table

    async def _next(self, connection: asyncpg.Connection) -> Sequence[Row]:
        """Return what is to be published next: what was handed over, if nothing else may have to go before it, or what the table has."""
        added = self._added
        now = asyncio.get_running_loop().time()
        was_told = added.in_table
        given = added.take()
        if not was_told and now < self._look_at:
            new = [row for row in given if self._known.note(row.id)]
            if self._known.is_complete or not given:
                return new
        added.look()
        limit = self._settings.outbox_batch
        try:
            rows = [Row(*record) for record in await connection.fetch(NEXT, limit, list(self._unmarked))]
        except BaseException:
            added.set()
            raise
        for row in rows:
            self._known.note(row.id)
        if len(rows) == limit:
            added.set()
        # Rows that nobody here told of are another process's; where they come from there may be more.
        is_surprised = not was_told and len(rows) > len(given)
        self._look_seconds = LOOK_FROM if is_surprised else min(self._look_seconds * 2, LOOK_TO)
        self._look_at = now + self._look_seconds
        return rows

    # -- publishing --------------------------------------------------------------------------------------------------------

    async def _publish(self, connection: asyncpg.Connection, rows: Sequence[Row]) -> None:
        if len(rows) <= LINE_MANY and not self._may_have_duplicates:
            places = await self._line.publish(self._messaging.client, rows, API_SECONDS)
            if places:
                stored = len(places)
                await self._note(connection, rows[:stored], places[-1], "single" if stored == 1 else "line")
                rows = rows[stored:]
                if not rows:
                    return
        elif not self._may_have_duplicates:
            try:
                await self._note(connection, rows, await self._publish_batch(rows), "batch")
                return
            except nats.js.errors.APIError as refusal:
                if refusal.err_code != DUPLICATE_IN_BATCH:
                    raise
        for row in rows:
            place, way = await self._publish_one(row)
            await self._note(connection, [row], place, way)
        # Those that are there already come in a run; the next ones try to go through together again.
        self._may_have_duplicates = False

    async def _publish_batch(self, rows: Sequence[Row]) -> int:
        """Publish all or none, atomically, and return the place of the last; the others stand right before it."""
        client = self._messaging.client
        if not client.is_connected:
            raise nats.errors.ConnectionClosedError
        batch_id = str(new_id())
        last = len(rows)
        batch = f"Nats-Batch-Id: {batch_id}\r\n".encode()
        for number, row in enumerate(rows[:-1], start=1):
            # The client's own `publish` formats and checks eight headers of each message, which took longer than all the rest here. Ours
            # are ids and tokens of subjects. The request below sends what is pending.
            await client._send_command(_frame(row, shared_lines(row.subject) + batch, number))
        last_headers = {
            **headers(rows[-1]),
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(last),
            "Nats-Batch-Commit": "1",
        }
        answer = await client.request(rows[-1].subject, rows[-1].body, timeout=API_SECONDS, headers=last_headers)
        return _place(answer.data)

    async def _publish_one(self, row: Row) -> tuple[int, str]:
        """Publish one message, unless the stream has it; return its place, and whether it was there."""
        js = self._messaging.js
        ack = await js.publish(row.subject, row.body, headers=headers(row), timeout=API_SECONDS)
        if not ack.duplicate:
            return ack.seq, "single"
        if await self._holds(ack.seq, row.message_id):
            return ack.seq, "duplicate"
        # The server remembers the id of a message that it has lost; under another id it takes it.
        other_id = {**headers(row), "Nats-Msg-Id": f"{row.message_id}/{new_id()}"}
        ack = await js.publish(row.subject, row.body, headers=other_id, timeout=API_SECONDS)
        return ack.seq, "single"

    async def _note(self, connection: asyncpg.Connection, rows: Sequence[Row], last: int, way: str) -> None:
        """Note where these rows stand in the stream, one after the other."""
        fail_points.reach("relay.published")
        first = last - len(rows) + 1
        if way != "duplicate":
            if first <= self._highest:  # the stream has lost its tail since it was compared, and these took the places
                await self._mark(connection)
                lost = await self._unpublish_above(connection, first - 1)
                self._may_have_duplicates = True
                self._log.warning("stream_repaired", resent=lost, reason="the stream has gone back", last_seq=first - 1)
            self._highest = last
        now = asyncio.get_running_loop().time()
        for place, row in enumerate(rows, first):
            self._unmarked[row.id] = Published(row.tenant_id, place, now)
        self._mark_at = min(self._mark_at, now + MARK_SECONDS)
        self._metrics.outbox_published.labels(self._service, way).inc(len(rows))

    async def _mark(self, connection: asyncpg.Connection) -> None:
        """Mark what was published, by the connection that holds the lock: where the lock is lost, another publishes it again."""
        if not self._unmarked:
            return
        now = asyncio.get_running_loop().time()
        done = self._unmarked.values()
        row = await connection.fetchrow(
            MARK,
            [each.tenant_id for each in done],
            list(self._unmarked),
            [each.place for each in done],
            [now - each.at for each in done],
        )
        assert row is not None
        self._unmarked.clear()
        self._mark_at = math.inf
        fail_points.reach("relay.marked")
        if self._known.settle(row["own"], row["oldest"]):
            self._added.set()

    async def measure(self, connection: asyncpg.Connection) -> None:
        """Tell how much waits, and for how long."""
        [row] = await connection.fetch(WAITING, list(self._unmarked))
        self._metrics.outbox_waiting.labels(self._service).set(row["waiting"])
        self._metrics.outbox_oldest_seconds.labels(self._service).set(row["oldest_seconds"])

    # -- repairing -----------------------------------------------------------------------------------------------------------

    async def repair(self, connection: asyncpg.Connection) -> int:
        """Compare the stream with what was published; return how many rows will be published again."""
        await self._mark(connection)
        self._added.set()
        info = await self._messaging.ensure_stream()
        created = _created(info)
        known = await connection.fetchval(KNOWN_STREAM)
        if known is not None and known != created:
            lost = await self._unpublish_above(connection, -1)
            reason = "the stream is not the one that was published to"
        else:
            agreed = await self._agreed(connection, info.state.last_seq)
            lost = await self._unpublish_above(connection, agreed)
            reason = "the stream ends before what was published"
        if known != created:
            await connection.execute(REMEMBER_STREAM, created)
        self._highest = info.state.last_seq
        if lost:
            self._may_have_duplicates = True
            self._metrics.outbox_repaired.labels(self._service).inc(lost)
            self._log.warning("stream_repaired", resent=lost, reason=reason, last_seq=info.state.last_seq)
        return lost

    async def _agreed(self, connection: asyncpg.Connection, last_seq: int) -> int:
        """Return the highest place up to which the stream holds what we published there; -1 for nowhere."""
        at = last_seq
        step = 1
        while True:
            row = await connection.fetchrow(HIGHEST, at)
            if row is None:
                # Nothing of ours at or below: all right if the stream is older than what we retain.
                return at if at == last_seq else -1
            if await self._holds(row["stream_seq"], row["message_id"]):
                return int(row["stream_seq"]) if at < last_seq else last_seq
            at = row["stream_seq"] - step
            step *= 2

    async def _holds(self, stream_seq: int, message_id: UUID) -> bool:
        """Tell whether the stream has this message at this place."""
        try:
            found = await self._messaging.js.get_msg(stream_of(self._service), seq=stream_seq, direct=True)
        except nats.js.errors.NotFoundError:
            return False
        return str((found.headers or {}).get("Nats-Msg-Id", "")).partition("/")[0] == str(message_id)

    async def _unpublish_above(self, connection: asyncpg.Connection, place: int) -> int:
        total = 0
        self._added.set()
        while True:
            tag = await connection.execute(UNPUBLISH_ABOVE, place, RESET_CHUNK)
            count = int(tag.rpartition(" ")[2])
            total += count
            if count < RESET_CHUNK:
                return total

    async def audit(self, connection: asyncpg.Connection) -> int:
        """Look for holes: places that hold nothing, or something else. What stood there is published again; return how many rows."""
        await self._mark(connection)
        self._added.set()
        state = await self._state()
        missing = set(state.deleted or ()) | set((state.lost or _Lost()).msgs or ())
        lowest = await connection.fetchval(LOWEST)
        if lowest is not None and state.messages and lowest < state.first_seq:
            missing |= set(range(lowest, state.first_seq))
        first = lowest or 1
        sample = [random.randint(first, state.last_seq) for _ in range(AUDIT_SAMPLE)] if first <= state.last_seq else []  # noqa: S311 - no secret
        for row in await connection.fetch(AT_PLACES, sample):
            if row["stream_seq"] not in missing and not await self._holds(row["stream_seq"], row["message_id"]):
                self._log.error(
                    "stream_holes_found", reason="a place holds another message", last_seq=row["stream_seq"]
                )
                self._repaired_generation = 0  # compare everything from the end
                missing.add(row["stream_seq"])
        holes = 0
        places = sorted(missing)
        for start in range(0, len(places), RESET_CHUNK):
            tag = await connection.execute(UNPUBLISH_PLACES, places[start : start + RESET_CHUNK])
            holes += int(tag.rpartition(" ")[2])
        if holes:
            self._may_have_duplicates = True
            self._metrics.outbox_repaired.labels(self._service).inc(holes)
            self._log.error("stream_holes_found", holes=holes)
        return holes

    async def _state(self) -> _State:
        """The stream's state with the places that are empty, which the client's own call does not ask for."""
        answer = await self._messaging.client.request(
            f"$JS.API.STREAM.INFO.{stream_of(self._service)}", b'{"deleted_details": true}', timeout=API_SECONDS
        )
        return msgspec.json.decode(answer.data, type=_Info).state

    def _failed(self) -> None:
        if self.failing_since is None:
            self.failing_since = asyncio.get_running_loop().time()


def _frame(row: Row, constant: bytes, number: int) -> bytes:
    """One message of a batch as the protocol has it."""
    message_id = str(row.message_id).encode()
    headers = b"%bNats-Msg-Id: %b\r\nce-id: %b\r\nNats-Batch-Sequence: %d\r\n\r\n" % (
        constant,
        message_id,
        message_id,
        number,
    )
    body = row.body
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (
        row.subject.encode(),
        len(headers),
        len(headers) + len(body),
        headers,
        body,
    )


class _Lost(msgspec.Struct):
    msgs: list[int] | None = None


class _State(msgspec.Struct):
    messages: int
    first_seq: int
    last_seq: int
    deleted: list[int] | None = None
    lost: _Lost | None = None


class _Info(msgspec.Struct):
    state: _State


def _place(answer: bytes) -> int:
    ack = msgspec.json.decode(answer, type=Answer)
    if ack.error is not None:
        raise nats.js.errors.APIError(**{key: ack.error.get(key) for key in ("code", "err_code", "description")})
    return ack.seq


def _created(info: StreamInfo) -> str:
    return str(info.created)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work`, however often the task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError

"""The relay: publishes what is in the outbox, in the order of its ids, and refills a stream that has lost messages.

One relay per service works at a time; it holds a session lock of PostgreSQL, replicas wait for it. PostgreSQL is the
record and the stream is transport: an acknowledgement is a strong hint, not proof. So rows stay after publishing,
with their place in the stream, and

- before the first publish after every connection made, the stream is compared with what was published: rows above its
  end are published again, all retained rows if it is gone or is not the one we knew (`repair`);
- now and then an audit looks for holes in the middle (`audit`).

Consumers drop what they have seen, so publishing again is always safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any
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
from shared.ids import new_id
from shared.messaging import API_SECONDS, Messaging, stream_of
from shared.telemetry import Metrics, describe

IDLE_FROM, IDLE_TO = 0.05, 2.0  # seconds between two looks while nothing is added
LOCK_SECONDS = 1.0  # between two attempts to take over
RESET_CHUNK = 5_000
AUDIT_SAMPLE = 50  # places whose message is looked at
MEASURE_SECONDS = 2.0
DUPLICATE_IN_BATCH = 10201

LOCK = """
SELECT pg_try_advisory_lock(hashtext($1))"""

# The relay finds rows by their keys alone. Planned while the outbox was small, marking a batch read the whole table, for as long as nobody
# had counted its rows anew.
BY_KEY = """
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"""

NEXT = """
SELECT tenant_id, id, message_id, subject, body
  FROM outbox
 WHERE published_at IS NULL
 ORDER BY id
 LIMIT $1"""

MARK = """
UPDATE outbox
   SET published_at = clock_timestamp(), stream_seq = done.stream_seq
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS done (tenant_id, id, stream_seq)
 WHERE outbox.tenant_id = done.tenant_id AND outbox.id = done.id"""

WAITING = """
SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_seconds
  FROM (SELECT created_at FROM outbox WHERE published_at IS NULL ORDER BY id LIMIT 10000) AS queue"""

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

ANYTHING_PUBLISHED = """
SELECT EXISTS (SELECT FROM outbox WHERE stream_seq IS NOT NULL)"""

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
                if connection is not None:
                    with contextlib.suppress(Exception):
                        await connection.close(timeout=2)

    async def _lead(self, connection: asyncpg.Connection) -> None:
        await connection.execute(BY_KEY)
        while True:
            if await connection.fetchval(LOCK, f"recourse relay {self._service}"):
                break
            await asyncio.sleep(LOCK_SECONDS)
        self.is_leader = True
        self._log.info("relay_leads")
        fail_points.reach("relay.leads")
        idle = IDLE_FROM
        loop = asyncio.get_running_loop()
        while True:
            self._database.outbox_added.clear()
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
                await asyncio.sleep(min(1.0, idle * 10))
                continue
            self.failing_since = None
            if busy:
                idle = IDLE_FROM
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._database.outbox_added.wait()
                idle = IDLE_FROM
                continue
            idle = min(idle * 2, IDLE_TO)

    async def round(self, connection: asyncpg.Connection) -> bool:
        """Repair if need be, publish one batch, and return whether there may be more."""
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
        rows = await connection.fetch(NEXT, self._settings.outbox_batch)
        if rows:
            fail_points.reach("relay.picked")
            await self._publish(connection, rows)
        return len(rows) == self._settings.outbox_batch

    # -- publishing --------------------------------------------------------------------------------------------------------

    async def _publish(self, connection: asyncpg.Connection, rows: list[asyncpg.Record]) -> None:
        if len(rows) > 1 and not self._may_have_duplicates:
            try:
                await self._mark(connection, rows, await self._publish_batch(rows), "batch")
                return
            except nats.js.errors.APIError as refusal:
                if refusal.err_code != DUPLICATE_IN_BATCH:
                    raise
        for row in rows:
            place, way = await self._publish_one(row)
            await self._mark(connection, [row], place, way)
        # Those that are there already come in a run; the next full batch tries to go through as one again.
        self._may_have_duplicates = False

    async def _publish_batch(self, rows: list[asyncpg.Record]) -> int:
        """Publish all or none, atomically, and return the place of the last; the others stand right before it."""
        client = self._messaging.client
        if not client.is_connected:
            raise nats.errors.ConnectionClosedError
        batch_id = str(new_id())
        last = len(rows)
        constant: dict[str, bytes] = {}
        for number, row in enumerate(rows[:-1], start=1):
            subject = row["subject"]
            if subject not in constant:
                constant[subject] = _constant_headers(subject, batch_id)
            # The client's own `publish` formats and checks eight headers of each message, which took longer than all the rest here. Ours
            # are ids and tokens of subjects. The request below sends what is pending.
            await client._send_command(_frame(row, constant[subject], number))
        headers = {
            **_headers(rows[-1]),
            "Nats-Batch-Id": batch_id,
            "Nats-Batch-Sequence": str(last),
            "Nats-Batch-Commit": "1",
        }
        answer = await client.request(rows[-1]["subject"], rows[-1]["body"], timeout=API_SECONDS, headers=headers)
        return _place(answer.data)

    async def _publish_one(self, row: asyncpg.Record) -> tuple[int, str]:
        """Publish one message, unless the stream has it; return its place, and whether it was there."""
        js = self._messaging.js
        ack = await js.publish(row["subject"], row["body"], headers=_headers(row), timeout=API_SECONDS)
        if not ack.duplicate:
            return ack.seq, "single"
        if await self._holds(ack.seq, row["message_id"]):
            return ack.seq, "duplicate"
        # The server remembers the id of a message that it has lost; under another id it takes it.
        headers = {**_headers(row), "Nats-Msg-Id": f"{row['message_id']}/{new_id()}"}
        ack = await js.publish(row["subject"], row["body"], headers=headers, timeout=API_SECONDS)
        return ack.seq, "single"

    async def _mark(self, connection: asyncpg.Connection, rows: list[asyncpg.Record], last: int, way: str) -> None:
        fail_points.reach("relay.published")
        first = last - len(rows) + 1
        if way != "duplicate":
            if first <= self._highest:  # the stream has lost its tail since it was compared, and these took the places
                lost = await self._unpublish_above(connection, first - 1)
                self._may_have_duplicates = True
                self._log.warning("stream_repaired", resent=lost, reason="the stream has gone back", last_seq=first - 1)
            self._highest = last
        await connection.execute(
            MARK,
            [row["tenant_id"] for row in rows],
            [row["id"] for row in rows],
            list(range(first, last + 1)),
        )
        fail_points.reach("relay.marked")
        self._metrics.outbox_published.labels(self._service, way).inc(len(rows))

    async def measure(self, connection: asyncpg.Connection) -> None:
        """Tell how much waits, and for how long."""
        [row] = await connection.fetch(WAITING)
        self._metrics.outbox_waiting.labels(self._service).set(row["waiting"])
        self._metrics.outbox_oldest_seconds.labels(self._service).set(row["oldest_seconds"])

    # -- repairing -----------------------------------------------------------------------------------------------------------

    async def repair(self, connection: asyncpg.Connection) -> int:
        """Compare the stream with what was published; return how many rows will be published again."""
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
        while True:
            tag = await connection.execute(UNPUBLISH_ABOVE, place, RESET_CHUNK)
            count = int(tag.rpartition(" ")[2])
            total += count
            if count < RESET_CHUNK:
                return total

    async def audit(self, connection: asyncpg.Connection) -> int:
        """Look for holes: places that hold nothing, or something else. What stood there is published again; return how many rows."""
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


def _headers(row: asyncpg.Record) -> dict[str, str]:
    """CloudEvents attributes as headers; the body is the message itself."""
    message_id = str(row["message_id"])
    return {"Nats-Msg-Id": message_id, "ce-id": message_id, **_attributes(row["subject"])}


def _attributes(subject: str) -> dict[str, str]:
    """Those that all messages of a subject share."""
    producer, version, _tenant, noun, verb = subject.split(".")
    return {
        "ce-specversion": "1.0",
        "ce-type": f"{producer}.{version}.{noun}.{verb}",
        "ce-source": f"/recourse/{producer}",
        "content-type": "application/json",
    }


def _constant_headers(subject: str, batch_id: str) -> bytes:
    """The part of a batch's headers that all messages of a subject share, as the protocol has it."""
    lines = {**_attributes(subject), "Nats-Batch-Id": batch_id}
    return b"NATS/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in lines.items())


def _frame(row: asyncpg.Record, constant: bytes, number: int) -> bytes:
    """One message of a batch as the protocol has it."""
    message_id = str(row["message_id"]).encode()
    headers = b"%bNats-Msg-Id: %b\r\nce-id: %b\r\nNats-Batch-Sequence: %d\r\n\r\n" % (
        constant,
        message_id,
        message_id,
        number,
    )
    body = row["body"]
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (
        row["subject"].encode(),
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


class _Ack(msgspec.Struct):
    seq: int = 0
    error: dict[str, Any] | None = None


def _place(answer: bytes) -> int:
    ack = msgspec.json.decode(answer, type=_Ack)
    if ack.error is not None:
        raise nats.js.errors.APIError(**{key: ack.error.get(key) for key in ("code", "err_code", "description")})
    return ack.seq


def _created(info: StreamInfo) -> str:
    return str(info.created)

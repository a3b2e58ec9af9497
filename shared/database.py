"""PostgreSQL: two pools per service, one per role, and the transaction that everything runs in.

A transaction belongs to one tenant, or to several that were named when it began: of the worker role in all tables, of the
edge where a table allows it (intake's, for storing complaints). They are set with `BEGIN` in one round trip and end with the
transaction, so nothing of it stays behind in the pool; row-level security refuses every statement of a transaction that has none.
Every call has a deadline.

`json` and `jsonb` columns take and give Python values. Errors of PostgreSQL quote the row they are about: never log
them as they are, use `telemetry.describe`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from copy import copy
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import msgspec
import structlog

from shared import fail_points
from shared.errors import UnavailableError
from shared.handover import Handover
from shared.settings import ServiceSettings

Record = asyncpg.Record

DURABILITY = """
SELECT name, setting
  FROM pg_settings
 WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes')"""

KEPT_AT_HAND = 4  # connections of each pool
FIRST_OWN_TYPE = 10_000  # below, ids of types are PostgreSQL's own, the same in every database

_types: dict[frozenset[int], Any] = {}

OUTAGES: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Failures of the server or of the link: the same request may succeed later."""


def is_outage(error: BaseException) -> bool:
    """Tell whether the database failed us, rather than we it. asyncpg reports a closed connection and wrong arguments as one class."""
    if isinstance(error, UnavailableError | asyncpg.InternalClientError):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or "released" in str(error)
    return isinstance(error, OUTAGES)


class Connection(asyncpg.Connection):
    """Asks the server once in a process how PostgreSQL's own array types are made.

    The client asks on every connection for each array that it meets, with a recursive query over the catalogue which takes the server 7 ms:
    some 40 ms before a new connection of a service has sent its first statements.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.opened_with: set[str] = set()  # openings that the server knows in this session

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> Any:
        asked = frozenset(typeoids)
        if max(asked) >= FIRST_OWN_TYPE:
            return await super()._introspect_types(asked, timeout)  # type: ignore[misc]  # not in its stubs
        found = _types.get(asked)
        if found is None:
            found = _types[asked] = await super()._introspect_types(asked, timeout)  # type: ignore[misc]  # likewise
        return found


class Opening(NamedTuple):
    """A statement that goes to the server together with BEGIN; the server keeps it, and its plan, from its first use in a session on.

    Its arguments are written into the text, so they may hold nothing but our own ids and names, and arrays of them as PostgreSQL has them.
    """

    name: str
    types: str
    statement: str
    arguments: tuple[str, ...]

    def called(self) -> str:
        """Return how it is called. ValueError for an argument that holds anything else."""
        if not all(map(PLAIN.fullmatch, self.arguments)):
            raise ValueError(f"an argument of {self.name} holds more than ids and names")
        values = ", ".join(f"'{each}'" for each in self.arguments)
        return f"EXECUTE {self.name} ({values})"

    async def make_known(self, connection: Any) -> None:
        """See to it that the server knows it in this session."""
        if self.name not in connection.opened_with:
            with contextlib.suppress(asyncpg.DuplicatePreparedStatementError):  # whoever sent it was cancelled
                await connection.execute(f"PREPARE {self.name} ({self.types}) AS {self.statement}")
            connection.opened_with.add(self.name)


PLAIN = re.compile(r"[0-9A-Za-z{},_-]*")

Store = Callable[["Tx", Sequence[Any]], Awaitable[None]]
"""Stores what was collected for the end of a transaction."""


class UnsafeServerError(Exception):
    """A server is set up so that it may lose what it has confirmed."""


class Tx:
    """One transaction of one tenant, or of several. Begun and ended by `Database`; handlers and repositories only use it.

    That of several tenants has a face for each (`of`), which is what a handler gets. All share what is kept and what is left to the end.

    For many rows, INSERT ... SELECT FROM unnest(...): PostgreSQL refuses COPY into tables under row-level security.
    """

    __slots__ = ("_after", "_connection", "_faces", "_last", "_savepoints", "database", "kept", "opened", "tenant_id")

    def __init__(self, database: Database, connection: Any, tenant_id: UUID, others: Sequence[UUID] = ()) -> None:
        self.database = database
        self.tenant_id = tenant_id
        self.opened: int | None = None  # rows that its opening has written
        # What its statements found, for those that follow; gone with a savepoint that is undone.
        self.kept: dict[str, Any] = {}
        self._connection = connection
        self._after: list[Callable[[], object]] = []
        self._last: dict[tuple[Store, UUID | None], list[Any]] = {}
        self._savepoints = count(1)
        self._faces: dict[UUID, Tx] = {}
        for each in (tenant_id, *others) if others else ():
            self._faces[each] = face = copy(self)
            face.tenant_id = each

    def of(self, tenant_id: UUID) -> Tx:
        """The same transaction for one of its tenants; KeyError for a tenant that it was not begun for."""
        if not self._faces and tenant_id == self.tenant_id:
            return self
        return self._faces[tenant_id]

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        rows: list[Record] = await self._connection.fetch(query, *args)
        return rows

    async def fetchrow(self, query: str, *args: Any) -> Record | None:
        row: Record | None = await self._connection.fetchrow(query, *args)
        return row

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first column of the first row, or None."""
        return await self._connection.fetchval(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        """Return the command tag, such as "UPDATE 1"."""
        tag: str = await self._connection.execute(query, *args)
        return tag

    async def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        await self._connection.executemany(query, rows)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A savepoint: what happens inside is undone if the block raises, and the transaction goes on."""
        name = f"inner_{next(self._savepoints)}"
        await self.finish()
        after = len(self._after)
        await self._connection.execute(f"SAVEPOINT {name}")
        try:
            yield
            await self.finish()
        except BaseException:
            self._last.clear()
            self.kept.clear()
            del self._after[after:]
            await self._connection.execute(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}")
            raise
        await self._connection.execute(f"RELEASE SAVEPOINT {name}")

    def at_the_end(self, store: Store, *, for_all: bool = False) -> list[Any]:
        """Return the list whose items `store` is given right before the commit, all at once: many rows in one statement.

        Around a savepoint it is called before, and before the savepoint is released, so that what is undone is not stored.

        Args:
            for_all: one list for all tenants of the transaction: the items bear their tenant. Otherwise each tenant has its own.
        """
        return self._last.setdefault((store, None if for_all else self.tenant_id), [])

    def take_back(self, store: Store) -> list[Any]:
        """Return what was left to the end for all tenants, for somebody who stores it along with something else."""
        return self._last.pop((store, None), [])

    async def finish(self) -> None:
        """Do what was left to the end, whichever tenant left it; it is done before the commit in any case."""
        while self._last:
            store, tenant_id = next(iter(self._last))
            await store(self if tenant_id is None else self.of(tenant_id), self._last.pop((store, tenant_id)))

    def after_commit(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the transaction has committed, and never otherwise: to wake a loop or drop a cached value.

        If a savepoint around it is undone, it is not called.
        """
        self._after.append(callback)

    def _committed(self) -> None:
        for callback in self._after:
            try:
                callback()
            except Exception as error:  # what is committed is done; who waits for it looks again by itself
                structlog.get_logger().error("after_commit_failed", error_class=type(error).__name__)


class Database:
    """The two pools of one service.

    `api_tx` runs as `<service>_api`: everything under row-level security. `worker_tx` runs as `<service>_worker`, which sees other tenants'
    rows in the few tables that say so (outbox, inbox, dead letters, wake-ups) and only its own tenant's everywhere else.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.service = settings.service
        self.outbox_added = Handover()  # told after the commit of a transaction that added to the outbox
        self._api: _Leases | None = None
        self._worker: _Leases | None = None

    async def open(self) -> None:
        """Open both pools and check that the server keeps what it confirms. Raises UnsafeServerError, or what asyncpg raises."""
        self._api = await self._leases("api", self.settings.api_password, self.settings.api_connections)
        self._worker = await self._leases("worker", self.settings.worker_password, self.settings.worker_connections)
        if self.settings.require_durable:
            async with self._worker.pool.acquire(timeout=self.settings.acquire_seconds) as connection:
                await check_durability(connection)

    async def close(self) -> None:
        for leases in (self._api, self._worker):
            if leases is not None:
                try:
                    await asyncio.wait_for(leases.close(), self.settings.stop_seconds)
                except Exception:
                    leases.pool.terminate()
        self._api = self._worker = None

    @property
    def is_open(self) -> bool:
        return self._worker is not None

    @contextlib.asynccontextmanager
    async def api_tx(self, tenant_id: UUID, *others: UUID, lock_seconds: float | None = None) -> AsyncIterator[Tx]:
        """A transaction of the HTTP edge. UnavailableError when no connection is free in time.

        With several tenants, it sees and writes the rows of each of them, in the few tables that allow it to this role.

        Args:
            lock_seconds: how long a statement waits for a lock, where another time than the usual is meant.
        """
        async with self._transaction(self._api, tenant_id, "api", others, lock_seconds) as tx:
            fail_points.reach("api.begun")
            yield tx

    async def api_call(self, query: str, *args: Any) -> list[Record]:
        """Call a function of the database that is a transaction of its own, and that names the tenants of it itself: one round trip.

        What comes back is committed. UnavailableError when no connection is free in time.
        """
        leases, connection = await self._lease(self._api)
        fail_points.reach("api.begun")
        try:
            rows: list[Record] = await connection.fetch(query, *args)
        except BaseException:
            await leases.give_back(connection, self.settings.command_seconds)
            raise
        if not leases.keep(connection):
            await leases.give_back(connection, self.settings.command_seconds)
        fail_points.reach("api.committed")
        return rows

    @contextlib.asynccontextmanager
    async def worker_tx(self, tenant_id: UUID, *others: UUID, opening: Opening | None = None) -> AsyncIterator[Tx]:
        """A transaction of consumers and loops. For work across tenants pass LIVE (UUID 0) and use only tables that allow it.

        With several tenants, it sees and writes the rows of each of them; `tx.of` gives it for one. Each statement still names the
        tenant of each row that it is about.

        Args:
            opening: its first statement, which spares a round trip; `tx.opened` tells how many rows it has written.
        """
        async with self._transaction(self._worker, tenant_id, "worker", others, opening=opening) as tx:
            yield tx

    @contextlib.asynccontextmanager
    async def _transaction(
        self,
        leases: _Leases | None,
        tenant_id: UUID,
        role: str,
        others: Sequence[UUID] = (),
        lock_seconds: float | None = None,
        opening: Opening | None = None,
    ) -> AsyncIterator[Tx]:
        if not all(isinstance(each, UUID) for each in (tenant_id, *others)):
            raise TypeError("a transaction needs a tenant")
        leases, connection = await self._lease(leases)
        tx = Tx(self, connection, tenant_id, others)
        try:
            # One round trip. The values are UUIDs' own text: hexadecimal digits and hyphens.
            begin = (
                f"BEGIN; SET LOCAL app.tenant_id = '{tenant_id}';"
                f" SET LOCAL app.tenant_ids = '{{{','.join(map(str, others))}}}'"
            )
            if lock_seconds is not None:
                begin += f"; SET LOCAL lock_timeout = '{int(lock_seconds * 1000)}'"
            if opening is None:
                await connection.execute(begin)
            else:
                await opening.make_known(connection)
                tag = await connection.execute(f"{begin}; {opening.called()}")
                tx.opened = int(tag.rpartition(" ")[2])
            yield tx
            await tx.finish()
            fail_points.reach(f"{role}.commit")
            await connection.execute("COMMIT")
        except BaseException:
            await self._roll_back(connection)
            await leases.give_back(connection, self.settings.command_seconds)
            raise
        if not leases.keep(connection):
            await leases.give_back(connection, self.settings.command_seconds)
        fail_points.reach(f"{role}.committed")
        tx._committed()

    async def _lease(self, leases: _Leases | None) -> tuple[_Leases, Any]:
        if leases is None:
            raise UnavailableError("The database is not open.", retry_after_seconds=1)
        try:
            return leases, await leases.take(self.settings.acquire_seconds)
        except Exception as error:
            if not is_outage(error):
                raise
            raise UnavailableError("The database has no free connection.", retry_after_seconds=1) from error

    async def _roll_back(self, connection: Any) -> None:
        """End the transaction, whatever happens: a connection that cannot say ROLLBACK is thrown away."""
        try:
            await asyncio.wait_for(_rolled_back(connection), self.settings.command_seconds)
        except BaseException:
            with contextlib.suppress(asyncpg.InterfaceError):  # the pool has taken it back already: it was lost
                connection.terminate()

    async def connect(self, role: str = "worker") -> asyncpg.Connection:
        """A connection outside the pools, for a session lock; the caller closes it."""
        password = self.settings.worker_password if role == "worker" else self.settings.api_password
        connection: asyncpg.Connection = await asyncpg.connect(
            **self._options(role, password),
            timeout=self.settings.acquire_seconds + 3,
            connection_class=Connection,
        )
        await _prepare(connection)
        return connection

    async def _leases(self, role: str, password: str | None, size: int) -> _Leases:
        pool: asyncpg.Pool = await asyncpg.create_pool(
            **self._options(role, password),
            min_size=1,
            max_size=size,
            max_inactive_connection_lifetime=300,
            timeout=self.settings.acquire_seconds + 3,  # of connecting
            connection_class=Connection,
            init=_prepare,
            reset=_leave_clean,
        )
        return _Leases(pool)

    def _options(self, role: str, password: str | None) -> dict[str, Any]:
        milliseconds = int(self.settings.command_seconds * 1000)
        return {
            "dsn": dsn_for(self.settings.database_url, f"{self.service}_{role}", password),
            "command_timeout": self.settings.command_seconds,
            "statement_cache_size": self.settings.statement_cache,
            "server_settings": {
                "application_name": f"recourse {self.service} {role}",
                "search_path": f"{self.service}, public",
                "timezone": "UTC",
                "statement_timeout": str(milliseconds),
                "lock_timeout": str(max(milliseconds - 500, 500)),
                "idle_in_transaction_session_timeout": str(milliseconds * 5),
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "jit": "off",
                # Every table has an index for whatever is asked of it. A plan is kept, and one that was made while a table was small
                # read all of it long after.
                "enable_seqscan": "off",
            },
        }


class _Leases:
    """Who may use which connection of a pool. Those that were used last stay at hand, unless somebody waits for one.

    The pool itself takes three tasks and two timers to lend a connection and take it back.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self._at_hand: list[Any] = []
        self._waiting = 0
        self._is_closing = False

    async def take(self, seconds: float) -> Any:
        """Return a connection; whatever the pool raises when none is free in time."""
        while self._at_hand:
            connection = self._at_hand.pop()
            if not connection.is_closed():
                return connection
            await self.give_back(connection, seconds)
        self._waiting += 1
        try:
            return await self.pool.acquire(timeout=seconds)
        finally:
            self._waiting -= 1

    def keep(self, connection: Any) -> bool:
        """Have it at hand for the next one, after a transaction that has ended as it should; return whether that is so."""
        is_wanted = self._waiting or self._is_closing or len(self._at_hand) >= KEPT_AT_HAND
        if is_wanted or connection.is_closed() or connection.is_in_transaction():
            return False
        self._at_hand.append(connection)
        return True

    async def give_back(self, connection: Any, seconds: float) -> None:
        await _shielded(self.pool.release(connection, timeout=seconds))

    async def close(self) -> None:
        self._is_closing = True
        while self._at_hand:
            await self.give_back(self._at_hand.pop(), 1.0)
        await self.pool.close()


def dsn_for(url: str, user: str, password: str | None = None) -> str:
    """Return `url` for another user. The url may name a user of its own, which is dropped."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    login = quote(user) + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{place}"))


async def check_durability(connection: Any) -> None:
    """Raise UnsafeServerError unless a commit that the server confirms survives a power cut (rule: 2xx only after such a commit)."""
    values = {row["name"]: row["setting"] for row in await connection.fetch(DURABILITY)}
    wrong = [
        f"{name} is {values.get(name)!r}, and must be {' or '.join(good)}"
        for name, good in (
            ("synchronous_commit", ("on", "remote_apply")),
            ("fsync", ("on",)),
            ("full_page_writes", ("on",)),
        )
        if values.get(name) not in good
    ]
    if wrong:
        raise UnsafeServerError(f"PostgreSQL may lose what it confirms: {'; '.join(wrong)}.")


async def _prepare(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=_to_json, decoder=msgspec.json.decode, format="text"
        )


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def _leave_clean(connection: Any) -> None:
    """Nothing of a session outlives a transaction here (no SET ROLE, no temporary table, no session setting), so only a transaction that
    was left open needs an end; this spares asyncpg's own reset a round trip per lease."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def _rolled_back(connection: Any) -> None:
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


async def _shielded(work: Awaitable[None]) -> None:
    """Finish `work` although the task is being cancelled: a lease that is not given back is lost to the pool."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise

"""Who is stored together: complaints that come at once share a transaction, whichever tenants they are of.

Complaints that come while a transaction is under way wait and go together into the next one, the tenants taking turns, so
that nobody's flood keeps another waiting for more than what is under way. Two transactions at a time, each with about half
of those who are there: while PostgreSQL stores one, the next is made. Who has just been answered and sends the next complaint
would come too late by a moment: so a transaction waits for as many as came together lately, some milliseconds at most. A
single complaint waits for nothing.

A transaction of several tenants that fails, or meets a lock that is not let go, says nothing of whose fault it was: each of
them then goes by itself, at once and side by side, and in the end each complaint. A tenant whose own turned out to be the
trouble stays by itself for a while.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from msgspec import Struct

from services.intake.envelope import TenantKeys
from services.intake.storing import IdentityRaceError, Lot, Offer, Outcome, Stored, is_plain, store, store_plainly
from services.intake.vault import Vault
from shared import fail_points
from shared.database import Database, is_outage
from shared.errors import DomainError, TooManyError, UnavailableError
from shared.reference import Reference, Tenant
from shared.telemetry import describe

_TOGETHER_SECONDS = 0.003  # how long a transaction waits for those who came together with the last one
_BESIDE_SECONDS = 0.010  # the same while another one is under way
_LANES: Final = 2  # transactions of several tenants at a time
_DIVIDED: Final = 12  # as soon as so many are there, they go in two halves
_LOCK_SECONDS: Final = 0.5  # how long a transaction that keeps others waiting waits for one tenant's lock
_APART_SECONDS = 5.0  # how long a tenant that made trouble stays by itself
_LOOKING: Final = 16  # transactions that look before they store, after one that has left most to them
_RACES: Final = 3  # how often two complaints may find the same new telephone number at once before we give up


class Waiting(Struct, eq=False):
    """Who waits for an answer."""

    tenant: Tenant
    keys: TenantKeys
    offer: Offer
    done: asyncio.Future[Outcome]
    until: float  # by the event loop's clock


class Line:
    """Those who wait, by tenant; the tenants take turns."""

    def __init__(self, most: int, lanes: int) -> None:
        self._most = most
        self._lanes = lanes
        self._turns: OrderedDict[UUID, deque[Waiting]] = OrderedDict()
        self._count = 0
        self._unanswered: deque[Waiting] = deque()  # in the order in which their time is up
        self._watch: asyncio.TimerHandle | None = None
        self.until = 0.0  # a tenant's own line: how long it is kept
        self._under_way: dict[int, int] = {}  # how many complaints, by transaction
        self._begun = 0
        self._ended = 0.0  # when a transaction last ended
        self._lately = 0  # how many were there together when a transaction ended
        self._wanted = 0
        self._called: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def is_idle(self) -> bool:
        return not self._count and not self._under_way

    def of(self, tenant_id: UUID) -> int:
        """How many of a tenant's wait."""
        return len(self._turns.get(tenant_id, ()))

    def add(self, entry: Waiting) -> None:
        """Let somebody wait, until their time is up at most."""
        while self._unanswered and self._unanswered[0].done.done():
            self._unanswered.popleft()
        self._unanswered.append(entry)
        if self._watch is None:  # one timer for all of them: nearly none is ever needed
            self._watch = asyncio.get_running_loop().call_at(entry.until, self._expire)
        self.put([entry])

    def put(self, entries: Iterable[Waiting]) -> None:
        """Let those wait whose time is watched over already."""
        for entry in entries:
            self._turns.setdefault(entry.tenant.tenant_id, deque()).append(entry)
            self._count += 1
        if self._count >= self._wanted:
            self._call()

    def take(self, most: int) -> list[Waiting]:
        """Take as many as go together, one of each tenant in turn; nobody waits for the answer to an offer whose sender has gone."""
        taken: list[Waiting] = []
        turns = self._turns
        while turns and len(taken) < most:
            tenant_id, queue = turns.popitem(last=False)
            entry = queue.popleft()
            self._count -= 1
            if queue:
                turns[tenant_id] = queue
            if not entry.done.done():
                taken.append(entry)
        return taken

    async def gather(self) -> int:
        """Wait until it is time for the next transaction; return how many go into it, 0 when nobody is there."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while self._count:
            free = len(self._under_way) < self._lanes
            until = max(since, self._ended) + (_BESIDE_SECONDS if self._under_way else _TOGETHER_SECONDS)
            self._wanted = self._share()
            if free and (self._count >= self._wanted or loop.time() >= until):
                return self._wanted
            self._called = loop.create_future()
            timer = loop.call_at(until, self._call) if free else None
            try:
                await self._called
            finally:
                self._called = None
                if timer is not None:
                    timer.cancel()
        return 0

    def _share(self) -> int:
        """How many go into the next transaction: all who are there, or half of them if they are many."""
        there = max(self._lately, self._count + sum(self._under_way.values()))
        return min(self._most, there if self._lanes == 1 or there < _DIVIDED else (there + 1) // 2)

    def begin(self, count: int) -> int:
        """A transaction of so many begins; return its number."""
        self._begun += 1
        self._under_way[self._begun] = count
        return self._begun

    def end(self, number: int) -> None:
        """A transaction has ended: those it answered are expected to come again."""
        self._lately = self._count + sum(self._under_way.values())
        self._ended = asyncio.get_running_loop().time()
        del self._under_way[number]
        self._call()

    def _call(self) -> None:
        if self._called is not None and not self._called.done():
            self._called.set_result(None)

    def _expire(self) -> None:
        """Answer those whose time is up, and look again when the next one's is."""
        loop = asyncio.get_running_loop()
        while self._unanswered:
            entry = self._unanswered[0]
            if not entry.done.done():
                if entry.until > loop.time():
                    self._watch = loop.call_at(entry.until, self._expire)
                    return
                settle(entry, UnavailableError("The complaint could not be stored in time.", retry_after_seconds=2))
            self._unanswered.popleft()
        self._watch = None


class ContendedError(Exception):
    """Others came first again and again."""


class Storing:
    """Collects offers into transactions. One per process."""

    def __init__(
        self,
        database: Database,
        reference: Reference,
        vault: Vault,
        *,
        batch: int,
        queue: int,
        connections: int,
        seconds: float,
    ) -> None:
        self._database = database
        self._reference = reference
        self._vault = vault
        self._batch = batch
        self._most = queue
        self._seconds = seconds
        self._slots = asyncio.Semaphore(max(1, connections))  # of those who go by themselves
        self._shared = Line(batch, _LANES)
        self._own: dict[UUID, Line] = {}
        self._dispatching: dict[Line, asyncio.Task[None]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._looking = 0  # how many of the next transactions look before they store
        self._server_time: datetime | None = None  # as it was told
        self._told_at = 0.0  # by the event loop's clock

    async def store(self, tenant_id: UUID, offer: Offer) -> Stored:
        """Return the answer once the complaint is committed; raises what it is refused for.

        UnavailableError when that takes too long. Whether it was stored is then open, as after any broken connection: a
        retry with the same key gets the answer.
        """
        # What is particular to the tenant is found out here, where nobody else waits for it.
        tenant = await self._reference.tenant(tenant_id)
        keys = self._vault.known(tenant_id)
        if keys is None:
            async with self._database.api_tx(tenant_id) as tx:
                keys = await self._vault.keys(tx)
        line = self._line_of(tenant_id)
        if line.of(tenant_id) >= self._most:
            raise TooManyError("Too many complaints of this tenant are waiting to be stored.", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        entry = Waiting(tenant, keys, offer, loop.create_future(), loop.time() + self._seconds)
        line.add(entry)
        self._work_off(line)
        outcome = await entry.done
        if isinstance(outcome, Stored):
            return outcome
        raise outcome

    def set_apart(self, tenant_id: UUID) -> None:
        """Let a tenant go by itself for a while: something else locks its rows, or is about to."""
        self._own_line(tenant_id).until = asyncio.get_running_loop().time() + _APART_SECONDS

    async def stop(self) -> None:
        """Let what is under way end."""
        while self._dispatching or self._storing:
            await asyncio.gather(*self._dispatching.values(), *self._storing, return_exceptions=True)

    def _line_of(self, tenant_id: UUID) -> Line:
        own = self._own.get(tenant_id)
        if own is None:
            return self._shared
        if own.is_idle and asyncio.get_running_loop().time() >= own.until:
            del self._own[tenant_id]
            return self._shared
        return own

    def _own_line(self, tenant_id: UUID) -> Line:
        own = self._own.get(tenant_id)
        if own is None:
            now = asyncio.get_running_loop().time()
            self._own = {each: line for each, line in self._own.items() if not line.is_idle or now < line.until}
            own = self._own[tenant_id] = Line(self._batch, 1)
        return own

    def _work_off(self, line: Line) -> None:
        if line not in self._dispatching:
            self._dispatching[line] = asyncio.create_task(self._dispatch(line), name="intake storing")

    async def _dispatch(self, line: Line) -> None:
        try:
            while len(line):
                taken = line.take(await line.gather())
                if taken:
                    number = line.begin(len(taken))
                    task = asyncio.create_task(self._take(line, number, taken), name="intake storing together")
                    self._storing.add(task)
                    task.add_done_callback(self._storing.discard)
        finally:
            # Nothing was awaited since the line was found empty, so nobody can have come in between.
            del self._dispatching[line]
            for entry in line.take(len(line)):
                settle(entry, UnavailableError("The service is stopping.", retry_after_seconds=1))

    async def _take(self, line: Line, number: int, entries: list[Waiting]) -> None:
        try:
            if line is self._shared:
                await self._store_together(entries)
            else:
                async with self._slots:
                    await self._store_apart(line, entries)
        except asyncio.CancelledError:
            for entry in entries:
                settle(entry, UnavailableError("The service is stopping.", retry_after_seconds=1))
            raise
        finally:
            line.end(number)

    async def _store_together(self, entries: list[Waiting]) -> None:
        """Store complaints of any tenants. What fails is tried again, each tenant's by itself."""
        try:
            await self._transact(entries, _LOCK_SECONDS)
        except Exception as error:
            if is_outage(error) and not isinstance(error, asyncpg.LockNotAvailableError):
                self._give_up(self._shared, entries, error)
                return
            structlog.get_logger().warning("batch_divided", count=len(entries), **describe(error))
            for tenant_id in dict.fromkeys(entry.tenant.tenant_id for entry in entries):
                line = self._own_line(tenant_id)
                line.put(entry for entry in entries if entry.tenant.tenant_id == tenant_id)
                self._work_off(line)

    async def _store_apart(self, line: Line, entries: list[Waiting]) -> None:
        """Store complaints of one tenant. What fails is tried again, each by itself."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._transact(entries, None)
        except Exception as error:
            line.until = loop.time() + _APART_SECONDS
            if is_outage(error):
                self._give_up(line, entries, error)
            elif isinstance(error, ContendedError):
                for entry in entries:
                    settle(entry, UnavailableError("Too much happens at once.", retry_after_seconds=1))
            elif len(entries) == 1:
                settle(entries[0], error)
            else:
                structlog.get_logger().warning("batch_divided", count=len(entries), **describe(error))
                for entry in entries:
                    await self._store_apart(line, [entry])
            return
        if loop.time() - began > _LOCK_SECONDS:
            line.until = loop.time() + _APART_SECONDS

    def _give_up(self, line: Line, entries: Sequence[Waiting], error: Exception) -> None:
        """Answer those whom an outage hit, and those behind them, who would only wait for the same one."""
        structlog.get_logger().warning("storing_failed", count=len(entries), **describe(error))
        for entry in (*entries, *line.take(len(line))):
            settle(entry, UnavailableError("The database does not answer in time.", retry_after_seconds=2))

    async def _transact(self, entries: Sequence[Waiting], lock_seconds: float | None) -> None:
        """Store all of them and answer; or raise, and leave nothing of those who are not answered."""
        if lock_seconds is not None:
            entries = await self._store_plainly(entries, lock_seconds)
        if entries:
            by_tenant = _by_tenant(entries)
            outcomes = await self._outcomes(_lots(by_tenant), lock_seconds)
            fail_points.reach("intake.kept")
            self._answer(by_tenant, outcomes)

    async def _store_plainly(self, entries: Sequence[Waiting], lock_seconds: float) -> Sequence[Waiting]:
        """Store, in one call, and answer those who need no look before; return the others."""
        loop = asyncio.get_running_loop()
        if self._looking or self._server_time is None or fail_points.is_armed("intake.stored", "api.commit"):
            self._looking = max(0, self._looking - 1)
            return entries
        by_tenant = _by_tenant([entry for entry in entries if is_plain(entry.tenant, entry.offer)])
        if not by_tenant:
            return entries
        about_now = self._server_time + timedelta(seconds=loop.time() - self._told_at)
        try:
            outcomes = await store_plainly(self._database, _lots(by_tenant), about_now, lock_seconds)
        except asyncpg.DeadlockDetectedError:
            return entries
        fail_points.reach("intake.kept")
        self._answer(by_tenant, outcomes)
        left = [entry for entry in entries if not entry.done.done()]
        if 2 * len(left) > len(entries):
            self._looking = _LOOKING
        return left

    def _answer(
        self, by_tenant: Mapping[UUID, Sequence[Waiting]], outcomes: Sequence[Sequence[Outcome | None]]
    ) -> None:
        for (tenant_id, waiting), came in zip(by_tenant.items(), outcomes, strict=True):
            is_noted = False
            for entry, outcome in zip(waiting, came, strict=True):
                if outcome is None:
                    continue
                if not is_noted and isinstance(outcome, Stored) and not outcome.repeated:
                    is_noted = True  # were it not the newest, they would have been told to come again
                    self._reference.note_version(tenant_id, outcome.policy_version)
                    if is_plain(entry.tenant, entry.offer):
                        self._server_time = outcome.received_at
                        self._told_at = asyncio.get_running_loop().time()
                settle(entry, outcome)

    async def _outcomes(self, lots: Sequence[Lot], lock_seconds: float | None) -> list[list[Outcome]]:
        tenants = [lot.tenant.tenant_id for lot in lots]
        for attempt in range(_RACES):
            if attempt:
                await asyncio.sleep(0.005 * attempt)
            try:
                async with self._database.api_tx(*tenants, lock_seconds=lock_seconds) as tx:
                    outcomes = await store(tx, lots)
                    fail_points.reach("intake.stored")
            except (IdentityRaceError, asyncpg.DeadlockDetectedError):
                continue
            return outcomes
        raise ContendedError


def _by_tenant(entries: Sequence[Waiting]) -> dict[UUID, list[Waiting]]:
    by_tenant: dict[UUID, list[Waiting]] = {}
    for entry in entries:
        by_tenant.setdefault(entry.tenant.tenant_id, []).append(entry)
    return by_tenant


def _lots(by_tenant: Mapping[UUID, Sequence[Waiting]]) -> list[Lot]:
    return [
        Lot(tenant=each[-1].tenant, keys=each[-1].keys, offers=[entry.offer for entry in each])
        for each in by_tenant.values()
    ]


def settle(entry: Waiting, outcome: Outcome | Exception) -> None:
    """Tell whoever waits, unless they have gone."""
    if entry.done.done():
        return
    if isinstance(outcome, Stored | DomainError):
        entry.done.set_result(outcome)
    else:
        entry.done.set_exception(outcome)

"""The background edge: ticks, cases that change by themselves, publications on their way, duties, and the sweeper."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from services.routing import keeping, moving, parts, refreshing, testing_time
from services.routing.domain import years
from services.routing.repository import cases, clocks
from services.routing.repository.clocks import Due, Pace
from services.routing.settings import RoutingSettings
from shared import fail_points, outbox
from shared.ids import new_id
from shared.messages.base import LIVE
from shared.messages.routing import ClockTicked
from shared.reference import Tenant
from shared.service import Loop, Runtime

DUTY_SECONDS = 60.0
LOOK_SECONDS = 1.0
SWEEP_ALL_SECONDS = 3600.0
SWEEP_BATCH = 5000  # looked at in one statement
REFRESHED_TOGETHER = 8  # cases in one transaction
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class Loops:
    """One method for each loop: does a round and returns the seconds until the next."""

    def __init__(self, runtime: Runtime[RoutingSettings]) -> None:
        self.runtime = runtime
        self.settings = runtime.settings
        self._kept: set[tuple[UUID, int]] = set()  # years whose duty case is known to be there
        self._swept_all_at: float | None = None

    async def tick(self) -> float | None:
        """Tell the live time when it is time to. Replicas share the last tick, so together they tick no more often than one."""
        ticking = parts.of(self.runtime).ticking
        ticking.is_coming = False  # what is written from here on may not be seen by this look
        async with self.runtime.db.worker_tx(LIVE) as tx:
            pace = await clocks.pace(tx)
            rest = self._rest(pace)
            if rest > 0:
                ticking.is_coming = pace.is_busy
                return rest
            at = await clocks.tick(tx)
            await outbox.add(tx, ClockTicked(message_id=new_id(), tenant_id=LIVE, at=at))
            await outbox.store_now(tx)  # the tick's own place is part of what is noted
            fail_points.reach("routing.ticked")
            await clocks.note_tick(tx)
            if pace.has_due or (pace.next_at is not None and pace.next_at <= at):
                tx.after_commit(lambda: self.runtime.wake("refresh"))
        ticking.is_coming = True  # or another look is, which then sees what was written
        return self.settings.tick_due_seconds

    def _rest(self, pace: Pace) -> float:
        """Return how long to wait before looking again, 0 for a tick now. What this process writes wakes the loop, unless it has found the
        time busy and so ticks soon anyway; what another replica writes is seen within a second.
        """
        settings = self.settings
        age = (pace.now - pace.ticked_at).total_seconds()
        until_due = None if pace.next_at is None else (pace.next_at - pace.now).total_seconds()
        if age < 0:
            return settings.tick_due_seconds  # the clock was set back; the tick waits for it
        if until_due is not None and until_due <= 0:
            interval = settings.tick_due_seconds
        elif pace.is_busy:
            interval = settings.tick_busy_seconds
        else:
            interval = settings.tick_idle_seconds
        rest = interval - age
        if until_due is not None:
            rest = min(rest, max(until_due, settings.tick_due_seconds - age))
        return max(0.0, min(rest, LOOK_SECONDS))

    async def refresh(self) -> float | None:
        """Look anew at cases of live tenants that have changed by themselves: columns, assignee, counts that a breach causes."""
        async with self.runtime.db.worker_tx(LIVE) as tx:
            due = await clocks.due_live(tx, self.settings.refresh_batch, REFRESHED_TOGETHER)
        # A tick waits for whoever is stamping, until their commit: no transaction is to last long.
        for together in in_turns(due, REFRESHED_TOGETHER):
            await refreshing.look_anew(parts.of(self.runtime).desk, self.runtime.db, together)
        return 0 if len(due) == self.settings.refresh_batch else None

    async def test_clocks(self) -> float | None:
        found = await testing_time.round_of_sandboxes(
            parts.of(self.runtime).desk, self.runtime.db, self.settings.refresh_batch
        )
        return 0 if found else None

    async def moves(self) -> float | None:
        found = await moving.round_of_moves(parts.of(self.runtime).desk, self.runtime.db, self.settings.move_batch)
        return 0 if found else None

    async def duties(self) -> float | None:
        """See to it that every tenant whose policy has duties has a case for them this year."""
        for tenant in await self.runtime.reference.tenants():
            if tenant.active:
                with refreshing.set_aside("duties", tenant.tenant_id):
                    await self._keep_duties(tenant)
        return None

    async def _keep_duties(self, tenant: Tenant) -> None:
        async with self.runtime.db.worker_tx(tenant.tenant_id) as tx:
            at = (await clocks.stamp(tx, tenant.tenant_id)).at
            kept = (tenant.tenant_id, years.year_of(at, tenant.zone))
            if kept in self._kept:
                return
            if await keeping.duty_case(parts.of(self.runtime).desk, tx, at) is not None:
                tx.after_commit(lambda: self._kept.add(kept))

    async def sweep(self) -> float | None:
        """Assign complaints that belong to nobody. There are none unless something went wrong; each is worth a warning."""
        now = time.monotonic()
        sweeps_all = self._swept_all_at is None or now - self._swept_all_at > SWEEP_ALL_SECONDS
        since = BEGINNING if sweeps_all else datetime.now(UTC) - timedelta(seconds=self.settings.sweep_back_seconds)
        for tenant in await self.runtime.reference.tenants():
            with refreshing.set_aside("sweeper", tenant.tenant_id):
                await self._sweep(tenant.tenant_id, since)
        if sweeps_all:
            self._swept_all_at = now
        return None

    async def _sweep(self, tenant_id: UUID, since: datetime) -> None:
        desk = parts.of(self.runtime).desk
        after: cases.Place | None = (since, UUID(int=0))
        while after is not None:
            async with self.runtime.db.worker_tx(tenant_id) as tx:
                found, after = await cases.unassigned(tx, tenant_id, after, SWEEP_BATCH)
            for case_id in found:
                log.warning("case_unassigned", tenant_id=str(tenant_id), case_id=str(case_id))
                async with self.runtime.db.worker_tx(tenant_id) as tx:
                    writing = await desk.begin(tx, case_id)
                    if writing is not None:
                        await desk.save(writing)


def in_turns(due: Sequence[Due], number: int) -> list[list[Due]]:
    """Cases of one tenant each, `number` at most: everybody's first before anybody's second."""
    by_tenant: dict[UUID, list[Due]] = defaultdict(list)
    for each in due:
        by_tenant[each.tenant_id].append(each)
    starts = range(0, max(map(len, by_tenant.values()), default=0), number)
    turns = [mine[start : start + number] for start in starts for mine in by_tenant.values()]
    return [turn for turn in turns if turn]


def loops(runtime: Runtime[RoutingSettings]) -> Sequence[Loop]:
    round_of = Loops(runtime)
    settings = runtime.settings
    return [
        Loop("ticks", round_of.tick, idle_seconds=settings.tick_due_seconds),
        # The others are woken by what concerns them; the rests are for what another replica was told.
        Loop("refresh", round_of.refresh, idle_seconds=5.0),
        Loop("test-clocks", round_of.test_clocks, idle_seconds=2.0),
        Loop("moves", round_of.moves, idle_seconds=5.0),
        Loop("duties", round_of.duties, idle_seconds=DUTY_SECONDS),
        Loop("sweeper", round_of.sweep, idle_seconds=settings.sweep_seconds),
    ]

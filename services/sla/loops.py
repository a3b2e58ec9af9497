"""Background edge: cases are looked at when their time has come, or something was told about them that could not be folded at once.

One transaction a batch: lock the rows, fold, write what is new with its messages, and the next instant to look. Whatever is killed when, an
announcement is made once and the ledger says what the fold says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from msgspec import Struct

from services.sla import repository
from services.sla.folding import BREATH, SOON, TICKS, Folding, store
from services.sla.repository import Advance, Upcoming, Watched
from services.sla.settings import SlaSettings
from services.sla.telling import Batch
from shared import fail_points, outbox
from shared.database import Tx
from shared.engine.case import LoopError
from shared.errors import NotYetError
from shared.ids import derived_id
from shared.messages import LIVE, ClockSettled
from shared.service import Runtime

log = structlog.get_logger()
RETRY_SECONDS = 0.5
AT_ONCE = 3
"""Batches in hand at a time: while the database works for some, another is folded."""

ROUND = 2_400
"""Cases looked at in one round over all tenants, about: who falls due meanwhile waits for the next one. With many tenants in need each has
a smaller batch."""

LEAST_BATCH = 20

MOST_ROUNDS = 10
"""Rounds that go over into each other, before the loop tells that it has done something."""


class Turn(Struct, frozen=True):
    """A batch of a tenant's cases that are due by `now`."""

    tenant_id: UUID
    now: datetime
    limit: int


class WakeUps:
    """The loop. A round goes over all tenants with something to do, one batch each, so that nobody's flood holds up the others."""

    def __init__(self, runtime: Runtime[SlaSettings]) -> None:
        self.runtime = runtime
        self.settings = runtime.settings
        self.waiting = False
        self.has_more = False  # the last round left something to do

    async def step(self) -> float | None:
        self.waiting = False
        turns, advances = await self.who_is_due()
        again = self.has_more = await self._take(turns)
        for advance in advances:
            again |= await self.advance(advance)
        if self.waiting:
            return RETRY_SECONDS
        return 0 if again else None

    async def who_is_due(self) -> tuple[list[Turn], Sequence[Advance]]:
        """One turn of each tenant with something to do, and the sandboxes that are on their way.

        A tenant with much to do that is alone gets a turn for each of the batches in hand: rows that are locked are skipped.
        """
        async with self.runtime.db.worker_tx(LIVE) as tx:
            around = await repository.look_around(tx)
        self.runtime.parts[TICKS] = around.ticks  # reads are answered as of the last tick, too
        instants = [(each, _now(each, around.ticks)) for each in around.waiting]
        due = [(each.tenant_id, now) for each, now in instants if each.wake_at <= now]
        limit = share_of_round(len(due), self.settings.wake_batch)
        turns = [Turn(tenant_id, now, limit) for tenant_id, now in due]
        return turns * AT_ONCE if len(due) == 1 and self.has_more else turns, around.advances

    async def _take(self, due: Sequence[Turn]) -> bool:
        """Take the turns, several at a time; whether there may be more to do.

        As long as there is, whoever finds no turn left sees whose turn it is next, while the others are still at theirs: if all waited
        between two rounds, nothing would be folded meanwhile.
        """
        turns = deque(due)
        rounds = in_hand = 0
        more = False
        changed = asyncio.Condition()

        async def work() -> None:
            nonlocal rounds, in_hand, more
            while True:
                async with changed:
                    while not turns:
                        if more and rounds < MOST_ROUNDS - 1 and not self.waiting:
                            rounds, more, self.has_more = rounds + 1, False, True
                            found, advances = await self.who_is_due()
                            turns.extend(found)
                            if advances:
                                rounds = MOST_ROUNDS  # a sandbox waits for the end of this
                        elif in_hand and not more:
                            await changed.wait()  # for what the others find
                        else:
                            return
                    turn = turns.popleft()
                    in_hand += 1
                is_full = await self.batch(turn.tenant_id, turn.now, turn.limit)
                async with changed:
                    in_hand -= 1
                    more |= is_full
                    changed.notify_all()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE if turns else 0):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return more

    async def batch(self, tenant_id: UUID, now: datetime, limit: int) -> bool:
        """Look at up to one batch of the tenant's due cases; whether there may be more."""
        async with self.runtime.db.worker_tx(tenant_id) as tx:
            cases = await repository.claim(tx, tenant_id, now, limit)
            fail_points.reach("sla.claimed")
            await self._look(tx, tenant_id, cases, now)
        return len(cases) == limit

    async def advance(self, one: Advance) -> bool:
        """One step of a sandbox towards its target: to the next due instant, everything there, and in the end the target itself."""
        tenant_id = one.tenant_id
        async with self.runtime.db.worker_tx(tenant_id) as tx:
            locked = await repository.lock_advance(tx, one)
            if locked is None:
                return False
            upcoming = await repository.next_wake(tx, tenant_id, locked.target)
            if upcoming is not None:
                now = upcoming if upcoming > SOON else (await repository.ticks(tx)).get(tenant_id, SOON)
                cases = await repository.claim(tx, tenant_id, max(upcoming, SOON), self.settings.wake_batch)
                await self._look(tx, tenant_id, cases, now)
                if upcoming > SOON:
                    await repository.set_tick(tx, tenant_id, upcoming)
                await repository.step_advance(tx, locked, locked.steps + 1)
                return True
            await repository.set_tick(tx, tenant_id, locked.target)
            await repository.settle_advance(tx, locked, locked.steps)
            await outbox.add(
                tx,
                ClockSettled(
                    message_id=derived_id("clock.settled", tenant_id, locked.operation_id),
                    tenant_id=tenant_id,
                    at=locked.target,
                    operation_id=locked.operation_id,
                    target=locked.target,
                    steps=locked.steps,
                ),
            )
        return True

    async def _look(self, tx: Tx, tenant_id: UUID, cases: Sequence[Watched], now: datetime) -> None:
        """Fold cases that are locked, and write what is new."""
        if not cases:
            return
        batch = Batch(tenant_id, now, timedelta(seconds=self.settings.late_seconds))
        folding = Folding(self.runtime.reference, tenant_id)
        missing: list[UUID] = []
        for place, case in enumerate(cases, 1):
            if not case.timeline:
                missing.append(case.case_id)  # line 1 will bring us back here
                continue
            try:
                batch.take(case, await folding.fold(case))
            except NotYetError:
                self.waiting = True  # stays due: what it waits for is on its way
            except (LoopError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                # One case that cannot be folded must not hold up the others; it is told and tried again with the next thing that happens.
                log.error(
                    "case_not_folded",
                    tenant_id=str(tenant_id),
                    case_id=str(case.case_id),
                    error_class=type(error).__name__,
                )
                await repository.fail(tx, tenant_id, case.case_id, f"{type(error).__name__}: {error}"[:500])
            if place % BREATH == 0:
                await asyncio.sleep(0)
        if missing:
            await repository.forget_wake(tx, tenant_id, missing)
        await store(tx, [batch])


def share_of_round(tenants: int, most: int) -> int:
    """How many cases a tenant's batch holds when so many have something due."""
    return min(most, max(LEAST_BATCH, ROUND // max(tenants, 1)))


def _now(upcoming: Upcoming, ticks: Mapping[UUID, datetime]) -> datetime:
    """The last tick of the tenant's time. Before the first one only what was told is looked at, as of its last entry."""
    if upcoming.sandbox is None:
        return SOON
    return ticks.get(upcoming.tenant_id if upcoming.sandbox else LIVE, SOON)

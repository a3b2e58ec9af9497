"""Background edge: cases are looked at when their time has come or something was told about them.

One transaction a batch: lock the rows, fold, write what is new with its messages, and the next instant to look. Whatever is killed when, an
announcement is made once and the ledger says what the fold says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog

from services.sla import repository
from services.sla.domain.announcing import is_late, news
from services.sla.domain.ledger import postings
from services.sla.repository import Advance, Rest, Row, Watched
from services.sla.settings import SlaSettings
from shared import fail_points, outbox
from shared.database import Tx
from shared.engine.case import Case, LoopError, replay
from shared.engine.model import Standing
from shared.engine.rules import CompiledPolicy
from shared.errors import NotFoundError, NotYetError
from shared.ids import derived_id
from shared.messages import LIVE, AnnouncementMade, ClockSettled, Message, PenaltyPosted, StandingChanged
from shared.service import Runtime

log = structlog.get_logger()
RETRY_SECONDS = 0.5
TICKS = "ticks"
"""The part of the runtime that holds the last tick of each time."""

SOON = datetime(1900, 1, 1, tzinfo=UTC)
"""The wake-up of a case about which something was told: at once, whatever the time.

PostgreSQL's -infinity would not come through the driver."""


class WakeUps:
    """The loop. `step` does one round over all tenants with something to do, one batch each, so that nobody's flood holds up the others."""

    def __init__(self, runtime: Runtime[SlaSettings]) -> None:
        self.runtime = runtime
        self.settings = runtime.settings
        self.waiting = False

    async def step(self) -> float | None:
        async with self.runtime.db.worker_tx(LIVE) as tx:
            ticks = await repository.ticks(tx)
            waiting = await repository.next_of_each(tx)
            advances = await repository.pending_advances(tx)
        self.runtime.parts[TICKS] = ticks  # reads are answered as of the last tick, too
        again = self.waiting = False
        for tenant_id, wake_at in waiting.items():
            now = await self._now(tenant_id, ticks)
            if wake_at <= now:
                again |= await self.batch(tenant_id, now)
        for advance in advances:
            again |= await self.advance(advance)
        if self.waiting:
            return RETRY_SECONDS
        return 0 if again else None

    async def _now(self, tenant_id: UUID, ticks: dict[UUID, datetime]) -> datetime:
        """The last tick of the tenant's time. Before the first one only what was told is looked at, as of its last entry."""
        try:
            tenant = await self.runtime.reference.tenant(tenant_id)
        except (NotFoundError, NotYetError):
            return SOON
        return ticks.get(tenant_id if tenant.sandbox else LIVE, SOON)

    async def batch(self, tenant_id: UUID, now: datetime) -> bool:
        """Look at up to one batch of the tenant's due cases; whether there may be more."""
        limit = self.settings.wake_batch
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
        ids = [case.case_id for case in cases]
        told = await repository.told(tx, tenant_id, ids)
        positions = await repository.positions(tx, tenant_id, ids)
        batch = _Batch(tenant_id, now, timedelta(seconds=self.settings.late_seconds))
        missing: list[UUID] = []
        for case in cases:
            if not case.timeline:
                missing.append(case.case_id)  # line 1 will bring us back here
                continue
            try:
                folded = await fold_watched(self.runtime, tenant_id, case)
                batch.take(case, folded, told.get(case.case_id, {}), positions.get(case.case_id, {}))
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
        if missing:
            await repository.forget_wake(tx, tenant_id, missing)
        await repository.announce(tx, tenant_id, batch.announced)
        await repository.withdraw(tx, tenant_id, batch.withdrawn)
        await repository.post(tx, tenant_id, batch.rows)
        fail_points.reach("sla.folded")
        await repository.rest(tx, tenant_id, batch.rests)
        await outbox.add_many(tx, batch.messages)
        fail_points.reach("sla.told")


class _Batch:
    """What a round writes, gathered over its cases."""

    def __init__(self, tenant_id: UUID, now: datetime, tolerance: timedelta) -> None:
        self.tenant_id = tenant_id
        self.now = now
        self.tolerance = tolerance
        self.announced: list[tuple[UUID, Any, bool]] = []
        self.withdrawn: list[tuple[UUID, str]] = []
        self.rows: list[Row] = []
        self.rests: list[Rest] = []
        self.messages: list[Message] = []

    def take(self, case: Watched, folded: Case, told: Any, positions: Any) -> None:
        now = max(self.now, case.timeline[-1].at)
        standing = folded.standing(now)
        tenant_id, case_id = self.tenant_id, case.case_id
        fresh = news(standing.effects, told)
        for effect in fresh.made:
            shown = msgspec.structs.replace(effect, silent=True) if case.silent else effect
            late = is_late(effect, now, self.tolerance) and not shown.silent
            self.announced.append((case_id, shown, late))
            self.messages.append(
                AnnouncementMade(
                    message_id=derived_id("announcement", tenant_id, case_id, effect.key),
                    tenant_id=tenant_id,
                    at=effect.at,
                    case_id=case_id,
                    case_kind=case.case_kind,
                    effect=shown,
                    number=case.number,
                    late=late,
                )
            )
        for effect in fresh.withdrawn:
            self.withdrawn.append((case_id, effect.key))
            self.messages.append(
                AnnouncementMade(
                    message_id=derived_id("announcement.withdrawn", tenant_id, case_id, effect.key),
                    tenant_id=tenant_id,
                    at=now,
                    case_id=case_id,
                    case_kind=case.case_kind,
                    effect=effect,
                    number=case.number,
                    withdrawn=True,
                )
            )
        count = case.postings
        for posting in postings(standing.penalties, positions):
            count += 1
            penalty = posting.penalty
            row = Row(
                posting_id=derived_id("posting", tenant_id, case_id, str(count)),
                case_id=case_id,
                key=posting.key,
                difference_minor=posting.difference_minor,
                posted_minor=posting.posted_minor,
                digest=posting.digest,
                month=str(penalty.data.get("month") or folded.calendar.month(penalty.at)),
                posted_at=now,
                penalty=penalty,
            )
            self.rows.append(row)
            self.messages.append(
                PenaltyPosted(
                    message_id=derived_id("penalty.posted", tenant_id, row.posting_id),
                    tenant_id=tenant_id,
                    at=now,
                    case_id=case_id,
                    posting_id=row.posting_id,
                    difference_minor=row.difference_minor,
                    penalty=penalty,
                    month=row.month,
                    number=case.number,
                )
            )
        facts = {name: value for name, _, value in folded.facts()}
        digest = digest_of(standing, facts)
        if digest != case.digest or standing.seq != case.folded_seq:
            self.messages.append(standing_changed(tenant_id, case, standing, facts))
        self.rests.append(Rest(case_id, standing.next_at, standing.seq, now, digest, count))


async def fold_watched(runtime: Runtime[SlaSettings], tenant_id: UUID, case: Watched) -> Case:
    """The case with its timeline applied. NotYetError while a policy version it names has not arrived."""
    policies: dict[int, CompiledPolicy] = {}
    versions = {case.policy_version} | {
        int(entry.data["version"])
        for entry in case.timeline
        if entry.kind == "policy_changed" and "version" in entry.data
    }
    for version in versions:
        policies[version] = await runtime.reference.policy(tenant_id, version)
    calendars = await runtime.reference.calendars(tenant_id)
    folded = replay(policies, case.timeline, calendars, policy_version=case.policy_version, case_kind=case.case_kind)
    if case.case_kind == "duty":
        start = case.timeline[0].at
        folded.begin_duties(start, start + timedelta(days=366))
    return folded


def standing_changed(tenant_id: UUID, case: Watched, standing: Standing, facts: dict[str, Any]) -> StandingChanged:
    return StandingChanged(
        message_id=derived_id("standing", tenant_id, case.case_id, str(standing.seq), standing.now.isoformat()),
        tenant_id=tenant_id,
        at=standing.now,
        case_id=case.case_id,
        case_kind=case.case_kind,
        seq=standing.seq,
        now=standing.now,
        state=standing.state,
        closed=standing.closed,
        classified=standing.classified,
        outcome=standing.outcome,
        acceptance=standing.acceptance,
        clocks=standing.clocks,
        penalties=standing.penalties,
        owner=standing.owner,
        routing=standing.routing,
        facts=facts,
        number=case.number,
        policy_version=standing.policy_version,
    )


def digest_of(standing: Standing, facts: dict[str, Any]) -> bytes:
    """What tells two standings apart, whenever they were looked at."""
    content = (
        standing.state,
        standing.closed,
        standing.acceptance,
        standing.classified,
        standing.outcome,
        standing.routing,
        standing.clocks,
        standing.penalties,
        standing.policy_version,
        facts,
    )
    return hashlib.sha256(msgspec.json.encode(content)).digest()

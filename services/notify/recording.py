"""What became of a delivery, written down by whoever still holds its claim, and told."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct

from services.notify import repository
from services.notify.domain.outcomes import WAITS, Next, Result, State, after, backoff
from services.notify.endings import endings
from services.notify.parts import Parts
from services.notify.repository import Claim, Delivery
from services.notify.telling import tell, tell_changes
from shared import fail_points
from shared.database import Tx
from shared.reference import Tenant
from shared.service import Runtime

MOST_TRIES = 40  # claims without an attempt: what is needed for it never answered

log = structlog.get_logger()


class Ended(Struct, frozen=True):
    """Nothing is sent: the delivery enters this state for this reason."""

    state: State
    reason: str


class Later(Struct, frozen=True):
    """Nothing is sent now: what is needed for it does not answer."""

    reason: str


class Held(Struct, frozen=True):
    """A budget is spent: not before this instant of the tenant's time."""

    until: datetime
    reason: str


class Recorder:
    """One per sender. Every method but `follow` needs the claim; without it nothing is written."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime
        self._endings = endings(runtime)
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    def follow(
        self, delivery: Delivery, tenant: Tenant, result: Result, attempts: int, *, unknown: int, can_ask: bool
    ) -> Next:
        """What follows from an attempt."""
        return after(
            result,
            channel=delivery.channel,
            attempts=attempts,
            unknown=unknown,
            can_ask=can_ask,
            chance=self._random.random(),
            scale=self._scale(tenant),
        )

    async def attempt(
        self, tx: Tx, claim: Claim, delivery: Delivery, tenant: Tenant, attempt: int, result: Result, following: Next
    ) -> None:
        """Write down what an attempt came to, and what follows."""
        row = await repository.record(
            tx,
            claim,
            attempt,
            outcome=result.outcome,
            detail=result.detail,
            state=following.state,
            reason=following.reason,
            provider_ref=result.provider_ref,
            wait_seconds=None if following.wait is None else following.wait.total_seconds(),
            at=delivery.due_at if tenant.sandbox else None,
        )
        if row is None:
            log.warning("lease_lost")
            return
        await tell(tx, row, row["told_at"])
        fail_points.reach("notify.recorded")
        if following.wait is None:
            self._endings.count(delivery.channel, following.state, following.reason)

    async def stop(self, claim: Claim, delivery: Delivery, tenant: Tenant, why: Ended | Later) -> None:
        """End a delivery without an attempt, or put it off."""
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if isinstance(why, Ended):
                await self.end(tx, claim, delivery, tenant, why)
            elif claim.fence > MOST_TRIES:
                await self.end(tx, claim, delivery, tenant, Ended("dead", why.reason))
            else:
                now = await repository.holds(tx, claim)
                if now is None:
                    return
                at = at_of(delivery, tenant, now)
                await repository.change(tx, claim.tenant_id, claim.delivery_id, "queued", at, reason=why.reason)
                tries = min(claim.fence, len(WAITS[delivery.channel]))
                wait = backoff(delivery.channel, tries, self._random.random(), self._scale(tenant))
                assert wait is not None
                await repository.wake_later(tx, claim.tenant_id, claim.delivery_id, wait.total_seconds())

    async def end(
        self,
        tx: Tx,
        claim: Claim,
        delivery: Delivery,
        tenant: Tenant,
        ended: Ended,
        *,
        provider_ref: str | None = None,
    ) -> None:
        """Put a delivery into its last state."""
        row = await repository.end(
            tx,
            claim,
            ended.state,
            reason=ended.reason,
            provider_ref=provider_ref,
            at=delivery.due_at if tenant.sandbox else None,
        )
        if row is None:
            log.warning("lease_lost")
            return
        await tell(tx, row, row["told_at"])
        self._endings.count(delivery.channel, ended.state, ended.reason)

    async def hold(self, tx: Tx, claim: Claim, tenant: Tenant, held: Held) -> None:
        """Hold a delivery back, in a transaction that holds the claim."""
        await repository.change(tx, claim.tenant_id, claim.delivery_id, "held", held.until, reason=held.reason)
        await repository.hold_until(tx, claim.tenant_id, claim.delivery_id, held.until, sandbox=tenant.sandbox)
        await tell_changes(tx, [claim.delivery_id], at=held.until)

    def _scale(self, tenant: Tenant) -> float:
        parts: Parts = self._runtime.parts["notify"]
        return parts.settings.sandbox_retry_scale if tenant.sandbox else parts.settings.retry_scale


def at_of(delivery: Delivery, tenant: Tenant, now: datetime) -> datetime:
    """When it is sent, in the tenant's time: a sandbox sends each message at its own instant, however fast its clock went."""
    return delivery.due_at if tenant.sandbox else now

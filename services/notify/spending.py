"""Budgets: what a message costs is taken in the transaction that writes its attempt, or nothing is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from services.notify import repository
from services.notify.domain.budgets import PER_MAILBOX, PER_NUMBER, PER_PREFIX, Budget, take
from services.notify.recording import Held
from services.notify.sealing import Sealer
from shared.database import Tx
from shared.reference import Tenant

log = structlog.get_logger()


async def spend(
    tx: Tx, sealer: Sealer, tenant: Tenant, channel: str, to: str, prefix: str, per_day: int, at: datetime
) -> Held | None:
    """Take one message from each budget it falls under; when one is spent nothing is taken, and it says until when.

    Args:
        prefix: the range of numbers that `to` belongs to; empty for e-mail.
        per_day: how many the tenant may send on this channel in a day of its zone.
        at: now, in the tenant's time.
    """
    budgets: list[tuple[Budget, str]] = (
        [(PER_NUMBER, to), (PER_PREFIX, prefix)] if channel == "sms" else [(PER_MAILBOX, to.lower())]
    )
    taken: list[tuple[str, bytes, list[datetime]]] = []
    for budget, subject in budgets:
        hashed = sealer.hash(tenant.tenant_id, budget.scope, subject)
        used = await repository.uses(tx, tenant.tenant_id, budget.scope, hashed, at)
        used, until = take(used, at, budget)
        if until is not None:
            return Held(until, f"budget_{budget.scope}")
        taken.append((budget.scope, hashed, used))
    day = at.astimezone(ZoneInfo(tenant.zone)).date()
    if not await repository.take_day(tx, tenant.tenant_id, channel, day, per_day):
        log.warning("day_budget_spent", channel=channel)
        tomorrow = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(tenant.zone)) + timedelta(days=1)
        return Held(max(tomorrow.astimezone(UTC), at + timedelta(minutes=1)), "budget_day")
    for scope, hashed, used in taken:
        await repository.remember_uses(tx, tenant.tenant_id, scope, hashed, used)
    return None

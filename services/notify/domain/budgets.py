"""How many messages one number, one range of numbers and one tenant may cost: nobody pumps or floods through us."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

Scope = Literal["number", "prefix", "mailbox", "tenant_sms", "tenant_email"]


class Budget(Struct, frozen=True, kw_only=True):
    """At most `limit` messages within any stretch of `window`."""

    scope: Scope
    limit: int
    window: timedelta


PER_NUMBER = Budget(scope="number", limit=3, window=timedelta(minutes=10))
PER_PREFIX = Budget(scope="prefix", limit=30, window=timedelta(minutes=10))
PER_MAILBOX = Budget(scope="mailbox", limit=10, window=timedelta(minutes=10))


def take(used: Sequence[datetime], at: datetime, budget: Budget) -> tuple[list[datetime], datetime | None]:
    """Return the uses to remember, with this one, and None; or, when the budget is spent, them and when to try again.

    Args:
        used: earlier uses, oldest first; those that no longer count are dropped.
        at: now, in the tenant's time.
    """
    counting = [use for use in used if use > at - budget.window]
    if len(counting) < budget.limit:
        return [*counting, at], None
    return counting, counting[-budget.limit] + budget.window

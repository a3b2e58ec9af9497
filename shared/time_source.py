"""The one place that tells the time. Live tenants: the database's clock. Sandbox tenants: their own test clock, which
only routing moves.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from shared.database import Database, Tx

NOW = """
SELECT coalesce((SELECT now FROM test_clock WHERE tenant_id = $1), clock_timestamp())"""


class TimeSource(Protocol):
    async def now(self, tenant_id: UUID) -> datetime:
        """Return the tenant's present instant, aware UTC."""


async def now_in(tx: Tx) -> datetime:
    """Return the present instant of the transaction's tenant, aware UTC: what to use wherever a transaction is open."""
    now: datetime = await tx.fetchval(NOW, tx.tenant_id)
    return now.astimezone(UTC)


class DatabaseTime:
    """TimeSource for where no transaction is open: asks the database in one of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self, tenant_id: UUID) -> datetime:
        async with self._database.worker_tx(tenant_id) as tx:
            return await now_in(tx)


class FixedTime:
    """TimeSource that stands where it was put; for tests and simulations."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    async def now(self, tenant_id: UUID) -> datetime:
        return self.at

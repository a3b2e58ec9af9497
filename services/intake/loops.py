"""Background edges: imports row by row, receipts by age, keys wrapped anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog

from services.intake.api.imports import LOOP
from services.intake.importing import Imports
from services.intake.parts import parts_of, settings_of
from services.intake.repository import complaints
from shared.messages.base import LIVE
from shared.service import Loop, Runtime

_ROWS: Final = 1000
_PRUNE_SECONDS: Final = 30.0


def loops(runtime: Runtime[Any]) -> Sequence[Loop]:
    async def prune() -> float | None:
        async with runtime.db.worker_tx(LIVE) as tx:
            count = await complaints.prune_receipts(tx, settings_of(runtime).idempotency_retention_days, _ROWS)
        if count:
            runtime.metrics.housekeeping_rows.labels("intake", "receipt").inc(count)
        return 0.05 if count == _ROWS else None

    return [
        Loop(LOOP, Imports(runtime).step, idle_seconds=settings_of(runtime).import_idle_seconds),
        Loop("receipts", prune, idle_seconds=_PRUNE_SECONDS),
    ]


async def rewrap(runtime: Runtime[Any]) -> int:
    """Wrap every tenant's keys by the current master key; return how many another one had wrapped. Run at the start."""
    count = 0
    for tenant in await runtime.reference.tenants():
        async with runtime.db.worker_tx(tenant.tenant_id) as tx:
            count += await parts_of(runtime).vault.rewrap(tx)
    if count:
        structlog.get_logger().info("keys_rewrapped", count=count)
    return count

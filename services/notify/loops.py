"""The background edge beside the sender: sandboxes that come to rest, the length of the queue, and housekeeping."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct

from services.notify import repository
from services.notify.parts import Parts
from shared import outbox
from shared.consuming import Consumer
from shared.database import Record, Tx
from shared.errors import UnavailableError
from shared.ids import derived_id
from shared.messages import ClockRested
from shared.messages.base import LIVE
from shared.service import Runtime
from shared.time_source import now_in

LOOK_AGAIN_SECONDS = 0.05
TRIES_BEFORE_REST = 3  # a message that did not get through in three tries does not hold a sandbox's clock up
PRUNE_ROWS = 500
PRUNE_REST_SECONDS = 60.0
QUEUE_REST_SECONDS = 5.0

log = structlog.get_logger()


class Mark(Struct, frozen=True):
    """How far one consumer must come until everything is applied that was in its stream when the mark was set."""

    stream: str
    durable: str
    consumer_seq: int


class Resting:
    """Closes settlements: a sandbox's clock has settled in sla, and notify rests once it has applied and sent what came before.

    The settling message may overtake others: entries come on another stream, and a message that failed once comes
    again later. So each settlement remembers how far the consumers must come, and waits for that first.
    """

    def __init__(self, runtime: Runtime[Any], consumers: Sequence[Consumer]) -> None:
        self._runtime = runtime
        self._watched = [
            (each.stream, each.name) for each in consumers if each.name in ("notify-on-entry", "notify-on-sla")
        ]
        self._marks: dict[tuple[UUID, UUID], list[Mark]] = {}

    async def step(self) -> float | None:
        async with self._runtime.db.worker_tx(LIVE) as tx:
            rows = await repository.open_settlements(tx)
        wanted = {(row["tenant_id"], row["operation_id"]) for row in rows}
        self._marks = {key: marks for key, marks in self._marks.items() if key in wanted}
        for row in rows:
            await self._settle(row)
        return LOOK_AGAIN_SECONDS if rows else None

    async def _settle(self, row: Record) -> None:
        parts: Parts = self._runtime.parts["notify"]
        overdue = row["age_seconds"] > parts.settings.rest_seconds
        caught_up = await self._caught_up((row["tenant_id"], row["operation_id"]))
        async with self._runtime.db.worker_tx(row["tenant_id"]) as tx:
            await repository.release(tx, tx.tenant_id, row["target"])
            tx.after_commit(lambda: self._runtime.wake("sender"))
            left = await repository.unsent(tx, tx.tenant_id, row["target"], TRIES_BEFORE_REST)
            if (left or not caught_up) and not overdue:
                return
            await self._rest(tx, row)
        if overdue and (left or not caught_up):
            log.warning("rested_with_messages_unsent", tenant_id=str(row["tenant_id"]), count=left)

    async def _rest(self, tx: Tx, row: Record) -> None:
        if await repository.rest(tx, tx.tenant_id, row["operation_id"]):
            await outbox.add(
                tx,
                ClockRested(
                    message_id=derived_id("rested", tx.tenant_id, row["operation_id"]),
                    tenant_id=tx.tenant_id,
                    at=row["target"],
                    operation_id=row["operation_id"],
                    target=row["target"],
                ),
            )

    async def _caught_up(self, key: tuple[UUID, UUID]) -> bool:
        """Whether the consumers have applied what was there when the settlement was first looked at."""
        try:
            marks = self._marks.get(key)
            if marks is None:
                marks = self._marks[key] = [await self._mark(stream, durable) for stream, durable in self._watched]
            return all([await self._passed(mark) for mark in marks])
        except (nats.errors.Error, nats.js.errors.Error, UnavailableError, TimeoutError, OSError):
            return False

    async def _mark(self, stream: str, durable: str) -> Mark:
        info = await self._runtime.nats.js.consumer_info(stream, durable)
        delivered = info.delivered.consumer_seq if info.delivered is not None else 0
        return Mark(stream, durable, delivered + (info.num_pending or 0))

    async def _passed(self, mark: Mark) -> bool:
        info = await self._runtime.nats.js.consumer_info(mark.stream, mark.durable)
        if not info.num_pending and not info.num_ack_pending:
            return True
        return info.ack_floor is not None and info.ack_floor.consumer_seq >= mark.consumer_seq


class Measuring:
    """Says how many deliveries are due, and for how long the oldest has been."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime
        self._due = runtime.metrics.gauge("deliveries_due", "Deliveries that should be sent now.")
        self._oldest = runtime.metrics.gauge(
            "deliveries_due_oldest_seconds", "For how long the oldest of them has been due."
        )

    async def step(self) -> float | None:
        async with self._runtime.db.worker_tx(LIVE) as tx:
            due, lag = await repository.queue_state(tx)
        self._due.labels("notify").set(due)
        self._oldest.labels("notify").set(lag)
        return None


class Pruning:
    """Deletes what is past each tenant's retention, in small batches."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime

    async def step(self) -> float | None:
        full = False
        for tenant in await self._runtime.reference.tenants():
            async with self._runtime.db.worker_tx(tenant.tenant_id) as tx:
                before = await now_in(tx) - timedelta(days=2)
                gone = await repository.prune(
                    tx, tx.tenant_id, days=tenant.limits.retention_days, before=before, limit=PRUNE_ROWS
                )
            full = full or gone >= PRUNE_ROWS
        return 0.05 if full else None

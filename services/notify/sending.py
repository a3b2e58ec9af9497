"""The background edge that sends: it claims deliveries that are due, tenants in turn, and has several sent at once.

A call to a provider outlives any transaction, so the right to make it is a lease with a fencing token: whoever has been
overtaken may still finish its call, but not record what follows from it. An attempt without an end (the process died
between call and record) is what an outcome nobody knows looks like; it is cleared up before anything is sent again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import structlog

from services.notify import repository
from services.notify.domain.outcomes import FINAL
from services.notify.parts import Parts
from services.notify.posting import Poster, Posting, is_worded
from services.notify.recording import Recorder
from services.notify.repository import Claim
from services.notify.writing import Writer
from shared import fail_points, telemetry
from shared.messages.base import LIVE
from shared.service import Runtime

IDLE_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

log = structlog.get_logger()


class Sender:
    """`step` is the loop's round: it claims what is due and starts sending it, within the limits of concurrency."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_tenant: Counter[UUID] = Counter()
        self._idle = 0
        recorder = Recorder(runtime)
        self._poster = Poster(runtime, recorder)
        self._writer = Writer(runtime, recorder)

    @property
    def _parts(self) -> Parts:
        parts: Parts = self._runtime.parts["notify"]
        return parts

    async def step(self) -> float | None:
        settings = self._parts.settings
        free = settings.send_at_once - len(self._tasks)
        if free <= 0:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return 0
        most = settings.send_at_once_per_tenant
        busy = [tenant_id for tenant_id, count in self._per_tenant.items() if count >= most]
        async with self._runtime.db.worker_tx(LIVE) as tx:
            claims = await repository.claim(tx, free, most, busy, self.lease_seconds)
        for claim in claims:
            self._start(claim)
        if claims:
            self._idle = 0
            return 0
        self._idle = min(self._idle + 1, len(IDLE_SECONDS) - 1)
        return IDLE_SECONDS[self._idle]

    @property
    def lease_seconds(self) -> float:
        """Longer than everything that is done under it: looking up, asking for the contact, calling, and the statements between."""
        settings = self._parts.settings
        return settings.send_seconds * 3 + settings.contact_seconds + settings.command_seconds * 4

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._guarded(claim), name="notify send")
        self._tasks.add(task)
        self._per_tenant[claim.tenant_id] += 1

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            self._per_tenant[claim.tenant_id] -= 1
            if self._per_tenant[claim.tenant_id] <= 0:
                del self._per_tenant[claim.tenant_id]
            self._runtime.wake("sender")

        task.add_done_callback(done)

    async def finish(self, seconds: float) -> None:
        """Let calls in flight end, for a stop; what takes longer is cut off and cleared up after the next start."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, claim: Claim) -> None:
        """Send, and let no failure of ours take the loop along: the lease ends, and the delivery is claimed anew."""
        with structlog.contextvars.bound_contextvars(
            tenant_id=str(claim.tenant_id), delivery_id=str(claim.delivery_id)
        ):
            try:
                await self.send(claim)
            except Exception as error:
                log.error("delivery_interrupted", **telemetry.describe(error))

    async def send(self, claim: Claim) -> None:
        """Do what is to be done for one delivery under its claim."""
        fail_points.reach("notify.claimed")
        tenant = await self._runtime.reference.tenant(claim.tenant_id)
        posting: Posting | None = None
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            loaded = await repository.load(tx, claim)
            if loaded is None:
                return
            delivery = loaded.delivery
            if delivery.state in FINAL:  # a receipt was faster than we
                await repository.leave_queue(tx, claim.tenant_id, claim.delivery_id)
                return
            if delivery.channel == "webhook" and not is_worded(delivery):
                posting = await self._poster.begin(tx, claim, loaded, tenant)
        if delivery.channel != "webhook":
            await self._writer.send(claim, loaded, tenant)
            return
        if is_worded(delivery):
            posting = await self._poster.begin_worded(claim, loaded, tenant)
        if posting is not None:
            await self._poster.call(claim, delivery, tenant, posting)

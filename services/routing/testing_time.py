"""Moving a sandbox's test clock: routing tells where it goes, sla and notify go there, and when all is quiet it stands there.

What is written on the way (a complaint that an effect created, an assignment at a breach) may make more fall due before the target, so the
way is gone again until a round brings nothing new.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.routing import keeping
from services.routing.domain import years
from services.routing.refreshing import look_anew
from services.routing.repository import clocks
from services.routing.repository.clocks import Operation
from services.routing.writing import Desk
from shared import outbox
from shared.database import Database, Tx
from shared.ids import derived_id, new_id
from shared.messages.routing import ClockAdvanced, ClockTicked

CREATED_SECONDS = 5.0
"""How long a complaint that an effect creates may take to come through intake; one that intake cannot make never comes."""

MOST_ROUNDS = 20
"""Rules of which each creates what sets off the next would go on for ever; the linter refuses them, this is the net below it."""


async def begin(desk: Desk, tx: Tx, now: datetime, target: datetime, asked_by: str) -> Operation:
    """Store and tell the operation. The caller holds the clock's lock, so whatever was stamped before is told before."""
    tenant = await desk.reference.tenant(tx.tenant_id)
    for year in range(years.year_of(now, tenant.zone), years.year_of(target, tenant.zone) + 1):
        await keeping.duty_case(desk, tx, max(now, years.start_of(year, tenant.zone)))
    operation = await clocks.begin_operation(tx, tx.tenant_id, new_id(), now, target, asked_by)
    assert operation is not None  # the lock is held and none was running
    await _tell(tx, operation.round_id, operation)
    return operation


async def settled(tx: Tx, round_id: UUID, steps: int) -> None:
    """Note that sla has done everything up to the target."""
    await clocks.lock_test_clock(tx, tx.tenant_id)  # before the row: writers hold the clock when they come to the row
    await clocks.note_settled(tx, tx.tenant_id, round_id, steps)
    await _finish_if_quiet(tx, round_id)


async def rested(tx: Tx, round_id: UUID) -> None:
    """Note that notify has sent everything up to the target."""
    await clocks.lock_test_clock(tx, tx.tenant_id)
    await clocks.note_rested(tx, tx.tenant_id, round_id)
    await _finish_if_quiet(tx, round_id)


async def round_of_sandboxes(desk: Desk, db: Database, batch: int) -> bool:
    """Look anew at cases of sandboxes that have changed by themselves, at the instants at which they did; whether there were any."""
    async with db.worker_tx(UUID(int=0)) as tx:
        tenants = await clocks.sandboxes_due(tx)
    for tenant_id in tenants:
        async with db.worker_tx(tenant_id) as tx:
            running = await clocks.running_operation(tx, tenant_id)
            until = running.target if running is not None else await clocks.test_clock(tx, tenant_id)
            due = [] if until is None else await clocks.due_sandbox(tx, tenant_id, until, batch)
        if due:
            await look_anew(desk, db, due, at_their_instant=True)
    async with db.worker_tx(UUID(int=0)) as tx:
        quiet = await clocks.running_operations(tx)
    for tenant_id, round_id in quiet:
        async with db.worker_tx(tenant_id) as tx:
            await clocks.lock_test_clock(tx, tenant_id)
            await _finish_if_quiet(tx, round_id)
    return bool(tenants)


async def _finish_if_quiet(tx: Tx, round_id: UUID) -> None:
    operation = await clocks.lock_round(tx, tx.tenant_id, round_id)
    if operation is None or operation.state != "running" or not (operation.settled and operation.rested):
        return
    if await clocks.due_sandbox(tx, tx.tenant_id, operation.target, 1):
        return  # the loop is on its way
    if await clocks.is_awaiting(tx, tx.tenant_id, operation.operation_id, CREATED_SECONDS):
        return
    if operation.written and operation.round < MOST_ROUNDS:
        # For sla and notify each round is an operation of its own, since they go through one only once.
        again = derived_id("clock round", tx.tenant_id, operation.operation_id, operation.round + 1)
        await clocks.next_round(tx, tx.tenant_id, operation.operation_id, again)
        await _tell(tx, again, operation)
        return
    await clocks.move_test_clock(tx, tx.tenant_id, operation.target)
    await clocks.finish_operation(tx, tx.tenant_id, operation.operation_id)
    await outbox.add(
        tx,
        ClockTicked(
            message_id=derived_id("clock", tx.tenant_id, operation.operation_id),
            tenant_id=tx.tenant_id,
            at=operation.target,
        ),
    )


async def _tell(tx: Tx, round_id: UUID, operation: Operation) -> None:
    await outbox.add(
        tx,
        ClockAdvanced(
            message_id=derived_id("advance", tx.tenant_id, round_id),
            tenant_id=tx.tenant_id,
            at=operation.started_from,
            operation_id=round_id,
            target=operation.target,
        ),
    )


async def start(tx: Tx, at: datetime) -> None:
    """Put up the clock of a new sandbox and tell it."""
    if await clocks.start_test_clock(tx, tx.tenant_id, at):
        await outbox.add(
            tx, ClockTicked(message_id=derived_id("clock", tx.tenant_id, "start"), tenant_id=tx.tenant_id, at=at)
        )

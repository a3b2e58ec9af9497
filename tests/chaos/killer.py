"""A message that ends every process that handles it: three of them, and then it is a dead letter; repaired, it is applied.

`python -m tests.chaos.killer <service>` is a service with such a fault, as a library that crashes on one input would be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from services.audit.journal import Witness
from services.supervisor import ServiceProcess
from shared import consuming
from shared.consuming import MAX_DEATHS, Consumer
from shared.database import Tx
from shared.pending import Delivery
from tests.chaos.faults import back, restart_soon
from tests.chaos.frame import CaseFailedError, Tenancy, World, until

FATAL: Final = "signed_for"
"""The kind of entry that it dies of; the load has none of them."""

HEARERS: Final = ("sla", "notify", "reporting")
DEAD_WITHIN: Final = 60.0
APPLIED_WITHIN: Final = 30.0

# The tenant may have other dead letters, which are no JSON.
LETTER: Final = """
SELECT dead_letter_id, reason, state
  FROM {service}.dead_letter
 WHERE tenant_id = $1 AND position($2::bytea IN body) > 0 AND position($3::bytea IN body) > 0"""


async def kill_by_message(world: World, tenant: Tenancy, case_id: UUID) -> dict[str, Any]:
    """Enter something that one of the services dies of, and see it set aside after three deaths, and applied after the repair."""
    service = world.chance.choice(HEARERS)
    pids: set[int] = set()
    async with _faulty(world, service) as unit:
        watching = asyncio.create_task(_watch(unit, pids))
        try:
            key = f"killer-{uuid4()}"
            witness = Witness(world.write, tenant.tenant_id, "entry", key)
            body = {"kind": FATAL, "data": {}}
            answer = await tenant.clerk.ask("POST", f"/v1/cases/{case_id}/entries", body=body, key=key, witness=witness)
            if not answer.is_good:
                raise CaseFailedError(f"the entry was answered {answer.status} {answer.problem}")
            letter = await until(
                lambda: _letter(world, service, tenant, case_id), DEAD_WITHIN, f"{service} gives up what kills it"
            )
        finally:
            watching.cancel()
    deaths = len(pids) - 1
    if letter["reason"] != "killed its process" or deaths != MAX_DEATHS:
        raise CaseFailedError(f"{service} has given the message up after {deaths} deaths: {letter['reason']}")
    await world.operator.post(f"/v1/ops/{service}/dead-letters/{letter['dead_letter_id']}/retry")

    async def is_applied() -> bool:
        return bool((await _letter(world, service, tenant, case_id))["state"] == "done")

    await until(is_applied, APPLIED_WITHIN, f"{service}, repaired, applies what it had given up")
    return {"of": service, "deaths": deaths}


@contextlib.asynccontextmanager
async def _faulty(world: World, service: str) -> AsyncIterator[ServiceProcess]:
    """Run a service with the fault, restarted by its supervisor whenever it dies, and without it afterwards."""
    unit = world.stack.supervisor.unit(service)
    assert isinstance(unit, ServiceProcess)
    usual = unit.command
    unit.command = [sys.executable, "-m", "tests.chaos.killer", service]
    try:
        await restart_soon(world.stack, service)
        yield unit
    finally:
        unit.command = usual
        await restart_soon(world.stack, service)
        await back(world.stack, service)


async def _watch(unit: ServiceProcess, pids: set[int]) -> None:
    while True:
        pids.add(unit.pid)
        await asyncio.sleep(0.02)


async def _letter(world: World, service: str, tenant: Tenancy, case_id: UUID) -> Any:
    connection = await asyncpg.connect(world.stack.local.superuser_dsn)
    try:
        case, kind = f'"case_id":"{case_id}"'.encode(), f'"kind":"{FATAL}"'.encode()
        return await connection.fetchrow(LETTER.format(service=service), tenant.tenant_id, case, kind)
    finally:
        await connection.close()


def main(service: str) -> None:
    """Serve, and die of such an entry; what was in hand comes again after two seconds instead of fifteen, since all else waits for it."""
    from services.cli.serve import serve

    handle = Consumer._handle

    async def fatal(self: Consumer, delivery: Delivery, tx: Tx, seconds: float) -> None:
        entry = getattr(delivery.message, "entry", None)
        if entry is not None and entry.kind == FATAL:
            os._exit(1)
        await handle(self, delivery, tx, seconds)

    setattr(Consumer, "_handle", fatal)  # noqa: B010 - mypy would have it that methods stay what they are
    consuming.ACK_SECONDS, consuming.KEEP_ALIVE_SECONDS = 2.0, 0.8
    serve(service)  # type: ignore[arg-type]  # one of the five


if __name__ == "__main__":
    main(sys.argv[1])

"""Cases that have changed by themselves are looked at anew: columns, assignee, counts that a breach causes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from uuid import UUID

import structlog

from services.routing.repository import clocks
from services.routing.repository.clocks import Due
from services.routing.writing import Desk
from shared.database import Database, is_outage
from shared.telemetry import describe

POSTPONED_SECONDS = 60.0

log = structlog.get_logger()


@contextlib.contextmanager
def set_aside(loop: str, tenant_id: UUID) -> Iterator[None]:
    """Keep what goes wrong with one tenant from the others; an outage is everybody's and goes up."""
    try:
        yield
    except Exception as error:
        if is_outage(error):
            raise
        log.error("tenant_skipped", loop=loop, tenant_id=str(tenant_id), **describe(error))


async def look_anew(desk: Desk, db: Database, due: Sequence[Due], *, at_their_instant: bool = False) -> None:
    """Look at cases of one tenant, in one transaction. One that cannot be folded is looked at again later, and holds up nobody.

    Args:
        at_their_instant: in a sandbox on its way: what follows is entered at the instant at which the case changed.
    """
    try:
        async with db.worker_tx(due[0].tenant_id) as tx:
            for each in due:
                writing = await desk.begin(tx, each.case_id, at=each.wake_at if at_their_instant else None)
                if writing is not None:
                    await desk.save(writing)
    except Exception as error:
        if is_outage(error):
            raise
        if len(due) > 1:
            for each in due:
                await look_anew(desk, db, [each], at_their_instant=at_their_instant)
            return
        [one] = due
        log.error("case_not_folded", tenant_id=str(one.tenant_id), case_id=str(one.case_id), **describe(error))
        async with db.worker_tx(one.tenant_id) as tx:
            await clocks.postpone(tx, one.tenant_id, one.case_id, POSTPONED_SECONDS)

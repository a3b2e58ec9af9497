"""The audit: looks until nothing is under way any more, or has been for longer than it may be."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from services.audit import accepted, cases, figures, notices, tenants, transport
from services.audit.findings import Findings, Verdict, verdict
from services.audit.look import open_look
from services.audit.sources import Evidence

PATIENCE_SECONDS: Final = 30.0
"""What is under way may be so long under way; then it counts."""

LOOK_SECONDS: Final = 0.5
MOST_BETWEEN: Final = 5.0


async def audit(evidence: Evidence, *, patience: float = PATIENCE_SECONDS) -> Verdict:
    """Compare everything, and return what does not agree.

    Args:
        patience: seconds that what is under way is given; a finding that goes away within them was none.
    """
    seen: dict[tuple[str, str], float] = {}
    between = LOOK_SECONDS
    while True:
        began = time.monotonic()
        found = await look_once(evidence)
        every = found.all()
        seen = {
            (each.check, each.subject): seen.get((each.check, each.subject), began) for each in every if each.may_pass
        }
        settled = [
            each for each in every if not each.may_pass or time.monotonic() - seen[each.check, each.subject] >= patience
        ]
        if len(settled) == len(every):
            return verdict(settled, found.compared)
        await asyncio.sleep(min(between, patience))
        between = min(between * 2, MOST_BETWEEN)


async def look_once(evidence: Evidence) -> Findings:
    """Return what one look finds, things under way among it."""
    connection, look = await open_look(evidence)
    try:
        for check in (tenants, accepted, cases, notices, figures, transport):  # whose it is, is settled first
            await check.check(look)
    finally:
        await connection.close()
    return look.findings

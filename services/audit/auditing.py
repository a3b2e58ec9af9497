"""The audit: looks until nothing is under way any more, or has been for longer than it may be."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import asyncpg

from services.audit import accepted, books, cases, copies, figures, keys, notices, tenants, transport, vault
from services.audit.findings import Finding, Findings, Verdict, verdict
from services.audit.look import Look, open_look
from services.audit.sources import Evidence

PATIENCE_SECONDS: Final = 30.0
"""What is under way may be so long under way; then it counts."""

LOOK_SECONDS: Final = 0.5
MOST_BETWEEN: Final = 5.0


async def audit(evidence: Evidence, *, patience: float = PATIENCE_SECONDS, of_now: bool = False) -> Verdict:
    """Compare everything, and return what does not agree.

    Args:
        patience: seconds that what is under way is given; a finding that goes away within them was none.
        of_now: judge what there is at the first look, and not what comes under way later: for a system that goes on working,
            of which no look finds everything at rest.
    """
    seen: dict[tuple[str, str], float] = {}
    between = LOOK_SECONDS
    of_first: set[Finding] | None = None
    while True:
        began = time.monotonic()
        found = await look_once(evidence)
        every = found.all()
        if of_now:
            of_first = set(every) if of_first is None else of_first & set(every)
            every = [each for each in every if not each.may_pass or each in of_first]
        seen = {
            (each.check, each.subject): seen.get((each.check, each.subject), began) for each in every if each.may_pass
        }
        settled = [
            # From look to look: one look at much data may itself take longer than the patience.
            each
            for each in every
            if not each.may_pass or began - seen[each.check, each.subject] >= patience
        ]
        if len(settled) == len(every):
            return verdict(settled, found.compared)
        await asyncio.sleep(min(between, patience))
        between = min(between * 2, MOST_BETWEEN)


async def look_once(evidence: Evidence) -> Findings:
    """Return what one look finds, things under way among it."""
    connection, look = await open_look(evidence)
    try:
        await check(look)
    finally:
        await connection.close()
    return look.findings


async def check(look: Look) -> None:
    """Make every comparison. Whose it is, is settled first.

    What is so spoilt that a comparison fails is a finding itself; the others are made all the same.
    """
    for module, broken in COMPARISONS:
        try:
            async with look.connection.transaction():
                await module.check(look)
        except asyncpg.PostgresConnectionError:
            raise
        except (asyncpg.PostgresError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as failure:
            name = module.__name__.rpartition(".")[2]
            look.findings.add(broken, f"{name}: {type(failure).__name__}", f"cannot be compared: {failure}")


# (comparison, the promise that cannot be shown to be kept when it fails)
COMPARISONS: Final = (
    (tenants, "I14"),
    (keys, "I9"),
    (accepted, "I1"),
    (vault, "I1"),
    (cases, "I13"),
    (copies, "I13"),
    (notices, "I5"),
    (figures, "I8"),
    (transport, "I9"),
    (books, "I9"),
)

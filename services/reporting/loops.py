"""Background edge: makes the facts of the cases that were noted as out of date, and counts a tenant anew. Most are made without it, in the
transaction that takes down what they were waiting for (`making.py`).

One transaction takes some tenants' notes off the queue, locks the facts of their cases, reads what was told of them, and
stores facts and the differences they make in the rollup. What comes while it runs is noted again and counted the next
time, so nothing is lost and nothing counted twice, with any number of replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from uuid import UUID

import structlog
from msgspec import Struct

from services.reporting import repository
from services.reporting.domain.rollups import DIMENSIONS
from services.reporting.making import make_facts
from shared import telemetry
from shared.database import Database, Tx
from shared.messages import LIVE
from shared.telemetry import describe

CASES_AT_ONCE = 200
FAIR_CASES = 20  # while several tenants wait: a round lasts as long as the longest turn in it
TENANTS_AT_ONCE = 10  # in one transaction
REST_SECONDS = 0.01  # at least, once nothing is left to do

log = structlog.get_logger()
telemetry.allow("facts", "sums")


class Facts:
    """The loop *facts*: makes what this process was told of, at once or when it was put off to, and looks for what others have left."""

    def __init__(self, database: Database, size: int, look_seconds: float) -> None:
        self._database = database
        self._size = size
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._put_off_to = 0.0  # the latest
        self._noted: set[UUID] = set()

    def note(self, tenant_id: UUID) -> None:
        """A tenant has facts to be made at once."""
        self._noted.add(tenant_id)

    def expect(self, seconds: float) -> bool:
        """Some facts are to be made so much later; return whether the next look is earlier by that."""
        self._put_off_to = asyncio.get_running_loop().time() + seconds
        is_earlier = self._put_off_to < self._look_at
        self._look_at = min(self._look_at, self._put_off_to)
        return is_earlier

    async def step(self) -> float | None:
        """Do a round, and return the seconds until the next look; 0 while there is something to do."""
        clock = asyncio.get_running_loop().time
        tenants, self._noted = self._noted, set()
        if clock() >= self._look_at:
            self._look_at = clock() + self._look_seconds
            if self._put_off_to > clock():
                self._look_at = min(self._look_at, self._put_off_to)
            async with self._database.worker_tx(LIVE) as tx:
                tenants |= set(await repository.due_tenants(tx))
        self._noted |= await refresh_tenants(self._database, tenants, self._size)
        return 0 if self._noted else max(REST_SECONDS, self._look_at - clock())


async def refresh_round(database: Database, size: int = CASES_AT_ONCE) -> bool:
    """Refresh up to `size` cases of every tenant that has some waiting; return whether there may be more."""
    async with database.worker_tx(LIVE) as tx:
        tenants = await repository.due_tenants(tx)
    return bool(await refresh_tenants(database, tenants, size))


async def refresh_tenants(database: Database, tenants: Collection[UUID], size: int) -> set[UUID]:
    """Refresh up to `size` cases of each and return who may have more.

    Several tenants at once, each with few cases, so that a quiet one does not wait for all of a busy one's.
    """
    most = size if len(tenants) == 1 else min(size, FAIR_CASES)
    ordered = sorted(tenants)
    has_more: set[UUID] = set()
    for start in range(0, len(ordered), TENANTS_AT_ONCE):
        done = await refresh_some(database, ordered[start : start + TENANTS_AT_ONCE], most)
        has_more |= {tenant_id for tenant_id, due in done.items() if due == most}
    return has_more


async def refresh_some(database: Database, tenants: Sequence[UUID], size: int = CASES_AT_ONCE) -> dict[UUID, int]:
    """Refresh the cases of each tenant's first `size` notes that are due, and return how many notes those were.

    A case that fails does not hold up the others.

    Args:
        tenants: in order, so that whoever locks cases of several locks them in the same order.
    """
    found: dict[UUID, repository.Claimed] = {}
    try:
        async with database.worker_tx(*tenants) as tx:
            found = await repository.claim_stale(tx, tenants, size)
            await refresh(
                tx, [(tenant_id, case_id) for tenant_id in sorted(found) for case_id in found[tenant_id].cases]
            )
    except Exception as error:
        if not any(each.cases for each in found.values()):
            raise
        log.warning("facts_taken_singly", **describe(error))
        for tenant_id, each in found.items():
            for case_id in each.cases:
                await _refresh_alone(database, tenant_id, case_id)
    return {tenant_id: each.due if each.cases else 0 for tenant_id, each in found.items()}


async def _refresh_alone(database: Database, tenant_id: UUID, case_id: UUID) -> None:
    try:
        async with database.worker_tx(tenant_id) as tx:
            await repository.claim_case(tx, tenant_id, case_id)
            await refresh(tx, [(tenant_id, case_id)])
    except Exception as error:
        log.error("fact_failed", tenant_id=str(tenant_id), complaint_id=str(case_id), **describe(error))
        async with database.worker_tx(tenant_id) as tx:
            await repository.postpone(tx, tenant_id, case_id)


async def refresh(tx: Tx, cases: Sequence[repository.Case]) -> None:
    """Make the facts of these cases; raises what the first raised that could not be made.

    Args:
        cases: in order and each once, so that whoever locks several locks them in the same order.
    """
    if cases:
        await repository.lock_cases(tx, cases)
        left = await make_facts(tx, cases)
        for error in left.failed.values():
            raise error
        await repository.note(tx, left.unknown)


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What counting anew has found; a difference is a fault of ours, told and put right."""

    facts: int
    facts_changed: int
    sums_changed: int


async def rebuild(database: Database, tenant_id: UUID, size: int = CASES_AT_ONCE) -> Rebuilt:
    """Make every fact of the tenant again from what was told, and every sum from the facts, while the service runs."""
    facts = facts_changed = sums_changed = 0
    last = UUID(int=0)
    while True:
        async with database.worker_tx(tenant_id) as tx:
            cases = await repository.cases_after(tx, tenant_id, last, size)
            if not cases or not await repository.knows(tx, tenant_id):
                break
            named = [(tenant_id, case_id) for case_id in cases]
            await repository.lock_cases(tx, named)
            before = await repository.facts_as_stored(tx, tenant_id, cases)
            await refresh(tx, named)
            after = await repository.facts_as_stored(tx, tenant_id, cases)
        facts += len(after)
        facts_changed += sum(1 for case_id in before if before[case_id] != after.get(case_id))
        last = cases[-1]
    async with database.worker_tx(tenant_id) as tx:
        days = await repository.counted_days(tx, tenant_id)
    for day in days:
        async with database.worker_tx(tenant_id) as tx:
            await repository.lock_rollup(tx, tenant_id)
            kept = await repository.rollup_of_day(tx, tenant_id, day)
            right = await repository.recount(tx, tenant_id, day, DIMENSIONS)
            wrong = {key: right.get(key, 0) - kept.get(key, 0) for key in sorted(kept.keys() | right.keys())}
            wrong = {key: difference for key, difference in wrong.items() if difference}
            await repository.put_facts(tx, [], {tenant_id: wrong})
        sums_changed += len(wrong)
    rebuilt = Rebuilt(facts=facts, facts_changed=facts_changed, sums_changed=sums_changed)
    if facts_changed or sums_changed:
        log.warning("facts_differed", tenant_id=str(tenant_id), facts=facts_changed, sums=sums_changed)
    return rebuilt

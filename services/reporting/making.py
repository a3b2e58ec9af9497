"""Facts made from what was told, in whatever transaction holds their cases: that which took it down, or the loop's."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct

from services.reporting import repository
from services.reporting.domain.rollups import Counted, differences
from services.reporting.domain.telling import StoredFact, fact_of
from services.reporting.repository import Book, Case
from shared import fail_points
from shared.consuming import AtLast
from shared.database import Tx
from shared.telemetry import describe

AGAIN_SECONDS = 2.0  # a fact that could not be made is left alone for so long; longer when it fails again

log = structlog.get_logger()


class Left(Struct):
    """Whose facts could not be made."""

    unknown: list[Case]  # nothing is known of the tenant yet
    failed: dict[Case, Exception]


def making_facts(book: Book) -> AtLast:
    """Return what ends a transaction of messages: the facts are made in it that wait for nothing more."""

    async def make_at_once(tx: Tx) -> None:
        left = await make_facts(tx, await book.close(tx))
        await repository.note(tx, left.unknown)
        for (tenant_id, case_id), error in left.failed.items():
            log.error("fact_failed", tenant_id=str(tenant_id), complaint_id=str(case_id), **describe(error))
        await repository.note(tx, left.failed, AGAIN_SECONDS, failures=1)

    return make_at_once


async def make_facts(tx: Tx, cases: Sequence[Case]) -> Left:
    """Make the facts of these cases from what was told of them, and carry the difference into the rollup.

    Args:
        cases: held by the transaction; in order and each once, so that whoever locks several rows locks them in the same order.
    """
    left = Left([], {})
    if not cases:
        return left
    facts: list[tuple[UUID, StoredFact]] = []
    changes: dict[UUID, list[tuple[Counted | None, Counted | None]]] = {}
    found = await repository.told(tx, cases)
    fail_points.reach("reporting.claimed")
    for each in found:
        tenant_id, _ = each.case
        if each.zone is None:
            left.unknown.append(each.case)
            continue
        try:
            told, before = each.read()
            stored = fact_of(told, ZoneInfo(each.zone), each.zone)
        except Exception as error:
            left.failed[each.case] = error
            continue
        if stored is not None:
            facts.append((tenant_id, stored))
            changes.setdefault(tenant_id, []).append((before, stored.counted))
    await repository.put_facts(tx, facts, {tenant_id: differences(each) for tenant_id, each in changes.items()})
    fail_points.reach("reporting.stored")
    return left

"""Pages of cases, most urgent first."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shared.database import Tx

# The order is by rank, then by what was missed first, else by what is due first; it stands in the index word for word.
ALL = """
SELECT case_id, kind, number, state, closed, outcome, class_kind, category, severity, priority, rank, respondent, owner_unit, owner_role,
       owner_staff, version, received_at, changed_at, due_at, breached_at
  FROM "case"
 WHERE tenant_id = $1
   AND kind = $2
   AND ($3::boolean OR NOT closed)
   AND ($4::text IS NULL OR owner_unit = $4)
   AND ($5::text IS NULL OR owner_role = $5)
   AND ($6::text IS NULL OR owner_staff = $6)
   AND ($7::text IS NULL OR state = $7)
   AND ($8::text IS NULL OR severity = $8)
   AND ($9::text IS NULL OR category = $9)
   AND ($10::text IS NULL OR number = $10)
   AND ($11::boolean IS NULL OR $11 = (breached_at IS NOT NULL OR coalesce(due_at < $12, false)))
   AND (rank, coalesce(breached_at, due_at, 'infinity'), case_id) > ($13, $14, $15)
 ORDER BY rank, coalesce(breached_at, due_at, 'infinity'), case_id
 LIMIT $16"""

_COMPLAINTS = ALL.replace("AND kind = $2", "AND kind = 'complaint' AND $2 = 'complaint'")

# What work lists mostly ask for, and what is asked for by its number, said so that the partial indexes answer it.
OPEN_COMPLAINTS = _COMPLAINTS.replace("AND ($3::boolean OR NOT closed)", "AND NOT closed AND NOT $3::boolean")
# Whoever has a number is found by it, and not by going through all cases in their order.
NUMBERED = (
    _COMPLAINTS.replace("AND ($10::text IS NULL OR number = $10)", "AND number = $10::text")
    .replace("ORDER BY rank,", "ORDER BY rank + 0,")
    .replace("AND (rank,", "AND (rank + 0,")
)


_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_NEVER = datetime.max  # noqa: DTZ901 - the value that asyncpg writes as infinity; an aware one would be a day of the year 9999


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """`overdue`: with a limit missed and still undone at `now`, or without one; None: both."""

    kind: str
    with_closed: bool
    unit: str | None
    role: str | None
    staff: str | None
    state: str | None
    severity: str | None
    category: str | None
    number: str | None
    overdue: bool | None
    now: datetime


class Place(msgspec.Struct, frozen=True):
    """Where a page ends. `urgent_at` None: nothing is due."""

    rank: int
    urgent_at: datetime | None
    case_id: UUID


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a work list. `due_at`: the earliest limit that runs; `breached_at`: the earliest missed and still undone."""

    case_id: UUID
    kind: str
    number: str
    state: str
    closed: bool
    outcome: str | None
    class_kind: str | None
    category: str | None
    severity: str | None
    priority: str | None
    rank: int
    respondent: str | None
    owner_unit: str | None
    owner_role: str | None
    owner_staff: str | None
    version: int
    received_at: datetime
    changed_at: datetime
    due_at: datetime | None
    breached_at: datetime | None


async def page(
    tx: Tx, tenant_id: UUID, filters: Filters, after: Place | None, limit: int
) -> tuple[list[Line], Place | None]:
    """Return up to `limit` cases and where the next page begins, None on the last one."""
    start = after or Place(-1, _BEGINNING, UUID(int=0))
    rows = await tx.fetch(
        _statement(filters),
        tenant_id,
        filters.kind,
        filters.with_closed,
        filters.unit,
        filters.role,
        filters.staff,
        filters.state,
        filters.severity,
        filters.category,
        filters.number,
        filters.overdue,
        filters.now,
        start.rank,
        start.urgent_at or _NEVER,
        start.case_id,
        limit + 1,
    )
    lines = [Line(**{name: row[name] for name in Line.__struct_fields__}) for row in rows[:limit]]
    if len(rows) <= limit:
        return lines, None
    last = rows[limit - 1]
    urgent_at = last["breached_at"] or last["due_at"]
    return lines, Place(last["rank"], urgent_at, last["case_id"])


def _statement(filters: Filters) -> str:
    """Return the one whose index answers what is asked."""
    if filters.kind == "complaint" and filters.number is not None:
        return NUMBERED
    if filters.kind == "complaint" and not filters.with_closed:
        return OPEN_COMPLAINTS
    return ALL

"""Staff: ids, roles, absences, and how they are reached (encrypted)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.routing.domain.staffing import Absence, Member
from shared.database import Record, Tx

REVISION = """
SELECT revision FROM staff_revision WHERE tenant_id = $1"""

NEXT_REVISION = """
INSERT INTO staff_revision (tenant_id, revision)
VALUES ($1, 1)
    ON CONFLICT (tenant_id) DO UPDATE SET revision = staff_revision.revision + 1
RETURNING revision"""

ALL = """
SELECT staff_id, roles, unit, deputy, active, absences
  FROM staff_member
 WHERE tenant_id = $1"""

PAGE = """
SELECT staff_id, revision, roles, unit, deputy, active, absences, contact
  FROM staff_member
 WHERE tenant_id = $1 AND staff_id > $2 AND (active OR $3) AND ($4::text IS NULL OR unit = $4) AND ($5::text IS NULL OR $5 = ANY(roles))
 ORDER BY staff_id
 LIMIT $6"""

ONE = """
SELECT staff_id, revision, roles, unit, deputy, active, absences, contact
  FROM staff_member
 WHERE tenant_id = $1 AND staff_id = $2"""

CONTACTS = """
SELECT staff_id, contact
  FROM staff_member
 WHERE tenant_id = $1 AND staff_id = ANY($2) AND contact IS NOT NULL"""

PUT = """
INSERT INTO staff_member (tenant_id, staff_id, revision, roles, unit, deputy, active, absences, contact)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (tenant_id, staff_id) DO UPDATE
   SET revision = excluded.revision, roles = excluded.roles, unit = excluded.unit, deputy = excluded.deputy, active = excluded.active,
       absences = excluded.absences, contact = excluded.contact, changed_at = clock_timestamp()
RETURNING (xmax = 0) AS is_new"""

LOADS = """
SELECT s.staff_id, coalesce(has.open_cases, 0) AS open_cases, latest.assigned_at
  FROM staff_member s
  LEFT JOIN (SELECT c.owner_staff, count(*) AS open_cases
               FROM "case" c
              WHERE c.tenant_id = $1 AND c.kind = 'complaint' AND NOT c.closed AND c.owner_staff IS NOT NULL
              GROUP BY c.owner_staff) has ON has.owner_staff = s.staff_id
  LEFT JOIN LATERAL (SELECT a.assigned_at
                       FROM assignment a
                      WHERE a.tenant_id = $1 AND a.staff_id = s.staff_id AND a.active
                      ORDER BY a.assigned_at DESC
                      LIMIT 1) latest ON true
 WHERE s.tenant_id = $1"""


class StaffRow(msgspec.Struct, frozen=True, kw_only=True):
    """One member as stored; `contact` is encrypted."""

    staff_id: str
    revision: int
    roles: tuple[str, ...]
    unit: str | None
    deputy: str | None
    active: bool
    absences: tuple[Absence, ...]
    contact: bytes | None


async def revision(tx: Tx, tenant_id: UUID) -> int:
    """Return the revision of the tenant's staff; 0 when there have never been any."""
    found: int | None = await tx.fetchval(REVISION, tenant_id)
    return found or 0


async def next_revision(tx: Tx, tenant_id: UUID) -> int:
    found: int = await tx.fetchval(NEXT_REVISION, tenant_id)
    return found


async def members(tx: Tx, tenant_id: UUID) -> dict[str, Member]:
    """Return everybody by staff id, without their load."""
    return {
        row["staff_id"]: Member(
            staff_id=row["staff_id"],
            roles=tuple(row["roles"]),
            unit=row["unit"],
            deputy=row["deputy"],
            active=row["active"],
            absences=_absences(row["absences"]),
        )
        for row in await tx.fetch(ALL, tenant_id)
    }


async def loads(tx: Tx, tenant_id: UUID) -> dict[str, tuple[int, datetime | None]]:
    """Return how many open complaints everybody has, and when they got the latest that they still have or had when it was closed."""
    return {row["staff_id"]: (row["open_cases"], row["assigned_at"]) for row in await tx.fetch(LOADS, tenant_id)}


async def page(
    tx: Tx, tenant_id: UUID, after: str, limit: int, *, with_inactive: bool, unit: str | None, role: str | None
) -> list[StaffRow]:
    return [_row(row) for row in await tx.fetch(PAGE, tenant_id, after, with_inactive, unit, role, limit)]


async def one(tx: Tx, tenant_id: UUID, staff_id: str) -> StaffRow | None:
    row = await tx.fetchrow(ONE, tenant_id, staff_id)
    return None if row is None else _row(row)


async def contacts(tx: Tx, tenant_id: UUID, staff_ids: Sequence[str]) -> dict[str, bytes]:
    return {row["staff_id"]: row["contact"] for row in await tx.fetch(CONTACTS, tenant_id, list(staff_ids))}


async def put(tx: Tx, tenant_id: UUID, row: StaffRow) -> bool:
    """Store the member as given; whether they are new."""
    is_new: bool = await tx.fetchval(
        PUT,
        tenant_id,
        row.staff_id,
        row.revision,
        list(row.roles),
        row.unit,
        row.deputy,
        row.active,
        list(row.absences),
        row.contact,
    )
    return is_new


def _row(row: Record) -> StaffRow:
    fields: dict[str, Any] = dict(row)
    fields["roles"] = tuple(fields["roles"])
    fields["absences"] = _absences(fields["absences"])
    return StaffRow(**fields)


def _absences(value: Any) -> tuple[Absence, ...]:
    return msgspec.convert(value, tuple[Absence, ...])

"""Who has which complaint, and which requests wait for whom."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.routing.domain.approving import Decided, Requested
from shared.database import Record, Tx
from shared.engine.model import Entry

BEFORE = """
SELECT assignment_id, case_id, seq, unit, role, staff_id, part, in_place_of, rule, clause, named, assigned_at
  FROM assignment
 WHERE tenant_id = $1 AND case_id = $2 AND NOT active
   AND (unit, role, staff_id) IS DISTINCT FROM ($3::text, $4::text, $5::text)
 ORDER BY seq DESC, assigned_at DESC
 LIMIT 1"""

OF_CASE = """
SELECT assignment_id, case_id, seq, unit, role, staff_id, part, in_place_of, rule, clause, named, assigned_at
  FROM assignment
 WHERE tenant_id = $1 AND case_id = $2
 ORDER BY seq, assigned_at"""

END = """
UPDATE assignment
   SET active = false, ended_at = $3
 WHERE tenant_id = $1 AND case_id = $2 AND active"""

INSERT = """
INSERT INTO assignment (tenant_id, assignment_id, case_id, seq, unit, role, staff_id, part, in_place_of, rule, clause, named, assigned_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""

INSERT_APPROVAL = """
INSERT INTO approval (tenant_id, case_id, seq, kind, step, requested_by, requested_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""

DECIDE_APPROVAL = """
UPDATE approval
   SET decision = $5, decided_seq = $6, decided_by = $7, decided_at = $8
 WHERE (tenant_id, case_id, seq) = (
        SELECT tenant_id, case_id, seq
          FROM approval
         WHERE tenant_id = $1 AND case_id = $2 AND decision IS NULL
           AND ($3::text IS NULL OR kind = $3) AND ($4::text IS NULL OR step IS NULL OR step = $4)
         ORDER BY seq DESC
         LIMIT 1)"""

WAITING_APPROVALS = """
SELECT p.case_id, p.seq, p.kind, p.step, p.requested_by, p.requested_at, c.number
  FROM approval p
  JOIN "case" c ON c.tenant_id = p.tenant_id AND c.case_id = p.case_id
 WHERE p.tenant_id = $1 AND p.decision IS NULL
   AND (p.requested_at, p.case_id, p.seq) > ($2, $3, $4)
 ORDER BY p.requested_at, p.case_id, p.seq
 LIMIT $5"""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """`named` is the key of what named the assignee; as long as it stays, so does the assignment."""

    assignment_id: UUID
    case_id: UUID
    seq: int
    unit: str | None
    role: str | None
    staff_id: str | None
    part: str | None
    in_place_of: str | None
    rule: str | None
    clause: Any
    named: str
    assigned_at: datetime


class WaitingApproval(msgspec.Struct, frozen=True, kw_only=True):
    case_id: UUID
    number: str
    seq: int
    kind: str
    step: str | None
    requested_by: str
    requested_at: datetime


async def before(tx: Tx, tenant_id: UUID, now: Assignment) -> Assignment | None:
    """Return the latest assignment that was to somebody else."""
    row = await tx.fetchrow(BEFORE, tenant_id, now.case_id, now.unit, now.role, now.staff_id)
    return None if row is None else _assignment(row)


async def of_case(tx: Tx, tenant_id: UUID, case_id: UUID) -> list[Assignment]:
    return [_assignment(row) for row in await tx.fetch(OF_CASE, tenant_id, case_id)]


async def replace(tx: Tx, tenant_id: UUID, new: Assignment, *, had_one: bool) -> None:
    """Make `new` the case's one active assignment."""
    if had_one:
        await tx.execute(END, tenant_id, new.case_id, new.assigned_at)
    await tx.execute(
        INSERT,
        tenant_id,
        new.assignment_id,
        new.case_id,
        new.seq,
        new.unit,
        new.role,
        new.staff_id,
        new.part,
        new.in_place_of,
        new.rule,
        new.clause,
        new.named,
        new.assigned_at,
    )


async def request_approval(tx: Tx, tenant_id: UUID, case_id: UUID, entry: Entry, asked: Requested) -> None:
    await tx.execute(INSERT_APPROVAL, tenant_id, case_id, entry.seq, asked.kind, asked.step, entry.by.id, entry.at)


async def decide_approval(tx: Tx, tenant_id: UUID, case_id: UUID, entry: Entry, decided: Decided) -> None:
    await tx.execute(
        DECIDE_APPROVAL,
        tenant_id,
        case_id,
        decided.kind,
        decided.step,
        decided.decision,
        entry.seq,
        entry.by.id,
        entry.at,
    )


async def waiting_approvals(
    tx: Tx, tenant_id: UUID, after: tuple[datetime, UUID, int], limit: int
) -> list[WaitingApproval]:
    return [WaitingApproval(**dict(row)) for row in await tx.fetch(WAITING_APPROVALS, tenant_id, *after, limit)]


def _assignment(row: Record) -> Assignment:
    return Assignment(**dict(row))

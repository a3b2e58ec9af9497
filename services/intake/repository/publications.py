"""Policies, those that wait for a second administrator, and calendars. Published versions are never changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from shared.database import Tx

NEXT_VERSION = """
SELECT coalesce(max(version), 0) + 1
  FROM policy
 WHERE tenant_id = $1"""

ADD_POLICY = """
INSERT INTO policy (tenant_id, version, document, settings, effect, published_by, reason, sha256, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""

POLICY = """
SELECT version, document, settings, effect, published_by, reason, sha256, published_at
  FROM policy
 WHERE tenant_id = $1 AND version = $2"""

CURRENT_POLICY = """
SELECT version, document, settings, effect, published_by, reason, sha256, published_at
  FROM policy
 WHERE tenant_id = $1
 ORDER BY version DESC
 LIMIT 1"""

POLICIES = """
SELECT version, effect, published_by, reason, sha256, published_at, document ->> 'title' AS title
  FROM policy
 WHERE tenant_id = $1 AND version < $2
 ORDER BY version DESC
 LIMIT $3"""

ADD_PROPOSAL = """
INSERT INTO policy_proposal (tenant_id, proposal_id, base_version, document, settings, effect, reason, state, proposed_by, proposed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', $8, $9)"""

LOCK_PROPOSAL = """
SELECT proposal_id, base_version, document, settings, effect, reason, state, proposed_by, proposed_at
  FROM policy_proposal
 WHERE tenant_id = $1 AND proposal_id = $2
   FOR UPDATE"""

DECIDE_PROPOSAL = """
UPDATE policy_proposal
   SET state = $3, decided_by = $4, decided_at = $5
 WHERE tenant_id = $1 AND proposal_id = $2"""

PROPOSALS = """
SELECT proposal_id, base_version, effect, reason, state, proposed_by, proposed_at
  FROM policy_proposal
 WHERE tenant_id = $1 AND state = 'waiting'
 ORDER BY proposal_id
 LIMIT 100"""

NEXT_REVISION = """
SELECT coalesce(max(revision), 0) + 1
  FROM calendar
 WHERE tenant_id = $1 AND name = $2"""

ADD_CALENDAR = """
INSERT INTO calendar (tenant_id, name, revision, spec, announced_through, moves_running, published_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""

CALENDARS = """
SELECT name, revision, spec, announced_through, moves_running, published_at
  FROM calendar
 WHERE tenant_id = $1
 ORDER BY name, revision DESC"""


class PolicyRow(Struct, frozen=True, kw_only=True):
    version: int
    document: dict[str, Any]
    settings: dict[str, Any]
    effect: str
    published_by: str
    reason: str
    sha256: str
    published_at: datetime


class PolicyHead(Struct, frozen=True, kw_only=True):
    """A version without its document."""

    version: int
    effect: str
    published_by: str
    reason: str
    sha256: str
    published_at: datetime
    title: str | None


class ProposalRow(Struct, frozen=True, kw_only=True):
    proposal_id: UUID
    base_version: int
    document: dict[str, Any]
    settings: dict[str, Any]
    effect: str
    reason: str
    state: str
    proposed_by: UUID
    proposed_at: datetime


class ProposalHead(Struct, frozen=True, kw_only=True):
    proposal_id: UUID
    base_version: int
    effect: str
    reason: str
    state: str
    proposed_by: UUID
    proposed_at: datetime


class CalendarRow(Struct, frozen=True, kw_only=True):
    name: str
    revision: int
    spec: dict[str, Any]
    announced_through: date | None
    moves_running: bool
    published_at: datetime


async def next_version(tx: Tx, tenant_id: UUID) -> int:
    """Return the version to publish next. The tenant must be locked, or two publications would take the same."""
    version: int = await tx.fetchval(NEXT_VERSION, tenant_id)
    return version


async def add_policy(tx: Tx, tenant_id: UUID, row: PolicyRow) -> None:
    await tx.execute(
        ADD_POLICY,
        tenant_id,
        row.version,
        row.document,
        row.settings,
        row.effect,
        row.published_by,
        row.reason,
        row.sha256,
        row.published_at,
    )


async def policy(tx: Tx, tenant_id: UUID, version: int | None) -> PolicyRow | None:
    """Return a version, or the current one for None."""
    if version is None:
        row = await tx.fetchrow(CURRENT_POLICY, tenant_id)
    else:
        row = await tx.fetchrow(POLICY, tenant_id, version)
    return PolicyRow(**dict(row)) if row is not None else None


async def policies(tx: Tx, tenant_id: UUID, before: int, limit: int) -> list[PolicyHead]:
    """Return versions from the newest on, those before `before`."""
    return [PolicyHead(**dict(row)) for row in await tx.fetch(POLICIES, tenant_id, before, limit)]


async def add_proposal(tx: Tx, tenant_id: UUID, row: ProposalRow) -> None:
    await tx.execute(
        ADD_PROPOSAL,
        tenant_id,
        row.proposal_id,
        row.base_version,
        row.document,
        row.settings,
        row.effect,
        row.reason,
        row.proposed_by,
        row.proposed_at,
    )


async def lock_proposal(tx: Tx, tenant_id: UUID, proposal_id: UUID) -> ProposalRow | None:
    row = await tx.fetchrow(LOCK_PROPOSAL, tenant_id, proposal_id)
    return ProposalRow(**dict(row)) if row is not None else None


async def decide_proposal(
    tx: Tx, tenant_id: UUID, proposal_id: UUID, state: str, decided_by: UUID, decided_at: datetime
) -> None:
    await tx.execute(DECIDE_PROPOSAL, tenant_id, proposal_id, state, decided_by, decided_at)


async def proposals(tx: Tx, tenant_id: UUID) -> list[ProposalHead]:
    return [ProposalHead(**dict(row)) for row in await tx.fetch(PROPOSALS, tenant_id)]


async def next_revision(tx: Tx, tenant_id: UUID, name: str) -> int:
    revision: int = await tx.fetchval(NEXT_REVISION, tenant_id, name)
    return revision


async def add_calendar(tx: Tx, tenant_id: UUID, row: CalendarRow) -> None:
    spec: Mapping[str, Any] = row.spec
    await tx.execute(
        ADD_CALENDAR,
        tenant_id,
        row.name,
        row.revision,
        spec,
        row.announced_through,
        row.moves_running,
        row.published_at,
    )


async def calendars(tx: Tx, tenant_id: UUID) -> list[CalendarRow]:
    return [CalendarRow(**dict(row)) for row in await tx.fetch(CALENDARS, tenant_id)]

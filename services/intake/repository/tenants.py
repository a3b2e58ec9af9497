"""Tenants, their slugs and their credentials. intake writes them; the readers of every service are in
shared/reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from shared.database import Tx

TAKE_SLUG = """
INSERT INTO slug (slug, owner_id)
VALUES ($1, $2)
    ON CONFLICT (slug) DO NOTHING
RETURNING slug"""

OWNER_OF_SLUG = """
SELECT owner_id
  FROM slug
 WHERE slug = $1"""

ADD_TENANT = """
INSERT INTO tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits, webhook_url, language, two_admins, created_at)
VALUES ($1, 1, $2, $3, $4, $5, true, $6, $7, $8, $9, $10)"""

LOCK_TENANT = """
SELECT revision, slug, name, zone, sandbox, active, limits, webhook_url, language, two_admins, created_at
  FROM tenant
 WHERE tenant_id = $1
   FOR UPDATE"""

CHANGE_TENANT = """
UPDATE tenant
   SET revision = $2, name = $3, zone = $4, active = $5, limits = $6, webhook_url = $7, language = $8, two_admins = $9
 WHERE tenant_id = $1"""

ADD_CREDENTIAL = """
INSERT INTO credential (tenant_id, credential_id, revision, key_hash, role, name, active, staff_id, expires_at, sees_personal_data)
VALUES ($1, $2, 1, $3, $4, $5, true, $6, $7, $8)"""

LOCK_CREDENTIAL = """
SELECT credential_id, revision, key_hash, role, name, active, staff_id, expires_at, sees_personal_data
  FROM credential
 WHERE tenant_id = $1 AND credential_id = $2
   FOR UPDATE"""

CHANGE_CREDENTIAL = """
UPDATE credential
   SET revision = $3, key_hash = $4, active = $5
 WHERE tenant_id = $1 AND credential_id = $2"""

CREDENTIALS = """
SELECT credential_id, revision, key_hash, role, name, active, staff_id, expires_at, sees_personal_data
  FROM credential
 WHERE tenant_id = $1 AND credential_id > $2
 ORDER BY credential_id
 LIMIT $3"""

HAS_CREDENTIAL = """
SELECT EXISTS (SELECT FROM credential WHERE tenant_id = $1 AND role = $2 AND active)"""


class TenantRow(Struct, frozen=True, kw_only=True):
    """A tenant but for its id."""

    revision: int
    slug: str
    name: str
    zone: str
    sandbox: bool
    active: bool
    limits: dict[str, Any]
    webhook_url: str | None
    language: str
    two_admins: bool
    created_at: datetime | None


class CredentialRow(Struct, frozen=True, kw_only=True):
    credential_id: UUID
    revision: int
    key_hash: str
    role: str
    name: str
    active: bool
    staff_id: str | None
    expires_at: datetime | None
    sees_personal_data: bool


async def take_slug(tx: Tx, tenant_id: UUID, slug: str) -> bool:
    """Reserve a slug for a tenant; False when another has it."""
    return await tx.fetchval(TAKE_SLUG, slug, tenant_id) is not None


async def owner_of_slug(tx: Tx, slug: str) -> UUID | None:
    """Return the tenant of a slug. The one question that is asked before any tenant is known."""
    owner: UUID | None = await tx.fetchval(OWNER_OF_SLUG, slug)
    return owner


async def add_tenant(tx: Tx, tenant_id: UUID, row: TenantRow) -> None:
    await tx.execute(
        ADD_TENANT,
        tenant_id,
        row.slug,
        row.name,
        row.zone,
        row.sandbox,
        row.limits,
        row.webhook_url,
        row.language,
        row.two_admins,
        row.created_at,
    )


async def lock_tenant(tx: Tx, tenant_id: UUID) -> TenantRow | None:
    """Return the tenant, and keep others from changing it or publishing for it until the transaction ends."""
    row = await tx.fetchrow(LOCK_TENANT, tenant_id)
    return TenantRow(**dict(row)) if row is not None else None


async def change_tenant(tx: Tx, tenant_id: UUID, row: TenantRow) -> None:
    await tx.execute(
        CHANGE_TENANT,
        tenant_id,
        row.revision,
        row.name,
        row.zone,
        row.active,
        row.limits,
        row.webhook_url,
        row.language,
        row.two_admins,
    )


async def add_credential(tx: Tx, tenant_id: UUID, row: CredentialRow) -> None:
    await tx.execute(
        ADD_CREDENTIAL,
        tenant_id,
        row.credential_id,
        row.key_hash,
        row.role,
        row.name,
        row.staff_id,
        row.expires_at,
        row.sees_personal_data,
    )


async def lock_credential(tx: Tx, tenant_id: UUID, credential_id: UUID) -> CredentialRow | None:
    return _credential(await tx.fetchrow(LOCK_CREDENTIAL, tenant_id, credential_id))


async def change_credential(tx: Tx, tenant_id: UUID, row: CredentialRow) -> None:
    await tx.execute(CHANGE_CREDENTIAL, tenant_id, row.credential_id, row.revision, row.key_hash, row.active)


async def credentials(tx: Tx, tenant_id: UUID, after: UUID, limit: int) -> Sequence[CredentialRow]:
    rows = await tx.fetch(CREDENTIALS, tenant_id, after, limit)
    return [row for each in rows if (row := _credential(each)) is not None]


async def has_credential(tx: Tx, tenant_id: UUID, role: str) -> bool:
    found: bool = await tx.fetchval(HAS_CREDENTIAL, tenant_id, role)
    return found


def _credential(row: asyncpg.Record | None) -> CredentialRow | None:
    return CredentialRow(**dict(row)) if row is not None else None

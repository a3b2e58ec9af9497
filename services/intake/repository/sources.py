"""Sources: where complaints come from without an API key of their own, or with a form of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from shared.database import Tx

ADD = """
INSERT INTO source (tenant_id, source_id, name, kind, channel, settings, mail_token, sealed_secrets)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT ON CONSTRAINT source_name_once DO NOTHING
RETURNING source_id"""

ADD_ADDRESS = """
INSERT INTO mail_address (token, owner_id, source_id)
VALUES ($1, $2, $3)"""

BY_ADDRESS = """
SELECT owner_id, source_id
  FROM mail_address
 WHERE token = $1"""

CHANGE = """
UPDATE source
   SET channel = $3, settings = $4, sealed_secrets = $5, active = $6, revision = revision + 1
 WHERE tenant_id = $1 AND source_id = $2"""

FIND = """
SELECT source_id, name, kind, channel, settings, mail_token, sealed_secrets, active, revision, created_at
  FROM source
 WHERE tenant_id = $1 AND source_id = $2"""

LOCK = (
    FIND
    + """
   FOR UPDATE"""
)

BY_NAME = """
SELECT source_id, name, kind, channel, settings, mail_token, sealed_secrets, active, revision, created_at
  FROM source
 WHERE tenant_id = $1 AND name = $2"""

ALL = """
SELECT source_id, name, kind, channel, settings, mail_token, sealed_secrets, active, revision, created_at
  FROM source
 WHERE tenant_id = $1
 ORDER BY name
 LIMIT 500"""


class SourceRow(Struct, frozen=True, kw_only=True):
    source_id: UUID
    name: str
    kind: str
    channel: str | None
    settings: dict[str, Any]
    mail_token: str | None
    sealed_secrets: bytes | None
    active: bool
    revision: int
    created_at: datetime


async def add(tx: Tx, tenant_id: UUID, row: SourceRow) -> bool:
    """Add a source; False when its name is in use."""
    added = await tx.fetchval(
        ADD,
        tenant_id,
        row.source_id,
        row.name,
        row.kind,
        row.channel,
        row.settings,
        row.mail_token,
        row.sealed_secrets,
    )
    if added is None:
        return False
    if row.mail_token is not None:
        await tx.execute(ADD_ADDRESS, row.mail_token, tenant_id, row.source_id)
    return True


async def by_address(tx: Tx, token: str) -> tuple[UUID, UUID] | None:
    """Return tenant and source of a mail address. Asked before any tenant is known."""
    row = await tx.fetchrow(BY_ADDRESS, token)
    return (row["owner_id"], row["source_id"]) if row is not None else None


async def change(tx: Tx, tenant_id: UUID, row: SourceRow) -> None:
    await tx.execute(CHANGE, tenant_id, row.source_id, row.channel, row.settings, row.sealed_secrets, row.active)


async def find(tx: Tx, tenant_id: UUID, source_id: UUID) -> SourceRow | None:
    return _source(await tx.fetchrow(FIND, tenant_id, source_id))


async def lock(tx: Tx, tenant_id: UUID, source_id: UUID) -> SourceRow | None:
    return _source(await tx.fetchrow(LOCK, tenant_id, source_id))


async def by_name(tx: Tx, tenant_id: UUID, name: str) -> SourceRow | None:
    return _source(await tx.fetchrow(BY_NAME, tenant_id, name))


async def every(tx: Tx, tenant_id: UUID) -> list[SourceRow]:
    return [SourceRow(**dict(row)) for row in await tx.fetch(ALL, tenant_id)]


def _source(row: asyncpg.Record | None) -> SourceRow | None:
    return SourceRow(**dict(row)) if row is not None else None

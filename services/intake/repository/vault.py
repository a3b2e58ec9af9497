"""Keys, contact points, free text, attachments, and who looked at them. Everything that is read here is sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from services.intake.envelope import WrappedTenantKeys
from shared.database import Tx

KEYS = """
SELECT generation, master_key_id, wrapped_key, wrapped_index_key
  FROM tenant_key
 WHERE tenant_id = $1
 ORDER BY generation DESC
 LIMIT 1"""

ADD_KEYS = """
INSERT INTO tenant_key (tenant_id, generation, master_key_id, wrapped_key, wrapped_index_key)
VALUES ($1, $2, $3, $4, $5)"""

REWRAP_KEYS = """
UPDATE tenant_key
   SET master_key_id = $3, wrapped_key = $4, wrapped_index_key = $5
 WHERE tenant_id = $1 AND generation = $2"""

DATA_KEYS = """
SELECT owner_id, wrapped_key
  FROM data_key
 WHERE tenant_id = $1 AND owner_id = ANY ($2::uuid[]) AND wrapped_key IS NOT NULL"""

LOCK_DATA_KEY = """
SELECT wrapped_key
  FROM data_key
 WHERE tenant_id = $1 AND owner_id = $2
   FOR SHARE"""

ERASE_KEY = """
UPDATE data_key
   SET wrapped_key = NULL, erased_at = clock_timestamp()
 WHERE tenant_id = $1 AND owner_id = $2 AND wrapped_key IS NOT NULL"""

IS_OWNER = """
SELECT erased_at IS NOT NULL AS is_erased
  FROM data_key
 WHERE tenant_id = $1 AND owner_id = $2"""

ERASE_POINTS = """
DELETE FROM contact_point
 WHERE tenant_id = $1 AND complainant_id = $2"""

ERASE_CONTACTS = """
UPDATE complaint
   SET sealed_contact = NULL
 WHERE tenant_id = $1 AND complainant_id = $2
RETURNING complaint_id"""

ERASE_TEXTS = """
DELETE FROM free_text
 WHERE tenant_id = $1 AND case_id = ANY ($2::uuid[])"""

ERASE_ATTACHMENTS = """
DELETE FROM attachment
 WHERE tenant_id = $1 AND complaint_id = ANY ($2::uuid[])"""

ADD_TEXT = """
INSERT INTO free_text (tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""

TEXTS = """
SELECT text_id, owner_id, case_id, kind, sealed, created_at, created_by
  FROM free_text
 WHERE tenant_id = $1 AND text_id = ANY ($2::uuid[])"""

TEXTS_OF_CASE = """
SELECT text_id, owner_id, case_id, kind, sealed, created_at, created_by
  FROM free_text
 WHERE tenant_id = $1 AND case_id = $2
 ORDER BY text_id
 LIMIT 200"""

ATTACHMENTS = """
SELECT attachment_id, owner_id, media_type, bytes, sealed_name, created_at
  FROM attachment
 WHERE tenant_id = $1 AND complaint_id = $2
 ORDER BY attachment_id"""

ATTACHMENT = """
SELECT owner_id, media_type, sealed_name, sealed
  FROM attachment
 WHERE tenant_id = $1 AND complaint_id = $2 AND attachment_id = $3"""

ADD_ACCESS = """
INSERT INTO access (tenant_id, access_id, credential_id, staff_id, act, case_id, complainant_id, what, sealed_reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"""

ACCESSES = """
SELECT access_id, at, credential_id, staff_id, act, case_id, complainant_id, what, sealed_reason
  FROM access
 WHERE tenant_id = $1 AND access_id < $2
 ORDER BY access_id DESC
 LIMIT $3"""


class SealedText(Struct, frozen=True):
    text_id: UUID
    owner_id: UUID
    case_id: UUID
    kind: str
    sealed: bytes
    created_at: datetime
    created_by: str


class SealedAttachment(Struct, frozen=True):
    attachment_id: UUID
    owner_id: UUID
    media_type: str
    size: int
    sealed_name: bytes
    created_at: datetime


class AccessRow(Struct, frozen=True):
    access_id: UUID
    at: datetime
    credential_id: UUID
    staff_id: str | None
    act: str
    case_id: UUID | None
    complainant_id: UUID | None
    what: list[str]
    sealed_reason: bytes


async def tenant_keys(tx: Tx, tenant_id: UUID) -> WrappedTenantKeys | None:
    row = await tx.fetchrow(KEYS, tenant_id)
    return WrappedTenantKeys(*row) if row is not None else None


async def add_tenant_keys(tx: Tx, tenant_id: UUID, keys: WrappedTenantKeys) -> None:
    await tx.execute(ADD_KEYS, tenant_id, keys.generation, keys.master_key_id, keys.wrapped_key, keys.wrapped_index_key)


async def rewrap_tenant_keys(tx: Tx, tenant_id: UUID, keys: WrappedTenantKeys) -> None:
    await tx.execute(
        REWRAP_KEYS, tenant_id, keys.generation, keys.master_key_id, keys.wrapped_key, keys.wrapped_index_key
    )


async def data_keys(tx: Tx, tenant_id: UUID, owners: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the wrapped keys of those who have not been erased."""
    rows = await tx.fetch(DATA_KEYS, tenant_id, list(owners))
    return {row["owner_id"]: row["wrapped_key"] for row in rows}


async def lock_data_key(tx: Tx, tenant_id: UUID, owner_id: UUID) -> bytes | None:
    """Return a wrapped key and keep its owner from being erased until the transaction ends; None when they were."""
    wrapped: bytes | None = await tx.fetchval(LOCK_DATA_KEY, tenant_id, owner_id)
    return wrapped


async def erase(tx: Tx, tenant_id: UUID, owner_id: UUID) -> bool | None:
    """Erase a person: their key, and everything that it sealed. False when it was done before, None when there is
    nobody.
    """
    state = await tx.fetchrow(IS_OWNER, tenant_id, owner_id)
    if state is None:
        return None
    if state["is_erased"]:
        return False
    await tx.execute(ERASE_KEY, tenant_id, owner_id)
    await tx.execute(ERASE_POINTS, tenant_id, owner_id)
    rows = await tx.fetch(ERASE_CONTACTS, tenant_id, owner_id)
    cases = [row["complaint_id"] for row in rows]
    await tx.execute(ERASE_TEXTS, tenant_id, cases)
    await tx.execute(ERASE_ATTACHMENTS, tenant_id, cases)
    return True


async def add_text(
    tx: Tx, tenant_id: UUID, text_id: UUID, owner_id: UUID, case_id: UUID, kind: str, sealed: bytes, created_by: str
) -> None:
    await tx.execute(ADD_TEXT, tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)


async def texts(tx: Tx, tenant_id: UUID, text_ids: Sequence[UUID]) -> list[SealedText]:
    return [SealedText(*row) for row in await tx.fetch(TEXTS, tenant_id, list(text_ids))]


async def texts_of_case(tx: Tx, tenant_id: UUID, case_id: UUID) -> list[SealedText]:
    return [SealedText(*row) for row in await tx.fetch(TEXTS_OF_CASE, tenant_id, case_id)]


async def attachments(tx: Tx, tenant_id: UUID, complaint_id: UUID) -> list[SealedAttachment]:
    return [SealedAttachment(*row) for row in await tx.fetch(ATTACHMENTS, tenant_id, complaint_id)]


async def attachment(
    tx: Tx, tenant_id: UUID, complaint_id: UUID, attachment_id: UUID
) -> tuple[UUID, str, bytes, bytes] | None:
    """Return owner, media type, sealed name and sealed content."""
    row = await tx.fetchrow(ATTACHMENT, tenant_id, complaint_id, attachment_id)
    return (row["owner_id"], row["media_type"], row["sealed_name"], row["sealed"]) if row is not None else None


async def add_access(
    tx: Tx,
    tenant_id: UUID,
    access_id: UUID,
    credential_id: UUID,
    staff_id: str | None,
    act: str,
    case_id: UUID | None,
    complainant_id: UUID | None,
    what: Sequence[str],
    sealed_reason: bytes,
) -> None:
    await tx.execute(
        ADD_ACCESS,
        tenant_id,
        access_id,
        credential_id,
        staff_id,
        act,
        case_id,
        complainant_id,
        list(what),
        sealed_reason,
    )


async def accesses(tx: Tx, tenant_id: UUID, before: UUID, limit: int) -> list[AccessRow]:
    """Return accesses from the latest on, those before `before`."""
    return [AccessRow(*row) for row in await tx.fetch(ACCESSES, tenant_id, before, limit)]

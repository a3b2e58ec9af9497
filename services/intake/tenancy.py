"""Tenants and credentials as they are written, each change with the message that tells the other services."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

import msgspec

from services.intake.repository import tenants as rows
from services.intake.repository.tenants import CredentialRow, TenantRow
from shared import outbox
from shared.auth import Role, new_key
from shared.database import Database, Tx
from shared.ids import OPERATOR, derived_id, new_id
from shared.messages.intake import CredentialChanged, Limits, TenantChanged
from shared.time_source import now_in

_OPERATOR_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('recourse operator'))"


def tenant_message(tenant_id: UUID, row: TenantRow, at: datetime) -> TenantChanged:
    return TenantChanged(
        message_id=derived_id("tenant.changed", tenant_id, row.revision),
        tenant_id=tenant_id,
        at=at,
        revision=row.revision,
        slug=row.slug,
        name=row.name,
        zone=row.zone,
        sandbox=row.sandbox,
        active=row.active,
        limits=msgspec.convert(row.limits, Limits),
        webhook_url=row.webhook_url,
        language=row.language,
        two_admins=row.two_admins,
        created_at=row.created_at,
    )


def credential_message(tenant_id: UUID, row: CredentialRow, at: datetime) -> CredentialChanged:
    return CredentialChanged(
        message_id=derived_id("credential.changed", tenant_id, row.credential_id, row.revision),
        tenant_id=tenant_id,
        at=at,
        credential_id=row.credential_id,
        revision=row.revision,
        key_hash=row.key_hash,
        role=cast(Role, row.role),
        name=row.name,
        active=row.active,
        staff_id=row.staff_id,
        expires_at=row.expires_at,
        sees_personal_data=row.sees_personal_data,
    )


async def create_credential(
    tx: Tx,
    at: datetime,
    role: Role,
    name: str,
    *,
    staff_id: str | None = None,
    expires_at: datetime | None = None,
    sees_personal_data: bool = False,
) -> tuple[CredentialRow, str]:
    """Add a credential to the transaction's tenant; return it and its key, which is nowhere else."""
    credential_id = new_id()
    key, key_hash = new_key(credential_id)
    row = CredentialRow(
        credential_id=credential_id,
        revision=1,
        key_hash=key_hash,
        role=role,
        name=name,
        active=True,
        staff_id=staff_id,
        expires_at=expires_at,
        sees_personal_data=sees_personal_data,
    )
    await rows.add_credential(tx, tx.tenant_id, row)
    await outbox.add(tx, credential_message(tx.tenant_id, row, at))
    return row, key


async def change_credential(tx: Tx, row: CredentialRow, at: datetime, **changes: Any) -> CredentialRow:
    """Store a credential's next revision and tell it."""
    changed = msgspec.structs.replace(row, revision=row.revision + 1, **changes)
    await rows.change_credential(tx, tx.tenant_id, changed)
    await outbox.add(tx, credential_message(tx.tenant_id, changed, at))
    return changed


async def ensure_operator(database: Database) -> str | None:
    """Create the operator's credential on the first start of all and return its key; None when there is one already.

    The key is returned once, and stored nowhere.
    """
    async with database.api_tx(OPERATOR) as tx:
        await tx.execute(_OPERATOR_LOCK)
        if await rows.has_credential(tx, OPERATOR, "operator"):
            return None
        _, key = await create_credential(tx, await now_in(tx), "operator", "operator")
        return key

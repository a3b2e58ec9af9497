"""API keys of a tenant: made, rotated, revoked; a key is shown once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from services.intake.repository import tenants as rows
from services.intake.repository.tenants import CredentialRow
from services.intake.tenancy import change_credential, create_credential
from shared.auth import new_key, requires
from shared.database import Tx
from shared.errors import ConflictError, FieldError, InvalidError, NotFoundError
from shared.service import Runtime
from shared.time_source import now_in

FIRST: Final = UUID(int=0)


class LastAdminError(ConflictError):
    slug = "last-admin"
    title = "The tenant would be left without an administrator."


class NewCredential(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made.

    staff_id: the member of staff who acts with it; what they do then stands in timelines under this id.
    sees_personal_data: whether names, contacts and texts are shown to it unmasked.
    """

    role: Literal["admin", "supervisor", "handler", "auditor", "integration"]
    name: Annotated[str, Meta(min_length=1, max_length=120)]
    staff_id: Annotated[str, Meta(pattern=r"^[^\s=][^\n\r\t]*$", max_length=120)] | None = None
    expires_at: datetime | None = None
    sees_personal_data: bool = False


class CredentialView(Struct, frozen=True, kw_only=True):
    credential_id: UUID
    role: str
    name: str
    staff_id: str | None
    active: bool
    expires_at: datetime | None
    sees_personal_data: bool
    revision: int


class CreatedCredential(Struct, frozen=True, kw_only=True):
    """The credential and its key: shown here and never again."""

    credential: CredentialView
    key: str


class CredentialPage(Struct, frozen=True, kw_only=True):
    items: list[CredentialView]
    next: UUID | None


@post("/v1/credentials", guards=[requires("admin")], status_code=201, operation_id="create_credential")
async def create(data: JSONBody[NewCredential], tx: NamedDependency[Tx]) -> CreatedCredential:
    """Make a key."""
    at = await now_in(tx)
    _check_expiry(data.expires_at)
    row, key = await create_credential(
        tx,
        at,
        data.role,
        data.name,
        staff_id=data.staff_id,
        expires_at=data.expires_at,
        sees_personal_data=data.sees_personal_data,
    )
    return CreatedCredential(credential=_view(row), key=key)


@post(
    "/v1/tenants/{tenant_id:uuid}/credentials",
    guards=[requires("operator")],
    status_code=201,
    operation_id="create_admin",
)
async def create_admin(tenant_id: FromPath[UUID], runtime: NamedDependency[Runtime[Any]]) -> CreatedCredential:
    """Make a tenant a new administrator's key, when its own are lost."""
    await runtime.reference.tenant(tenant_id)
    async with runtime.db.api_tx(tenant_id) as tx:
        row, key = await create_credential(tx, await now_in(tx), "admin", "made by the operator")
    return CreatedCredential(credential=_view(row), key=key)


@get("/v1/credentials", guards=[requires("admin", "auditor")], operation_id="list_credentials")
async def list_all(
    tx: NamedDependency[Tx],
    after: Annotated[UUID | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 100,
) -> CredentialPage:
    """The tenant's keys, oldest first; revoked ones too."""
    found = await rows.credentials(tx, tx.tenant_id, after or FIRST, limit)
    return CredentialPage(
        items=[_view(row) for row in found], next=found[-1].credential_id if len(found) == limit else None
    )


@post(
    "/v1/credentials/{credential_id:uuid}/rotate",
    guards=[requires("admin")],
    status_code=200,
    operation_id="rotate_credential",
)
async def rotate(
    credential_id: FromPath[UUID], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> CreatedCredential:
    """Give a credential a new key; the former one is no longer good, everywhere within a second."""
    row = await _locked(tx, credential_id)
    key, key_hash = new_key(credential_id)
    row = await change_credential(tx, row, await now_in(tx), key_hash=key_hash)
    tx.after_commit(lambda: runtime.reference.forget(tx.tenant_id, credential_id))
    return CreatedCredential(credential=_view(row), key=key)


@delete(
    "/v1/credentials/{credential_id:uuid}",
    guards=[requires("admin")],
    status_code=200,
    operation_id="revoke_credential",
)
async def revoke(
    credential_id: FromPath[UUID],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> CredentialView:
    """Revoke a key, for good; it is refused everywhere within a second."""
    await rows.lock_tenant(tx, tx.tenant_id)
    row = await _locked(tx, credential_id)
    row = await change_credential(tx, row, await now_in(tx), active=False)
    if row.role == "admin" and not await rows.has_credential(tx, tx.tenant_id, "admin"):
        raise LastAdminError("Make another administrator first.")
    tx.after_commit(lambda: runtime.reference.forget(tx.tenant_id, credential_id))
    return _view(row)


async def _locked(tx: Tx, credential_id: UUID) -> CredentialRow:
    row = await rows.lock_credential(tx, tx.tenant_id, credential_id)
    if row is None or not row.active:
        raise NotFoundError()
    return row


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidError(errors=[FieldError("/expires_at", "an instant with its offset is needed")])


def _view(row: CredentialRow) -> CredentialView:
    return CredentialView(**{name: getattr(row, name) for name in CredentialView.__struct_fields__})


ROUTES: Final = (create, create_admin, list_all, rotate, revoke)

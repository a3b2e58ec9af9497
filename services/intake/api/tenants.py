"""Tenants: who subscribes, and who is calling."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from services.intake.parts import parts_of
from services.intake.refusals import SlugTakenError
from services.intake.repository import tenants as rows
from services.intake.repository.tenants import TenantRow
from services.intake.tenancy import create_credential, tenant_message
from shared import outbox
from shared.auth import Caller, requires
from shared.engine.calendar.localtime import is_known_zone
from shared.errors import FieldError, ForbiddenError, InvalidError, NotFoundError
from shared.ids import new_id
from shared.messages.intake import Limits
from shared.reference import Tenant
from shared.service import Runtime
from shared.time_source import now_in

Slug = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Zone = Annotated[str, Meta(max_length=60)]
Language = Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]
Url = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,1000}$")]


_PLAN: Final = {
    "requests_per_second": (1, 100_000),
    "burst": (1, 1_000_000),
    "body_bytes": (1_024, 16_777_216),
    "complaints_per_day": (0, 100_000_000),
    "retention_days": (1, 36_525),
}
"""The least and the most that a plan may say."""


class NewTenant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A subscriber. A sandbox has a test clock, which its administrator advances."""

    slug: Slug
    name: Name
    zone: Zone = "Asia/Shanghai"
    sandbox: bool = False
    language: Language = "en"
    limits: Limits = Limits()
    webhook_url: Url | None = None
    two_admins: bool = False


class TenantChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different. `active` and `limits` are the operator's to change, and so is doing without a second
    administrator.
    """

    name: Name | UnsetType = UNSET
    zone: Zone | UnsetType = UNSET
    language: Language | UnsetType = UNSET
    webhook_url: Url | UnsetType | None = UNSET
    two_admins: bool | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET


class TenantView(Struct, frozen=True, kw_only=True):
    tenant_id: UUID
    slug: str
    name: str
    zone: str
    sandbox: bool
    active: bool
    language: str
    limits: Limits
    webhook_url: str | None
    two_admins: bool
    created_at: datetime | None


class CreatedTenant(Struct, frozen=True, kw_only=True):
    """The tenant, and its first administrator's key: shown here and never again."""

    tenant: TenantView
    admin_key: str
    credential_id: UUID


class TenantPage(Struct, frozen=True, kw_only=True):
    items: list[TenantView]


class Me(Struct, frozen=True, kw_only=True):
    """Whom the key stands for."""

    tenant_id: UUID
    tenant: str | None
    role: str
    name: str
    staff_id: str | None
    credential_id: UUID
    sees_personal_data: bool
    sandbox: bool
    limits: Limits


@post("/v1/tenants", guards=[requires("operator")], status_code=201, operation_id="create_tenant")
async def create_tenant(data: JSONBody[NewTenant], runtime: NamedDependency[Runtime[Any]]) -> CreatedTenant:
    """Subscribe an organisation."""
    _check_zone(data.zone)
    _check_limits(data.limits)
    tenant_id = new_id()
    async with runtime.db.api_tx(tenant_id) as tx:
        if not await rows.take_slug(tx, tenant_id, data.slug):
            raise SlugTakenError(errors=[FieldError("/slug", "is taken")])
        at = await now_in(tx)
        row = TenantRow(
            revision=1,
            slug=data.slug,
            name=data.name,
            zone=data.zone,
            sandbox=data.sandbox,
            active=True,
            limits=msgspec.to_builtins(data.limits),
            webhook_url=data.webhook_url,
            language=data.language,
            two_admins=data.two_admins,
            created_at=at,
        )
        await rows.add_tenant(tx, tenant_id, row)
        await parts_of(runtime).vault.add_tenant(tx)
        await outbox.add(tx, tenant_message(tenant_id, row, at))
        credential, key = await create_credential(tx, at, "admin", "first administrator", sees_personal_data=True)
    return CreatedTenant(tenant=_view(tenant_id, row), admin_key=key, credential_id=credential.credential_id)


@get("/v1/tenants", guards=[requires("operator", "admin")], operation_id="list_tenants")
async def list_tenants(
    runtime: NamedDependency[Runtime[Any]],
    caller: NamedDependency[Caller],
    slug: Annotated[str | None, QueryParameter(max_length=63)] = None,
) -> TenantPage:
    """All tenants for the operator, else the caller's own."""
    found = (
        await runtime.reference.tenants() if caller.is_operator else [await runtime.reference.tenant(caller.tenant_id)]
    )
    return TenantPage(items=[_known(each) for each in found if slug is None or each.slug == slug])


@get("/v1/tenants/{tenant_id:uuid}", guards=[requires("operator", "admin")], operation_id="get_tenant")
async def get_tenant(
    tenant_id: FromPath[UUID], runtime: NamedDependency[Runtime[Any]], caller: NamedDependency[Caller]
) -> TenantView:
    """One tenant."""
    if not caller.is_operator and tenant_id != caller.tenant_id:
        raise NotFoundError()
    return _known(await runtime.reference.tenant(tenant_id))


@patch("/v1/tenants/{tenant_id:uuid}", guards=[requires("operator", "admin")], operation_id="change_tenant")
async def change_tenant(
    tenant_id: FromPath[UUID],
    data: JSONBody[TenantChange],
    runtime: NamedDependency[Runtime[Any]],
    caller: NamedDependency[Caller],
) -> TenantView:
    """Change what is given, and leave the rest. A tenant that is set inactive is refused everywhere within a second."""
    if not caller.is_operator:
        if tenant_id != caller.tenant_id:
            raise NotFoundError()
        if data.active is not UNSET or data.limits is not UNSET or data.two_admins is False:
            raise ForbiddenError(
                "Only the operator changes `active` and `limits`, or does without a second administrator."
            )
    if data.zone is not UNSET:
        _check_zone(data.zone)
    if data.limits is not UNSET:
        _check_limits(data.limits)
    changes = {name: value for name, value in msgspec.structs.asdict(data).items() if value is not UNSET}
    if "limits" in changes:
        changes["limits"] = msgspec.to_builtins(changes["limits"])
    async with runtime.db.api_tx(tenant_id) as tx:
        row = await rows.lock_tenant(tx, tenant_id)
        if row is None:
            raise NotFoundError()
        row = msgspec.structs.replace(row, revision=row.revision + 1, **changes)
        await rows.change_tenant(tx, tenant_id, row)
        await outbox.add(tx, tenant_message(tenant_id, row, await now_in(tx)))
        tx.after_commit(lambda: runtime.reference.forget(tenant_id))
    return _view(tenant_id, row)


@get(
    "/v1/me",
    guards=[requires("operator", "admin", "supervisor", "handler", "auditor", "integration")],
    operation_id="get_me",
)
async def get_me(runtime: NamedDependency[Runtime[Any]], caller: NamedDependency[Caller]) -> Me:
    """Whom the key stands for, and what it may do."""
    tenant = None if caller.is_operator else await runtime.reference.tenant(caller.tenant_id)
    return Me(
        tenant_id=caller.tenant_id,
        tenant=tenant.slug if tenant is not None else None,
        role=caller.role,
        name=caller.name,
        staff_id=caller.staff_id,
        credential_id=caller.credential_id,
        sees_personal_data=caller.sees_personal_data,
        sandbox=caller.sandbox,
        limits=caller.limits,
    )


def _check_zone(zone: str) -> None:
    if not is_known_zone(zone):
        raise InvalidError(errors=[FieldError("/zone", "is no IANA time zone", "Asia/Shanghai")])


def _check_limits(limits: Limits) -> None:
    errors = [
        FieldError(f"/limits/{name}", f"a whole number from {least} to {most} is needed")
        for name, (least, most) in _PLAN.items()
        if not least <= getattr(limits, name) <= most
    ]
    if errors:
        raise InvalidError(errors=errors)


def _view(tenant_id: UUID, row: TenantRow) -> TenantView:
    return TenantView(
        tenant_id=tenant_id,
        slug=row.slug,
        name=row.name,
        zone=row.zone,
        sandbox=row.sandbox,
        active=row.active,
        language=row.language,
        limits=msgspec.convert(row.limits, Limits),
        webhook_url=row.webhook_url,
        two_admins=row.two_admins,
        created_at=row.created_at,
    )


def _known(tenant: Tenant) -> TenantView:
    return TenantView(
        **{name: getattr(tenant, name) for name in TenantView.__struct_fields__},
    )


ROUTES: Final = (create_tenant, list_tenants, get_tenant, change_tenant, get_me)

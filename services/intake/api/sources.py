"""Sources: a tenant's call centres, mail addresses and tables."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from services.intake.domain.sources import Secret, SourceSettings, rotated, settings_faults
from services.intake.parts import parts_of
from services.intake.refusals import MappingInvalidError, NameTakenError, field_errors
from services.intake.repository import sources as rows
from services.intake.repository.sources import SourceRow
from services.intake.secrets import open_secrets, seal_secrets
from shared.auth import requires
from shared.database import Tx
from shared.errors import FieldError, InvalidError, NotFoundError
from shared.ids import new_id
from shared.service import Runtime
from shared.webhooks import new_secret

_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # nothing that is read as something else over the telephone
Channel = Annotated[str, Meta(min_length=1, max_length=120)]


class NewSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source. `channel` is the policy's word for how its complaints come, where they do not say themselves."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    kind: Literal["webhook", "email", "csv"]
    channel: Channel | None = None
    settings: SourceSettings = msgspec.field(default_factory=SourceSettings)


class SourceChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    channel: Channel | UnsetType | None = UNSET
    settings: SourceSettings | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class SourceView(Struct, frozen=True, kw_only=True):
    """A source. `path` is where a webhook is posted to, `address` the part before @ to which mail is sent."""

    source_id: UUID
    name: str
    kind: str
    channel: str | None
    active: bool
    settings: SourceSettings
    path: str | None
    address: str | None
    secrets: int  # that are good now
    created_at: datetime


class CreatedSource(Struct, frozen=True, kw_only=True):
    """The source and its signing secret, if it has one: shown here and never again."""

    source: SourceView
    secret: str | None


class SourcePage(Struct, frozen=True, kw_only=True):
    items: list[SourceView]


@post("/v1/sources", guards=[requires("admin")], status_code=201, operation_id="create_source")
async def create_source(
    data: JSONBody[NewSource], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> CreatedSource:
    """Add a source. A webhook gets a signing secret, a mail source an address that nobody can guess."""
    _check(data.kind, data.settings)
    source_id = new_id()
    secret = new_secret() if data.kind == "webhook" else None
    keys = await parts_of(runtime).vault.keys(tx)
    token = "".join(secrets.choice(_ALPHABET) for _ in range(24)) if data.kind == "email" else None
    row = SourceRow(
        source_id=source_id,
        name=data.name,
        kind=data.kind,
        channel=data.channel,
        settings=msgspec.to_builtins(data.settings),
        mail_token=token,
        sealed_secrets=seal_secrets(keys, source_id, [Secret(secret=secret)]) if secret else None,
        active=True,
        revision=1,
        created_at=datetime.now(UTC),
    )
    if not await rows.add(tx, tx.tenant_id, row):
        raise NameTakenError(errors=[FieldError("/name", "another source has this name")])
    return CreatedSource(source=await _view(runtime, tx, row), secret=secret)


@get("/v1/sources", guards=[requires("admin", "supervisor", "auditor")], operation_id="list_sources")
async def list_sources(tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]) -> SourcePage:
    """All sources, by name."""
    return SourcePage(items=[await _view(runtime, tx, row) for row in await rows.every(tx, tx.tenant_id)])


@get("/v1/sources/{source_id:uuid}", guards=[requires("admin", "supervisor", "auditor")], operation_id="get_source")
async def get_source(
    source_id: FromPath[UUID], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> SourceView:
    """One source."""
    row = await rows.find(tx, tx.tenant_id, source_id)
    if row is None:
        raise NotFoundError()
    return await _view(runtime, tx, row)


@patch("/v1/sources/{source_id:uuid}", guards=[requires("admin")], operation_id="change_source")
async def change_source(
    source_id: FromPath[UUID],
    data: JSONBody[SourceChange],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> SourceView:
    """Change what is given, and leave the rest."""
    row = await _locked(tx, source_id)
    if data.settings is not UNSET:
        _check(row.kind, data.settings)
        row = msgspec.structs.replace(row, settings=msgspec.to_builtins(data.settings))
    if data.channel is not UNSET:
        row = msgspec.structs.replace(row, channel=data.channel)
    if data.active is not UNSET:
        row = msgspec.structs.replace(row, active=data.active)
    await rows.change(tx, tx.tenant_id, row)
    return await _view(runtime, tx, row)


@delete("/v1/sources/{source_id:uuid}", guards=[requires("admin")], status_code=204, operation_id="close_source")
async def close_source(source_id: FromPath[UUID], tx: NamedDependency[Tx]) -> None:
    """Take nothing from the source any more; what came from it stays."""
    row = await _locked(tx, source_id)
    await rows.change(tx, tx.tenant_id, msgspec.structs.replace(row, active=False))


@post("/v1/sources/{source_id:uuid}/rotate", guards=[requires("admin")], status_code=200, operation_id="rotate_source")
async def rotate_source(
    source_id: FromPath[UUID], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> CreatedSource:
    """Give a webhook a new signing secret; the former one is good for another day."""
    row = await _locked(tx, source_id)
    if row.kind != "webhook":
        raise InvalidError("Only a webhook has a signing secret.")
    keys = await parts_of(runtime).vault.keys(tx)
    secret = new_secret()
    kept = rotated(open_secrets(keys, source_id, row.sealed_secrets), secret, datetime.now(UTC))
    row = msgspec.structs.replace(row, sealed_secrets=seal_secrets(keys, source_id, kept))
    await rows.change(tx, tx.tenant_id, row)
    return CreatedSource(source=await _view(runtime, tx, row), secret=secret)


def _check(kind: str, settings: SourceSettings) -> None:
    faults = settings_faults(kind, settings)
    if faults:
        raise MappingInvalidError(errors=field_errors(faults, "/settings"))


async def _locked(tx: Tx, source_id: UUID) -> SourceRow:
    row = await rows.lock(tx, tx.tenant_id, source_id)
    if row is None:
        raise NotFoundError()
    return row


async def _view(runtime: Runtime[Any], tx: Tx, row: SourceRow) -> SourceView:
    good = 0
    path = None
    if row.kind == "webhook":
        keys = await parts_of(runtime).vault.keys(tx)
        now = datetime.now(UTC)
        held = open_secrets(keys, row.source_id, row.sealed_secrets)
        good = sum(each.until is None or now < each.until for each in held)
        tenant = await runtime.reference.tenant(tx.tenant_id)
        path = f"/v1/hooks/{tenant.slug}/{row.name}"
    return SourceView(
        source_id=row.source_id,
        name=row.name,
        kind=row.kind,
        channel=row.channel,
        active=row.active,
        settings=msgspec.convert(row.settings, SourceSettings),
        path=path,
        address=row.mail_token,
        secrets=good,
        created_at=row.created_at,
    )


ROUTES: Final = (create_source, list_sources, get_source, change_source, close_source, rotate_source)

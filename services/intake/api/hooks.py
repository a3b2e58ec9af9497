"""Webhooks in: call centres post complaints, signed as Standard Webhooks asks, in our form or in theirs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from services.intake.api.complaints import Receipt, receipt
from services.intake.domain.complaint import Draft
from services.intake.domain.payload import Mapped, mapped_draft, origin
from services.intake.domain.sources import SourceSettings, good_secrets
from services.intake.parts import parts_of
from services.intake.refusals import ComplaintInvalidError
from services.intake.repository import sources, tenants
from services.intake.repository.sources import SourceRow
from services.intake.secrets import open_secrets
from services.intake.taking import InvalidDraftError, take
from shared import body as bodies
from shared.auth import public
from shared.errors import NotFoundError, UnauthorizedError
from shared.messages.base import LIVE
from shared.reference import Tenant
from shared.service import Runtime
from shared.webhooks import SignatureError, verify

_BODY: Final = 262_144


class Hook(Struct, frozen=True):
    """A webhook that is known, with the secrets that are good now."""

    tenant: Tenant
    source: SourceRow
    secrets: list[str]


class Enveloped(Struct, frozen=True, kw_only=True):
    """The payload that Standard Webhooks recommends: what happened, and the complaint as its data."""

    type: str
    data: Draft
    timestamp: str | None = None


@post(
    "/v1/hooks/{tenant_slug:str}/{source_name:str}",
    guards=[public("the request is signed by the source")],
    status_code=201,
    request_max_body_size=_BODY,
    opt={"body": "application/json"},
    operation_id="receive_webhook",
)
async def receive_webhook(
    tenant_slug: FromPath[str],
    source_name: FromPath[str],
    request: Request[Any, Any, Any],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[Receipt]:
    """Take a complaint from a call centre. The same `webhook-id` again gets the same answer.

    An unknown tenant, an unknown source, a wrong signature and a time more than 300 seconds off get one and the same
    401.
    """
    raw = await request.body()
    hook = await _hook(runtime, tenant_slug, source_name)
    secrets = hook.secrets if hook is not None else []
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"])
    try:
        # The wall clock, also for a sandbox: the signature's time is the sender's, not the tenant's.
        signed = verify(secrets, headers, raw, datetime.now(UTC))
    except SignatureError as error:
        structlog.get_logger().info("webhook_refused", reason=error.reason)
        raise UnauthorizedError("The signature does not fit.") from None
    assert hook is not None
    tenant, source = hook.tenant, hook.source
    parts_of(runtime).senders.take(tenant.tenant_id, tenant.limits.requests_per_second, tenant.limits.burst)
    mapped = msgspec.convert(source.settings, SourceSettings).map
    draft, below = _draft(raw, mapped)
    try:
        stored = await take(
            runtime,
            tenant.tenant_id,
            draft,
            key=f"hook:{source.source_id}:{signed.message_id}",
            request_sha256=hashlib.sha256(raw).digest(),
            source="webhook",
            source_id=source.source_id,
            channel=source.channel,
            from_text=mapped is not None,
            original=raw if mapped is not None else None,
        )
    except InvalidDraftError as refusal:
        faults = refusal.faults if mapped is None else [origin(mapped, fault) for fault in refusal.faults]
        raise ComplaintInvalidError.of(faults, below) from None
    return receipt(stored)


def _draft(raw: bytes, mapped: Mapped | None) -> tuple[Draft, str]:
    """Return the draft and where in the payload it stands."""
    if mapped is None:
        plain = bodies.decode(raw, Any)
        if isinstance(plain, dict) and "data" in plain and "type" in plain:
            enveloped: Enveloped = bodies.decode(raw, Enveloped)
            return enveloped.data, "/data"
        draft: Draft = bodies.decode(raw, Draft)
        return draft, ""
    result = mapped_draft(mapped, bodies.decode(raw, Any))
    if isinstance(result, tuple):
        raise ComplaintInvalidError.of(result)
    return result, ""


async def _hook(runtime: Runtime[Any], tenant_slug: str, source_name: str) -> Hook | None:
    if len(tenant_slug) > 63 or len(source_name) > 63:
        return None
    async with runtime.db.api_tx(LIVE) as tx:
        tenant_id: UUID | None = await tenants.owner_of_slug(tx, tenant_slug)
    if tenant_id is None:
        return None
    try:
        tenant = await runtime.reference.tenant(tenant_id)
    except NotFoundError:
        return None
    async with runtime.db.api_tx(tenant_id) as tx:
        source = await sources.by_name(tx, tenant_id, source_name)
        if source is None or source.kind != "webhook" or not source.active or not tenant.active:
            return None
        keys = await parts_of(runtime).vault.keys(tx)
    held = open_secrets(keys, source.source_id, source.sealed_secrets)
    return Hook(tenant, source, good_secrets(held, datetime.now(UTC)))


ROUTES: Final = (receive_webhook,)

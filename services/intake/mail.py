"""Complaints by e-mail: whom an address means, and what becomes of a message.

The sender's address authorises nothing; it is stored as a contact. 250 is answered only when everything is committed.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import structlog
from msgspec import Struct

from services.intake.domain.complaint import AttachmentDraft, Complainant, Draft
from services.intake.domain.mail import Mail, MailRefused, is_null_path, recipient
from services.intake.mail_reader import TooSlowError
from services.intake.parts import parts_of
from services.intake.repository import sources, tenants
from services.intake.smtp import AUTOMATIC, LATER, NOT_TAKEN, POSTPONED, STORED
from services.intake.taking import take
from shared.errors import ConflictError, DomainError, NotFoundError, TooManyError
from shared.messages.base import LIVE
from shared.service import Runtime
from shared.telemetry import describe

# A conflict (no policy yet, the same message being stored) also passes with time.
_BUSY: Final[tuple[type[BaseException], ...]] = (TooManyError, ConflictError, TooSlowError, *POSTPONED)


class Addressee(Struct, frozen=True):
    """The source that a recipient's address means."""

    tenant_id: UUID
    source_id: UUID
    channel: str
    takes_automatic: bool


class MailDeliveries:
    """What the SMTP server asks (services/intake/smtp.py)."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime

    async def addressee(self, address: str) -> Addressee | None:
        meant = recipient(address)
        if meant is None:
            return None
        async with self._runtime.db.worker_tx(LIVE) as tx:
            if meant.token is not None:
                found = await sources.by_address(tx, meant.token)
                tenant_id, source_id = found if found is not None else (None, None)
            else:
                tenant_id, source_id = await tenants.owner_of_slug(tx, meant.tenant or ""), None
        if tenant_id is None:
            return None
        try:
            tenant = await self._runtime.reference.tenant(tenant_id)
        except NotFoundError:
            return None
        async with self._runtime.db.worker_tx(tenant_id) as tx:
            if source_id is not None:
                source = await sources.find(tx, tenant_id, source_id)
            else:
                source = await sources.by_name(tx, tenant_id, meant.source or "")
        if source is None or source.kind != "email" or not source.active or not tenant.active:
            return None
        takes_automatic = bool(source.settings.get("takes_automatic", False))
        return Addressee(tenant_id, source.source_id, source.channel or "email", takes_automatic)

    async def deliver(self, addressee: Addressee, raw: bytes, return_path: str | None) -> str:

        if is_null_path(return_path) and not addressee.takes_automatic:
            return AUTOMATIC
        parts = parts_of(self._runtime)
        assert parts.mail_reader is not None
        try:
            limits = (await self._runtime.reference.tenant(addressee.tenant_id)).limits
            parts.senders.take(addressee.tenant_id, limits.requests_per_second, limits.burst)
            mail = await parts.mail_reader.read(raw, takes_automatic=addressee.takes_automatic)
            if isinstance(mail, MailRefused):
                return AUTOMATIC if mail.reason == "automatic" else f"{NOT_TAKEN}{mail.detail}."
            await take(
                self._runtime,
                addressee.tenant_id,
                draft_of_mail(mail),
                key=f"mail:{addressee.source_id}:{mail.identity}",
                request_sha256=bytes.fromhex(mail.identity),
                source="email",
                source_id=addressee.source_id,
                channel=addressee.channel,
                original=raw,
            )
        except _BUSY as busy:
            structlog.get_logger().warning("mail_postponed", tenant_id=addressee.tenant_id, **describe(busy))
            return LATER
        except DomainError as refusal:
            structlog.get_logger().info("mail_refused", tenant_id=addressee.tenant_id, reason=refusal.slug)
            return f"{NOT_TAKEN}{refusal.slug}."
        except Exception as error:
            structlog.get_logger().error("mail_failed", tenant_id=addressee.tenant_id, **describe(error))
            return LATER
        return STORED


def draft_of_mail(mail: Mail) -> Draft:
    """Return the draft that a message stands for."""
    return Draft(
        subject=mail.subject or None,
        text=mail.text or None,
        complainant=Complainant(name=mail.sender_name, email=mail.sender),
        attachments=[
            AttachmentDraft(name=each.name, media_type=each.media_type, content=each.content)
            for each in mail.attachments
        ],
    )

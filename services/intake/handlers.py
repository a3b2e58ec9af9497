"""Message edge: complaints that a policy's rules create, and the questions of notify."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from services.intake.domain.complaint import Contact, NormalisedComplaint
from services.intake.domain.created import created_draft
from services.intake.domain.normalising import normalise
from services.intake.parts import parts_of, settings_of
from services.intake.storing import Lot, Offer, Stored, store
from services.intake.taking import current_policy
from shared.consuming import Consumer
from shared.database import Tx
from shared.engine.model import SYSTEM
from shared.errors import DomainError, NotYetError
from shared.ids import derived_id
from shared.messages.contacts import ContactReply, ContactRequest
from shared.messages.sla import AnnouncementMade
from shared.service import Runtime
from shared.telemetry import traceparent

CONSUMER: Final = "intake-on-announcement"


class Handlers:
    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime

    def consumers(self) -> list[Consumer]:
        return [Consumer("intake", "sla", handlers={AnnouncementMade: self.on_announcement}, name=CONSUMER)]

    async def on_announcement(self, message: AnnouncementMade, tx: Tx) -> None:
        """Store the complaint that an effect creates, under an id that follows from the effect's key: told twice,
        stored once.
        """
        effect = message.effect
        if effect.kind != "created" or message.withdrawn:
            return
        tenant = await self._runtime.reference.tenant(message.tenant_id)
        policy = await current_policy(self._runtime, message.tenant_id)
        draft = created_draft(effect, policy.document, message.case_id)
        complaint = normalise(draft, policy.document, datetime.now(UTC), region=settings_of(self._runtime).phone_region)
        if not isinstance(complaint, NormalisedComplaint):
            raise CreatedComplaintError(", ".join(f"{fault.pointer}: {fault.detail}" for fault in complaint))
        key = f"effect:{message.case_id}:{effect.key}"  # an effect's key is its case's own
        offer = Offer(
            key=key if len(key) <= 500 else f"effect:{hashlib.sha256(key.encode()).hexdigest()}",
            request_sha256=hashlib.sha256(key.encode()).digest(),
            complaint=complaint,
            policy=policy,
            source="effect",
            by=SYSTEM,
            complaint_id=derived_id("complaint.created", message.tenant_id, message.case_id, effect.key),
            silent=effect.silent,
            traceparent=traceparent(),
        )
        keys = await parts_of(self._runtime).vault.keys(tx)
        [[outcome]] = await store(tx, [Lot(tenant=tenant, keys=keys, offers=[offer], counts_today=False)])
        if isinstance(outcome, Stored):
            structlog.get_logger().info("complaint_created", case_id=outcome.complaint_id, rule=effect.rule)
        elif isinstance(outcome, DomainError):
            self._runtime.reference.forget(message.tenant_id)
            raise NotYetError(outcome.slug)

    async def answer_contact(self, body: bytes) -> bytes:
        """Answer "how is this complainant reached?". Only notify may ask; the broker sees to that."""
        request = msgspec.json.decode(body, type=ContactRequest)
        complainant_id = _uuid(request.complainant_id)
        async with self._runtime.db.worker_tx(request.tenant_id) as tx:
            contact = await parts_of(self._runtime).vault.contact(tx, request.case_id, complainant_id)
        if contact is None or contact == Contact():
            return msgspec.json.encode(ContactReply(found=False))
        reply = ContactReply(
            found=True, name=contact.name, phone=contact.phone, email=contact.email, language=contact.language
        )
        return msgspec.json.encode(reply)


class CreatedComplaintError(Exception):
    """The policy creates a complaint that does not fit the policy; its rule must be mended."""


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None

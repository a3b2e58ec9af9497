"""Taking a complaint: from a channel's draft to a committed answer, the same way for every channel."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from services.intake.domain.complaint import Draft, Fault, SourceKind
from services.intake.domain.normalising import normalise
from services.intake.parts import parts_of, settings_of
from services.intake.refusals import ComplaintInvalidError, NoPolicyError, PolicyMovedError
from services.intake.storing import Offer, Stored
from shared.engine.model import SYSTEM, Actor
from shared.engine.rules import CompiledPolicy
from shared.errors import FieldError, NotFoundError
from shared.ids import new_id
from shared.service import Runtime
from shared.telemetry import traceparent

_PUBLICATIONS: Final = 3  # how often the policy may change while one complaint is being taken


async def current_policy(runtime: Runtime[Any], tenant_id: UUID) -> CompiledPolicy:
    """Return the tenant's policy. NoPolicyError for a tenant that has none."""
    try:
        return await runtime.reference.current_policy(tenant_id)
    except NotFoundError:
        raise NoPolicyError("Publish one first: POST /v1/policies:publish.") from None


async def take(
    runtime: Runtime[Any],
    tenant_id: UUID,
    draft: Draft,
    *,
    key: str,
    request_sha256: bytes,
    source: SourceKind,
    source_id: UUID | None = None,
    channel: str | None = None,
    by: Actor = SYSTEM,
    from_text: bool = False,
    original: bytes | None = None,
) -> Stored:
    """Store a complaint and return its answer; a repeat under the same key gets the answer that was given.

    Raises:
        ComplaintInvalidError: with every fault of the draft, pointers from the draft's root.
        NoPolicyError, QuotaError, NumbersExhaustedError, KeyReusedError, InProgressError
    """
    storing = parts_of(runtime).storing
    for _ in range(_PUBLICATIONS):
        policy = await current_policy(runtime, tenant_id)
        now = datetime.now(UTC) if draft.received_at is None else await runtime.time.now(tenant_id)
        complaint = normalise(
            draft,
            policy.document,
            now,
            region=settings_of(runtime).phone_region,
            channel=channel,
            from_text=from_text,
        )
        if isinstance(complaint, tuple):
            raise InvalidDraftError(complaint)
        offer = Offer(
            key=key,
            request_sha256=request_sha256,
            complaint=complaint,
            policy=policy,
            source=source,
            source_id=source_id,
            by=by,
            complaint_id=new_id(),
            original=original,
            traceparent=traceparent(),
        )
        try:
            return await storing.store(tenant_id, offer)
        except PolicyMovedError:
            runtime.reference.forget(tenant_id)
    raise PolicyMovedError(retry_after_seconds=1)


class InvalidDraftError(ComplaintInvalidError):
    """The draft does not fit the policy; `faults` lets a channel tell where its sender wrote them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(errors=[FieldError(fault.pointer, fault.detail, fault.suggestion or None) for fault in faults])
        self.faults = faults


async def actor_of(runtime: Runtime[Any], tenant_id: UUID, staff_id: str | None) -> Actor:
    """Return who writes the first entry: the member of staff with their roles and unit, else the system."""
    if staff_id is None:
        return SYSTEM
    for member in await runtime.reference.staff(tenant_id):
        if member.staff_id == staff_id:
            units = (member.unit,) if member.unit is not None else ()
            return Actor(id=staff_id, roles=(*member.roles, *units), unit=member.unit)
    return Actor(id=staff_id)

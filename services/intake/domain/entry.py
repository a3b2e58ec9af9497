"""Line 1 of a complaint's timeline: what the other services may know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from services.intake.domain.complaint import NormalisedComplaint
from shared.engine.model import Actor, Entry

VAULT_REFERENCE: Final = "vault:"
"""Begins the value of a personal field on the timeline; the id of its text follows."""


def received_entry(
    complaint: NormalisedComplaint,
    *,
    at: datetime,
    by: Actor,
    complainant_id: UUID,
    number: str,
    text_id: UUID | None,
    personal_ids: Mapping[str, UUID],
    attachment_ids: Sequence[UUID],
) -> Entry:
    """Return the entry. It holds no personal data: the complainant is a pseudonymous id, texts are referred to by
    theirs.

    Args:
        at: when it counts as received.
        personal_ids: where the vault keeps the personal fields, by name.
    """
    stated = {"kind": complaint.kind, "category": complaint.category, "severity": complaint.severity}
    complainant = {"id": str(complainant_id)}
    if complaint.complainant_type is not None:
        complainant["type"] = complaint.complainant_type
    references = {name: f"{VAULT_REFERENCE}{text_id}" for name, text_id in personal_ids.items()}
    data: dict[str, Any] = {
        "channel": complaint.channel,
        **{name: value for name, value in stated.items() if value is not None},
        "anonymous": complaint.anonymous,
        "complainant": complainant,
        "respondent": complaint.respondent,
        "handler": complaint.handler,
        "fields": complaint.fields | references,
        "number": number,
    }
    if text_id is not None:
        data["text_id"] = str(text_id)
    if attachment_ids:
        data["attachments"] = [str(attachment_id) for attachment_id in attachment_ids]
    if complaint.reference is not None:
        data["reference"] = complaint.reference
    if complaint.received_at is not None and complaint.received_at < at:
        data["done_at"] = complaint.received_at.isoformat()
    return Entry(seq=1, kind="received", at=at, by=by, data=data)

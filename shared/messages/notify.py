"""What notify tells: what became of each message to a person or a system."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from shared.messages.base import Message


class DeliveryChanged(Message, frozen=True, kw_only=True):
    """A delivery entered a state. Addresses and texts are not told."""

    SUBJECT = "notify.v1.{tenant_id}.delivery.changed"

    delivery_id: UUID
    case_id: UUID | None
    rule: str
    channel: Literal["sms", "email", "webhook"]
    audience: str
    state: Literal["queued", "held", "sent", "delivered", "failed", "dead", "suppressed"]
    attempts: int
    detail: str = ""


class ClockRested(Message, frozen=True, kw_only=True):
    """notify has sent everything that was due in a sandbox up to `target`."""

    SUBJECT = "notify.v1.{tenant_id}.clock.rested"

    operation_id: UUID
    target: datetime

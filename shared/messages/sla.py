"""What sla tells: announcements, the ledger, and the standing of each case."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.engine.model import AcceptanceView, ClassView, ClockView, EffectView, PenaltyView, RouteView
from shared.messages.base import Message


class AnnouncementMade(Message, frozen=True, kw_only=True):
    """An effect, once: the message id is derived from its key.

    `late` when it came after its instant by more than the service's tolerance.
    """

    SUBJECT = "sla.v1.{tenant_id}.announcement.made"

    case_id: UUID
    case_kind: str
    effect: EffectView
    number: str = ""
    late: bool = False
    withdrawn: bool = False  # what was announced no longer holds


class PenaltyPosted(Message, frozen=True, kw_only=True):
    """One row of the ledger: the difference between what a key amounts to now and what has been posted for it."""

    SUBJECT = "sla.v1.{tenant_id}.penalty.posted"

    case_id: UUID
    posting_id: UUID
    difference_minor: int
    penalty: PenaltyView
    month: str  # YYYY-MM in the tenant's zone
    number: str = ""


class StandingChanged(Message, frozen=True, kw_only=True):
    """The case as it stands after entry `seq` at `now`; replaces the former one of a lower (seq, now)."""

    SUBJECT = "sla.v1.{tenant_id}.standing.changed"

    case_id: UUID
    case_kind: str
    seq: int
    now: datetime
    state: str
    closed: bool
    classified: ClassView
    outcome: str | None
    acceptance: AcceptanceView | None
    clocks: tuple[ClockView, ...]
    penalties: tuple[PenaltyView, ...]
    owner: RouteView | None = None
    routing: tuple[RouteView, ...] = ()
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    number: str = ""
    policy_version: int = 1


class ClockSettled(Message, frozen=True, kw_only=True):
    """sla has done everything that was due in a sandbox up to `target`."""

    SUBJECT = "sla.v1.{tenant_id}.clock.settled"

    operation_id: UUID
    target: datetime
    steps: int

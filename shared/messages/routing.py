"""What routing tells: timelines as they grow, staff, and the time."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from shared.engine.model import Entry
from shared.messages.base import Message


class EntryAppended(Message, frozen=True, kw_only=True):
    """One line of a case's timeline, `entry.seq` from 1. The message id is derived from (case, seq)."""

    SUBJECT = "routing.v1.{tenant_id}.entry.appended"

    case_id: UUID
    case_kind: Literal["complaint", "duty", "subject"]
    policy_version: int  # under which the case was received
    entry: Entry
    number: str = ""
    source: str = ""
    silent: bool = False


class Staff(msgspec.Struct, frozen=True, kw_only=True):
    staff_id: str
    roles: tuple[str, ...] = ()
    unit: str | None = None
    active: bool = True
    absent_until: datetime | None = None
    deputy: str | None = None


class StaffChanged(Message, frozen=True, kw_only=True):
    """One member of staff: ids and roles only; names and contacts stay in routing."""

    SUBJECT = "routing.v1.{tenant_id}.staff.changed"

    revision: int
    staff: Staff


class ClockTicked(Message, frozen=True, kw_only=True):
    """Every entry stamped up to `at` precedes this in the stream. Tenant LIVE: the time of all live tenants; else a sandbox's own time."""

    SUBJECT = "routing.v1.{tenant_id}.clock.ticked"


class ClockAdvanced(Message, frozen=True, kw_only=True):
    """A sandbox's administrator moves its test clock to `target`: sla goes there from one due instant to the next, then settles."""

    SUBJECT = "routing.v1.{tenant_id}.clock.advanced"

    operation_id: UUID
    target: datetime

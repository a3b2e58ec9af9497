"""What intake tells: reference data of tenants, and complaints as they are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from shared.engine.model import Actor, Entry
from shared.messages.base import Message


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's plan."""

    requests_per_second: int = 100
    burst: int = 300
    body_bytes: int = 262_144
    complaints_per_day: int = 100_000
    retention_days: int = 1095


class TenantChanged(Message, frozen=True, kw_only=True):
    """The tenant as it is now; `revision` grows, an older one is ignored."""

    SUBJECT = "intake.v1.{tenant_id}.tenant.changed"

    revision: int
    slug: str
    name: str
    zone: str
    sandbox: bool
    active: bool
    limits: Limits = Limits()
    webhook_url: str | None = None
    language: str = "en"
    two_admins: bool = False
    created_at: datetime | None = None


class CredentialChanged(Message, frozen=True, kw_only=True):
    """An API key as every service knows it: its hash, never the key."""

    SUBJECT = "intake.v1.{tenant_id}.credential.changed"

    credential_id: UUID
    revision: int
    key_hash: str  # SHA-256 of the key's secret, hex
    role: Literal["operator", "admin", "supervisor", "handler", "auditor", "integration"]
    name: str
    active: bool
    staff_id: str | None = None  # the person who acts with it
    expires_at: datetime | None = None
    sees_personal_data: bool = False


class PolicyPublished(Message, frozen=True, kw_only=True):
    """An immutable version of a tenant's policy: the document as published, and the tenant's settings."""

    SUBJECT = "intake.v1.{tenant_id}.policy.published"

    version: int
    document: dict[str, Any]
    settings: dict[str, Any]
    effect: Literal["keep", "from_now", "retroactive"]
    published_by: str
    reason: str = ""
    sha256: str = ""


class CalendarPublished(Message, frozen=True, kw_only=True):
    """A dated revision of one named calendar."""

    SUBJECT = "intake.v1.{tenant_id}.calendar.published"

    name: str
    revision: int
    spec: dict[str, Any]
    announced_through: str | None = None  # ISO date
    moves_running: bool = False


class ComplaintReceived(Message, frozen=True, kw_only=True):
    """A complaint was stored. `entry` is line 1 of its timeline."""

    SUBJECT = "intake.v1.{tenant_id}.complaint.received"

    case_id: UUID
    number: str
    policy_version: int
    entry: Entry
    case_kind: Literal["complaint"] = "complaint"
    source: Literal["api", "webhook", "email", "csv", "sms", "letter", "effect"] = "api"
    duplicate_of: UUID | None = None
    silent: bool = False  # an import of old complaints: effects are recorded and told to nobody


class EntryRequested(Message, frozen=True, kw_only=True):
    """An act that reached intake (a reply by e-mail, a supplement) and that routing is asked to enter; routing is its one consumer."""

    SUBJECT = "intake.v1.{tenant_id}.entry.requested"

    case_id: UUID
    kind: str
    by: Actor
    data: dict[str, Any]

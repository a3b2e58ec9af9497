"""What notify's HTTP edge takes and gives."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from services.notify.channels.email import EmailConfig, EmailSecrets
from services.notify.channels.sms import SmsConfig, SmsSecrets
from shared.database import Record
from shared.errors import MalformedError

Url = Annotated[str, Meta(min_length=8, max_length=2048)]
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]
Description = Annotated[str, Meta(max_length=500)]
Filters = Annotated[list[Annotated[str, Meta(max_length=120)]], Meta(max_length=50)]


class BadCursorError(MalformedError):
    slug = "bad-cursor"
    title = "The cursor is not one that a page has given."


class DeliveryView(Struct, frozen=True, kw_only=True):
    """One message to one recipient; `recipient` is masked."""

    delivery_id: UUID
    case_id: UUID | None
    number: str
    event: str
    rule: str
    audience: str
    addressee: str
    channel: str
    state: str
    reason: str
    attempts: int
    recipient: str
    at: datetime
    due_at: datetime
    created_at: datetime
    sent_at: datetime | None
    ended_at: datetime | None


class AttemptView(Struct, frozen=True, kw_only=True):
    """One try; without an outcome it is under way, or was cut off and is being cleared up."""

    attempt: int
    at: datetime
    begun_at: datetime
    ended_at: datetime | None
    outcome: str | None
    detail: str


class DeliveryInFull(Struct, frozen=True, kw_only=True):
    delivery: DeliveryView
    attempts: list[AttemptView]


class Deliveries(Struct, frozen=True, kw_only=True):
    deliveries: list[DeliveryView]
    next_cursor: str | None


class CaseDeliveries(Struct, frozen=True, kw_only=True):
    """`as_of_seq` is the last line of the timeline that has arrived here."""

    case_id: UUID
    as_of_seq: int
    deliveries: list[DeliveryView]
    next_cursor: str | None


class Queued(Struct, frozen=True, kw_only=True):
    delivery_id: UUID


class NewEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`events` filters: event types, triggers, or beginnings with `.*`; none means everything."""

    url: Url
    description: Description = ""
    events: Filters = []


class EndpointChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: Url | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    events: Filters | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class Rotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For `overlap_hours` the former secret signs as well; 0 ends it at once."""

    overlap_hours: Annotated[int, Meta(ge=0, le=168)] | UnsetType = UNSET


class EndpointView(Struct, frozen=True, kw_only=True):
    endpoint_id: UUID
    url: str
    description: str
    events: list[str]
    active: bool
    stopped_because: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class EndpointWithSecret(Struct, frozen=True, kw_only=True):
    """The signing secret is shown here and never again."""

    endpoint: EndpointView
    secret: str


class Endpoints(Struct, frozen=True, kw_only=True):
    webhooks: list[EndpointView]


class NewSmsProvider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="channel", tag="sms"):
    name: Name
    config: SmsConfig
    secrets: SmsSecrets = SmsSecrets()
    active: bool = True


class NewEmailProvider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="channel", tag="email"):
    name: Name
    config: EmailConfig
    secrets: EmailSecrets = EmailSecrets()
    active: bool = True


class SmsProviderChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="channel", tag="sms"):
    """Without `secrets` the stored ones stay."""

    name: Name
    config: SmsConfig
    secrets: SmsSecrets | UnsetType = UNSET
    active: bool = True


class EmailProviderChange(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="channel", tag="email"
):
    """Without `secrets` the stored ones stay."""

    name: Name
    config: EmailConfig
    secrets: EmailSecrets | UnsetType = UNSET
    active: bool = True


NewProvider = NewSmsProvider | NewEmailProvider
ProviderChange = SmsProviderChange | EmailProviderChange


class ProviderView(Struct, frozen=True, kw_only=True):
    """A provider without its secrets; receipts are sent to `receipts_path`."""

    provider_id: UUID
    channel: Literal["sms", "email"]
    name: str
    active: bool
    config: dict[str, Any]
    receipts_path: str | None
    created_at: datetime
    updated_at: datetime


class Providers(Struct, frozen=True, kw_only=True):
    providers: list[ProviderView]


def delivery_view(row: Record) -> DeliveryView:
    return msgspec.convert({**dict(row), "event": row["event_type"]}, DeliveryView)


def endpoint_view(row: Record) -> EndpointView:
    return msgspec.convert(dict(row), EndpointView)


def provider_view(row: Record) -> ProviderView:
    path = f"/v1/receipts/{row['provider_id']}" if row["channel"] == "sms" else None
    return msgspec.convert({**dict(row), "receipts_path": path}, ProviderView)


def cursor(row: Record) -> str:
    """Where a page ends, opaque to clients."""
    place = (row["created_at"], row["delivery_id"])
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place(text: str | None) -> tuple[datetime, UUID] | None:
    """Return what `cursor` was made of. BadCursorError for anything else."""
    if text is None:
        return None
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        at, last = msgspec.json.decode(plain, type=tuple[datetime, UUID])
    except (msgspec.MsgspecError, binascii.Error, ValueError, UnicodeDecodeError):
        raise BadCursorError() from None
    if at.tzinfo is None:
        raise BadCursorError()
    return at, last

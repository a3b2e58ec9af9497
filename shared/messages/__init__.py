"""Every message that crosses a service boundary, with its subject.

A subject is `<producer>.v1.<tenant>.<noun>.<past verb>`; the tenant's token is its UUID in 36 lower-case characters. Bodies
are JSON. Readers ignore unknown fields; a new field has a default; a type or a meaning never changes. No message carries
personal data.
"""

from shared.messages.base import LIVE, Message, decode, encode, message_types, subject_of
from shared.messages.intake import (
    CalendarPublished,
    ComplaintReceived,
    CredentialChanged,
    EntryRequested,
    PolicyPublished,
    TenantChanged,
)
from shared.messages.notify import ClockRested, DeliveryChanged
from shared.messages.routing import ClockAdvanced, ClockTicked, EntryAppended, StaffChanged
from shared.messages.sla import AnnouncementMade, ClockSettled, PenaltyPosted, StandingChanged

__all__ = [
    "LIVE",
    "AnnouncementMade",
    "CalendarPublished",
    "ClockAdvanced",
    "ClockRested",
    "ClockSettled",
    "ClockTicked",
    "ComplaintReceived",
    "CredentialChanged",
    "DeliveryChanged",
    "EntryAppended",
    "EntryRequested",
    "Message",
    "PenaltyPosted",
    "PolicyPublished",
    "StaffChanged",
    "StandingChanged",
    "TenantChanged",
    "decode",
    "encode",
    "message_types",
    "subject_of",
]

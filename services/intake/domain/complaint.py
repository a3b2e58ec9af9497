"""A complaint on its way in: as a channel hands it over, and as it is stored.

Every channel makes a `Draft`; `services/intake/domain/normalising.py` turns it into a `NormalisedComplaint`, or says
what is wrong with it. What identifies a person, and all free text, stands only in `Contact`, `text`, `personal_fields`
and `attachments`, and goes into the vault.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

TEXT_LIMIT: Final = 20_000  # characters of one free text, after normalisation
NAME_LIMIT: Final = 120  # characters of a name that stands on the timeline
FIELD_TEXT_LIMIT: Final = 200  # characters of an own field of type text: a reference or a place, never a story
FIELDS_LIMIT: Final = 100
LIST_LIMIT: Final = 100
ATTACHMENTS_LIMIT: Final = 5
ATTACHMENT_BYTES: Final = 131_072  # of one attachment
ATTACHMENTS_BYTES: Final = 262_144  # of all attachments of one complaint

Short = Annotated[str, Meta(max_length=NAME_LIMIT)]
Line = Annotated[str, Meta(max_length=500)]
SourceKind = Literal["api", "webhook", "email", "csv", "sms", "letter", "effect"]


class Fault(Struct, frozen=True):
    """One thing wrong with a draft. `path` leads to it in the draft; nothing that the sender wrote is repeated."""

    path: tuple[str, ...]
    detail: str
    suggestion: str = ""

    @property
    def pointer(self) -> str:
        """The path as a JSON Pointer (RFC 6901)."""
        return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in self.path)


class Complainant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who complains. Everything but `type` goes into the vault and nowhere else."""

    type: Short | None = None
    name: Line | None = None
    phone: Annotated[str, Meta(max_length=60)] | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None
    address: Line | None = None
    language: Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)] | None = None


class Respondent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is complained of: ids of staff and names of units, never a name that only the complainant uses."""

    staff: Short | None = None
    unit: Short | None = None
    supervisor: Short | None = None


class Handler(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who took the first contact, where a person did."""

    staff: Short | None = None
    unit: Short | None = None
    head: Short | None = None


class AttachmentDraft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A small file; `content` is base64 in JSON."""

    name: Short
    media_type: Annotated[str, Meta(pattern=r"^[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}$")] = "application/octet-stream"
    content: Annotated[bytes, Meta(max_length=ATTACHMENT_BYTES)]


class Draft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complaint as a channel hands it over. It is also the body of `POST /v1/complaints`.

    received_at: when somebody took it, where that was earlier than now (a letter, a call noted on paper, an import).
    reference: the sender's own number of it.
    """

    channel: Short | None = None
    kind: Short | None = None
    category: Short | None = None
    severity: Short | None = None
    anonymous: bool = False
    text: Annotated[str, Meta(max_length=4 * TEXT_LIMIT)] | None = None
    subject: Line | None = None
    language: Annotated[str, Meta(max_length=35)] | None = None
    complainant: Complainant | None = None
    respondent: Respondent | None = None
    handler: Handler | None = None
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    received_at: datetime | None = None
    reference: Short | None = None
    attachments: Annotated[list[AttachmentDraft], Meta(max_length=ATTACHMENTS_LIMIT)] = msgspec.field(
        default_factory=list
    )


class Contact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a complainant is reached, as it lies in the vault. `phone` is E.164, `email` in lower case."""

    name: str | None = None
    phone: str | None = None
    email: str | None = None
    address: str | None = None
    language: str | None = None

    @property
    def is_reachable(self) -> bool:
        return self.phone is not None or self.email is not None


class NormalisedComplaint(Struct, frozen=True, kw_only=True):
    """A complaint that fits the policy's vocabulary, whatever channel it came by."""

    channel: str
    kind: str | None
    category: str | None
    severity: str | None
    anonymous: bool
    complainant_type: str | None
    contact: Contact
    respondent: dict[str, str]
    handler: dict[str, str]
    fields: dict[str, Any]  # values as JSON: money and instants as text
    personal_fields: dict[str, str]  # of the vault; the timeline refers to them
    text: str | None
    received_at: datetime | None
    reference: str | None
    attachments: tuple[AttachmentDraft, ...] = ()

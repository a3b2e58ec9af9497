"""The synchronous questions "how do I reach …": NATS request and reply, asked right before sending.

`CONTACT_SUBJECT` is answered by intake's vault, `STAFF_SUBJECT` by routing. These are requests, not messages of a
stream: nobody records them, and answers are never stored.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from msgspec import Struct

CONTACT_SUBJECT = "vault.v1.contact"
STAFF_SUBJECT = "vault.v1.staff"


class ContactRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How is this complainant reached?

    `complainant_id` is the pseudonymous id on the timeline; without it the case's complainant is meant.
    """

    tenant_id: UUID
    case_id: UUID
    complainant_id: str | None = None


class ContactReply(Struct, frozen=True, kw_only=True):
    """`found` is false when the vault holds nobody, or nobody any more (erased)."""

    found: bool
    name: str | None = None
    phone: str | None = None  # E.164
    email: str | None = None
    language: str | None = None


class StaffRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is behind this name, and how are they reached?

    `name` is a staff id, a role or a unit, as entries and effects use them.
    """

    tenant_id: UUID
    name: str
    case_id: UUID | None = None


class StaffContact(Struct, frozen=True, kw_only=True):
    staff_id: str
    phone: str | None = None  # E.164
    email: str | None = None
    language: str | None = None


class StaffReply(Struct, frozen=True, kw_only=True):
    """Everybody who holds the name now, absent ones replaced by their deputies; empty when nobody does."""

    kind: Literal["staff", "role", "unit", "unknown"]
    contacts: tuple[StaffContact, ...] = ()

"""How the people behind an audience are reached, asked right before sending: the vault for complainants, routing for staff."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from services.notify.domain.messages import COMPLAINANT
from services.notify.repository import Delivery
from shared.errors import UnavailableError
from shared.messages.contacts import (
    CONTACT_SUBJECT,
    STAFF_SUBJECT,
    ContactReply,
    ContactRequest,
    StaffContact,
    StaffReply,
    StaffRequest,
)
from shared.service import Runtime

R = TypeVar("R")

MOST_MEMBERS = 50  # behind one role or unit


class Person(Struct, frozen=True, kw_only=True):
    """One recipient, for as long as the sending takes; never stored, never logged."""

    phone: str | None
    email: str | None
    name: str | None = None  # the complainant's alone
    language: str | None = None

    def __repr__(self) -> str:
        return "Person(…)"


class Members(Struct, frozen=True):
    """Several people hold the role or belong to the unit: each gets a delivery of his or her own."""

    staff_ids: tuple[str, ...]


async def ask(runtime: Runtime[Any], delivery: Delivery, seconds: float) -> Person | Members | None:
    """Return who is meant; None when there is nobody. Raises UnavailableError when the one who knows does not answer."""
    if delivery.audience == COMPLAINANT:
        return await _complainant(runtime, delivery, seconds)
    return await _staff(runtime, delivery, seconds)


async def _complainant(runtime: Runtime[Any], delivery: Delivery, seconds: float) -> Person | None:
    if delivery.case_id is None:
        return None
    known = None if delivery.addressee == COMPLAINANT else delivery.addressee
    request = ContactRequest(tenant_id=delivery.tenant_id, case_id=delivery.case_id, complainant_id=known)
    reply = await _request(runtime, CONTACT_SUBJECT, request, ContactReply, seconds)
    if not reply.found:
        return None
    return Person(phone=reply.phone, email=reply.email, name=reply.name, language=reply.language)


async def _staff(runtime: Runtime[Any], delivery: Delivery, seconds: float) -> Person | Members | None:
    request = StaffRequest(tenant_id=delivery.tenant_id, name=delivery.addressee, case_id=delivery.case_id)
    reply = await _request(runtime, STAFF_SUBJECT, request, StaffReply, seconds)
    if not reply.contacts:
        return None
    if reply.kind == "staff":
        return _person(reply.contacts[0])
    return Members(tuple(dict.fromkeys(contact.staff_id for contact in reply.contacts))[:MOST_MEMBERS])


def _person(contact: StaffContact) -> Person:
    return Person(phone=contact.phone, email=contact.email, language=contact.language)


async def _request(runtime: Runtime[Any], subject: str, question: Struct, kind: type[R], seconds: float) -> R:
    answer = await runtime.nats.request(subject, msgspec.json.encode(question), timeout=seconds)
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError:  # what it quotes could be somebody's address
        raise UnavailableError("The answer cannot be read.") from None

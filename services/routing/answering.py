"""Who is behind a name, and how they are reached: the answer to notify's question, never stored by who asks."""

from __future__ import annotations

from typing import Any

import msgspec

from services.routing import parts
from services.routing.contacts import Contact
from services.routing.domain.staffing import holders, stand_in
from services.routing.repository import staff
from shared.messages.contacts import STAFF_SUBJECT, StaffContact, StaffReply, StaffRequest
from shared.service import Runtime
from shared.time_source import now_in


async def answer(runtime: Runtime[Any], body: bytes) -> bytes:
    """Return the contacts of everybody who holds the name now, absent ones replaced by their deputies."""
    asked = msgspec.json.decode(body, type=StaffRequest)
    box = parts.of(runtime).contacts
    async with runtime.db.worker_tx(asked.tenant_id) as tx:
        now = await now_in(tx)
        members = await parts.of(runtime).roster.members(tx, asked.tenant_id)
        kind, named = holders(members.values(), asked.name)
        present = dict.fromkeys(each for name in named if (each := stand_in(members, name, now)) is not None)
        sealed = await staff.contacts(tx, asked.tenant_id, list(present))
    contacts = [(name, box.open(asked.tenant_id, name, sealed[name])) for name in present if name in sealed]
    return msgspec.json.encode(StaffReply(kind=kind, contacts=tuple(_contact(name, each) for name, each in contacts)))


def _contact(staff_id: str, contact: Contact) -> StaffContact:
    return StaffContact(staff_id=staff_id, phone=contact.phone, email=contact.email, language=contact.language)


async def listen(runtime: Runtime[Any]) -> None:
    """Answer from now on, as soon as NATS is connected."""

    async def on_request(body: bytes) -> bytes:
        return await answer(runtime, body)

    await runtime.nats.respond(STAFF_SUBJECT, on_request)

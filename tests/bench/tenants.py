"""The subscribers of a benchmark: the demonstration's four organisations as live tenants; and their complaints as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, cycle
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from services.demo.client import Api
from services.demo.organisations import ORGANISATIONS, Organisation
from shared.embedded.processes import LOOPBACK

PLENTY: Final[dict[str, int]] = {
    "requests_per_second": 100_000,
    "burst": 1_000_000,
    "complaints_per_day": 100_000_000,
}
"""A plan that refuses nothing: what is measured is the work, not the quota."""

_PHONE: Final = "+8613800000000"
_PEOPLE: Final = count(10_000_000)  # the last digits of a telephone number: everybody who complains is somebody new


class Tenancy(Struct, kw_only=True):
    """One tenant and what its systems send."""

    tenant_id: UUID
    organisation: Organisation
    admin: Api
    key: str  # of its own systems, which send complaints


async def subscribe(
    operator: Api, organisation: Organisation, *, limits: Mapping[str, int] = PLENTY, staff: bool = False
) -> Tenancy:
    """A tenant with its rules published; with its people too, where somebody is to be assigned.

    Without services to hear of them, only intake knows any of it.
    """
    body = {
        "slug": f"{organisation.slug}-{uuid4().hex[:8]}",
        "name": organisation.name,
        "language": organisation.language,
        "limits": dict(limits),
    }
    created = await operator.post("/v1/tenants", body)
    admin = operator.with_key(created["admin_key"])
    document = organisation.document
    source = {"document": document} if document is not None else {"template": organisation.policy}
    await admin.post(
        "/v1/policies:publish", {**source, "settings": organisation.settings, "reason": "The first version."}
    )
    systems = await admin.post("/v1/credentials", {"role": "integration", "name": "Own systems"})
    if staff:
        await admin.until_known()
        for number, member in enumerate(organisation.staff):
            person = {
                "name": member.name,
                "roles": list(member.roles),
                "unit": member.unit,
                "email": f"{member.id}@{organisation.slug}.example",
                "phone": f"+86139{number:08d}",
                "language": organisation.language,
            }
            await admin.put(f"/v1/staff/{member.id}", person)
        await admin.with_key(systems["key"]).until_known()
    return Tenancy(
        tenant_id=UUID(created["tenant"]["tenant_id"]), organisation=organisation, admin=admin, key=systems["key"]
    )


async def subscribers(
    operator: Api, number: int, organisations: Sequence[Organisation] = ORGANISATIONS, **how: Any
) -> list[Tenancy]:
    """So many tenants, the organisations in turn."""
    chosen = [each for each, _ in zip(cycle(organisations), range(number), strict=False)]
    return list(await asyncio.gather(*(subscribe(operator, each, **how) for each in chosen)))


def complaints(tenancies: Sequence[Tenancy]) -> Iterator[bytes]:
    """Requests without end, the tenants in turn: each a complaint by somebody new, under a key of its own.

    All but the telephone number and the key is made beforehand.
    """
    forms = [_forms(tenancy) for tenancy in tenancies]
    longest = max(map(len, forms))
    in_turn = cycle([form[place % len(form)] for place in range(longest) for form in forms])
    run = uuid4().hex[:12]
    for number, (head, middle, tail) in zip(_PEOPLE, in_turn, strict=False):
        yield b"%b%b-%012d%b%08d%b" % (head, run.encode(), number, middle, number, tail)


def _forms(tenancy: Tenancy) -> list[tuple[bytes, bytes, bytes]]:
    """Each complaint of the organisation as a request in three parts; the key and the number of the telephone go in between."""
    made = []
    for complaint in tenancy.organisation.api:
        draft = msgspec.json.decode(msgspec.json.encode(complaint.draft))
        draft["complainant"] = {"name": draft["complainant"]["name"], "phone": _PHONE}
        before, _, after = msgspec.json.encode(draft).partition(_PHONE[-8:].encode())
        head = (
            b"POST /v1/complaints HTTP/1.1\r\n"
            b"host: %b\r\n"
            b"authorization: Bearer %b\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"idempotency-key: " % (LOOPBACK.encode(), tenancy.key.encode(), len(before) + 8 + len(after))
        )
        made.append((head, b"\r\n\r\n" + before, after))
    return made

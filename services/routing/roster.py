"""The tenants' staff in memory, with how much each has in hand."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec

from services.routing.domain.staffing import Member
from services.routing.repository import staff
from shared.database import Tx

LOAD_SECONDS = 5.0
TENANTS = 1000


class _Book(msgspec.Struct):
    revision: int
    members: dict[str, Member]
    loads_until: float


class Roster:
    """Members by staff id. Roles and absences are as the database has them at each call; loads are counted every few seconds and kept up in
    between by what this process assigns, since counting them anew for each complaint would cost more than a perfect balance is worth.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._books: OrderedDict[UUID, _Book] = OrderedDict()
        self._clock = clock

    async def members(
        self, tx: Tx, tenant_id: UUID, *, revision: int | None = None, with_loads: bool = False
    ) -> dict[str, Member]:
        """Return the tenant's staff. Not a copy: read it, do not change it.

        Args:
            revision: of the tenant's staff, where this transaction has read it already.
        """
        if revision is None:
            revision = await staff.revision(tx, tenant_id)
        book = self._books.get(tenant_id)
        if book is None or book.revision != revision:
            book = self._books[tenant_id] = _Book(revision, await staff.members(tx, tenant_id), 0.0)
            while len(self._books) > TENANTS:
                self._books.popitem(last=False)
        self._books.move_to_end(tenant_id)
        if with_loads and book.members and book.loads_until < self._clock():
            await self._count(tx, tenant_id, book)
        return book.members

    async def _count(self, tx: Tx, tenant_id: UUID, book: _Book) -> None:
        loads = await staff.loads(tx, tenant_id)
        for name, member in book.members.items():
            open_cases, assigned_at = loads.get(name, (0, None))
            book.members[name] = msgspec.structs.replace(member, open_cases=open_cases, assigned_at=assigned_at)
        book.loads_until = self._clock() + LOAD_SECONDS

    def note(self, tenant_id: UUID, staff_id: str | None, difference: int, at: datetime | None = None) -> None:
        """Note that somebody got a complaint (+1) or has one less (-1)."""
        book = self._books.get(tenant_id)
        member = book.members.get(staff_id) if book is not None and staff_id is not None else None
        if book is None or member is None:
            return
        book.members[member.staff_id] = msgspec.structs.replace(
            member, open_cases=max(0, member.open_cases + difference), assigned_at=at or member.assigned_at
        )

    def forget(self, tenant_id: UUID) -> None:
        self._books.pop(tenant_id, None)

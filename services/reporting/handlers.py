"""Message edge: what was told is stored as it was told, and the case noted as out of date. No rules.

Every handler bears a message that comes again, early or late: entries and postings are stored once, a standing gives way
to a newer one only, an announcement that was withdrawn stays withdrawn. What the messages of a transaction tell is
stored together, at its end; the facts are made by `loops.py`, once for however many messages have come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.reporting import repository
from shared.consuming import Consumer, Handler
from shared.database import Tx
from shared.errors import NotYetError
from shared.messages import (
    AnnouncementMade,
    ComplaintReceived,
    DeliveryChanged,
    EntryAppended,
    PenaltyPosted,
    StandingChanged,
    TenantChanged,
)

SERVICE = "reporting"


async def on_zone(message: TenantChanged, tx: Tx) -> None:
    """Note the facts whose day was reckoned in another zone than the tenant's present one."""
    if await repository.has_other_zone(tx, message.tenant_id, message.zone):
        if not await repository.knows_revision(tx, message.tenant_id, message.revision):
            raise NotYetError("our copy of the tenant is older than this message")
        await repository.mark_other_zone(tx, message.tenant_id)


def consumers(book: repository.Book) -> list[Consumer]:
    """Return the consumers of what reporting counts."""

    def told(store: Callable[[Tx, Any], Awaitable[None]]) -> Handler:
        async def handler(message: Any, tx: Tx) -> None:
            await store(tx, message)

        return handler

    def consumer(noun: str, stream: str, handlers: dict[type[Any], Handler], linger: float = 0.0) -> Consumer:
        return Consumer(SERVICE, stream, handlers=handlers, name=f"{SERVICE}-on-{noun}", linger=lambda _: linger)

    # Routing tells the line that intake has told before, and deliveries come after all else: nobody waits for these two.
    linger = book.patience / 2
    told_by_sla: dict[type[Any], Handler] = {
        StandingChanged: told(book.put_standing),
        AnnouncementMade: told(book.put_announcement),
        PenaltyPosted: told(book.add_posting),
    }
    return [
        consumer("entry", "routing", {EntryAppended: told(book.add_entry)}),
        consumer("complaint", "intake", {ComplaintReceived: told(book.add_entry)}, linger),
        consumer("standing", "sla", told_by_sla),
        consumer("delivery", "notify", {DeliveryChanged: told(book.put_delivery)}, linger),
        consumer("zone", "intake", {TenantChanged: on_zone}),
    ]

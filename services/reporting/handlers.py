"""Message edge: what was told is stored as it was told, and the case noted as out of date. No rules.

Every handler bears a message that comes again, early or late: entries and postings are stored once, a standing gives way
to a newer one only, an announcement that was withdrawn stays withdrawn. What the messages of a transaction tell is
stored together, at its end, and the facts are made of it (`making.py`), or by `loops.py` what waits for more.
"""

from __future__ import annotations

from typing import Any

from services.reporting import repository
from services.reporting.making import making_facts
from shared.consuming import Collecting, Consumer
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
    """Return the consumers of what reporting counts.

    What four streams tell of a case comes within moments, so it is taken down together, and its fact made in the same transaction. A line
    is followed by what sla makes of it, and nobody waits for a delivery: these linger.
    """

    take_down = Collecting(lambda message, tx: book.take_down(tx, message))

    def consumer(noun: str, stream: str, *kinds: type[Any], linger: float = book.patience / 2) -> Consumer:
        return Consumer(
            SERVICE,
            stream,
            handlers=dict.fromkeys(kinds, take_down),
            name=f"{SERVICE}-on-{noun}",
            at_last=making_facts(book),
            linger=lambda _: linger,
            beside=told[0] if told else None,
        )

    told: list[Consumer] = []
    told.append(consumer("standing", "sla", StandingChanged, AnnouncementMade, PenaltyPosted, linger=0.0))
    told.append(consumer("entry", "routing", EntryAppended))
    told.append(consumer("complaint", "intake", ComplaintReceived))
    told.append(consumer("delivery", "notify", DeliveryChanged))
    return [*told, Consumer(SERVICE, "intake", handlers={TenantChanged: on_zone}, name=f"{SERVICE}-on-zone")]

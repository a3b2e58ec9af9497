"""What notify tells the other services: `DeliveryChanged`, once for each state that a delivery enters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from services.notify import repository
from shared import outbox
from shared.database import Record, Tx
from shared.ids import derived_id
from shared.messages import DeliveryChanged

UNTOLD = frozenset({"queued", "sending", "expanded"})
"""States on the way, of no interest to others; an expanded delivery is told of by those that it was expanded into."""


async def tell_changes(tx: Tx, delivery_ids: Sequence[UUID], *, at: datetime) -> None:
    """Tell the present state of deliveries, in the transaction that changed it. `at` is in the tenant's time."""
    if not delivery_ids:
        return
    rows = await repository.states(tx, tx.tenant_id, delivery_ids)
    await outbox.add_many(tx, [_changed(row, at) for row in rows if row["state"] not in UNTOLD])


async def tell(tx: Tx, row: Record, at: datetime, traceparent: str | None = None) -> None:
    """As above for one delivery whose row is at hand; `traceparent` is what it belongs to, else the present one."""
    if row["state"] not in UNTOLD:
        await outbox.add(tx, _changed(row, at, traceparent))


def _changed(row: Record, at: datetime, traceparent: str | None = None) -> DeliveryChanged:
    return DeliveryChanged(
        traceparent=traceparent,
        message_id=derived_id("delivery", row["delivery_id"], row["state"], row["round"], row["attempts"]),
        tenant_id=row["tenant_id"],
        at=at,
        delivery_id=row["delivery_id"],
        case_id=row["case_id"],
        rule=row["rule"],
        channel=row["channel"],
        audience=row["audience"],
        state=row["state"],
        attempts=row["attempts"],
        detail=row["reason"],
    )

"""Message edge: what is told is stored, and its case folded with it, or put on the list of those to look at. No rules."""

from __future__ import annotations

from typing import Any

from services.sla import repository
from services.sla.folding import WAKE_UPS, AtOnce
from shared.consuming import Collecting, Consumer
from shared.database import Tx
from shared.messages import ClockAdvanced, ClockTicked, EntryAppended
from shared.service import Runtime

SERVICE = "sla"


def consumers(runtime: Runtime[Any]) -> list[Consumer]:
    at_once = AtOnce(runtime)

    def wake() -> None:
        runtime.wake(WAKE_UPS)

    async def on_tick(message: ClockTicked, tx: Tx) -> None:
        await repository.set_tick(tx, message.tenant_id, message.at)
        tx.after_commit(wake)

    async def on_advance(message: ClockAdvanced, tx: Tx) -> None:
        await repository.begin_advance(tx, message.tenant_id, message.operation_id, message.target)
        tx.after_commit(wake)

    # Entries and ticks share one consumer: a tick means that every entry before it has been applied.
    return [
        *runtime.reference.consumers(SERVICE),
        Consumer(
            SERVICE,
            "routing",
            name="sla-on-entry",
            handlers={EntryAppended: Collecting(at_once.take_down), ClockTicked: on_tick, ClockAdvanced: on_advance},
            at_last=at_once.close,
        ),
    ]

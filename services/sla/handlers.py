"""Message edge: what is told is stored, and the case is put on the list of those to look at. No rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.sla import repository
from shared import fail_points
from shared.consuming import Collecting, Consumer
from shared.database import Tx
from shared.messages import ClockAdvanced, ClockTicked, EntryAppended
from shared.service import Runtime

SERVICE = "sla"


def consumers(runtime: Runtime[Any], wake: Callable[[], None]) -> list[Consumer]:
    def on_entry(message: EntryAppended, tx: Tx) -> None:
        tx.at_the_end(store, for_all=True).append(
            repository.Line(
                message.tenant_id,
                message.case_id,
                message.entry.seq,
                message.case_kind,
                message.policy_version,
                message.number,
                message.silent,
                message.entry,
            )
        )

    async def store(tx: Tx, lines: Sequence[repository.Line]) -> None:
        await repository.add_entries(tx, lines)
        fail_points.reach("sla.entered")
        tx.after_commit(wake)

    async def on_tick(message: ClockTicked, tx: Tx) -> None:
        await repository.set_tick(tx, message.tenant_id, message.at)
        tx.after_commit(wake)

    async def on_advance(message: ClockAdvanced, tx: Tx) -> None:
        await repository.begin_advance(tx, message.tenant_id, message.operation_id, message.target)
        tx.after_commit(wake)

    # Entries and ticks share one consumer: a tick means that every entry stamped before it has been applied.
    return [
        *runtime.reference.consumers(SERVICE),
        Consumer(
            SERVICE,
            "routing",
            name="sla-on-entry",
            handlers={EntryAppended: Collecting(on_entry), ClockTicked: on_tick, ClockAdvanced: on_advance},
        ),
    ]

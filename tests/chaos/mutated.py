"""`python -m tests.chaos.mutated <fault> <service>`: one service with one fault put into it, as somebody might have written it.

The fault is in this process alone: the services have no switch for it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

ENDS_AFTER: Final = 5
"""Transactions that post something. What is in hand at such an end comes again after a quarter of a minute, each by itself."""


def _put(where: Any, name: str, what: Any) -> None:
    setattr(where, name, what)


def without_inbox_check() -> None:
    """A message is applied whenever it comes, and nobody notes it."""
    from shared import consuming
    from shared.consuming import Consumer
    from shared.pending import Delivery, identity

    async def claim(_: Consumer, __: Any, group: list[Delivery]) -> dict[Any, Delivery]:
        return {identity(each): each for each in group}

    def opening(_: list[Delivery]) -> None:
        """What would note them together with BEGIN."""

    _put(Consumer, "_claim", claim)
    _put(consuming, "_claiming", opening)


def ack_before_commit() -> None:
    """Messages are acknowledged when they come, not when they have been applied."""
    from shared.consuming import AtFaultError, Consumer
    from shared.pending import Delivery

    transact = Consumer._transact

    async def careless(
        self: Consumer, group: list[Delivery], seconds: float, *, careful: bool = False
    ) -> list[AtFaultError]:
        for delivery in group:
            await delivery.raw.ack()
        return await transact(self, group, seconds, careful=careful)

    _put(Consumer, "_transact", careless)


def publish_instead_of_outbox() -> None:
    """What is to be told is published where it happens, in the middle of the transaction."""
    from shared import outbox
    from shared.database import Tx
    from shared.messages.base import Message, encode, subject_of
    from shared.messaging import Messaging
    from shared.relay import Relay

    links: list[Messaging] = []
    init = Relay.__init__

    def remembering(self: Relay, database: Any, messaging: Messaging, metrics: Any) -> None:
        links.append(messaging)
        init(self, database, messaging, metrics)

    async def add_many(_: Tx, messages: Iterable[Message]) -> None:
        for message in messages:
            headers = {"Nats-Msg-Id": str(message.message_id)}
            await links[0].js.publish(subject_of(message), encode(message), headers=headers)

    async def add(tx: Tx, message: Message) -> None:
        await add_many(tx, [message])

    _put(Relay, "__init__", remembering)
    _put(outbox, "add", add)
    _put(outbox, "add_many", add_many)


def effects_without_guard() -> None:
    """Amounts are posted without looking at what has been posted already."""
    from services.sla import repository

    known_of = repository.known_of

    async def forgetful(*arguments: Any) -> dict[repository.Key, repository.Known]:
        return {key: (timeline, told, {}) for key, (timeline, told, _) in (await known_of(*arguments)).items()}

    _put(repository, "known_of", forgetful)


def random_notification_key() -> None:
    """Each attempt bears a key of its own."""
    from services.notify import writing
    from shared.ids import new_id

    def fresh(*_: Any) -> UUID:
        return new_id()

    _put(writing, "derived_id", fresh)


def timer_marked_after_effect() -> None:
    """Effects are committed first; that they have happened, in a transaction of its own. Now and then the process ends between them, where
    amounts have been posted."""
    from services.sla import repository
    from shared.database import Tx

    keep, post = repository.keep, repository.post
    posted = 0  # transactions that have
    pending: set[asyncio.Task[None]] = set()

    async def posting(tx: Tx, tenant_id: UUID, rows: Sequence[repository.Row]) -> None:
        await post(tx, tenant_id, rows)
        tx.kept["has posted"] = bool(rows) or tx.kept.get("has posted", False)

    async def afterwards(tx: Tx, cases: Sequence[repository.Rest], announced: Any) -> None:
        await keep(tx, [], announced)
        has_posted = tx.kept.get("has posted", False)

        async def mark() -> None:
            if cases:
                async with tx.database.worker_tx(*sorted({case.tenant_id for case in cases})) as later:
                    await keep(later, cases, [])

        def committed() -> None:
            nonlocal posted
            posted += has_posted
            if posted == ENDS_AFTER:
                os._exit(137)
            task = asyncio.get_running_loop().create_task(mark())
            pending.add(task)
            task.add_done_callback(pending.discard)

        tx.after_commit(committed)

    _put(repository, "post", posting)
    _put(repository, "keep", afterwards)


def tenant_predicate_removed() -> None:
    """A query asks for everybody's endpoints; row-level security, which would have stopped it, has been taken off the table."""
    from services.notify import repository

    repository.ENDPOINTS = repository.ENDPOINTS.replace("tenant_id = $1", "$1::uuid IS NOT NULL")
    assert "tenant_id = $1" not in repository.ENDPOINTS


def events_counted() -> None:
    """Sums grow with everything that is told of a case, not with cases."""
    from services.reporting import making
    from services.reporting.domain.rollups import differences

    def counting(changes: Any) -> Any:
        return differences((None, after) for _, after in changes)

    _put(making, "differences", counting)


FAULTS: Final[dict[str, tuple[str, Callable[[], None]]]] = {
    "no inbox check": ("routing", without_inbox_check),
    "ack before commit": ("sla", ack_before_commit),
    "publish instead of outbox": ("routing", publish_instead_of_outbox),
    "effects without the guard": ("sla", effects_without_guard),
    "random notification key": ("notify", random_notification_key),
    "timer marked after effect": ("sla", timer_marked_after_effect),
    "tenant predicate removed": ("notify", tenant_predicate_removed),
    "events counted": ("reporting", events_counted),
}
"""By name: the service that has it, and how it is put in."""


def main(fault: str, service: str) -> None:
    from services.cli.serve import serve

    FAULTS[fault][1]()
    serve(service)  # type: ignore[arg-type]  # one of the five


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

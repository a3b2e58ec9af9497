"""The outbox: a message is added in the transaction that makes it true, and published by the relay afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from uuid import UUID

import msgspec

from shared import handover
from shared.database import Tx
from shared.errors import TooLargeError
from shared.messages.base import Message, encode, subject_of
from shared.telemetry import traceparent

ADD = """
INSERT INTO outbox (tenant_id, message_id, subject, body)
VALUES ($1, $2, $3, $4)
    ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING
RETURNING id, message_id"""

ADD_MANY = """
INSERT INTO outbox (tenant_id, message_id, subject, body)
SELECT *
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[])
    ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING
RETURNING id, message_id"""

MAX_BODY = 900_000  # bytes; NATS takes 1 MiB with headers, and what it refuses would block what follows

Row = tuple[UUID, UUID, str, bytes]


async def add(tx: Tx, message: Message) -> None:
    """Tell `message` to the other services if, and only if, the transaction commits.

    What one transaction adds is published in that order, after whatever was committed before; transactions under way at one moment have no
    order among them. A message whose id is in the outbox already is not added again: the same fact bears the same id. TooLargeError for one
    that no stream would take.

    They are collected, and stored in one statement right before the commit.
    """
    await add_many(tx, (message,))


async def add_many(tx: Tx, messages: Iterable[Message]) -> None:
    """As `add`, for several."""
    rows = [_row(_traced(message)) for message in messages]
    if rows:
        tx.at_the_end(_store, for_all=True).extend(rows)


async def store_now(tx: Tx) -> None:
    """Store what was told so far: for a transaction that goes on to ask how far the outbox has come."""
    await tx.finish()


def take_back(tx: Tx) -> list[Row]:
    """Return what was told so far, for a statement that stores it along with something else, and then says `stored`."""
    return tx.take_back(_store)


def columns(rows: Sequence[Row]) -> tuple[list[UUID], list[UUID], list[str], list[bytes]]:
    """The arguments of such a statement, as those of `ADD_MANY`."""
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows]


async def _store(tx: Tx, rows: Sequence[Row]) -> None:
    if len(rows) == 1:
        found = await tx.fetch(ADD, *rows[0])
    else:
        found = await tx.fetch(ADD_MANY, *columns(rows))
    stored(tx, rows, [(row["id"], row["message_id"]) for row in found])


def stored(tx: Tx, rows: Sequence[Row], found: Sequence[tuple[int, UUID]]) -> None:
    """Have the relay know of rows that were stored, after the commit, with the ids that they got."""
    if not found:
        return
    added = tx.database.outbox_added
    # Where one was there already, which id is whose is not plain: then the relay reads the table.
    if [message_id for _, message_id in found] == [message_id for _, message_id, _, _ in rows]:
        tx.after_commit(partial(added.give, [_added(row, id_) for row, (id_, _) in zip(rows, found, strict=True)]))
    else:
        tx.after_commit(added.set)


def _added(row: Row, row_id: int) -> handover.Row:
    tenant_id, message_id, subject, body = row
    return handover.Row(tenant_id, row_id, message_id, subject, body)


def _row(message: Message) -> Row:
    return message.tenant_id, message.message_id, subject_of(message), _body(message)


def _body(message: Message) -> bytes:
    body = encode(message)
    if len(body) > MAX_BODY:
        raise TooLargeError(
            f"What is to be told to the other services takes {len(body)} bytes; at most {MAX_BODY} fit."
        )
    return body


def _traced(message: Message) -> Message:
    current = traceparent()
    if message.traceparent is not None or current is None:
        return message
    return msgspec.structs.replace(message, traceparent=current)

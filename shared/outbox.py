"""The outbox: a message is added in the transaction that makes it true, and published by the relay afterwards."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shared.database import Tx
from shared.messages.base import Message, encode, subject_of
from shared.telemetry import traceparent

ADD = """
INSERT INTO outbox (tenant_id, message_id, subject, body)
VALUES ($1, $2, $3, $4)
    ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING"""

ADD_MANY = """
INSERT INTO outbox (tenant_id, message_id, subject, body)
SELECT *
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[])
    ON CONFLICT ON CONSTRAINT outbox_message_once DO NOTHING"""


async def add(tx: Tx, message: Message) -> None:
    """Tell `message` to the other services if, and only if, the transaction commits.

    Messages of one service are published in the order in which they were added. One whose id is in the outbox already is not added again:
    the same fact bears the same id.
    """
    message = _traced(message)
    await tx.execute(ADD, message.tenant_id, message.message_id, subject_of(message), encode(message))
    _wake(tx)


async def add_many(tx: Tx, messages: Iterable[Message]) -> None:
    """As `add`, in one statement."""
    traced = [_traced(message) for message in messages]
    if not traced:
        return
    await tx.execute(
        ADD_MANY,
        [message.tenant_id for message in traced],
        [message.message_id for message in traced],
        [subject_of(message) for message in traced],
        [encode(message) for message in traced],
    )
    _wake(tx)


def _traced(message: Message) -> Message:
    current = traceparent()
    if message.traceparent is not None or current is None:
        return message
    return msgspec.structs.replace(message, traceparent=current)


def _wake(tx: Tx) -> None:
    tx.after_commit(tx.database.outbox_added.set)

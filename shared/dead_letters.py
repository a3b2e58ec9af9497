"""Messages that were given up: list, show, retry, discard.

The operator's routes under /v1/ops/<service>/dead-letters, and the loop that retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import structlog
from litestar import get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter

from shared.auth import Caller, requires
from shared.consuming import Consumer
from shared.database import Database, Record, Tx
from shared.errors import ConflictError, NotFoundError
from shared.messages.base import LIVE
from shared.telemetry import describe, error_text

LIST = """
SELECT tenant_id, dead_letter_id, consumer, message_key, subject, body_sha256, reason, error_class, error, attempts, state, first_at,
       dead_at, resolved_at, resolved_by
  FROM dead_letter
 WHERE ($1::text = 'any' OR state = $1) AND ($2::uuid IS NULL OR tenant_id = $2) AND ($3::uuid IS NULL OR dead_letter_id < $3)
 ORDER BY dead_letter_id DESC
 LIMIT $4"""

SHOW = """
SELECT tenant_id, dead_letter_id, consumer, message_key, subject, body_sha256, reason, error_class, error, attempts, state, first_at,
       dead_at, resolved_at, resolved_by, body
  FROM dead_letter
 WHERE dead_letter_id = $1"""

RESOLVE = """
UPDATE dead_letter
   SET state = $2, resolved_at = clock_timestamp(), resolved_by = $3
 WHERE dead_letter_id = $1 AND state = 'dead'
RETURNING tenant_id"""

RETRY_ALL = """
UPDATE dead_letter
   SET state = 'retry', resolved_at = clock_timestamp(), resolved_by = $1
 WHERE state = 'dead' AND ($2::uuid IS NULL OR tenant_id = $2)"""

# It is dead again before it is tried, so that one that kills its process is tried once and not at every start.
TAKE_ONE = """
UPDATE dead_letter
   SET state = 'dead', attempts = attempts + 1, resolved_at = NULL
 WHERE (tenant_id, dead_letter_id) = (
       SELECT tenant_id, dead_letter_id FROM dead_letter
        WHERE state = 'retry' ORDER BY dead_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING tenant_id, dead_letter_id, consumer, subject, body"""

DONE = """
UPDATE dead_letter
   SET state = 'done', resolved_at = clock_timestamp()
 WHERE tenant_id = $1 AND dead_letter_id = $2"""

STILL_DEAD = """
UPDATE dead_letter
   SET error_class = $3, error = $4, dead_at = clock_timestamp()
 WHERE tenant_id = $1 AND dead_letter_id = $2"""

COUNT = """
SELECT count(*)
  FROM dead_letter
 WHERE state = 'dead'"""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message given up, without its body."""

    tenant_id: UUID
    dead_letter_id: UUID
    consumer: str
    message_key: str
    subject: str
    body_sha256: str
    reason: str
    error_class: str
    error: str
    attempts: int
    state: Literal["dead", "retry", "done", "discarded"]
    first_at: datetime
    dead_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A message given up; `body` is its text, or its bytes in hex where they are no text."""

    letter: DeadLetter
    body: str


class DeadLetterPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[DeadLetter]
    next_cursor: UUID | None


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    count: int


async def list_letters(
    tx: Tx, state: str = "dead", tenant_id: UUID | None = None, before: UUID | None = None, limit: int = 100
) -> list[DeadLetter]:
    """Newest first; `tx` is a worker transaction, of any tenant."""
    return [_letter(row) for row in await tx.fetch(LIST, state, tenant_id, before, limit)]


async def show_letter(tx: Tx, dead_letter_id: UUID) -> DeadLetterView:
    row = await tx.fetchrow(SHOW, dead_letter_id)
    if row is None:
        raise NotFoundError()
    try:
        body = bytes(row["body"]).decode()
    except UnicodeDecodeError:
        body = bytes(row["body"]).hex()
    return DeadLetterView(letter=_letter(row), body=body)


async def count_letters(tx: Tx) -> int:
    """Return how many messages are given up and not resolved, of all tenants."""
    count: int = await tx.fetchval(COUNT)
    return count


async def retry_letter(tx: Tx, dead_letter_id: UUID, by: str) -> None:
    """Have the message applied again; the service's loop does it within a second or two."""
    await _resolve(tx, dead_letter_id, "retry", by)


async def discard_letter(tx: Tx, dead_letter_id: UUID, by: str) -> None:
    """Give the message up for good. The row stays until its retention has passed."""
    await _resolve(tx, dead_letter_id, "discarded", by)


async def _resolve(tx: Tx, dead_letter_id: UUID, state: str, by: str) -> None:
    if await tx.fetchval(RESOLVE, dead_letter_id, state, by) is None:
        row = await tx.fetchrow(SHOW, dead_letter_id)
        if row is None:
            raise NotFoundError()
        raise ConflictError(f"The message is not dead but {row['state']}.")


def _letter(row: Record) -> DeadLetter:
    return DeadLetter(**{name: row[name] for name in DeadLetter.__struct_fields__})


async def retry_round(database: Database, consumers: Mapping[str, Consumer]) -> int:
    """Apply what is to be retried, each in a transaction of its own, and return how many there were."""
    count = 0
    while True:
        async with database.worker_tx(LIVE) as tx:
            row = await tx.fetchrow(TAKE_ONE)
        if row is None:
            return count
        count += 1
        try:
            consumer = consumers[row["consumer"]]
            await consumer.apply_again(row["tenant_id"], row["subject"], bytes(row["body"]))
        except Exception as error:
            structlog.get_logger().warning(
                "dead_letter_failed_again", dead_letter_id=row["dead_letter_id"], **describe(error)
            )
            async with database.worker_tx(row["tenant_id"]) as tx:
                await tx.execute(
                    STILL_DEAD, row["tenant_id"], row["dead_letter_id"], type(error).__name__, error_text(error)[:500]
                )
        else:
            async with database.worker_tx(row["tenant_id"]) as tx:
                await tx.execute(DONE, row["tenant_id"], row["dead_letter_id"])


def routes(service: str, database: Database, wake: Callable[[], None]) -> Sequence[HTTPRouteHandler]:
    """The operator's routes of one service; `wake` starts a round of retries."""
    base = f"/v1/ops/{service}/dead-letters"

    @get(base, guards=[requires("operator")], operation_id=f"list_{service}_dead_letters")
    async def list_dead_letters(
        in_state: Annotated[
            Literal["dead", "retry", "done", "discarded", "any"], QueryParameter(name="state")
        ] = "dead",
        tenant_id: Annotated[UUID | None, QueryParameter(name="tenant_id")] = None,
        cursor: Annotated[UUID | None, QueryParameter(name="cursor")] = None,
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=500)] = 100,
    ) -> DeadLetterPage:
        """Messages that were given up, newest first."""
        async with database.worker_tx(LIVE) as tx:
            items = await list_letters(tx, in_state, tenant_id, cursor, limit)
        return DeadLetterPage(items=items, next_cursor=items[-1].dead_letter_id if len(items) == limit else None)

    @get(base + "/{dead_letter_id:uuid}", guards=[requires("operator")], operation_id=f"show_{service}_dead_letter")
    async def show_dead_letter(dead_letter_id: FromPath[UUID]) -> DeadLetterView:
        """One of them, with its body."""
        async with database.worker_tx(LIVE) as tx:
            return await show_letter(tx, dead_letter_id)

    @post(
        base + "/{dead_letter_id:uuid}/retry",
        guards=[requires("operator")],
        status_code=202,
        operation_id=f"retry_{service}_dead_letter",
    )
    async def retry_dead_letter(dead_letter_id: FromPath[UUID], caller: NamedDependency[Caller]) -> Retried:
        """Have it applied again, soon."""
        async with database.worker_tx(LIVE) as tx:
            await retry_letter(tx, dead_letter_id, caller.actor_id)
            tx.after_commit(wake)
        return Retried(count=1)

    @post(base + "/retry", guards=[requires("operator")], status_code=202, operation_id=f"retry_{service}_dead_letters")
    async def retry_dead_letters(
        caller: NamedDependency[Caller],
        tenant_id: Annotated[UUID | None, QueryParameter(name="tenant_id")] = None,
    ) -> Retried:
        """Have all that are dead applied again, or those of one tenant."""
        async with database.worker_tx(LIVE) as tx:
            tag = await tx.execute(RETRY_ALL, caller.actor_id, tenant_id)
            tx.after_commit(wake)
        return Retried(count=int(tag.rpartition(" ")[2]))

    @post(
        base + "/{dead_letter_id:uuid}/discard",
        guards=[requires("operator")],
        status_code=202,
        operation_id=f"discard_{service}_dead_letter",
    )
    async def discard_dead_letter(dead_letter_id: FromPath[UUID], caller: NamedDependency[Caller]) -> Retried:
        """Give it up for good."""
        async with database.worker_tx(LIVE) as tx:
            await discard_letter(tx, dead_letter_id, caller.actor_id)
        return Retried(count=1)

    return [list_dead_letters, show_dead_letter, retry_dead_letter, retry_dead_letters, discard_dead_letter]


__all__ = [
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetterView",
    "discard_letter",
    "list_letters",
    "retry_letter",
    "retry_round",
    "routes",
    "show_letter",
]

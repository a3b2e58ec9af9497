"""Removes what its retention has passed, in small batches, so that no statement holds anybody up."""

from __future__ import annotations

from shared.database import Database
from shared.messages.base import LIVE
from shared.settings import ServiceSettings
from shared.telemetry import Metrics

ROWS = 1000
REST_SECONDS = 30.0

# An index is searched for an instant that stands still during the statement; with `clock_timestamp()` each look read the whole table.
# Rows of the outbox go by age, never at the acknowledgement, and never unpublished: until then they refill a lost stream.
PRUNE_OUTBOX = """
DELETE FROM outbox
 WHERE (tenant_id, id) IN (
       SELECT tenant_id, id FROM outbox
        WHERE created_at < statement_timestamp() - make_interval(days => $1) AND published_at IS NOT NULL
        ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)"""

PRUNE_INBOX = """
DELETE FROM inbox
 WHERE (tenant_id, consumer, message_id) IN (
       SELECT tenant_id, consumer, message_id FROM inbox
        WHERE received_at < statement_timestamp() - make_interval(days => $1)
        ORDER BY received_at LIMIT $2 FOR UPDATE SKIP LOCKED)"""

PRUNE_IDEMPOTENCY = """
DELETE FROM idempotency_key
 WHERE (tenant_id, key) IN (
       SELECT tenant_id, key FROM idempotency_key
        WHERE created_at < statement_timestamp() - make_interval(days => $1)
        ORDER BY created_at LIMIT $2)"""

PRUNE_ATTEMPTS = """
DELETE FROM attempt
 WHERE (tenant_id, consumer, message_key) IN (
       SELECT tenant_id, consumer, message_key FROM attempt
        WHERE last_at < statement_timestamp() - make_interval(days => $1)
        ORDER BY last_at LIMIT $2 FOR UPDATE SKIP LOCKED)"""

PRUNE_DEAD_LETTERS = """
DELETE FROM dead_letter
 WHERE (tenant_id, dead_letter_id) IN (
       SELECT tenant_id, dead_letter_id FROM dead_letter
        WHERE dead_at < statement_timestamp() - make_interval(days => $1) AND state IN ('done', 'discarded')
        ORDER BY dead_at LIMIT $2 FOR UPDATE SKIP LOCKED)"""


async def prune(database: Database, metrics: Metrics) -> int:
    """Remove at most a batch from each table; return how many rows went."""
    total = 0
    for table, statement, days in _work(database.settings):
        async with database.worker_tx(LIVE) as tx:
            tag = await tx.execute(statement, days, ROWS)
        count = int(tag.rpartition(" ")[2])
        if count:
            metrics.housekeeping_rows.labels(database.service, table).inc(count)
        total += count
    return total


def _work(settings: ServiceSettings) -> list[tuple[str, str, int]]:
    return [
        ("outbox", PRUNE_OUTBOX, settings.outbox_retention_days),
        ("inbox", PRUNE_INBOX, settings.inbox_retention_days),
        ("idempotency_key", PRUNE_IDEMPOTENCY, settings.idempotency_retention_days),
        ("attempt", PRUNE_ATTEMPTS, settings.inbox_retention_days),
        ("dead_letter", PRUNE_DEAD_LETTERS, settings.dead_letter_retention_days),
    ]

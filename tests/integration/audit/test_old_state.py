"""What housekeeping has removed is not missed: the same state, a week later, and years later."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import msgspec
import pytest

from services.audit import times, transport
from services.audit.look import connect
from services.audit.streams import SERVICES
from tests.integration.audit.conftest import Evidence, State

LIVE = "tenant_id IN (SELECT tenant_id FROM intake.tenant WHERE NOT sandbox)"

# In a live tenant's time, as it is written by notify and reporting; and what no default of a column writes.
LATER = (
    f"UPDATE notify.delivery_attempt SET at = at - $1::interval WHERE {LIVE}",
    f"UPDATE notify.delivery SET due_at = due_at - $1::interval, at = at - $1::interval, sent_at = sent_at - $1::interval WHERE {LIVE}",
    f"UPDATE notify.event SET at = at - $1::interval WHERE {LIVE}",
    f"UPDATE reporting.delivery SET at = at - $1::interval WHERE {LIVE}",
    "UPDATE routing.clock_operation SET settled_at = settled_at - $1::interval",
    "UPDATE sla.advance SET settled_at = settled_at - $1::interval",
)

# The live time goes on and is told all the while.
TICKED = (
    "UPDATE routing.outbox SET created_at = now(), published_at = now() WHERE subject LIKE '%.00000000-%.clock.ticked'"
)

WEEKS = (
    *(f"DELETE FROM {service}.outbox WHERE created_at < now() - interval '7 days'" for service in SERVICES),
    *(f"DELETE FROM {service}.idempotency_key" for service in SERVICES),
    "DELETE FROM sla.inbox WHERE received_at < now() - interval '14 days'",
    "DELETE FROM intake.receipt",
    "DELETE FROM notify.settlement",
    f"DELETE FROM notify.budget WHERE {LIVE}",
    f"DELETE FROM notify.day_budget WHERE {LIVE}",
)
YEARS = (
    "DELETE FROM notify.delivery_attempt",
    "DELETE FROM notify.delivery WHERE ended_at IS NOT NULL",
    "DELETE FROM notify.event e WHERE NOT EXISTS (SELECT FROM notify.delivery d WHERE d.event_id = e.event_id)",
    "DELETE FROM notify.budget",
    "DELETE FROM notify.day_budget",
)


@pytest.mark.parametrize("days", [8, 1200])
async def test_what_housekeeping_has_removed_is_not_missed(state: State, papers: Evidence, days: int) -> None:
    age = timedelta(days=days)
    connection = await connect(state.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL session_replication_role = replica")
        await _grow_older(connection, age)
        for statement in (*WEEKS, *(YEARS if days > 1095 else ())):
            await connection.execute(statement)
        papers.journal[:] = [msgspec.structs.replace(line, at=line.at - age) for line in papers.journal]
        papers.streams = {
            service: msgspec.structs.replace(
                stream, messages=[each for each in stream.messages if each.subject == transport.LIVE_TICK]
            )
            for service, stream in papers.streams.items()
        }
        if days > 1095:
            papers.record.clear()
        assert await papers.look(connection) == []
        await transaction.rollback()
    finally:
        await connection.close()


async def _grow_older(connection: asyncpg.Connection, age: timedelta) -> None:
    columns = {(row["table"], row["column"]) for row in await connection.fetch(times.COLUMNS, list(SERVICES))}
    columns |= {(table, end) for table, _, end in times.ENDS}
    columns |= {(f"{service}.tenant", "created_at") for service in SERVICES}
    for table, column in columns:
        await connection.execute(f"UPDATE {table} SET {column} = {column} - $1::interval", age)
    for statement in LATER:
        await connection.execute(statement, age)
    await connection.execute(TICKED)

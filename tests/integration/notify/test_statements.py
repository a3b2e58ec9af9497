"""How notify's statements find their rows."""

from __future__ import annotations

import asyncpg
import pytest

from services.notify import repository
from tests.infra import Database
from tests.plans import found_by, read_widely

KEYS = {
    "CASE_SEQ": {"entry_pkey"},
    "SUPPRESS_WITHDRAWN": {"delivery_unsent", "event_pkey", "delivery_queue_pkey"},
    "DELIVERY": {"delivery_pkey", "event_pkey"},
    "STATES": {"delivery_pkey"},
    "DELIVERY_STATE": {"delivery_pkey"},
    "CASE_DELIVERIES": {"delivery_of_case", "event_pkey"},
    "RETRY": {"delivery_pkey"},
    "CLAIM": {"delivery_queue_due", "delivery_queue_pkey"},
    "LOAD": {
        "delivery_queue_pkey",
        "delivery_pkey",
        "event_pkey",
        "provider_one_active",
        "endpoint_pkey",
        "delivery_attempt_pkey",
    },
    "BEGIN_ATTEMPT": {"delivery_pkey", "delivery_attempt_pkey"},
    "RECORD": {"delivery_queue_pkey", "delivery_attempt_pkey", "delivery_pkey"},
    "END": {"delivery_queue_pkey", "delivery_pkey"},
    "CHANGE": {"delivery_pkey"},
    "FIND_BY_REF": {"delivery_by_provider_ref"},
    "PRUNE_DELIVERIES": {"delivery_listed", "delivery_pkey"},
    "PRUNE_EVENTS": {"event_created_at", "delivery_once", "event_pkey"},
}


@pytest.mark.parametrize("name", [*KEYS, "ADD_ENTRIES", "TIMELINES", "ADD_DELIVERIES", "QUEUE_STATE"])
async def test_rows_are_found_by_their_keys_also_where_nobody_has_counted_them(database: Database, name: str) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    statement = getattr(repository, name)
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "notify"}, statement_cache_size=0)
    try:
        assert await read_widely(connection, statement) == set()
        if name in KEYS:
            assert await found_by(connection, statement) == KEYS[name]
    finally:
        await connection.close()

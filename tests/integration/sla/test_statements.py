"""How sla's statements find their rows."""

from __future__ import annotations

import asyncpg
import pytest

from services.sla import repository
from tests.infra import Database
from tests.plans import found_by, read_widely


@pytest.mark.parametrize(
    "name", ["ADD_ENTRIES", "KNOWN", "CASE", "KEEP", "FAIL", "FORGET_WAKE", "WITHDRAW", "SET_POSITION", "POST"]
)
async def test_a_case_is_found_by_its_key_also_where_nobody_has_counted_the_rows(database: Database, name: str) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "sla"}, statement_cache_size=0)
    try:
        statement = getattr(repository, name)
        assert await read_widely(connection, statement) <= {"tenant"}  # whose key is the tenant alone
        keys = {"timeline_entry_pkey", "announcement_pkey", "ledger_position_pkey", "watched_case_pkey"}
        keys |= {"tenant_pkey", "tick_pkey"}
        assert await found_by(connection, statement) <= keys
    finally:
        await connection.close()


async def test_announcements_are_listed_in_the_order_of_an_index(root: asyncpg.Connection) -> None:
    assert await found_by(root, repository.ANNOUNCEMENTS) == {"announcement_newest"}

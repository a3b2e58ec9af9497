"""The servers that all other tests share."""

from __future__ import annotations

import asyncpg
import nats

from tests.infra import Database, Infra
from tests.waiting import PATIENCE


async def test_the_session_has_a_database_and_a_broker(infra: Infra, empty_database: Database) -> None:
    connection = await asyncpg.connect(empty_database.dsn)
    assert await connection.fetchval("SELECT current_database()") == empty_database.name
    await connection.close()
    client = await nats.connect(infra.nats_url("operator"))
    assert client.is_connected
    await client.close()


async def test_streams_of_one_test_are_gone_in_the_next(streams: Infra) -> None:
    for _ in range(2):
        client = await nats.connect(streams.nats_url("operator"))
        js = client.jetstream(timeout=PATIENCE)
        assert await js.streams_info() == []
        await client.close()

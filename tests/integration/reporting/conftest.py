"""The reporting service on real servers, and the four services that tell it things, played by their own NATS users."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.reporting.app import build
from shared.service import Service
from tests.infra import Database, Infra, service_settings
from tests.integration.reporting.told import Tellers


@pytest.fixture
async def tellers(streams: Infra) -> AsyncIterator[Tellers]:
    tellers = Tellers(streams)
    await tellers.connect()
    yield tellers
    await tellers.close()


@pytest.fixture
async def root(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for looking on."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "reporting"})
    yield connection
    await connection.close()


@pytest.fixture
async def service(tellers: Tellers, database: Database) -> AsyncIterator[Service]:
    running = build(service_settings(tellers.infra, database, "reporting"))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def idle(infra: Infra, database: Database) -> AsyncIterator[Service]:
    """The service with its database open and nothing running: tests say what happens when."""
    made = build(service_settings(infra, database, "reporting"))
    await made.runtime.db.open()
    yield made
    await made.runtime.db.close()

"""The reporting service on real servers, and the four services that tell it things, played by their own NATS users."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.reporting.app import build
from shared.service import Service
from tests.infra import Database, Infra, empty_tables, service_settings
from tests.integration.one_service import database, streams, tellers  # noqa: F401 - fixtures
from tests.integration.reporting.told import Tellers


@pytest.fixture(scope="module")
async def root(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for looking on."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "reporting"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def running(tellers: Tellers, database: Database) -> AsyncIterator[Service]:
    running = build(service_settings(tellers.infra, database, "reporting"))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(scope="module")
async def resting(infra: Infra, database: Database) -> AsyncIterator[Service]:
    made = build(service_settings(infra, database, "reporting"))
    await made.runtime.db.open()
    yield made
    await made.runtime.db.close()


@pytest.fixture
async def idle(resting: Service, root: asyncpg.Connection) -> Service:
    """The service with its database open and nothing running: tests say what happens when."""
    await empty_tables(root, "reporting")
    return resting


@pytest.fixture
async def service(running: Service, root: asyncpg.Connection) -> Service:
    """The service, which knows nobody."""
    await empty_tables(root, "reporting")
    return running

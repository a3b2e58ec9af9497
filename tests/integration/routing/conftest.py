"""Routing on real servers; intake, sla and notify are played by their own NATS users."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.routing.app import build
from tests.infra import Database, empty_tables, service_settings
from tests.integration.one_service import database, streams, tellers  # noqa: F401 - fixtures
from tests.integration.reporting.told import Tellers
from tests.integration.routing.world import World

MASTER_KEY = base64.b64encode(b"routing's tests, thirty-two byte").decode()


@pytest.fixture(scope="module")
async def root(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for looking on."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "routing"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def running(tellers: Tellers, database: Database, root: asyncpg.Connection) -> AsyncIterator[World]:
    environ = {**service_settings(tellers.infra, database, "routing"), "RECOURSE_MASTER_KEY": MASTER_KEY}
    service = build(environ)
    await service.start()
    world = World(service, tellers, root)
    try:
        yield world
    finally:
        await world.http.aclose()
        await service.stop()


@pytest.fixture
async def world(running: World) -> World:
    """A running routing that knows nobody."""
    await empty_tables(running.root, "routing", keep=("live_tick",))
    return running

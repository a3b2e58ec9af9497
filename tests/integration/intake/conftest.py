"""intake on real servers, with its public edges: HTTP, SMTP, NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.intake.app import build, ensure_operator
from shared.service import Service
from tests.infra import Database, Infra, empty_tables, service_settings
from tests.integration.intake.world import MASTER_KEY, World, client_of
from tests.integration.one_service import database, streams  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
async def root(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for looking on."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "intake"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def environ(infra: Infra, database: Database) -> dict[str, str]:
    return {
        **service_settings(infra, database, "intake"),
        "RECOURSE_MASTER_KEY": MASTER_KEY,
        "RECOURSE_SMTP_PORT": "0",
        "RECOURSE_IMPORT_IDLE_SECONDS": "0.1",
        "RECOURSE_IMPORT_ROWS": "20",
    }


@pytest.fixture(scope="module")
async def service(streams: Infra, environ: dict[str, str]) -> AsyncIterator[Service]:
    running = build(environ)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture(scope="module")
async def running(service: Service) -> AsyncIterator[World]:
    key = await ensure_operator(service.runtime.db)
    assert key is not None
    async with client_of(service) as http:
        yield World(service, http, key)


@pytest.fixture
async def world(running: World, root: asyncpg.Connection) -> World:
    """The service with its operator and nothing else, and what it takes to make tenants and call it."""
    await empty_tables(root, "intake", keep=("credential",))
    return running

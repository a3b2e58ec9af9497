"""intake on real servers, with its public edges: HTTP, SMTP, NATS."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.intake.app import build, ensure_operator
from shared.service import Service
from tests.infra import Database, Infra, service_settings
from tests.integration.intake.world import MASTER_KEY, World, client_of


@pytest.fixture
async def root(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection, for looking on."""
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "intake"})
    yield connection
    await connection.close()


@pytest.fixture
def environ(infra: Infra, database: Database) -> dict[str, str]:
    return {
        **service_settings(infra, database, "intake"),
        "RECOURSE_MASTER_KEY": MASTER_KEY,
        "RECOURSE_SMTP_PORT": "0",
        "RECOURSE_IMPORT_IDLE_SECONDS": "0.1",
        "RECOURSE_IMPORT_ROWS": "20",
    }


@pytest.fixture
async def service(streams: Infra, environ: dict[str, str]) -> AsyncIterator[Service]:
    running = build(environ)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def world(service: Service) -> AsyncIterator[World]:
    """The service with its operator, and what it takes to make tenants and call it."""
    key = await ensure_operator(service.runtime.db)
    assert key is not None
    async with client_of(service) as http:
        yield World(service, http, key)

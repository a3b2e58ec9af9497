"""What every test may ask for: the servers, and a database of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.infra import Database, Infra, a_database, clear_streams, create_database, drop_database, running_infra

MEMORY = "/dev/shm"
ENOUGH_BYTES = 4 * 1024**3

# How long an example takes depends on what else the machine does: nothing is asserted about it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Keep the servers' files and every `tmp_path` in memory where there is room: nothing here outlives its test.

    The servers still write and sync as they always do; it only costs less. `TMPDIR` in the environment overrides it.
    """
    if "TMPDIR" not in os.environ and Path(MEMORY).is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
        os.environ["TMPDIR"] = tempfile.tempdir = MEMORY


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A test that sets up logging, onto a stream that is closed after it, does so for itself alone."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def infra() -> Iterator[Infra]:
    """PostgreSQL and NATS, one pair for the session; under xdist one for each worker."""
    with running_infra(os.environ.get("INFRA", "embedded")) as servers:
        yield servers


@pytest.fixture(scope="session")
def migrated_template(infra: Infra) -> str:
    """The name of a database with every service's schema, to be cloned."""
    from shared.migrations import migrate_all

    name = f"template_{uuid4().hex}"

    async def make() -> None:
        await migrate_all(await create_database(infra.postgres_dsn, name), infra.role_passwords)

    asyncio.run(make())
    return name


@pytest.fixture
async def database(infra: Infra, migrated_template: str) -> AsyncIterator[Database]:
    """A migrated and empty database for this test alone."""
    async with a_database(infra, migrated_template) as database:
        yield database


@pytest.fixture
async def empty_database(infra: Infra) -> AsyncIterator[Database]:
    """A database with nothing in it, for tests of migrations."""
    name = f"test_{uuid4().hex}"
    yield Database(name, await create_database(infra.postgres_dsn, name))
    await drop_database(infra.postgres_dsn, name)


@pytest.fixture
async def streams(infra: Infra) -> AsyncIterator[Infra]:
    """NATS without a stream, before and after this test."""
    await clear_streams(infra)
    yield infra
    await clear_streams(infra)

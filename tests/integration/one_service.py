"""Fixtures for tests that share one running service in each module: its database and the streams live as long as it does.

A `conftest.py` imports them by name and so puts them before those that every test has for itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.infra import Database, Infra, a_database, clear_streams
from tests.integration.reporting.told import Tellers


@pytest.fixture(scope="module")
async def database(infra: Infra, migrated_template: str) -> AsyncIterator[Database]:
    """One database for the tests of a module: each makes tenants of its own."""
    async with a_database(infra, migrated_template) as database:
        yield database


@pytest.fixture(scope="module")
async def streams(infra: Infra) -> AsyncIterator[Infra]:
    await clear_streams(infra)
    yield infra
    await clear_streams(infra)


@pytest.fixture(scope="module")
async def tellers(streams: Infra) -> AsyncIterator[Tellers]:
    """The other services, played by their own NATS users."""
    tellers = Tellers(streams)
    await tellers.connect()
    yield tellers
    await tellers.close()


__all__ = ["database", "streams", "tellers"]

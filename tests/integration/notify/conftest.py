"""notify on real servers, with the other services played by their own NATS users and real sinks at the far end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from tests.infra import Database, Infra, a_database, clear_streams, empty_tables
from tests.integration.notify.world import World, a_world
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
async def running(streams: Infra, database: Database) -> AsyncIterator[World]:
    tellers = Tellers(streams)
    await tellers.connect()
    async with a_world(streams, database, tellers) as world:
        await world.start()
        try:
            yield world
        finally:
            await world.stop()
            await tellers.close()


@pytest.fixture
async def world(running: World) -> World:
    """A running notify that knows nobody."""
    await empty_tables(running.root, "notify")
    running.forget()
    return running


@pytest.fixture
async def sms() -> AsyncIterator[SmsSink]:
    async with SmsSink().running() as sink:
        yield sink


@pytest.fixture
async def mail() -> AsyncIterator[EmailSink]:
    async with EmailSink().running() as sink:
        yield sink


@pytest.fixture
async def hook() -> AsyncIterator[WebhookSink]:
    async with WebhookSink().running() as sink:
        yield sink

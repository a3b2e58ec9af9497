"""notify on real servers, with the other services played by their own NATS users and real sinks at the far end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from tests.infra import Database, empty_tables
from tests.integration.notify.world import World, a_world
from tests.integration.one_service import database, streams, tellers  # noqa: F401 - fixtures
from tests.integration.reporting.told import Tellers


@pytest.fixture(scope="module")
async def running(tellers: Tellers, database: Database) -> AsyncIterator[World]:
    async with a_world(tellers.infra, database, tellers) as world:
        await world.start()
        try:
            yield world
        finally:
            await world.stop()


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

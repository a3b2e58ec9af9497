"""notify on real servers, with the other services played by their own NATS users and real sinks at the far end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from tests.infra import Database, Infra
from tests.integration.notify.world import World, a_world
from tests.integration.reporting.told import Tellers


@pytest.fixture
async def world(streams: Infra, database: Database) -> AsyncIterator[World]:
    """A running notify."""
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

"""Two services made of nothing but plumbing, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.infra import Database, Infra
from tests.stack import EFFECTS, Stack


@pytest.fixture
async def stack(streams: Infra, database: Database) -> AsyncIterator[Stack]:
    stack = Stack(streams, database)
    stack.root = await asyncpg.connect(database.dsn)
    for schema in ("intake", "sla"):
        await stack.root.execute(EFFECTS.format(schema=schema))
    try:
        yield stack
    finally:
        for service in stack.running:
            await service.stop()
        await stack.root.close()

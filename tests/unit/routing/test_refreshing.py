"""A case that is looked at while the database is away is no case that cannot be folded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest

from services.routing.refreshing import look_anew
from services.routing.repository.clocks import Due
from services.routing.writing import Desk
from shared.database import Database


class _Away:
    """A database whose connections are lost as soon as a transaction begins."""

    def __init__(self) -> None:
        self.asked = 0

    def worker_tx(self, _: Any) -> Any:
        self.asked += 1
        raise asyncpg.InterfaceError("connection is closed")


async def test_a_connection_that_is_lost_postpones_no_case() -> None:
    away = _Away()
    due = [Due(tenant_id=uuid4(), case_id=uuid4(), wake_at=datetime.now(UTC)) for _ in range(2)]
    with pytest.raises(asyncpg.InterfaceError):
        await look_anew(cast(Desk, None), cast(Database, away), due)
    assert away.asked == 1

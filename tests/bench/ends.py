"""When a complaint has come all the way: its fact is in reporting, with an assignment, a clock and a queued message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Struct

from services.demo.organisations import ORGANISATIONS
from tests.bench.load import Load

WHOLE: Final = tuple(each for each in ORGANISATIONS if each.slug in ("tcm-hospital", "training-school"))
"""Organisations by whose rules every complaint is assigned, starts a clock, and is acknowledged by a message."""

_LOOK_SECONDS: Final = 0.1

# Seen by PostgreSQL itself, in the transaction that completes the fact: looking from outside would add its own delay.
NOTE_ENDS: Final = """
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS bench.ended (case_id uuid PRIMARY KEY, at timestamptz NOT NULL);
CREATE OR REPLACE FUNCTION bench.note_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO bench.ended (case_id, at) VALUES (NEW.case_id, clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER note_end AFTER INSERT OR UPDATE ON reporting.fact FOR EACH ROW
    WHEN (NEW.counted -> 'measures' ? 'assigned' AND NEW.body ? 'runs' AND (NEW.counted -> 'totals')::text LIKE '%"messages:%')
    EXECUTE FUNCTION bench.note_end()"""

ENDED: Final = """
SELECT case_id, at
  FROM bench.ended
 WHERE case_id = ANY ($1::uuid[])"""

LEFT: Final = """
SELECT count(*) - (SELECT count(*) FROM bench.ended WHERE case_id = ANY ($1::uuid[]))
  FROM unnest($1::uuid[])"""


class _Receipt(Struct):
    id: UUID


class Ends:
    """Looks where complaints have come to."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def wait(self, cases: Sequence[UUID], seconds: float) -> dict[UUID, float]:
        """When each complaint's fact was whole, seconds since 1970, once all are. TimeoutError names how many are not."""
        until = time.monotonic() + seconds
        while left := await self._connection.fetchval(LEFT, list(cases)):
            if time.monotonic() > until:
                raise TimeoutError(f"{left} of {len(cases)} complaints have no whole fact after {seconds:.0f} s")
            await asyncio.sleep(_LOOK_SECONDS)
        rows = await self._connection.fetch(ENDED, list(cases))
        return {row["case_id"]: row["at"].timestamp() for row in rows}

    async def latencies(self, load: Load, seconds: float) -> list[float]:
        """From when each request was due to its whole fact."""
        cases = cases_of(load)
        ended = await self.wait(cases, seconds)
        return [ended[case] - due for case, due in zip(cases, load.due, strict=True)]


def cases_of(load: Load) -> list[UUID]:
    """The complaints that were stored; the load must have kept its answers."""
    return [msgspec.json.decode(body, type=_Receipt).id for body in load.bodies]


def span(ended: Iterable[float], load: Load) -> float:
    """Seconds from the first request to the last whole fact."""
    return max(ended) - min(load.due)


@asynccontextmanager
async def ends(superuser_dsn: str) -> AsyncIterator[Ends]:
    connection = await asyncpg.connect(superuser_dsn)
    try:
        await connection.execute(NOTE_ENDS)
        yield Ends(connection)
    finally:
        await connection.close()

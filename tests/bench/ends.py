"""When a complaint has come all the way: its fact is in reporting, with an assignment and clocks, and its message is queued."""

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

# Seen by PostgreSQL itself, in the transactions that get that far: looking from outside would add its own delay.
NOTE_ENDS: Final = """
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE IF NOT EXISTS bench.reached (case_id uuid, part text, at timestamptz NOT NULL, PRIMARY KEY (case_id, part));
CREATE OR REPLACE FUNCTION bench.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO bench.reached (case_id, part, at) VALUES (NEW.case_id, TG_ARGV[0], clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER note_fact AFTER INSERT OR UPDATE ON reporting.fact FOR EACH ROW
    WHEN (NEW.counted -> 'measures' ? 'assigned' AND NEW.body ? 'runs')
    EXECUTE FUNCTION bench.note('fact');
CREATE OR REPLACE TRIGGER note_message AFTER INSERT ON notify.delivery FOR EACH ROW
    WHEN (NEW.case_id IS NOT NULL)
    EXECUTE FUNCTION bench.note('message')"""

ENDED: Final = """
SELECT case_id, max(at) AS at
  FROM bench.reached
 WHERE case_id = ANY ($1::uuid[])
 GROUP BY case_id
HAVING count(*) = 2"""

LEFT: Final = """
SELECT 2 * cardinality($1::uuid[]) - count(*)
  FROM bench.reached
 WHERE case_id = ANY ($1::uuid[])"""


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
                raise TimeoutError(
                    f"{len(cases)} complaints: {left} facts or messages are missing after {seconds:.0f} s"
                )
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

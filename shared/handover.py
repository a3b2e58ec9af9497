"""From transactions to the relay of their process, in memory: rows of the outbox that need not be read, since they were written here.

The table stays the record. Whatever is not handed over, or given up here, the relay reads from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

MOST = 500  # rows kept for the relay; with more to come, it reads the table
MOST_BYTES = 4_000_000  # of their bodies, likewise
MISSED = 1000  # ids looked out for, one by one
EARLIER = 0  # no id: stands for whichever were added before the first that we know of


class Row(NamedTuple):
    """A row of the outbox, as far as the relay needs it."""

    tenant_id: UUID
    id: int
    message_id: UUID
    subject: str
    body: bytes


class Handover:
    """What the transactions of this process have added to the outbox since its relay last looked."""

    def __init__(self) -> None:
        self._added = asyncio.Event()
        self._rows: list[Row] = []
        self._bytes = 0
        self._in_table = True

    @property
    def in_table(self) -> bool:
        """Whether there may be rows that were not handed over, which the relay has to read."""
        return self._in_table

    def set(self) -> None:
        """Say that rows were added: after the commit."""
        self._in_table = True
        self._rows, self._bytes = [], 0
        self._added.set()

    def give(self, rows: Sequence[Row]) -> None:
        """Say that these rows were added: after the commit."""
        self._rows += rows
        self._bytes += sum(len(row.body) for row in rows)
        if self._in_table or len(self._rows) > MOST or self._bytes > MOST_BYTES:
            self.set()
        else:
            self._added.set()

    def look(self) -> None:
        """From now on rows are to be handed over. What was added until now is read: it is committed."""
        self._in_table = False
        self._rows, self._bytes = [], 0

    def take(self) -> list[Row]:
        """Return what was handed over, in the order of ids."""
        self._added.clear()
        rows, self._rows, self._bytes = self._rows, [], 0
        rows.sort(key=_id)
        return rows

    async def wait(self) -> None:
        """Return once something was added, at once if so."""
        await self._added.wait()


class Known:
    """The ids that the relay has come to know, and whether a smaller one may still come to light.

    Ids are given out in order, so what was committed before a row was added has smaller ones, in whichever process it was.
    As long as an id is missing, its row may stand in the table and has to be published first. Some never come: their
    transaction was rolled back, or the message was in the outbox already. That is certain once all transactions have ended
    that were under way when the id was missed.
    """

    def __init__(self) -> None:
        self._highest = 0
        self._missing = {EARLIER}
        self._doubted: set[int] = (
            set()
        )  # missing for so long that they await only the end of transactions before `_before`
        self._before = 0

    @property
    def is_complete(self) -> bool:
        """Whether no id below the highest is missing."""
        return not self._missing and not self._doubted

    def note(self, row_id: int) -> bool:
        """Note an id; return False for one that is known or no longer looked out for."""
        if row_id > self._highest:
            between = range(self._highest + 1, row_id) if self._highest else ()
            if len(self._missing) + len(between) > MISSED:
                self._missing = {EARLIER}
            else:
                self._missing.update(between)
            self._highest = row_id
            return True
        for ids in (self._missing, self._doubted):
            if row_id in ids:
                ids.remove(row_id)
                return True
        return False

    def settle(self, own: int, oldest: int) -> bool:
        """Stop looking out for ids whose transactions have ended; return whether there were any: then the table has to be read once more.

        Args:
            own: the id of a transaction that has begun since the last id was noted.
            oldest: the id of the oldest transaction that was under way then.
        """
        has_settled = bool(self._doubted) and oldest > self._before
        if has_settled:
            self._doubted = set()
        if self._missing and not self._doubted:
            self._doubted, self._missing, self._before = self._missing, set(), own
        return has_settled


def _id(row: Row) -> int:
    return row.id

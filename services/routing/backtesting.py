"""Back-tests: folding history twice is pure work, so it is shared out over processes, one a core."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from typing import Any

import msgspec

from shared.engine.calendar import CalendarBook
from shared.engine.rules import CompiledPolicy
from shared.policy.backtesting import Backtest, History, backtest, merged
from shared.policy.compiling import compile_policy
from shared.policy.schema import Policy
from shared.reference import book_of

AT_HAND = 64
"""So few cases are folded in this process: starting others takes longer."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What every share of one back-test needs: the draft, the versions that were live, and their calendars, as they are stored."""

    draft: dict[str, Any]
    settings: dict[str, Any]
    live: dict[int, tuple[dict[str, Any], dict[str, Any]]]  # version → document, settings
    zone: str | None
    policies: list[dict[str, Any]]  # rows of `shared.reference.book_of`
    published: list[dict[str, Any]]
    until: datetime


class Share(msgspec.Struct, frozen=True, kw_only=True):
    cases: list[History]


class _Ready(msgspec.Struct, frozen=True):
    draft: CompiledPolicy
    draft_calendars: CalendarBook
    live: dict[int, CompiledPolicy]
    live_calendars: CalendarBook


_ready: tuple[bytes, _Ready] | None = None
_share = msgspec.json.Decoder(Share)


def _prepare(job: Job) -> _Ready:
    live = {version: compile_policy(document, settings, version) for version, (document, settings) in job.live.items()}
    book = book_of(job.zone, job.policies, job.published)
    draft = compile_policy(job.draft, job.settings, max(live, default=0) + 1)
    current: Policy | None = live[max(live)].document if live else None
    document: Policy = draft.document
    same = current is not None and current.calendar == document.calendar
    return _Ready(draft, book if same else CalendarBook.of(document.calendar), live, book)


def fold_share(job: bytes, share: bytes) -> bytes:
    """One share of a back-test; runs in any process, and keeps what it compiled for the next share."""
    global _ready
    if _ready is None or _ready[0] != job:
        _ready = (job, _prepare(_rows(msgspec.json.decode(job, type=Job))))
    ready = _ready[1]
    until = msgspec.json.decode(job, type=_Until).until
    found = backtest(
        ready.draft, ready.draft_calendars, ready.live, ready.live_calendars, _share.decode(share).cases, until
    )
    return msgspec.json.encode(found)


class _Until(msgspec.Struct):
    until: datetime


def _rows(job: Job) -> Job:
    """JSON has no dates: put them back into the rows."""
    policies = [{**row, "published_at": datetime.fromisoformat(row["published_at"])} for row in job.policies]
    published = [
        {
            **row,
            "published_at": datetime.fromisoformat(row["published_at"]),
            "announced_through": None
            if row["announced_through"] is None
            else datetime.fromisoformat(row["announced_through"]).date(),
        }
        for row in job.published
    ]
    return msgspec.structs.replace(job, policies=policies, published=published)


class Workers:
    """The processes, started when a back-test is large enough and kept for the next."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, job: Job, cases: Sequence[History], currency: str) -> Backtest:
        encoded = msgspec.json.encode(job)
        if len(cases) <= AT_HAND:
            share = msgspec.json.encode(Share(cases=list(cases)))
            return msgspec.json.decode(await asyncio.to_thread(fold_share, encoded, share), type=Backtest)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn"))
        count = os.cpu_count() or 1
        loop = asyncio.get_running_loop()
        shares = [Share(cases=list(cases[start::count])) for start in range(count)]
        done = await asyncio.gather(
            *(loop.run_in_executor(self._pool, fold_share, encoded, msgspec.json.encode(share)) for share in shares)
        )
        return merged([msgspec.json.decode(one, type=Backtest) for one in done], currency)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

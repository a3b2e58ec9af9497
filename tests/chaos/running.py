"""A run: the stack and the other side are started, the cases are gone through one after the other, everything ends.

What needs no stack of the run goes on beside the others; while it takes times, nobody else does anything (`World.room`).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from services.audit.journal import JournalFile
from services.demo.client import Api
from services.stack import running
from services.supervisor import Event
from tests.chaos.frame import Case, Report, Size, World, examine
from tests.chaos.reporting import stages_of
from tests.chaos.tenants import subscribe

SETTINGS = {
    "RECOURSE_EGRESS_ALLOW": "127.0.0.1:*",
    "RECOURSE_SEND_SECONDS": "1",  # what a killed sender had in hand is soon taken up by another
    "RECOURSE_CONTACT_SECONDS": "1",
    "RECOURSE_SMS_PER_DAY": "10000000",
    "RECOURSE_EMAIL_PER_DAY": "10000000",
    "RECOURSE_RETRY_SCALE": "0.003",  # seven pauses in a row, of hours otherwise, are no longer than the patience of the audit
}

Tell = Callable[[str], None]


@asynccontextmanager
async def world(seed: int, size: Size, tell: Tell, *, folder: Path, tenants: int = 5) -> AsyncIterator[World]:
    """A whole stack of processes on `folder`, with tenants and everything that messages go to."""
    async with AsyncExitStack() as exits:
        stack = await exits.enter_async_context(
            running(folder, processes=True, extra=SETTINGS, tell=lambda event: _told(event, tell))
        )
        assert stack.operator_key is not None, f"{folder} has been used before"
        limits = httpx.Limits(max_connections=300, max_keepalive_connections=100)
        http = await exits.enter_async_context(
            httpx.AsyncClient(base_url=stack.url, timeout=httpx.Timeout(15.0), limits=limits, trust_env=False)
        )
        journal = JournalFile(folder / "journal.jsonl")
        exits.callback(journal.close)
        made = World(stack, Api(http, stack.operator_key), journal, seed, size)
        made.tell = tell
        for sink in (made.sms, made.email, made.webhook):
            await exits.enter_async_context(sink.running())
        await subscribe(made, tenants)
        yield made


def _told(event: Event, tell: Tell) -> None:
    if event.what in ("unhealthy", "not started"):
        tell(f"  {event.unit} {event.what} {event.detail}")


async def run(
    seed: int, size: Size, cases: Sequence[Case], tell: Tell, reports: list[Report], *, keep: Path | None = None
) -> None:
    """Go through the cases and note what became of each; one that is broken off is noted, too."""
    folder = keep or Path(tempfile.mkdtemp(prefix="recourse-chaos-"))
    began = time.monotonic()
    try:
        async with world(
            seed, size, lambda line: tell(f"{time.monotonic() - began:6.1f} s  {line}"), folder=folder
        ) as made:
            made.tell(f"the stack is up, {len(made.tenants)} tenants are subscribed")
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(_go_through([case for case in cases if case.place != "aside"], made, reports))
                lanes.create_task(_go_through([case for case in cases if case.place == "aside"], made, reports))
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _go_through(cases: Sequence[Case], made: World, reports: list[Report]) -> None:
    last = [case for case in cases if not case.needs()][-1:]
    for case in cases:
        with noted_when_broken_off(case.name, reports):
            report = await examine(case, made, is_last=case in last)
        reports.append(report)
        made.tell(f"{case.name}: {report.state}" + (f" after {stages_of(report)}" if report.stages else ""))
        for why in report.why:
            made.tell(f"    {why}")


@contextmanager
def noted_when_broken_off(name: str, reports: list[Report]) -> Iterator[None]:
    """Note a case whose block is cancelled, or ended by what is no verdict on it."""
    began = time.monotonic()
    try:
        yield
    except BaseException:
        reports.append(Report(name=name, state="broken off", seconds=round(time.monotonic() - began, 1)))
        raise

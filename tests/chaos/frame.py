"""What every case has in common: a stack of processes, tenants, the journal, a load, a source of chance, and the audit.

A case is an object with a name, what it needs of the machine, where it is run, and `run(world)`. `examine` runs one, lets everything come
to rest, and asks the auditor. Whatever the case says itself (`CaseFailedError`) or the auditor finds is a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import asyncpg
from msgspec import Struct, field

from services.audit.auditing import audit
from services.audit.findings import Looked, Verdict
from services.audit.journal import JournalFile, Line
from services.audit.sources import Evidence
from services.demo.audit import record_of
from services.demo.client import Api
from services.notify.sinks import EmailSink, Fault, SmsSink, WebhookSink
from services.stack import Stack
from shared.embedded.access import SERVICES
from shared.solitude import Room
from tests.chaos.speed import machine_speed, processor_speed

LATE_SECONDS = 5.0
"""The clocks go on, so something is always due; what has been so for longer waits for something."""

LONGEST_PAUSE = timedelta(minutes=1)
"""Between two calls of a receiver, of which several in a row must fail before notify waits so long (`RECOURSE_RETRY_SCALE`)."""

OVERDUE = "clock_timestamp() - make_interval(secs => $1)"
WAITING = f"""
SELECT 'notify.delivery_queue' AS what, count(*) AS n FROM notify.delivery_queue WHERE wake_at < {OVERDUE}
 UNION ALL
SELECT 'sla.watched_case', count(*) FROM sla.watched_case WHERE wake_at < {OVERDUE}
 UNION ALL
SELECT 'reporting.stale', count(*) FROM reporting.stale WHERE id <= $2""" + "".join(
    f"""
 UNION ALL
SELECT '{service}.outbox', count(*) FROM {service}.outbox WHERE published_at IS NULL AND created_at < {OVERDUE}"""
    for service in SERVICES
)

NEWEST = "SELECT coalesce(max(id), 0) FROM reporting.stale"

State = Literal["passed", "failed", "not run", "broken off"]


class CaseFailedError(Exception):
    """Something that a case itself saw go wrong."""


class NeedsError(Exception):
    """The machine lacks what a case needs."""


class Spent(Struct, kw_only=True):
    """A stage of a case: its seconds, and how many processors were busy meanwhile, by whatever the machine did."""

    seconds: float = 0.0
    processors: float = 0.0


class Report(Struct, kw_only=True):
    """What became of a case."""

    name: str
    state: State
    seconds: float
    why: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    looks: list[Looked] = field(default_factory=list)  # the auditor's
    stages: dict[str, Spent] = field(default_factory=dict)  # where its seconds went
    audit_checks: dict[str, int] = field(default_factory=dict)
    compared: int = 0


class Size(Struct, frozen=True, kw_only=True):
    """How much of everything: `GATE` fits into ten minutes, `LONG` has the numbers of a night."""

    load_seconds: float = 90.0
    kills: int = 30
    strikers: int = 2
    rate: float = 40.0  # requests a second on the machine of the calibration; the clocks make three times as much
    modest_rate: float = 10.0  # where the fault matters, and not how much there is
    power_cuts: int = 2
    visits: tuple[int, ...] = (1,)
    overdue: int = 100_000
    poison: int = 40
    model_examples: int = 200
    model_steps: int = 10
    clock_jumps: int = 4
    flood_seconds: float = 8.0
    stream_losses: int = 1
    dead_seconds: float = 8.0  # of a wire that lets nothing through
    quiet_seconds: float = 30.0  # after the last fault, for what is under way, on the machine of the calibration


GATE = Size()
LONG = Size(
    load_seconds=900.0,
    rate=40.0,
    kills=1_000,
    strikers=3,
    power_cuts=20,
    visits=(1, 2, 7),
    model_examples=2_000,
    model_steps=30,
    clock_jumps=20,
    flood_seconds=60.0,
    stream_losses=3,
    dead_seconds=30.0,
    quiet_seconds=180.0,  # a thousand kills, one in one and a half seconds, leave a service far behind what it is told
)


GIVEN_UP: Final = """
SELECT dead_letter_id
  FROM {service}.dead_letter
 WHERE state = 'dead' AND reason = 'killed its process'"""


class Tenancy(Struct, kw_only=True):
    """A tenant as its own systems see it."""

    slug: str
    tenant_id: Any
    admin: Api
    admin_key: str
    systems: Api
    systems_key: str
    clerk: Api
    hook_path: str
    hook_secret: str


class World:
    """Everything a case may use."""

    def __init__(self, stack: Stack, operator: Api, journal: JournalFile, seed: int, size: Size) -> None:
        self.stack = stack
        self.operator = operator
        self.journal = journal
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.size = size
        self.room = Room()
        self.tenants: list[Tenancy] = []
        self.lines: list[Line] = []
        self.sms = SmsSink(self.provider_faults(chance.random()))
        self.email = EmailSink()
        self.webhook = WebhookSink(faults=self.provider_faults(chance.random()))
        self.tell: Callable[[str], None] = lambda _: None
        self.broken: list[str] = []  # what senders saw that should not be
        self.stages: dict[str, Spent] = {}

    def of(self, case: str) -> World:
        """The same world with chance of the case's own, so that it goes the same way whatever else is run, and with a clean sheet."""
        own = copy.copy(self)
        own.chance = random.Random(f"{self.seed} {case}")
        own.broken, own.stages = [], {}
        return own

    @staticmethod
    def provider_faults(seed: float) -> Callable[[str, int], Fault | None]:
        """A provider that breaks off three calls of a hundred before it has taken the message, and three afterwards."""
        chance = random.Random(seed)

        def fault(_: str, __: int) -> Fault | None:
            drawn = chance.random()
            return "drop_before" if drawn < 0.03 else "drop_after" if drawn < 0.06 else None

        return fault

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note what the block takes under a name, for the report; the seconds of a name are added up."""
        began, busy = time.monotonic(), processor_seconds()
        before = self.stages.setdefault(name, Spent())
        try:
            yield
        finally:
            seconds = before.seconds + time.monotonic() - began
            worked = before.seconds * before.processors + processor_seconds() - busy
            self.stages[name] = Spent(
                seconds=round(seconds, 1), processors=round(worked / seconds, 2) if seconds > 0.05 else 0.0
            )

    def write(self, line: Line) -> None:
        """Put a line of the journal onto the disk, then remember it."""
        self.journal.write(line)
        self.lines.append(line)

    @property
    def evidence(self) -> Evidence:
        local = self.stack.local
        return Evidence(
            dsn=local.superuser_dsn,
            nats=local.nats.url("operator"),
            lines=lambda: list(self.lines),
            record=lambda: record_of(self.sms, self.email, self.webhook),
            longest_pause=LONGEST_PAUSE,
        )

    async def audit(self, *, of_now: bool = False) -> Verdict:
        """What the independent auditor says once nothing is under way any more, or, `of_now`, once what is under way now has passed."""
        return await audit(self.evidence, patience=self.size.quiet_seconds, of_now=of_now)


Place = Literal["stack", "alone", "aside"]
"""Where a case is run: on the stack of the run; there, with nobody beside it, since it compares times; or aside, on servers of its own."""


class Case(Protocol):
    """One kind of fault. `run` returns figures for the report; of a case aside, `compared` among them, since nobody else judges it."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> Place: ...

    def needs(self) -> str:
        """What the machine lacks, as the end of the sentence "not run: needs …"; empty when it lacks nothing."""

    async def run(self, world: World) -> dict[str, Any]: ...


async def examine(case: Case, world: World, *, is_last: bool = True) -> Report:
    """Run one case and judge it. The clocks go on after it; what they bring about is judged with the next, and with the last altogether."""
    lacking = case.needs()
    if lacking:
        return Report(name=case.name, state="not run", seconds=0.0, why=[f"needs {lacking}"])
    own = world.of(case.name)
    began = time.monotonic()
    report = Report(name=case.name, state="passed", seconds=0.0)
    try:
        if case.place == "aside":
            report.figures = await case.run(own)
            report.compared = report.figures.pop("compared")
        else:
            async with world.room.alone() if case.place == "alone" else world.room.among_others():
                began = time.monotonic()
                await _on_the_stack(case, own, report, of_now=not is_last)
        if not report.compared:
            report.why.append("nothing was compared")
    except NeedsError as lacking_after_all:
        return Report(name=case.name, state="not run", seconds=0.0, why=[f"needs {lacking_after_all}"])
    except CaseFailedError as failure:
        report.why = [str(failure)]
    except Exception as failure:
        last = traceback.extract_tb(failure.__traceback__)[-1]
        report.why = [f"{type(failure).__name__} in {last.name}: {str(failure)[:300]}"]
    report.why += own.broken[:10]
    report.seconds = round(time.monotonic() - began, 1)
    report.stages = own.stages
    report.state = "failed" if report.why else "passed"
    return report


async def _on_the_stack(case: Case, world: World, report: Report, *, of_now: bool) -> None:
    speed = machine_speed()
    with world.stage("case"):
        report.figures = await case.run(world)
    world.tell(f"  {case.name}: no more faults")
    with world.stage("ready"):
        await world.stack.supervisor.wait_ready()
    limit = world.size.quiet_seconds / min(speed, processor_speed())  # a machine may have grown slower meanwhile
    async with _tended(world) as retried:
        with world.stage("quiet"):
            waiting = await settle(world, limit)
        if waiting:
            report.why.append(f"not quiet within {limit:.0f} s after the last fault: {waiting}")
        with world.stage("audit"):
            found = await world.audit(of_now=of_now)
    report.figures["quiet_within_seconds"] = round(limit, 1)
    report.figures["retried_by_the_operator"] = len(retried)
    report.audit_checks, report.compared, report.looks = found.checks, found.compared, found.looks
    report.why += [f"{each.check} {each.subject}: {each.what}" for each in found.details[:10]]


@contextlib.asynccontextmanager
async def _tended(world: World) -> AsyncIterator[set[UUID]]:
    """Have an operator about, who retries what services have given up because they were killed over and over with it in hand.

    That is three times, for a message that was being handled by itself; who killed them, they cannot tell. Gives the ids, as they come.
    """
    retried: set[UUID] = set()

    async def tend() -> None:
        connection = await asyncpg.connect(world.stack.local.superuser_dsn)
        try:
            while True:
                for service in SERVICES:
                    for row in await connection.fetch(GIVEN_UP.format(service=service)):
                        await world.operator.post(f"/v1/ops/{service}/dead-letters/{row['dead_letter_id']}/retry")
                        retried.add(row["dead_letter_id"])
                await asyncio.sleep(1.0)
        finally:
            await connection.close()

    tending = asyncio.create_task(tend())
    try:
        yield retried
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending


async def together(works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of them at once. The first that fails ends the others, which would go on into the next case, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def processor_seconds() -> float:
    """What all processors of this machine have worked since its start, or 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        idle = sum(map(int, ticks[3:5]))
        return (sum(map(int, ticks)) - idle) / os.sysconf("SC_CLK_TCK")
    return 0.0


async def settle(world: World, seconds: float) -> dict[str, int]:
    """Return as soon as nothing is waiting for longer than it should; else, when the time has passed, what is."""
    end = time.monotonic() + seconds
    connection = await asyncpg.connect(world.stack.local.superuser_dsn)
    try:
        newest = await connection.fetchval(NEWEST)  # these rows do not say since when they are there
        while True:
            rows = await connection.fetch(WAITING, LATE_SECONDS, newest)
            waiting = {row["what"]: row["n"] for row in rows if row["n"]}
            if not waiting or time.monotonic() > end:
                return waiting
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
    """Wait for a condition and return what it gives. Raises CaseFailedError when that takes too long."""
    end = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        if time.monotonic() > end:
            raise CaseFailedError(f"after {seconds:.0f} s still not: {what}")
        await asyncio.sleep(0.1)

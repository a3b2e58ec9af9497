"""Eight faults that somebody might write, each put into one service of a whole stack: the auditor must find every one within a minute.

Without them the same load and the same crashes leave nothing to be found (`make chaos`), so it is the fault that is found.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from services.supervisor import ServiceProcess
from tests.chaos.faults import back, restart_soon
from tests.chaos.frame import GATE, Report, World
from tests.chaos.load import Load
from tests.chaos.mutated import FAULTS
from tests.chaos.running import noted_when_broken_off, world

CAUGHT_WITHIN: Final = 60.0
LOAD_SECONDS: Final = 12.0
RATE: Final = 25.0
SIZE: Final = msgspec.structs.replace(GATE, quiet_seconds=10.0)

RLS_OFF: Final = "ALTER TABLE notify.endpoint DISABLE ROW LEVEL SECURITY"
CRASHES: Final = {
    "ack before commit": "consumer.handled:20",
    "publish instead of outbox": "worker.commit:40",
}
"""Where the service ends now and then, for faults that show only when it does."""


async def run(seed: int, tell: Callable[[str], None], faults: list[str], reports: list[Report]) -> None:
    """One stack for each fault: what it spoils is of no use to the next. What became of each is noted."""
    began = time.monotonic()
    for fault in faults:
        service, _ = FAULTS[fault]
        folder = Path(tempfile.mkdtemp(prefix="recourse-mutant-"))
        try:
            with noted_when_broken_off(fault, reports):
                async with world(seed, SIZE, lambda _: None, folder=folder, tenants=2) as made:
                    report = await _examine(made, fault, service)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        reports.append(report)
        found = {check: number for check, number in report.audit_checks.items() if number}
        said = f"{report.state}: {found or report.why}"
        tell(f"{time.monotonic() - began:6.1f} s  {fault}: {said}")


async def _examine(made: World, fault: str, service: str) -> Report:
    if fault == "tenant predicate removed":
        root = await asyncpg.connect(made.stack.local.superuser_dsn)
        await root.execute(RLS_OFF)
        await root.close()
    if fault == "random notification key":
        chance = random.Random(made.chance.random())
        # What has not arrived is sent again, under the same key; what has arrived would be found by asking.
        made.sms.faults = lambda _, __: "drop_before" if chance.random() < 0.5 else None
    unit = made.stack.supervisor.unit(service)
    assert isinstance(unit, ServiceProcess)
    unit.command = [sys.executable, "-m", "tests.chaos.mutated", fault, service]
    if fault in CRASHES:
        unit.environment["RECOURSE_FAIL_POINT"] = CRASHES[fault]
    await restart_soon(made.stack, service)
    began = time.monotonic()
    await Load(made, rate=RATE, acts=0.5, among=8).last(LOAD_SECONDS)
    if fault in CRASHES:
        del unit.environment["RECOURSE_FAIL_POINT"]
        await restart_soon(made.stack, service)
    await asyncio.sleep(1.0)
    await back(made.stack, service)
    verdict = await made.audit()
    took = time.monotonic() - began
    why = []
    if verdict.ok:
        why.append("the auditor has found nothing")
    elif took > CAUGHT_WITHIN:
        why.append(f"found only after {took:.0f} s")
    return Report(
        name=fault,
        state="failed" if why else "passed",
        seconds=round(took, 1),
        why=why,
        figures={"found": [f"{each.check}: {each.what}" for each in verdict.details[:3]]},
        audit_checks=verdict.checks,
        compared=verdict.compared,
    )

"""`python -m tests.chaos gate|long|mutants`: run the cases, write build/chaos.json and build/chaos.txt, say the verdict.

Environment: SEED (random unless given), REQUIRE=all (what could not be run counts as failed), ONLY (names of cases, comma-separated),
DATA (a folder to keep everything in).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from services.supervisor import stop_on_signals
from shared import telemetry
from tests.chaos.cases import all_cases
from tests.chaos.disks import enter_own_mounts
from tests.chaos.frame import GATE, LONG, Report
from tests.chaos.mutants import run as run_mutants
from tests.chaos.mutated import FAULTS
from tests.chaos.reporting import verdict_of, write
from tests.chaos.running import run

MEMORY_BYTES: Final = 8 * 1024**3
"""Of address space, for each process of a run: what grows without bound ends by itself."""


def main(arguments: list[str]) -> int:
    mode = arguments[0] if arguments else "gate"
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    say(f"seed {seed}")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    telemetry.configure(level="error")
    enter_own_mounts()
    size = LONG if mode == "long" else GATE
    wanted = [name.strip() for name in os.environ.get("ONLY", "").split(",") if name.strip()]
    cases = [case for case in all_cases() if not wanted or case.name in wanted]
    faults = [fault for fault in FAULTS if not wanted or fault in wanted]
    keep = os.environ.get("DATA")
    reports: list[Report] = []

    def work() -> Coroutine[Any, Any, None]:
        if mode == "mutants":
            return run_mutants(seed, say, faults, reports)
        return run(seed, size, cases, say, reports, keep=Path(keep) if keep else None)

    async def until_stopped() -> None:
        with stop_on_signals() as stop:
            task = asyncio.create_task(work())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not task.done():
                say("stopping …")
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            else:
                await task

    try:
        asyncio.run(until_stopped())
    finally:  # also when the run fails as a whole: what it has come to is told
        planned = faults if mode == "mutants" else [case.name for case in cases]
        verdict = verdict_of(mode, reports, planned, seed, require_all=os.environ.get("REQUIRE") == "all")
        write(mode, seed, reports, verdict)
        say(verdict.text)
    return 0 if verdict.ok else 1


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

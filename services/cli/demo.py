"""`recourse demo`: everything in under a minute."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from services.cli.output import NOT_WELL, note, run_loop, say, say_json

Flag = Annotated[bool, Parameter(negative="")]


def demo(*, json: Flag = False, faults: Flag = False, data: Path | None = None) -> int:
    """Run four sandbox organisations on real servers: complaints come in by four ways, are handled, run late, are fined and told.

    It ends by itself with a report and an audit, leaves nothing running, and exits 1 when the audit finds anything.

    Args:
        json: print the report as one JSON object; progress goes to stderr in any case.
        faults: kill each service, NATS and PostgreSQL once while complaints come in, and delete NATS's data.
        data: folder to keep data and logs in; else they are removed afterwards.
    """
    return run_loop(_demo(json=json, faults=faults, data=data))


async def _demo(*, json: bool, faults: bool, data: Path | None) -> int:
    from services.demo.report import text
    from services.demo.running import Outcome, run
    from services.supervisor import stop_on_signals
    from shared import telemetry

    telemetry.configure(level="error")
    began = time.monotonic()

    def tell(line: str) -> None:
        note(f"{time.monotonic() - began:5.1f} s  {line}")

    with stop_on_signals() as stop:
        work: asyncio.Task[Outcome] = asyncio.create_task(run(tell, faults=faults, data=data))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            note("Stopping …")
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
            return 130
        outcome = await work
    _print(outcome, json=json, lines=text(outcome.report, outcome.names, outcome.delivered, outcome.findings))
    return 0 if outcome.report.ok else NOT_WELL


def _print(outcome: Any, *, json: bool, lines: Any) -> None:
    if json:
        for finding in outcome.findings[:20]:
            note(finding)
        say_json(outcome.report)
        return
    for line in lines:
        say(line)

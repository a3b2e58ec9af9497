"""`recourse up`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from services.cli.output import note, run_loop, say, say_json

if TYPE_CHECKING:
    from services.stack import Stack
    from services.supervisor import Event


def up(
    *,
    processes: Annotated[bool, Parameter(negative="")] = False,
    data: Path = Path(".recourse"),
    port: int = 8080,
    smtp_port: int = 2525,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run everything on this machine until Ctrl-C: PostgreSQL, NATS, the five services and one address in front of them.

    The operator's key is printed at the first start of a data folder, and never again.

    Args:
        processes: one process for each service, under a supervisor that restarts what dies; else all in this one.
        data: folder of everything that is kept; made if it is not there.
        port: of the gateway on the loopback address; 0 takes any free one.
        smtp_port: where complaints come in by mail; 0 takes any free one.
        json: once everything works, print where it is, and the operator's key if it was made now, as one JSON object.
    """
    return run_loop(_up(processes=processes, data=data, port=port, smtp_port=smtp_port, json=json))


async def _up(*, processes: bool, data: Path, port: int, smtp_port: int, json: bool) -> int:
    from services.stack import running
    from services.supervisor import stop_on_signals
    from shared.embedded.folder import open_folder

    log_to(open_folder(data) / "logs" / "recourse.log")

    async def run() -> None:
        async with running(data, processes=processes, port=port, smtp_port=smtp_port, tell=_tell) as stack:
            _greet(stack, json=json)
            await asyncio.Event().wait()

    with stop_on_signals() as stop:
        work = asyncio.create_task(run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            note("Stopping …")
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    note("Stopped.")
    return 0


def log_to(place: Path) -> None:
    """Have this process log into a file: the terminal is for people."""
    from shared import telemetry
    from shared.embedded.processes import rotate

    rotate(place)
    sink = place.open("a", encoding="utf-8", buffering=1)
    place.chmod(0o600)
    telemetry.configure(stream=sink)


def _tell(event: Event) -> None:
    if event.what in ("died", "unhealthy", "not started"):
        note(f"{event.unit} {event.what}{f': {event.detail}' if event.detail else ''}")
    elif event.what == "started":
        note(f"{event.unit} started")


def _greet(stack: Stack, *, json: bool) -> None:
    if json:
        found = {"url": stack.url, "smtp_port": stack.smtp_port, "operator_key": stack.operator_key}
        say_json({**found, "data": str(stack.local.folder)})
        return
    say(f"Recourse answers at {stack.url}; its API is described at {stack.url}/docs.")
    say(f"Mail for complaints is taken on port {stack.smtp_port}; logs are in {stack.local.folder / 'logs'}.")
    if stack.operator_key is not None:
        say()
        say("The operator's key, shown once; keep it:")
        say(f"  export RECOURSE_KEY={stack.operator_key}")
        say()
    say("Ctrl-C stops everything.")

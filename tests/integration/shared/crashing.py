"""A process that runs one service of the crash test: `python -m tests.integration.shared.crashing intake api.commit …`.

intake takes notes over HTTP and tells of each, sla applies what it is told. The service runs in a fork, which crashes at each
point in turn, is forked again, and runs on after the last; each crash is told on stdout. At `poison` it waits for a message that
ends its process, and one death alone condemns: an innocent message may not have a single one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from shared import consuming, fail_points, idempotency, outbox, telemetry
from shared.auth import requires
from shared.consuming import Consumer
from shared.database import Tx
from shared.ids import derived_id
from shared.messages import EntryRequested
from shared.service import ServiceSpec, build
from shared.serving import run
from shared.settings import ServiceSettings, load
from tests.stack import a_request, record

POISON = "poison"
SLOW_SECONDS = 0.05  # long enough to be in hand when something else ends the process


class Note(msgspec.Struct):
    name: str


class Taken(msgspec.Struct):
    message_id: UUID


@post("/v1/notes", guards=[requires("admin")])
async def add_note(data: JSONBody[Note], request: Request[Any, Any, Any], tx: NamedDependency[Tx]) -> Response[bytes]:
    async def act() -> Taken:
        message = msgspec.structs.replace(a_request(tx.tenant_id), message_id=derived_id("note", data.name))
        await record(message, tx)
        await outbox.add(tx, message)
        return Taken(message_id=message.message_id)

    return await idempotency.once(request, tx, act, required=True)


async def refuse_some(message: EntryRequested, tx: Tx) -> None:
    if message.kind == "withdrawn":
        raise RuntimeError
    if message.kind == "escalated":
        os._exit(fail_points.EXIT_CODE)
    if message.kind == "investigated":
        await asyncio.sleep(SLOW_SECONDS)
    await record(message, tx)


def main(name: str) -> None:
    consuming.ACK_SECONDS = 1.0
    consuming.KEEP_ALIVE_SECONDS = 0.4
    consuming.BACK_OFF = (0.02,) * 7
    spec = ServiceSpec(
        name=name,
        route_handlers=[add_note] if name == "intake" else [],
        consumers=lambda _: (
            [Consumer("sla", "intake", handlers={EntryRequested: refuse_some}, name="sla-on-entry")]
            if name == "sla"
            else []
        ),
    )
    telemetry.configure(name)
    run(build(spec, load(ServiceSettings, name, os.environ)))


def crash_at(name: str, points: list[str]) -> None:
    if POISON in points:
        consuming.MAX_DEATHS = 2
    for point in [*points, ""]:
        pid = os.fork()
        if pid == 0:
            fail_points.arm(f"{point}:2" if point not in ("", POISON) else "")
            main(name)
            os._exit(0)
        signal.signal(signal.SIGTERM, partial(_end, pid))
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != fail_points.EXIT_CODE:
            sys.exit(f"{name} ended by itself at {point or 'the end'}")
        sys.stdout.write(f"{point}\n")
        sys.stdout.flush()


def _end(pid: int, *_: object) -> None:
    os.kill(pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    crash_at(sys.argv[1], sys.argv[2:])

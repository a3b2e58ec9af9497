"""How soon a stack takes its first complaint after it was started on existing data, and what it takes while nothing happens."""

from __future__ import annotations

import asyncio
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
from msgspec import Struct

from services.demo.client import Api
from shared.embedded.processes import claim_port
from tests.bench.figures import Calibration, Figure, Stage, Target, at_most, by_name
from tests.bench.load import Line, lines
from tests.bench.processors import family, proportional_bytes, seconds_of
from tests.bench.tenants import complaints, subscribers

TARGET_SECONDS: Final = 5.0
TARGET_BYTES: Final = 400 * 1024 * 1024
TARGET_SHARE: Final = 0.03
SETTLE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 8.0
PATIENCE_SECONDS: Final = 90.0
_STEP_SECONDS: Final = 0.01


class Idle(Struct, kw_only=True):
    seconds: float  # from exec to the first stored complaint
    bytes: int
    share: float  # of one core
    processes: int


async def measure(stage: Stage) -> list[Figure]:
    folder = stage.place("start")
    async with (
        stage.stack("start", processes=False) as stack,
        httpx.AsyncClient(base_url=stack.url, timeout=30.0, trust_env=False) as http,
    ):
        requests = complaints(await subscribers(Api(http, stack.operator_key), 2))
    split = await _look(folder, requests, stage, "--processes")
    in_one = [await _look(folder, requests, stage) for _ in stage.rounds("start")]
    starts = [each.seconds for each in in_one]
    return [
        Figure(
            "cold_start_seconds",
            round(statistics.median(starts), 2),
            "s",
            {"runs": [round(seconds, 2) for seconds in starts], "with_processes": round(split.seconds, 2)},
        ),
        Figure(
            "idle_megabytes",
            round(statistics.median(each.bytes for each in in_one) / 1024**2, 1),
            "MB (PSS)",
            {"with_processes": round(split.bytes / 1024**2, 1), "processes": in_one[0].processes},
        ),
        Figure(
            "idle_processor_share",
            round(statistics.median(each.share for each in in_one), 4),
            "of one core",
            {"runs": [round(each.share, 4) for each in in_one], "with_processes": round(split.share, 4)},
        ),
    ]


def targets(figures: Sequence[Figure], calibration: Calibration) -> list[Target]:
    found = by_name(figures)
    return [
        at_most("cold_start_seconds", found["cold_start_seconds"].value, TARGET_SECONDS / calibration.python),
        at_most("idle_megabytes", found["idle_megabytes"].value, TARGET_BYTES / 1024**2),
        at_most("idle_processor_share", found["idle_processor_share"].value, TARGET_SHARE / calibration.python),
    ]


async def _look(folder: Path, requests: Iterator[bytes], stage: Stage, *options: str) -> Idle:
    async with _up(folder, *options) as (pid, port, began):
        await _first_stored(port, requests)
        seconds = time.monotonic() - began
        await asyncio.sleep(SETTLE_SECONDS * stage.share)
        before = seconds_of(pid)
        idle_since = time.monotonic()
        await asyncio.sleep(stage.lasting(IDLE_SECONDS))
        spent = (seconds_of(pid) - before) / (time.monotonic() - idle_since)
        pids = family(pid)
        return Idle(seconds=seconds, bytes=proportional_bytes(pids), share=spent, processes=len(pids))


@asynccontextmanager
async def _up(folder: Path, *options: str) -> AsyncIterator[tuple[int, int, float]]:
    """`recourse up` on the folder: its process id, its port, and when it was started."""
    port = claim_port(0, "the gateway")
    command = (
        sys.executable,
        "-m",
        "services.cli",
        "up",
        "--data",
        str(folder),
        "--port",
        str(port),
        "--smtp-port",
        "0",
    )
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid, port, began
    finally:
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 40)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _first_stored(port: int, requests: Iterator[bytes]) -> None:
    """Send complaints until one is stored."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            [line] = await lines(port, 1)
        except OSError:
            await asyncio.sleep(_STEP_SECONDS)
            continue
        status = await _status(line, next(requests))
        line.close()
        if status == 201:
            return
        await asyncio.sleep(_STEP_SECONDS)
    raise TimeoutError(f"no complaint was stored within {PATIENCE_SECONDS:.0f} s of the start")


async def _status(line: Line, request: bytes) -> int:
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    line.ask(request, lambda status, _: answered.set_result(status))
    return await answered

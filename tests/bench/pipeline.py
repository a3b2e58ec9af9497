"""How many complaints a second come all the way, from HTTP to their fact in reporting, with five processes; and how long one takes."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from services.stack import Stack
from shared.embedded.access import SERVICES
from tests.bench.ends import span
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import at_rate, flat_out, percentile
from tests.bench.processors import seconds_of
from tests.bench.running import CONCURRENCY, PATIENCE_SECONDS, feed, process_of, shared

SECONDS: Final = 5.0
ALONE_SECONDS: Final = 1.0  # what it stores in that time has to be taken all the way afterwards
LONG_COMPLAINTS: Final = 30_000  # some ten times what a usual run leaves behind
LONG_SECONDS: Final = 300.0


async def measure(stage: Stage) -> list[Figure]:
    found = await shared(stage)
    if stage.is_long:
        await feed(stage, found, LONG_COMPLAINTS, LONG_SECONDS)
    requests = found.requests
    whole: list[float] = []
    alone: list[float] = []
    latencies: list[float] = []
    rates: list[float] = []
    spent: list[dict[str, float]] = []
    for _ in stage.rounds("pipeline"):
        with others_still(found.stack):  # intake by itself, in the same minute
            load = await flat_out(found.port, requests, CONCURRENCY, ALONE_SECONDS * stage.share, keep=True)
        alone.append(load.per_second)
        await found.ends.latencies(load, PATIENCE_SECONDS)
        before = _spent(found.stack)
        load = await flat_out(found.port, requests, CONCURRENCY, stage.lasting(SECONDS), keep=True)
        taken = await found.ends.latencies(load, PATIENCE_SECONDS)
        seconds = span((due + each for due, each in zip(load.due, taken, strict=True)), load)
        whole.append(load.good / seconds)
        spent.append(
            {name: round(1000 * (now - before[name]) / load.good, 3) for name, now in _spent(found.stack).items()}
        )
        rates.append(whole[-1] / 2)
        load = await at_rate(found.port, requests, rates[-1], stage.lasting(SECONDS), keep=True)
        latencies += await found.ends.latencies(load, PATIENCE_SECONDS)
    return [
        Figure(
            "pipeline_per_second",
            round(statistics.median(whole), 1),
            "complaints/s",
            {
                "runs": [round(rate, 1) for rate in whole],
                "intake_alone": [round(rate, 1) for rate in alone],
                "ms_per_complaint": spent,
                "there_before": found.stored,
            },
        ),
        Figure(
            "pipeline_to_intake",
            round(statistics.median(each / intake for each, intake in zip(whole, alone, strict=True)), 4),
            "ratio",
        ),
        Figure(
            "pipeline_p50_ms",
            round(1000 * percentile(latencies, 0.50), 1),
            "ms",
            {"rates": [round(rate, 1) for rate in rates], "samples": len(latencies)},
        ),
        Figure(
            "pipeline_p99_ms",
            round(1000 * percentile(latencies, 0.99), 1),
            "ms",
            {"p90_ms": round(1000 * percentile(latencies, 0.90), 1)},
        ),
    ]


def targets(figures: Sequence[Figure], calibration: Calibration) -> list[Target]:
    found = by_name(figures)
    return [
        at_least("pipeline_to_intake", found["pipeline_to_intake"].value, 0.35),
        at_most("pipeline_p50_ms", found["pipeline_p50_ms"].value, 50 / calibration.scale),
        at_most("pipeline_p99_ms", found["pipeline_p99_ms"].value, 250 / calibration.scale),
    ]


@contextmanager
def others_still(stack: Stack) -> Iterator[None]:
    """Hold every service but intake for the block: it takes complaints, and nobody takes them further."""
    others = [process_of(stack, name) for name in SERVICES if name != "intake"]
    with ExitStack() as exits:
        for each in others:
            exits.enter_context(stack.supervisor.held(each.name))
            os.kill(each.pid, signal.SIGSTOP)
            exits.callback(os.kill, each.pid, signal.SIGCONT)
        yield


def _spent(stack: Stack) -> dict[str, float]:
    """Processor seconds so far, by who spent them."""
    services = {name: seconds_of(process_of(stack, name).pid) for name in SERVICES}
    servers = {"postgres": seconds_of(stack.local.postgres.pid), "nats": seconds_of(stack.local.nats.pid)}
    return {**services, **servers}

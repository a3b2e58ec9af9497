"""How long a quiet tenant's complaints take to their facts, by itself and while another tenant floods at a hundred times its rate."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.bench.ends import WHOLE
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import Load, at_rate, percentile
from tests.bench.running import PATIENCE_SECONDS, shared
from tests.bench.tenants import complaints, subscribe

QUIET_PER_SECOND: Final = 2.0
TIMES: Final = 100
SECONDS: Final = 7.0
QUOTA: Final = {"requests_per_second": 20, "burst": 40}
"""Ten times what the quiet tenant sends; the flood is ten times that."""


async def measure(stage: Stage) -> list[Figure]:
    alone: list[list[float]] = []
    flooded: list[list[float]] = []
    errors: Counter[str] = Counter()
    floods: list[Load] = []
    found = await shared(stage)
    quiet = complaints(found.tenancies[:1])
    loud = await subscribe(found.operator, WHOLE[1], limits=QUOTA, staff=True)
    flood = complaints([loud])
    for requests in (quiet, flood):
        load = await at_rate(found.port, requests, QUIET_PER_SECOND, 2 * stage.share, keep=True)
        await found.ends.latencies(load, PATIENCE_SECONDS)
    seconds = stage.lasting(SECONDS)
    for _ in stage.rounds("fairness"):
        load = await at_rate(found.port, quiet, QUIET_PER_SECOND, seconds, keep=True)
        errors.update(load.problems)
        alone.append(await found.ends.latencies(load, PATIENCE_SECONDS))
        load, storm = await asyncio.gather(
            at_rate(found.port, quiet, QUIET_PER_SECOND, seconds, keep=True),
            at_rate(found.port, flood, QUIET_PER_SECOND * TIMES, seconds, keep=True),
        )
        errors.update(load.problems)
        floods.append(storm)
        flooded.append(await found.ends.latencies(load, PATIENCE_SECONDS))
        await found.ends.latencies(storm, PATIENCE_SECONDS)
    refused = sum(storm.statuses[429] for storm in floods)
    sent = sum(sum(storm.statuses.values()) for storm in floods)
    allowed = sum(QUOTA["burst"] + QUOTA["requests_per_second"] * storm.seconds for storm in floods)
    return [
        *_figures("quiet_alone", alone),
        *_figures("quiet_under_flood", flooded),
        Figure("quiet_errors", sum(errors.values()), "requests", {"statuses": dict(errors)}),
        Figure(
            "flood_let_through",
            round(sum(storm.good for storm in floods) / allowed, 4),
            "of its quota",
            {
                "sent": sent,
                "refused_429": refused,
                "other_problems": sum(sum(storm.problems.values()) for storm in floods) - refused,
                "offered_per_second": round(statistics.mean(sum(s.statuses.values()) / s.seconds for s in floods), 1),
            },
        ),
        Figure("flood_refused_429", refused, "requests"),
    ]


def targets(figures: Sequence[Figure], calibration: Calibration) -> list[Target]:
    found = by_name(figures)
    alone = found["quiet_alone_p99_ms"].value
    return [
        at_most("quiet_under_flood_p99_ms", found["quiet_under_flood_p99_ms"].value, max(2 * alone, alone + 100)),
        at_most("quiet_errors", found["quiet_errors"].value, 0),
        at_most("flood_let_through", found["flood_let_through"].value, 1.0),
        at_least("flood_refused_429", found["flood_refused_429"].value, 1),
    ]


def _figures(name: str, runs: list[list[float]]) -> list[Figure]:
    """The median over the runs of each run's percentile; all samples' beside it."""
    everything = [each for run in runs for each in run]
    return [
        Figure(
            f"{name}_p{share}_ms",
            round(1000 * statistics.median(percentile(run, share / 100) for run in runs), 1),
            "ms",
            {"of_all_samples": round(1000 * percentile(everything, share / 100), 1), "samples": len(everything)},
        )
        for share in (50, 99)
    ]

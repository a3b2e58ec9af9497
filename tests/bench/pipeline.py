"""How many complaints a second come all the way, from HTTP to their fact in reporting, with five processes; and how long one takes."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final

import httpx
from msgspec import Struct

from services.demo.client import Api
from services.stack import Stack
from services.supervisor import ServiceProcess
from shared.embedded.access import SERVICES
from tests.bench.ends import WHOLE, Ends, ends, span
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import at_rate, flat_out, percentile
from tests.bench.processors import seconds_of
from tests.bench.tenants import Tenancy, complaints, subscribers

CONCURRENCY: Final = 32
TENANTS: Final = 4
SECONDS: Final = 6.0
PATIENCE_SECONDS: Final = 90.0


class Running(Struct, kw_only=True):
    """A stack of processes with subscribers, and somebody who looks where their complaints have come to."""

    stack: Stack
    ends: Ends
    tenancies: list[Tenancy]
    operator: Api
    port: int  # of intake: the five services are measured, not the gateway

    @property
    def requests(self) -> Iterator[bytes]:
        return complaints(self.tenancies)


async def measure(stage: Stage) -> list[Figure]:
    async with running(stage, "pipeline") as found:
        requests = found.requests
        stage.tell("pipeline: warming up")
        warm = await flat_out(found.port, requests, 4, 3 * stage.share, keep=True)
        await found.ends.latencies(warm, PATIENCE_SECONDS)
        whole: list[float] = []
        alone: list[float] = []
        latencies: list[float] = []
        rates: list[float] = []
        spent: list[dict[str, float]] = []
        for turn in range(stage.runs):
            stage.tell(f"pipeline: round {turn + 1} of {stage.runs}")
            with others_still(found.stack):  # intake by itself, in the same minute
                load = await flat_out(found.port, requests, CONCURRENCY, 2 * stage.share, keep=True)
            alone.append(load.per_second)
            await found.ends.latencies(load, PATIENCE_SECONDS)
            before = _spent(found.stack)
            load = await flat_out(found.port, requests, CONCURRENCY, SECONDS * stage.share, keep=True)
            taken = await found.ends.latencies(load, PATIENCE_SECONDS)
            seconds = span((due + each for due, each in zip(load.due, taken, strict=True)), load)
            whole.append(load.good / seconds)
            spent.append(
                {name: round(1000 * (now - before[name]) / load.good, 3) for name, now in _spent(found.stack).items()}
            )
            rates.append(whole[-1] / 2)
            load = await at_rate(found.port, requests, rates[-1], SECONDS * stage.share, keep=True)
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


@asynccontextmanager
async def running(stage: Stage, name: str, tenants: int = TENANTS) -> AsyncIterator[Running]:
    async with (
        stage.stack(name, processes=True) as stack,
        ends(stack.local.superuser_dsn) as watcher,
        httpx.AsyncClient(base_url=stack.url, timeout=30.0, trust_env=False) as http,
    ):
        operator = Api(http, stack.operator_key)
        yield Running(
            stack=stack,
            ends=watcher,
            tenancies=await subscribers(operator, tenants, WHOLE, staff=True),
            operator=operator,
            port=process_of(stack, "intake").port,
        )


def process_of(stack: Stack, name: str) -> ServiceProcess:
    unit = stack.supervisor.unit(name)
    assert isinstance(unit, ServiceProcess)
    return unit


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

"""A stack of processes with subscribers, and somebody who looks where their complaints have come to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import httpx
from msgspec import Struct

from services.demo.client import Api
from services.stack import Stack
from services.supervisor import ServiceProcess
from tests.bench.ends import WHOLE, Ends, ends
from tests.bench.figures import Stage
from tests.bench.load import flat_out
from tests.bench.pgbench import analyzed
from tests.bench.tenants import Tenancy, complaints, subscribers

CONCURRENCY: Final = 32
TENANTS: Final = 4
PATIENCE_SECONDS: Final = 90.0
_FEED_SECONDS: Final = 2.0  # of complaints at a time, while a stack is given data


class Running(Struct, kw_only=True):
    """What runs, and for whom."""

    stack: Stack
    ends: Ends
    tenancies: list[Tenancy]
    operator: Api
    port: int  # of intake: the five services are measured, not the gateway
    stored: int = 0  # complaints that were there before anything was measured

    @property
    def requests(self) -> Iterator[bytes]:
        return complaints(self.tenancies)

    async def settle(self, concurrency: int, seconds: float) -> int:
        """Send complaints for so long, wait until all have come all the way, and return how many those were."""
        load = await flat_out(self.port, self.requests, concurrency, seconds, keep=True)
        await self.ends.latencies(load, PATIENCE_SECONDS)
        return load.good


async def shared(stage: Stage) -> Running:
    """The stack that the modules of one run have in common: to start one takes longer than many a measurement.

    Whoever uses it leaves it with nothing under way.
    """
    return await stage.kept.get("running", lambda name: _running(stage, name))


@asynccontextmanager
async def _running(stage: Stage, name: str) -> AsyncIterator[Running]:
    async with (
        stage.stack(name, processes=True) as stack,
        ends(stack.local.superuser_dsn) as watcher,
        httpx.AsyncClient(base_url=stack.url, timeout=30.0, trust_env=False) as http,
    ):
        operator = Api(http, stack.operator_key)
        found = Running(
            stack=stack,
            ends=watcher,
            tenancies=await subscribers(operator, TENANTS, WHOLE, staff=True),
            operator=operator,
            port=process_of(stack, "intake").port,
        )
        stage.tell("the stack: warming up")
        for concurrency in (4, 16):
            await found.settle(concurrency, 1.5 * stage.share)
        await analyzed(stack.local.superuser_dsn)
        yield found


async def feed(stage: Stage, found: Running, wanted: int, seconds: float) -> None:
    """Let so many complaints lie in all tables before anything is measured, or as many as come in the time."""
    until = stage.clock() + seconds
    while found.stored < wanted and stage.clock() < until:
        found.stored += await found.settle(CONCURRENCY, _FEED_SECONDS)
        stage.tell(f"the stack: {found.stored:,} of {wanted:,} complaints there before")


def process_of(stack: Stack, name: str) -> ServiceProcess:
    unit = stack.supervisor.unit(name)
    assert isinstance(unit, ServiceProcess)
    return unit

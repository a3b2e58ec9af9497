"""Two replicas of each service against one: nothing lost, nothing done twice, and not slower.

A round is one, two, two, one: what grows slower or faster meanwhile tells for neither, and the second processes start once.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from services.stack import Stack, master_key
from services.supervisor import ServiceProcess
from shared.embedded.access import SERVICES
from tests.bench.ends import cases_of, span
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import Load, flat_out
from tests.bench.running import CONCURRENCY, PATIENCE_SECONDS, Running, process_of, shared

SECONDS: Final = 4.0
_WITH_MASTER_KEY: Final = ("intake", "routing", "notify")

# What is wrong with complaints that were answered 201, one row each.
WRONG: Final = """
SELECT 'no complaint' AS what, asked AS id FROM unnest($1::uuid[]) AS asked
 WHERE NOT EXISTS (SELECT FROM intake.complaint WHERE complaint_id = asked)
UNION ALL
SELECT 'a number given twice', min(complaint_id::text)::uuid FROM intake.complaint GROUP BY tenant_id, number HAVING count(*) > 1
UNION ALL
SELECT 'told more than once', min(message_id::text)::uuid FROM intake.outbox WHERE subject LIKE '%complaint.received'
 GROUP BY tenant_id, convert_from(body, 'UTF8')::jsonb ->> 'case_id' HAVING count(*) > 1
UNION ALL
SELECT 'no case, or a timeline that does not begin once', asked FROM unnest($1::uuid[]) AS asked
 WHERE (SELECT count(*) FROM routing.entry WHERE case_id = asked AND kind = 'received') <> 1
UNION ALL
SELECT 'routing and sla hold other timelines', asked FROM unnest($1::uuid[]) AS asked
 WHERE (SELECT count(*) FROM routing.entry WHERE case_id = asked) <> (SELECT count(*) FROM sla.timeline_entry WHERE case_id = asked)
UNION ALL
SELECT 'a message queued twice', min(delivery_id::text)::uuid FROM notify.delivery WHERE case_id = ANY ($1::uuid[])
 GROUP BY tenant_id, case_id, rule, audience, addressee, channel HAVING count(*) > 1
UNION ALL
SELECT 'no fact', asked FROM unnest($1::uuid[]) AS asked
 WHERE NOT EXISTS (SELECT FROM reporting.fact WHERE case_id = asked)"""


async def measure(stage: Stage) -> list[Figure]:
    one: list[float] = []
    two: list[float] = []
    wrong: list[str] = []
    found = await shared(stage)
    connection = await asyncpg.connect(found.stack.local.superuser_dsn)
    try:
        for _ in stage.rounds("scaling"):
            one.append(await _round(found, [found.port], stage, connection, wrong))
            second = _replicas(found.stack)
            ports = [found.port, second[0].port]
            try:
                await asyncio.gather(*(each.start() for each in second))
                warm = await flat_out(second[0].port, found.requests, 8, 1.5 * stage.share, keep=True)
                await found.ends.latencies(warm, PATIENCE_SECONDS)
                two += [await _round(found, ports, stage, connection, wrong) for _ in range(2)]
            finally:
                await asyncio.gather(*(each.stop() for each in second))
            one.append(await _round(found, [found.port], stage, connection, wrong))
    finally:
        await connection.close()
    ratio = statistics.median(second / first for first, second in zip(one, two, strict=True))
    return [
        Figure("one_replica_per_second", round(statistics.median(one), 1), "complaints/s", {"runs": _rounded(one)}),
        Figure("two_replicas_per_second", round(statistics.median(two), 1), "complaints/s", {"runs": _rounded(two)}),
        Figure("two_replicas_to_one", round(ratio, 4), "ratio"),
        Figure("two_replicas_wrong", len(wrong), "findings", {"first": wrong[:10]}),
    ]


def targets(figures: Sequence[Figure], _: Calibration) -> list[Target]:
    found = by_name(figures)
    return [
        at_most("two_replicas_wrong", found["two_replicas_wrong"].value, 0),
        at_least("two_replicas_to_one", found["two_replicas_to_one"].value, 1.0),
    ]


async def _round(
    found: Running, ports: list[int], stage: Stage, connection: asyncpg.Connection, wrong: list[str]
) -> float:
    """Complaints a second that come all the way, the load shared out over these ports."""
    requests = found.requests
    loads = await asyncio.gather(
        *(flat_out(port, requests, CONCURRENCY // len(ports), stage.lasting(SECONDS), keep=True) for port in ports)
    )
    load = Load(
        bodies=[body for each in loads for body in each.bodies],
        due=[due for each in loads for due in each.due],
    )
    wrong += [f"answered {status}: {number}" for each in loads for status, number in each.problems.items()]
    taken = await found.ends.latencies(load, PATIENCE_SECONDS)
    cases: list[UUID] = cases_of(load)
    wrong += [f"{row['what']}: {row['id']}" for row in await connection.fetch(WRONG, cases)]
    return len(cases) / span((due + each for due, each in zip(load.due, taken, strict=True)), load)


def _replicas(stack: Stack) -> list[ServiceProcess]:
    """A second process of each service, intake's first; not started yet."""
    made = []
    for name in SERVICES:
        extra = {}
        if name in _WITH_MASTER_KEY:
            extra[f"RECOURSE_{name.upper()}_MASTER_KEY"] = master_key(stack.local.folder, name)
        process = stack.local.process(name, extra=extra)
        process.name = f"{name}-2"
        made.append(process)
    assert process_of(stack, "intake").port != made[0].port
    return made


def _rounded(rates: list[float]) -> list[float]:
    return [round(rate, 1) for rate in rates]

"""How many complaints intake stores in a second, and how soon it answers, beside what pgbench makes of the same rows."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from msgspec import Struct

from services.demo.client import Api
from services.local_stack import LocalStack
from services.stack import master_key, new_operator_key
from services.supervisor import ServiceProcess, Supervisor
from shared.migrations import migrate
from tests.bench import pgbench
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import Load, flat_out, percentile
from tests.bench.processors import seconds_of
from tests.bench.tenants import Tenancy, complaints, subscribers

CONCURRENCIES: Final = (1, 8, 32, 128)
WEIGHED: Final = 32  # the concurrency that the target is about
TENANTS: Final = 4  # the four organisations; complaints of one tenant that come at once share a transaction
FURTHER: Final = (1, 16)  # the same with all complaints of one tenant, and of as many as pgbench has connections
SECONDS: Final = 3.0
LONG_SECONDS: Final = 40  # of rows from pgbench before anything is measured, in the long run
ROWS_DATABASE: Final = "rows"
GENERATOR_SHARE: Final = 0.15


class Alone(Struct, kw_only=True):
    """intake by itself, on servers of its own."""

    local: LocalStack
    process: ServiceProcess
    tenancies: list[Tenancy]


async def measure(stage: Stage) -> list[Figure]:
    async with intake_alone(stage) as alone:
        requests = complaints(alone.tenancies[:TENANTS])
        stage.tell("intake: warming up")
        for warm in (complaints(alone.tenancies), requests):  # each tenant's policy is compiled once
            await flat_out(alone.process.port, warm, WEIGHED, 2 * stage.share)
        script = await rows_script(alone.local, stage.place("intake"))
        rows_dsn = alone.local.postgres.dsn_of(ROWS_DATABASE)
        if stage.is_long:
            stage.tell(f"intake: {LONG_SECONDS} s of rows beforehand, in both databases")
            own = await own_script(alone, stage.place("intake"))
            for dsn, rows_of in ((alone.local.superuser_dsn, own), (rows_dsn, script)):
                await pgbench.per_second(dsn, rows_of, max(1, round(LONG_SECONDS * stage.share)))
        await pgbench.analyzed(alone.local.superuser_dsn, rows_dsn)
        loads: dict[int, list[Load]] = {concurrency: [] for concurrency in CONCURRENCIES}
        rows: list[float] = []
        shares: list[dict[str, float]] = []
        for _ in stage.rounds("intake"):
            for concurrency in CONCURRENCIES:
                before = _spent(alone)
                loads[concurrency].append(
                    await flat_out(alone.process.port, requests, concurrency, stage.lasting(SECONDS))
                )
                if concurrency == WEIGHED:
                    spent = {name: seconds - before[name] for name, seconds in _spent(alone).items()}
                    shares.append(spent)
                    rows.append(await pgbench.per_second(rows_dsn, script, max(1, round(stage.lasting(SECONDS)))))
        further = {
            str(tenants): await flat_out(
                alone.process.port, complaints(alone.tenancies[:tenants]), WEIGHED, stage.lasting(SECONDS)
            )
            for tenants in FURTHER
        }
    return [
        *_figures(loads, rows, shares),
        *(
            Figure(f"intake_per_second_{WEIGHED}_of_{tenants}_tenants", round(load.per_second, 1), "complaints/s")
            for tenants, load in further.items()
        ),
    ]


def targets(figures: Sequence[Figure], _: Calibration) -> list[Target]:
    found = by_name(figures)
    return [
        at_least("intake_to_pgbench", found["intake_to_pgbench"].value, 0.40),
        at_most("intake_generator_share", found["intake_generator_share"].value, GENERATOR_SHARE),
    ]


def _figures(loads: dict[int, list[Load]], rows: list[float], shares: list[dict[str, float]]) -> list[Figure]:
    figures = []
    for concurrency, runs in loads.items():
        latencies = [second for run in runs for second in run.latencies]
        figures.append(
            Figure(
                f"intake_per_second_{concurrency}",
                round(statistics.median(run.per_second for run in runs), 1),
                "complaints/s",
                {
                    "runs": [round(run.per_second, 1) for run in runs],
                    "p50_ms": round(1000 * percentile(latencies, 0.50), 2),
                    "p99_ms": round(1000 * percentile(latencies, 0.99), 2),
                    "problems": {name: number for run in runs for name, number in run.problems.items()},
                },
            )
        )
    ratios = [run.per_second / rate for run, rate in zip(loads[WEIGHED], rows, strict=True)]
    generator = [spent["generator"] / sum(spent.values()) for spent in shares]
    stored = sum(run.good for run in loads[WEIGHED])
    figures += [
        Figure(
            "pgbench_same_rows",
            round(statistics.median(rows), 1),
            "complaints/s",
            {"runs": [round(rate, 1) for rate in rows]},
        ),
        Figure(
            "intake_to_pgbench",
            round(statistics.median(ratios), 4),
            "ratio",
            {"runs": [round(ratio, 4) for ratio in ratios]},
        ),
        Figure(
            "intake_generator_share",
            round(statistics.median(generator), 4),
            "of the processor time",
            {
                "ms_per_complaint": {
                    name: round(1000 * sum(spent[name] for spent in shares) / max(1, stored), 4) for name in shares[0]
                }
            },
        ),
    ]
    return figures


def _spent(alone: Alone) -> dict[str, float]:
    """Processor seconds so far, by who spent them."""
    return {
        "generator": time.process_time(),
        "intake": seconds_of(alone.process.pid),
        "postgres": seconds_of(alone.local.postgres.pid),
        "nats": seconds_of(alone.local.nats.pid),
    }


@asynccontextmanager
async def intake_alone(
    stage: Stage, tenants: int = max(FURTHER), extra: dict[str, str] | None = None
) -> AsyncIterator[Alone]:
    """intake as a process, its relay publishing, and nobody who hears it."""
    folder = stage.place("intake")
    async with Supervisor() as supervisor:
        local = await LocalStack.start(supervisor, folder)
        settings = {"RECOURSE_INTAKE_MASTER_KEY": master_key(local.folder, "intake"), **(extra or {})}
        process = local.process("intake", extra=settings)
        operator_key = await new_operator_key({**local.environment("intake"), **settings})
        await supervisor.add(process)
        await supervisor.wait_ready()
        async with httpx.AsyncClient(base_url=process.url, timeout=30.0, trust_env=False) as http:
            yield Alone(
                local=local,
                process=process,
                tenancies=await subscribers(Api(http, operator_key), tenants),
            )


async def rows_script(local: LocalStack, folder: Path) -> Path:
    """A database with the same tables, and a script for pgbench that stores in one statement what intake stores for one complaint.

    What a complaint's rows hold is copied from one that intake has stored, so that sizes agree; ids are made by the server, and each
    connection has a tenant of its own, so that no two of them wait for one counter.
    """
    dsn = local.postgres.dsn_of(ROWS_DATABASE)
    server = await asyncpg.connect(local.postgres.dsn)
    try:
        await server.execute(f"DROP DATABASE IF EXISTS {ROWS_DATABASE} WITH (FORCE)")
        await server.execute(f"CREATE DATABASE {ROWS_DATABASE}")
    finally:
        await server.close()
    await migrate(dsn, "intake")
    script = folder / "rows.sql"
    script.write_text(_statement(await _typical(local), CONNECTION_TENANT), encoding="utf-8")
    return script


async def own_script(alone: Alone, folder: Path) -> Path:
    """As `rows_script`, for the services' database and the tenants that are measured; nothing of it is told to anybody."""
    ids = ", ".join(f"'{tenancy.tenant_id}'" for tenancy in alone.tenancies[:TENANTS])
    script = folder / "own.sql"
    tenant = f"(ARRAY[{ids}])[:client_id % {TENANTS} + 1]::uuid"
    script.write_text(_statement(await _typical(alone.local), tenant, is_told=False), encoding="utf-8")
    return script


async def _typical(local: LocalStack) -> Any:
    source = await asyncpg.connect(local.superuser_dsn)
    try:
        return await source.fetchrow(TYPICAL)
    finally:
        await source.close()


TYPICAL: Final = """
SELECT quote_literal(r.request_sha256) AS request_sha256, quote_literal(c.source) AS source,
       quote_literal(c.words::text) AS words, quote_literal(c.sealed_contact) AS sealed_contact,
       quote_literal(k.wrapped_key) AS wrapped_key, quote_literal(p.blind) AS blind,
       quote_literal(t.sealed) AS sealed, quote_literal(t.created_by) AS created_by,
       quote_literal(o.subject) AS subject, quote_literal(o.body) AS body
  FROM intake.complaint c
  JOIN intake.receipt r ON r.tenant_id = c.tenant_id AND r.complaint_id = c.complaint_id
  JOIN intake.data_key k ON k.tenant_id = c.tenant_id AND k.owner_id = c.complainant_id
  JOIN intake.contact_point p ON p.tenant_id = c.tenant_id AND p.complainant_id = c.complainant_id
  JOIN intake.free_text t ON t.tenant_id = c.tenant_id AND t.case_id = c.complaint_id
  JOIN intake.outbox o ON o.tenant_id = c.tenant_id AND o.subject LIKE '%complaint.received'
                      AND convert_from(o.body, 'UTF8')::jsonb ->> 'case_id' = c.complaint_id::text
 WHERE c.tenant_id = (SELECT max(tenant_id::text)::uuid FROM intake.complaint)
 ORDER BY length(o.body)
OFFSET (SELECT count(*) / 2 FROM intake.complaint WHERE tenant_id = (SELECT max(tenant_id::text)::uuid FROM intake.complaint))
 LIMIT 1"""


CONNECTION_TENANT: Final = "lpad(to_hex(:client_id::bigint), 32, '0')::uuid"


def _statement(row: Any, tenant: str, *, is_told: bool = True) -> str:
    told = f"""INSERT INTO intake.outbox (tenant_id, message_id, subject, body)
SELECT tenant_id, message_id, {row["subject"]}, {row["body"]}::bytea FROM made"""
    return f"""
WITH made AS MATERIALIZED (
    SELECT {tenant} AS tenant_id, uuidv7() AS complaint_id, uuidv7() AS complainant_id,
           uuidv7() AS text_id, uuidv7() AS message_id, gen_random_uuid() AS random
), taken AS (
    INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id)
    SELECT tenant_id, 'api:' || random, {row["request_sha256"]}::bytea, complaint_id FROM made
        ON CONFLICT (tenant_id, key) DO NOTHING
), counted AS (
    INSERT INTO intake.counter AS c (tenant_id, name, count)
    SELECT tenant_id, name, 1 FROM made, (VALUES ('day:2026-01-01'), ('number:2026')) AS each (name)
        ON CONFLICT (tenant_id, name) DO UPDATE SET count = c.count + 1
    RETURNING name, count
), person AS (
    INSERT INTO intake.data_key (tenant_id, owner_id, generation, wrapped_key)
    SELECT tenant_id, complainant_id, 1, {row["wrapped_key"]}::bytea FROM made
), point AS (
    INSERT INTO intake.contact_point (tenant_id, kind, blind, complainant_id)
    SELECT tenant_id, 'phone', decode(md5(random::text) || md5(complaint_id::text), 'hex'), complainant_id FROM made
), stored AS (
    INSERT INTO intake.complaint (tenant_id, complaint_id, number, source, complainant_id, policy_version, received_at, words,
                                  sealed_contact)
    SELECT tenant_id, complaint_id, 'TS2026-' || lpad((SELECT count::text FROM counted WHERE name LIKE 'number:%'), 8, '0'),
           {row["source"]}, complainant_id, 1, clock_timestamp(), {row["words"]}::jsonb, {row["sealed_contact"]}::bytea
      FROM made
), words AS (
    INSERT INTO intake.free_text (tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)
    SELECT tenant_id, text_id, complainant_id, complaint_id, 'complaint', {row["sealed"]}::bytea, {row["created_by"]} FROM made
)
{told if is_told else "SELECT FROM made"};
"""

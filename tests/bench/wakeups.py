"""How many sleeping cases sla wakes, folds and tells about in a second, how late it is while they fall due one by one, and what one takes.

The service processes of sla and routing run with their usual settings on PostgreSQL and NATS, and nothing else does.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import nats
from msgspec import Struct

from services.local_stack import LocalStack
from services.stack import master_key
from services.supervisor import ServiceProcess, Supervisor
from shared.messaging import Messaging
from shared.settings import ServiceSettings
from shared.telemetry import Metrics
from tests.bench import sleepers
from tests.bench.figures import Calibration, Figure, Stage, Target, at_least, at_most, by_name
from tests.bench.load import percentile
from tests.bench.processors import seconds_of
from tests.bench.sleepers import Regime, Shape

SMALL: Final = 100_000
LARGE: Final = 1_000_000
LONG: Final = 10_000_000
DUE_SMALL: Final = 20_000
DUE_LARGE: Final = 100_000  # at most: as many as there is time for
LAG_RATE: Final = 200  # cases due in a second
LAG_SECONDS: Final = 15.0
LAG_AROUND_SECONDS: Final = 20.0  # what loading and looking take beside it
AHEAD_SECONDS: Final = 6.0  # from loading the cases of the lag to the first that is due
PATIENCE: Final = 300.0
LOOK: Final = 0.5

# Looked at while it runs, so it asks for one row of each and no more.
IS_BUSY = """
SELECT EXISTS (SELECT FROM sla.outbox WHERE published_at IS NULL)
    OR EXISTS (SELECT
                 FROM unnest($2::uuid[]) AS t (tenant_id),
                      LATERAL (SELECT 1 FROM sla.watched_case w WHERE w.tenant_id = t.tenant_id AND w.wake_at <= $1 LIMIT 1) AS due)"""

# The case stands at the beginning of each message; to read all of it would take a tenth of what sla took.
DONE = """
SELECT count(*) AS messages, count(*) FILTER (WHERE subject LIKE '%announcement.made') AS announcements,
       coalesce(sum(length(body)), 0) AS bytes, max(created_at) AS written_at, max(published_at) AS published_at,
       count(DISTINCT case_id) AS cases
  FROM (SELECT subject, body, created_at, published_at,
               substring(encode(substring(body FOR 400), 'escape') FROM '"case_id":"([0-9a-f-]{36})"')::uuid AS case_id
          FROM sla.outbox
         WHERE created_at >= $1)
  JOIN public.waiting_case USING (case_id)"""

WOKEN = """
SELECT count(*)
  FROM sla.watched_case w
  JOIN public.waiting_case USING (case_id)
  JOIN public.waiting_shape s USING (shape)
 WHERE w.folded_at >= s.wake_at"""

FAILED = """
SELECT count(*) FROM sla.watched_case WHERE error IS NOT NULL"""

LAGS = """
SELECT w.case_id, s.wake_at, min(o.published_at) AS published_at, min(o.created_at) AS written_at
  FROM public.waiting_case w
  JOIN public.waiting_shape s USING (shape)
  LEFT JOIN (SELECT substring(encode(substring(body FOR 400), 'escape') FROM '"case_id":"([0-9a-f-]{36})"')::uuid AS case_id,
                    published_at, created_at
               FROM sla.outbox
              WHERE subject LIKE '%announcement.made' AND created_at >= $1) o USING (case_id)
 GROUP BY w.case_id, s.wake_at"""

SIZE = """
SELECT pg_total_relation_size('sla.watched_case')"""


class Scene(Struct, kw_only=True):
    """The servers, the two services, and the superuser's connection for loading and looking."""

    local: LocalStack
    sla: ServiceProcess
    routing: ServiceProcess
    root: asyncpg.Connection
    regimes: list[Regime]

    def spent(self) -> dict[str, float]:
        """Processor seconds so far."""
        return {
            "sla": seconds_of(self.sla.pid),
            "routing": seconds_of(self.routing.pid),
            "postgres": seconds_of(self.local.postgres.pid),
            "nats": seconds_of(self.local.nats.pid),
        }


async def measure(stage: Stage) -> list[Figure]:
    async with Supervisor() as supervisor:
        local = await LocalStack.start(supervisor, stage.place("wakeups"))
        await _intake_stream(local)
        root = await asyncpg.connect(local.superuser_dsn, server_settings={"timezone": "UTC"})
        try:
            found = sleepers.regimes()
            await sleepers.put_regimes(root, found)
            key = {"RECOURSE_ROUTING_MASTER_KEY": master_key(local.folder, "routing")}
            sla, routing = local.process("sla"), local.process("routing", extra=key)
            await supervisor.add_together([sla, routing])
            await supervisor.wait_ready()
            scene = Scene(local=local, sla=sla, routing=routing, root=root, regimes=found)
            return await _figures(stage, scene)
        finally:
            await root.close()


async def _figures(stage: Stage, scene: Scene) -> list[Figure]:
    small, large = int(SMALL * stage.share), int((LONG if stage.is_long else LARGE) * stage.share)
    empty = await scene.root.fetchval(SIZE)
    stage.tell(f"wake-ups: {small:,} sleeping cases")
    await sleepers.put_sleepers(scene.local.superuser_dsn, scene.regimes, 1, small)
    await _burst(scene, 20 * len(scene.regimes))  # what is compiled and prepared once
    began = stage.clock()
    few = await _burst(scene, int(DUE_SMALL * stage.share))
    around = stage.clock() - began - few["seconds"]
    stage.tell(f"wake-ups: {few['cases']:,} of them at once, {few['rate']:,.0f}/s; {large:,} sleeping cases")
    await sleepers.put_sleepers(scene.local.superuser_dsn, scene.regimes, small + 1, large)
    await _tidy(scene)
    size = (await scene.root.fetchval(SIZE)) - empty
    many = await _burst(scene, _affordable(stage, few["rate"], around))
    stage.tell(f"wake-ups: {many['cases']:,} of them at once, {many['rate']:,.0f}/s; then {LAG_RATE} a second")
    lag = await _lag(scene, LAG_SECONDS * stage.share)
    failed = await scene.root.fetchval(FAILED)
    if failed:
        raise SystemExit(f"{failed} cases could not be folded")
    name = f"{large:,} sleeping".replace(",", " ")
    return [
        Figure("wake-ups at 1 000 000" if not stage.is_long else "wake-ups at 10 000 000", many["rate"], "/s", many),
        Figure("wake-ups at 100 000", few["rate"], "/s", few),
        Figure("wake-up lag p50", lag["p50"], "ms", lag),
        Figure("wake-up lag p99", lag["p99"], "ms"),
        Figure("wake-up lag max", lag["max"], "ms"),
        Figure("bytes of a sleeping case", size / large, "B", {"cases": name}),
    ]


def _affordable(stage: Stage, rate: float, around: float) -> int:
    """How many cases may be due at once, so that this part ends in time, as far as the smaller burst tells.

    Args:
        around: seconds that preparing the smaller burst took, and looking at what came of it.
    """
    wanted = int(DUE_LARGE * stage.share)
    left = stage.until - stage.clock() - (LAG_SECONDS + LAG_AROUND_SECONDS) * stage.share - 2 * around
    number = int(min(wanted, max(DUE_SMALL * stage.share, left * rate)))
    if number < wanted:
        stage.tell(f"wake-ups: {number:,} at once instead of {wanted:,}: there is no time for more")
    return number


def targets(figures: Sequence[Figure], calibration: Calibration) -> list[Target]:
    found = by_name(figures)
    many = found.get("wake-ups at 1 000 000") or found["wake-ups at 10 000 000"]
    return [
        at_least("wake-ups a second, effects posted", many.value, 3_000 * calibration.scale),
        at_most("wake-up lag p99, ms", found["wake-up lag p99"].value, 300 / calibration.scale),
        at_least(f"{many.name} ÷ at 100 000", many.value / found["wake-ups at 100 000"].value, 0.8),
    ]


# -- all at once -----------------------------------------------------------------------------------------------------------------------


async def _burst(scene: Scene, wanted: int) -> dict[str, Any]:
    """Let so many cases be due at once, and wait until everything about them is in the stream."""
    chance = random.Random(wanted)
    each = min(sleepers.SHAPES_EACH, max(1, wanted // len(scene.regimes)))
    shapes = [shape for regime in scene.regimes for shape in sleepers.overdue(regime, datetime.now(UTC), each, chance)]
    cases = await sleepers.prepare(scene.root, shapes, max(1, wanted // len(shapes)))
    await _tidy(scene)
    before = scene.spent()
    began = await scene.root.fetchval("SELECT clock_timestamp()")
    await sleepers.wake(scene.root)
    due = await scene.root.fetchval("SELECT clock_timestamp()")
    await _until_quiet(scene)
    spent = {name: round(seconds - before[name], 2) for name, seconds in scene.spent().items()}
    done = await scene.root.fetchrow(DONE, began)
    assert done is not None
    woken = await scene.root.fetchval(WOKEN)
    if woken != cases or done["cases"] != cases:
        raise SystemExit(f"{cases} cases were due; {woken} were woken, {done['cases']} told about")
    seconds = (done["published_at"] - due).total_seconds()
    return {
        "cases": cases,
        "rate": cases / seconds,
        "rate_written": cases / (done["written_at"] - due).total_seconds(),
        "messages": done["messages"],
        "announcements": done["announcements"],
        "bytes_a_message": round(int(done["bytes"]) / done["messages"]),
        "processor_us_a_case": {name: round(value / cases * 1e6) for name, value in spent.items()},
        "seconds": round(seconds, 2),
    }


async def _until_quiet(scene: Scene) -> None:
    end = time.monotonic() + PATIENCE
    tenant_ids = [regime.tenant_id for regime in scene.regimes]
    while await scene.root.fetchval(IS_BUSY, datetime.now(UTC), tenant_ids):
        if time.monotonic() > end:
            raise SystemExit(f"cases are still due, or messages wait, after {PATIENCE:.0f} s")
        await asyncio.sleep(LOOK)


# -- one by one ------------------------------------------------------------------------------------------------------------------------


async def _lag(scene: Scene, seconds: float) -> dict[str, Any]:
    """Let cases fall due evenly, known to routing as well, and see when what follows is in the stream."""
    await _tidy(scene)
    chance = random.Random(7)
    regimes = sleepers.by_agreement(scene.regimes)
    number = int(LAG_RATE * seconds)
    first = datetime.now(UTC) + timedelta(seconds=AHEAD_SECONDS + number / 500)
    shapes: list[Shape] = [
        sleepers.due_at(regimes[place % len(regimes)], first + timedelta(seconds=place / LAG_RATE), chance)
        for place in range(number)
    ]
    cases = await sleepers.prepare(scene.root, shapes, 1)
    began = await scene.root.fetchval("SELECT clock_timestamp()")
    await sleepers.prepare_routing(scene.root, shapes)
    await sleepers.wake(scene.root)
    loaded = datetime.now(UTC)
    if loaded > first:
        raise SystemExit(f"loading took {(loaded - first).total_seconds():.1f} s longer than expected")
    before = scene.spent()
    await asyncio.sleep((first - loaded).total_seconds() + seconds)
    await _until(lambda: _all_told(scene, began, cases))
    spent = {name: round((value - before[name]) / seconds, 3) for name, value in scene.spent().items()}
    rows = await scene.root.fetch(LAGS, began)
    lags = sorted((row["published_at"] - row["wake_at"]).total_seconds() * 1000 for row in rows)
    written = sorted((row["written_at"] - row["wake_at"]).total_seconds() * 1000 for row in rows)
    return {
        "cases": cases,
        "p50": percentile(lags, 0.5),
        "p99": percentile(lags, 0.99),
        "max": lags[-1],
        "written_p50": percentile(written, 0.5),
        "written_p99": percentile(written, 0.99),
        "mean": statistics.fmean(lags),
        "processors": spent,
    }


async def _all_told(scene: Scene, began: datetime, cases: int) -> bool:
    rows = await scene.root.fetch(LAGS, began)
    return len(rows) == cases and all(row["published_at"] is not None for row in rows)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - other processes do what is waited for
            await asyncio.sleep(0.3)


# -- around --------------------------------------------------------------------------------------------------------------------------------


async def _tidy(scene: Scene) -> None:
    """What autovacuum does in time anyway, before and not while we measure."""
    await scene.root.execute(
        "VACUUM (ANALYZE) sla.watched_case, sla.timeline_entry, sla.announcement, sla.ledger_position, sla.outbox"
    )
    await scene.root.execute("CHECKPOINT")


async def _intake_stream(local: LocalStack) -> None:
    """The stream of intake, which does not run here: both services hear it."""
    settings = ServiceSettings(service="intake", database_url="", nats_url="", stream_max_bytes=16 * 1024 * 1024)
    client = await nats.connect(local.nats.url("intake"), connect_timeout=5, inbox_prefix=b"_INBOX_intake")
    try:
        await client.jetstream().add_stream(Messaging(settings, Metrics("intake")).stream_config())
    finally:
        await client.close()

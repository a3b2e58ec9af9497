"""Three days of downtime: a hundred thousand wake-ups are overdue at once, nearly all of one tenant, and sla is killed while it catches up.

sla runs alone here, on servers of its own, with cases that are put straight into its tables: all services could not take in a
hundred thousand complaints in the time there is. What must have happened is what the engine says, counted in the database:
everything once, marked late, and the quiet tenant's within seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import msgspec

from services.audit.auditing import undisturbed
from services.audit.cases import check_effects
from services.audit.look import connect, look_at
from services.audit.told import gather
from services.local_stack import LocalStack
from services.supervisor import ServiceProcess, Supervisor
from shared.engine.case import replay
from shared.engine.model import Actor, Entry
from shared.messages.base import LIVE
from shared.policy.compiling import compile_policy
from shared.policy.documents import parse
from shared.reference import book_of
from tests.chaos.faults import freeze
from tests.chaos.frame import CaseFailedError, World
from tests.chaos.speed import machine_speed, processor_speed
from tests.chaos.tenants import PLENTY, POLICY

QUIET_CASES: Final = 100
QUIET_WITHIN: Final = 5.0
DRAINED_WITHIN: Final = 60.0  # without the time in which sla was dead or frozen
PUBLISHED_WITHIN: Final = 90.0
BETWEEN_SPEEDS: Final = 5.0
ZONE: Final = "UTC"
DOWN: Final = timedelta(days=3)

TENANT: Final = """
INSERT INTO sla.tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits)
VALUES ($1, 1, $2, 'A tenant', $3, false, true, $4::text::jsonb)"""

RULES: Final = """
INSERT INTO sla.policy (tenant_id, version, document, settings, effect, published_by, published_at)
VALUES ($1, 1, $2::text::json, '{}', 'keep', 'admin', clock_timestamp() - interval '30 days')"""

# Every case has a timeline of one line and sleeps until its first limit, three days ago.
CASES: Final = """
WITH new AS (
    INSERT INTO sla.watched_case (tenant_id, case_id, case_kind, policy_version, number, wake_at, folded_seq, folded_at, digest)
    SELECT $1, uuidv7(), 'complaint', 1, 'C-' || n, $3::timestamptz, 1, $4::timestamptz, sha256(n::text::bytea)
      FROM generate_series(1, $2::integer) AS n
    RETURNING case_id)
INSERT INTO sla.timeline_entry (tenant_id, case_id, seq, entry)
SELECT $1, case_id, 1, $5::text::json
  FROM new"""

TICK: Final = """
INSERT INTO sla.tick AS t (tenant_id, at) VALUES ($1, clock_timestamp())
ON CONFLICT (tenant_id) DO UPDATE SET at = excluded.at"""

DUE: Final = """
SELECT count(*) FROM sla.watched_case WHERE tenant_id = $1 AND wake_at <= $2"""

MADE: Final = """
SELECT count(*) AS made, count(DISTINCT (case_id, key)) AS different, count(*) FILTER (WHERE NOT late) AS not_marked,
       (SELECT count(*) FROM sla.outbox o WHERE o.tenant_id = $1 AND o.subject LIKE '%.announcement.made') AS told
  FROM sla.announcement
 WHERE tenant_id = $1"""

POSTED: Final = """
SELECT count(*) AS rows, coalesce(sum(difference_minor), 0)::bigint AS minor,
       (SELECT count(*) FROM sla.outbox o WHERE o.tenant_id = $1 AND o.subject LIKE '%.penalty.posted') AS told
  FROM sla.ledger_posting
 WHERE tenant_id = $1"""

# The auditor remembers all that was told, which takes it half a minute for everything: it gets one case of ten, with all that is theirs.
THINNED: Final = (
    "DELETE FROM sla.announcement WHERE hashtext(case_id::text) % 10 <> 0",
    "DELETE FROM sla.ledger_posting WHERE hashtext(case_id::text) % 10 <> 0",
    "DELETE FROM sla.ledger_position WHERE hashtext(case_id::text) % 10 <> 0",
    "DELETE FROM sla.outbox WHERE hashtext(convert_from(body, 'UTF8')::jsonb ->> 'case_id') % 10 <> 0",
)

FAULTY: Final = "SELECT count(*) FROM sla.watched_case WHERE error IS NOT NULL"
WAITING: Final = "SELECT count(*) FROM sla.outbox WHERE published_at IS NULL"


class Overdue:
    name: Final = "wake-ups overdue"
    place: Final = "aside"

    def __init__(self) -> None:
        self._speeds: list[float] = []
        self._lost = 0.0

    @property
    def _speed(self) -> float:
        """How fast the machine was at the beginning, and has been since."""
        return min(self._speeds[0], sum(self._speeds) / len(self._speeds))

    def needs(self) -> str:
        return ""

    async def run(self, world: World) -> dict[str, Any]:
        folder = Path(tempfile.mkdtemp(prefix="recourse-overdue-"))
        try:
            async with Supervisor() as supervisor:
                with world.stage("begin"):
                    local = await LocalStack.start(supervisor, folder)
                    root = await asyncpg.connect(local.superuser_dsn, server_settings={"TimeZone": "UTC"})
                try:
                    return await self._come_due(world, supervisor, local, root)
                finally:
                    await root.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _come_due(
        self, world: World, supervisor: Supervisor, local: LocalStack, root: asyncpg.Connection
    ) -> dict[str, Any]:
        """Put the cases in, have them caught up with while nobody else does anything, and see what became of them."""
        received = datetime.now(UTC) - DOWN - timedelta(minutes=10)
        first = Entry(seq=1, kind="received", at=received, by=Actor(id="intake"), data={"category": "billing"})
        effects, owed = _expected(first)
        busy, quiet = uuid4(), uuid4()
        numbers = {busy: world.size.overdue - QUIET_CASES, quiet: QUIET_CASES}
        with world.stage("fill"):
            for tenant_id, number in numbers.items():
                await self._fill(root, tenant_id, number, first)
            await root.execute("ANALYZE sla.watched_case, sla.timeline_entry")
        async with world.room.alone():
            with world.stage("catch up"):
                unit = local.process("sla")
                await supervisor.add(unit)
                began, taken = await self._catch_up(world, supervisor, unit, root, busy, quiet)
        with world.stage("publish"):
            taken["all_published_after_seconds"] = await self._published(root, began)
        with world.stage("judge"), supervisor.held("sla"):
            await unit.stop()
            for tenant_id, number in numbers.items():
                await self._count(root, tenant_id, number, effects, owed)
            if faulty := await root.fetchval(FAULTY):
                raise CaseFailedError(f"{faulty} cases could not be folded")
            for statement in THINNED:
                await root.execute(statement, timeout=120)
            # In a loop of its own, or the case that goes on beside this one would stand still meanwhile.
            compared = await asyncio.to_thread(asyncio.run, self._audited(local.superuser_dsn))
        return {"cases": world.size.overdue, "effects_each": effects, **taken, "compared": compared}

    @staticmethod
    async def _fill(root: asyncpg.Connection, tenant_id: UUID, number: int, first: Entry) -> None:
        document = msgspec.json.encode(parse(POLICY).values).decode()
        await root.execute(TENANT, tenant_id, tenant_id.hex, ZONE, msgspec.json.encode(PLENTY).decode())
        await root.execute(RULES, tenant_id, document)
        line, due = msgspec.json.encode(first).decode(), first.at + timedelta(minutes=1)
        await root.execute(CASES, tenant_id, number, due, first.at, line, timeout=120)

    async def _catch_up(
        self,
        world: World,
        supervisor: Supervisor,
        unit: ServiceProcess,
        root: asyncpg.Connection,
        busy: UUID,
        quiet: UUID,
    ) -> tuple[float, dict[str, Any]]:
        self._speeds = [machine_speed()]
        began = time.monotonic()
        await root.execute(TICK, LIVE)
        now = await root.fetchval("SELECT at FROM sla.tick WHERE tenant_id = $1", LIVE)
        quiet_after = await self._until_done(root, quiet, now, began)
        if quiet_after > QUIET_WITHIN / self._speed:
            raise CaseFailedError(f"the quiet tenant's wake-ups took {quiet_after:.1f} s")
        for fault in ("kill", "freeze", "kill"):
            await asyncio.sleep(world.chance.uniform(1.0, 3.0))
            struck = time.monotonic()
            with supervisor.held("sla"):
                if fault == "freeze":
                    await freeze(unit, 1.0)
                else:
                    await unit.kill()
                    await unit.start()
            self._lost += time.monotonic() - struck
        took = await self._until_done(root, busy, now, began)
        return began, {
            "machine_speed": round(self._speed, 2),
            "dead_or_frozen_seconds": round(self._lost, 1),
            "quiet_done_after_seconds": round(quiet_after, 1),
            "all_done_after_seconds": round(took, 1),
        }

    async def _until_done(self, root: asyncpg.Connection, tenant_id: UUID, now: datetime, began: float) -> float:
        looked = began
        while await root.fetchval(DUE, tenant_id, now):
            if time.monotonic() - looked > BETWEEN_SPEEDS:  # a machine may grow slower meanwhile
                self._speeds.append(await asyncio.to_thread(processor_speed))
                looked = time.monotonic()
            limit = DRAINED_WITHIN / self._speed + self._lost
            if time.monotonic() - began > limit:
                left = await root.fetchval(DUE, tenant_id, now)
                raise CaseFailedError(f"{left} wake-ups are still overdue after {limit:.0f} s")
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def _published(self, root: asyncpg.Connection, began: float) -> float:
        while await root.fetchval(WAITING):
            if time.monotonic() - began > PUBLISHED_WITHIN / self._speed + self._lost:
                raise CaseFailedError("what was told is still not published")
            await asyncio.sleep(0.2)
        return round(time.monotonic() - began, 1)

    @staticmethod
    async def _audited(dsn: str) -> int:
        """What the auditor says of effects and the ledger; there are no other services here that it could ask. Returns its comparisons."""
        connection = await connect(dsn)
        try:
            with undisturbed():
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    look = await look_at(connection, await gather(connection), {}, None, None)
                    await check_effects(look)
        finally:
            await connection.close()
        if found := look.findings.all():
            raise CaseFailedError("; ".join(f"{each.check} {each.subject}: {each.what}" for each in found[:5]))
        return look.findings.compared

    @staticmethod
    async def _count(root: asyncpg.Connection, tenant_id: UUID, cases: int, effects: int, owed: list[int]) -> None:
        """Everything once: announcements, their messages, rows of the ledger, theirs."""
        [made] = await root.fetch(MADE, tenant_id)
        [posted] = await root.fetch(POSTED, tenant_id)
        found = (made["made"], made["different"], made["told"], posted["rows"], posted["told"], posted["minor"])
        right = (
            cases * effects,
            cases * effects,
            cases * effects,
            cases * len(owed),
            cases * len(owed),
            cases * sum(owed),
        )
        if found != right:
            raise CaseFailedError(f"announced, different, told, posted, told, sum: {found} instead of {right}")
        if made["not_marked"]:
            raise CaseFailedError(f"{made['not_marked']} announcements are not marked late")


def _expected(first: Entry) -> tuple[int, list[int]]:
    """How many announcements such a case brings about by now, and the amounts that it owes, as the engine says."""
    values = parse(POLICY).values
    published = first.at - timedelta(days=20)
    book = book_of(ZONE, [{"version": 1, "section": values.get("calendar"), "published_at": published}], [])
    standing = replay({1: compile_policy(values, {}, 1)}, [first], book).standing(datetime.now(UTC))
    owed = [view.amount_minor for view in standing.penalties if view.amount_minor is not None]
    return len(standing.effects), owed

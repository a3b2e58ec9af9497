"""One look at everything: the database in one snapshot, the streams, the journal, the record of the other side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg
import msgspec
from msgspec import Struct

from services.audit.findings import Findings
from services.audit.journal import Asked, Line, requests
from services.audit.provider import Taken
from services.audit.sources import LONGEST_PAUSE, Evidence
from services.audit.streams import Stream, Streams
from services.audit.told import Told, gather

LIVE: Final = UUID(int=0)
"""The tenant of what concerns all live tenants at once, and of the operator."""

RETAINED: Final = timedelta(days=6)
"""Outboxes and receipts are kept for a week: what is older need not be there any more."""

TENANTS: Final = """
SELECT tenant_id, zone, sandbox, created_at, limits ->> 'retention_days' AS retention
  FROM intake.tenant"""

RECEIPTS: Final = """
SELECT tenant_id, key, complaint_id, encode(request_sha256, 'hex')
  FROM intake.receipt"""

COMPLAINTS: Final = """
SELECT tenant_id, complaint_id, number, source, complainant_id, stored_at, received_at, policy_version, duplicate_of
  FROM intake.complaint"""


SETTINGS: Final = {
    "TimeZone": "UTC",
    "jit": "off",
    "work_mem": "64MB",
    "max_parallel_workers_per_gather": "0",
    "enable_nestloop": "off",
}
"""Everything is read once, so nothing is worth to be compiled, or to be shared with processes that must be started first; and whole tables
are joined, which goes through each as often as the other has rows where nobody has counted these yet."""


class Tenant(Struct, frozen=True):
    tenant_id: UUID
    zone: str
    sandbox: bool
    created_at: datetime | None
    retention: str | None  # days


TEST_CLOCKS: Final = """
SELECT tenant_id, now
  FROM routing.test_clock"""


class Complaint(Struct, frozen=True):
    tenant_id: UUID
    complaint_id: UUID
    number: str
    source: str
    complainant_id: UUID
    stored_at: datetime
    received_at: datetime
    policy_version: int
    duplicate_of: UUID | None


class Receipt(Struct, frozen=True):
    tenant_id: UUID
    key: str
    complaint_id: UUID
    request: str


class Look:
    """What the checks read, and where they put what they find.

    clocks: where the clock of each sandbox stands.
    misplaced: ids that lie with two tenants. That is one finding and not ten, so the other checks leave them out.
    """

    def __init__(
        self,
        connection: asyncpg.Connection,
        *,
        now: datetime,
        asked: list[Asked] | None,
        record: list[Taken] | None,
        streams: dict[str, Stream],
        told: Told,
        tenants: dict[UUID, Tenant],
        clocks: dict[UUID, datetime],
        complaints: list[Complaint],
        receipts: list[Receipt],
        findings: Findings,
        secrets: Path | None,
    ) -> None:
        self.connection = connection
        self.now = now
        self.asked = asked or []
        self.record = record
        self.streams = streams
        self.told = told
        self.tenants = tenants
        self.clocks = clocks
        self.complaints = complaints
        self.receipts = receipts
        self.findings = findings
        self.secrets = secrets
        self.misplaced: set[UUID] = set()
        self.longest_pause = LONGEST_PAUSE

    async def rows(self, query: str, *arguments: Any) -> Sequence[Any]:
        found: Sequence[Any] = await self.connection.fetch(query, *arguments)
        return found

    def day(self, tenant_id: UUID, at: datetime) -> date | None:
        """The date of an instant in the tenant's zone; None where the zone is none."""
        tenant = self.tenants.get(tenant_id)
        try:
            return None if tenant is None else at.astimezone(ZoneInfo(tenant.zone)).date()
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return None

    def is_kept(self, tenant_id: UUID, at: datetime) -> bool:
        """Whether a message to people of this instant is still kept, by the plan. A sandbox's time says nothing of how old one is."""
        tenant = self.tenants.get(tenant_id)
        if tenant is None or tenant.retention is None or not tenant.retention.isdecimal():
            return True
        since = self.now - timedelta(days=int(tenant.retention) - 1)
        is_young = tenant.created_at is None or tenant.created_at > since
        return is_young or (at > since and not tenant.sandbox)

    @property
    def retained_from(self) -> datetime:
        return self.now - RETAINED

    @property
    def answered(self) -> dict[UUID, Asked]:
        """The complaints that the journal says were stored, by id."""
        return {
            line.case_id: asked
            for asked in self.asked
            if asked.source in ("api", "webhook", "smtp")
            for line in asked.good
            if line.case_id is not None
        }


async def open_look(evidence: Evidence, *, with_streams: bool = True) -> tuple[asyncpg.Connection, Look]:
    """Gather what the checks need. The connection holds the snapshot; whoever called closes it."""
    findings = Findings()
    async with AsyncExitStack() as exits:
        with findings.part("journal"):
            lines = evidence.lines()  # before the database: whatever these lines promise must be found there
        streams = await exits.enter_async_context(Streams(evidence.nats)) if with_streams else None
        connection = await connect(evidence.dsn)
        try:
            await connection.transaction(isolation="repeatable_read", readonly=True).start()
            with findings.part("outboxes"):
                told = await gather(connection)
            with findings.part("streams"):
                held = {} if streams is None else await streams.read()
            with findings.part("rows"):
                look = await look_at(connection, told, held, lines, evidence.record(), findings, evidence.secrets)
                look.longest_pause = evidence.longest_pause
        except BaseException:
            await connection.close()
            raise
    return connection, look


async def connect(dsn: str) -> asyncpg.Connection:
    """Connect as the checks need it: `json` and `jsonb` are read as values, and every statement is planned for the data that are there."""
    connection = await asyncpg.connect(dsn, timeout=10, server_settings=SETTINGS)
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=_encoded, decoder=_decoded, schema="pg_catalog")
    return connection


def _decoded(text: str) -> object:
    """The value; the text itself where PostgreSQL takes for JSON what is none elsewhere."""
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def look_at(
    connection: asyncpg.Connection,
    told: Told,
    streams: dict[str, Stream],
    lines: list[Line] | None,
    record: list[Taken] | None,
    findings: Findings | None = None,
    secrets: Path | None = None,
) -> Look:
    """Look at the database as this connection's transaction sees it."""
    return Look(
        connection,
        now=await connection.fetchval("SELECT clock_timestamp()"),
        asked=None if lines is None else list(requests(lines)),
        record=record,
        streams=streams,
        told=told,
        tenants={row["tenant_id"]: Tenant(*row) for row in await connection.fetch(TENANTS)},
        clocks={row["tenant_id"]: row["now"] for row in await connection.fetch(TEST_CLOCKS)},
        complaints=[Complaint(*row) for row in await connection.fetch(COMPLAINTS)],
        receipts=[Receipt(*row) for row in await connection.fetch(RECEIPTS)],
        findings=findings or Findings(),
        secrets=secrets,
    )

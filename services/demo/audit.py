"""The audit: what was answered 2xx, compared with what lies in every store. It shares no code with the services: plain SQL as the
superuser, and the stream as NATS holds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

import asyncpg
import msgspec
import nats
from nats.errors import TimeoutError as NothingMore
from nats.js.api import ConsumerConfig, DeliverPolicy

from services.demo.journal import Journal
from services.demo.report import Audit

RECEIVED_IN_INTAKE = """
SELECT complaint_id AS id, count(*) AS n
  FROM intake.complaint
 WHERE tenant_id = $1
 GROUP BY complaint_id"""

BY_SOURCE = """
SELECT source, count(*) AS n
  FROM intake.complaint
 WHERE tenant_id = $1
 GROUP BY source"""

ANSWERS = """
SELECT complaint_id AS id, count(*) AS n
  FROM intake.receipt
 WHERE tenant_id = $1
 GROUP BY complaint_id"""

IN_THE_OUTBOX = """
SELECT (convert_from(body, 'UTF8')::jsonb ->> 'case_id')::uuid AS id, count(*) FILTER (WHERE published_at IS NOT NULL) AS n
  FROM intake.outbox
 WHERE tenant_id = $1 AND subject LIKE '%.complaint.received'
 GROUP BY 1"""

CASES = """
SELECT case_id AS id, count(*) AS n
  FROM routing."case"
 WHERE tenant_id = $1 AND kind = 'complaint'
 GROUP BY case_id"""

FIRST_LINES = """
SELECT entry.case_id AS id, count(*) AS n
  FROM routing.entry
  JOIN routing."case" USING (tenant_id, case_id)
 WHERE entry.tenant_id = $1 AND "case".kind = 'complaint' AND entry.kind = 'received'
 GROUP BY entry.case_id"""

ASSIGNMENTS = """
SELECT case_id AS id, count(*) AS n
  FROM routing.assignment
 WHERE tenant_id = $1 AND active
 GROUP BY case_id"""

WATCHED = """
SELECT case_id AS id, count(*) AS n
  FROM sla.watched_case
 WHERE tenant_id = $1 AND case_kind = 'complaint'
 GROUP BY case_id"""

FACTS = """
SELECT case_id AS id, count(*) AS n
  FROM reporting.fact
 WHERE tenant_id = $1 AND case_kind = 'complaint' AND seq > 0
 GROUP BY case_id"""

# Lines of timelines: as many everywhere as routing wrote, and none missing in between.
LINES = """
SELECT case_id AS id, count(*) AS n
  FROM {table}
 WHERE tenant_id = $1
 GROUP BY case_id"""

VERSIONS = """
SELECT case_id AS id, version AS n
  FROM routing."case"
 WHERE tenant_id = $1"""

NUMBERS = """
SELECT count(*) - count(DISTINCT number)
  FROM intake.complaint
 WHERE tenant_id = $1"""

UNPUBLISHED = """
SELECT count(*)
  FROM {service}.outbox
 WHERE published_at IS NULL"""

DEAD = """
SELECT count(*)
  FROM {service}.dead_letter
 WHERE state = 'dead'"""

# What stands in the ledger is the sum of its rows, here and in reporting.
LEDGER = """
SELECT abs(coalesce((SELECT sum(posted_minor) FROM sla.ledger_position WHERE tenant_id = $1), 0)
           - coalesce((SELECT sum(difference_minor) FROM sla.ledger_posting WHERE tenant_id = $1), 0))
     + abs(coalesce((SELECT sum(difference_minor) FROM reporting.posting WHERE tenant_id = $1), 0)
           - coalesce((SELECT sum(difference_minor) FROM sla.ledger_posting WHERE tenant_id = $1), 0))"""

SENT_SMS = """
SELECT count(*)
  FROM notify.delivery
 WHERE channel = 'sms' AND state IN ('sent', 'delivered')"""

UNSENT = """
SELECT count(*)
  FROM notify.delivery
 WHERE tenant_id = $1 AND state IN ('queued', 'sending')"""

SERVICES = ("intake", "routing", "sla", "notify", "reporting")
SOURCE_NAMES = {"api": "api", "webhook": "webhook", "smtp": "email", "csv": "csv"}


class Findings:
    """Counts comparisons, and says of each that failed what was missing or too much."""

    def __init__(self) -> None:
        self.checks = 0
        self.lost = 0
        self.duplicated = 0
        self.sentences: list[str] = []

    def compare(self, what: str, found: int, expected: int) -> None:
        self.checks += 1
        if found < expected:
            self.lost += expected - found
            self.sentences.append(f"{what}: {found} instead of {expected}")
        elif found > expected:
            self.duplicated += found - expected
            self.sentences.append(f"{what}: {found} instead of {expected}")

    def each_once(self, what: str, found: Counter[UUID], expected: Iterable[UUID]) -> None:
        """Compare, one by one: each of `expected` is there once, and nothing else is."""
        ids = set(expected)
        for each in ids:
            self.compare(f"{what}, {each}", found[each], 1)
        for each in set(found) - ids:
            self.compare(f"{what}, {each}", found[each], 0)

    @property
    def are_clean(self) -> bool:
        return self.lost == self.duplicated == 0

    @property
    def audit(self) -> Audit:
        return Audit(lost=self.lost, duplicated=self.duplicated, checks=self.checks)


async def audit(dsn: str, nats_url: str, journals: dict[UUID, Journal], sms_taken: int) -> Findings:
    """Compare everything, once.

    Args:
        dsn: of the superuser.
        nats_url: of the operator.
        journals: by tenant.
        sms_taken: how many different SMS the provider says it took.
    """
    findings = Findings()
    connection = await asyncpg.connect(dsn)
    try:
        streamed = await _streamed(nats_url)
        for tenant_id, journal in journals.items():
            await _tenant(connection, tenant_id, journal, streamed, findings)
        for service in SERVICES:
            findings.compare(
                f"unpublished messages of {service}", await connection.fetchval(UNPUBLISHED.format(service=service)), 0
            )
            findings.compare(f"dead letters of {service}", await connection.fetchval(DEAD.format(service=service)), 0)
        findings.compare("SMS at the provider", sms_taken, await connection.fetchval(SENT_SMS))
    finally:
        await connection.close()
    return findings


async def _tenant(
    connection: asyncpg.Connection, tenant_id: UUID, journal: Journal, streamed: Counter[UUID], findings: Findings
) -> None:
    async def counted(query: str) -> Counter[UUID]:
        return Counter({row["id"]: row["n"] for row in await connection.fetch(query, tenant_id)})

    in_intake = await counted(RECEIVED_IN_INTAKE)
    by_source = {row["source"]: row["n"] for row in await connection.fetch(BY_SOURCE, tenant_id)}
    for answered in journal.ids:
        findings.compare(f"answered and stored, {answered}", in_intake[answered], 1)
    for source, name in SOURCE_NAMES.items():
        findings.compare(f"stored by {source}", by_source.get(name, 0), journal.stored_from(source))  # type: ignore[arg-type]
    findings.compare(
        "stored, by whichever way", sum(by_source.values()) - by_source.get("effect", 0), len(journal.receipts)
    )
    stored = set(in_intake)
    findings.each_once("answers", await counted(ANSWERS), stored)
    findings.each_once("outbox", await counted(IN_THE_OUTBOX), stored)
    findings.each_once("stream", Counter({each: n for each, n in streamed.items() if each in stored}), stored)
    findings.each_once("cases of routing", await counted(CASES), stored)
    findings.each_once("first lines of timelines", await counted(FIRST_LINES), stored)
    findings.each_once("assignments", await counted(ASSIGNMENTS), stored)
    findings.each_once("cases of sla", await counted(WATCHED), stored)
    findings.each_once("facts of reporting", await counted(FACTS), stored)
    versions = await counted(VERSIONS)
    for table in ("routing.entry", "sla.timeline_entry", "reporting.entry"):
        lines = await counted(LINES.format(table=table))  # names of our own
        for case_id, version in versions.items():
            findings.compare(f"lines in {table} of {case_id}", lines[case_id], version)
    findings.compare("numbers given twice", await connection.fetchval(NUMBERS, tenant_id), 0)
    findings.compare("differences in the ledger", await connection.fetchval(LEDGER, tenant_id), 0)
    findings.compare("messages not sent yet", await connection.fetchval(UNSENT, tenant_id), 0)


async def _streamed(nats_url: str) -> Counter[UUID]:
    """Return how many different messages of each complaint's receipt the stream holds."""
    client = await nats.connect(nats_url, connect_timeout=5, max_reconnect_attempts=3)
    try:
        js = client.jetstream(timeout=5)
        subscription = await js.pull_subscribe(
            "intake.v1.*.complaint.received",
            stream="INTAKE",
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, inactive_threshold=30),
        )
        seen: set[tuple[UUID, str]] = set()
        while True:
            try:
                messages = await subscription.fetch(200, timeout=0.5)
            except (TimeoutError, NothingMore):
                break
            for message in messages:
                body = msgspec.json.decode(message.data)
                seen.add((UUID(body["case_id"]), body["message_id"]))
                await message.ack()
        await subscription.unsubscribe()
        return Counter(case_id for case_id, _ in seen)
    finally:
        await client.close()

"""The demonstration, with fewer organisations: everything it checks about the system is checked here, too."""

from __future__ import annotations

import msgspec
import pytest

from services.demo.organisations import DEALER, SCHOOL
from services.demo.report import text
from services.demo.running import run

SMALL = msgspec.structs.replace(SCHOOL, api=SCHOOL.api[:3], webhook=SCHOOL.webhook[:1], mails=SCHOOL.mails[:1])


def quiet(_: str) -> None:
    """Nobody listens."""


@pytest.mark.timeout(240)
async def test_what_is_promised_is_kept_and_told() -> None:
    outcome = await run(quiet, split=False, organisations=(DEALER, SCHOOL))
    report = outcome.report
    assert outcome.findings == []
    assert report.ok
    assert report.audit == msgspec.structs.replace(report.audit, lost=0, duplicated=0)
    assert report.audit.checks > 200
    assert report.sent == report.stored + sum(report.refused.values())
    assert [tenant.stored for tenant in report.tenants] == [13, 13]
    assert set(report.refused) == {
        "bad-encoding",
        "idempotency-key-reused",
        "malformed",
        "row-invalid",
        "smtp-550",
        "smtp-automatic",
        "unauthorized",
    }
    dealer, school = report.tenants
    assert min(dealer.late, school.late, school.escalated) >= 1
    assert all(fine.explanation for tenant in report.tenants for fine in tenant.fines)
    assert {fine.clause for fine in school.fines} == {"R18.19", "R18.20", "R18.21"}
    assert {(fine.clause, fine.amount_minor) for fine in dealer.fines} == {("R38.35", 5000)}
    lines = list(text(report, outcome.names, outcome.delivered, outcome.findings))
    assert any("3600.00 CNY under R18.19" in line for line in lines)
    shape = msgspec.json.decode(msgspec.json.encode(report))
    assert list(shape) == ["ok", "seconds", "sent", "stored", "refused", "sources", "tenants", "sinks", "audit"]


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_doubled_although_everything_is_killed_once() -> None:
    events: list[str] = []
    outcome = await run(events.append, faults=True, organisations=(SMALL,))
    assert outcome.findings == []
    assert outcome.report.ok
    assert sum(line.startswith("killed ") for line in events) == 7
    assert "killed nats and its data" in events

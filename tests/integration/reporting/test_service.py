"""Reporting as its callers meet it: told over NATS, asked over HTTP."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from services.reporting.app import SPEC
from services.reporting.settings import ReportingSettings
from shared.ids import OPERATOR
from shared.messages import Message
from shared.service import Service
from tests.integration.reporting.told import (
    NINE,
    Complaint,
    Tellers,
    a_clock,
    a_credential,
    a_policy,
    a_tenant,
    a_whole_life,
    again,
)
from tests.stack import http
from tests.waiting import until

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "A hospital",
    "vocabulary": {
        "severities": {"light": "", "invalid": ""},
        "fields": {"ward": {"type": "text"}, "diagnosis": {"type": "text", "restricted": True}},
        "steps": {"staff_scored": ""},
    },
    "reports": [
        {
            "row": "fed_back",
            "clause": "R09.34",
            "value": "percent",
            "done": "size(breached) == 0",
            "target": "100",
            "by": ["channel"],
        },
        {"row": "invalid", "clause": "R09.33", "where": 'severity == "invalid"', "title": {"en": "Invalid"}},
        {
            "row": "average_score",
            "clause": "R28.1",
            "value": "mean",
            "entries": "step:staff_scored",
            "of": "=[data.attitude, data.communication, data.problem_solving]",
            "subject": "=data.staff",
        },
    ],
}


class Office:
    """One tenant with a policy and a key for each role."""

    def __init__(self, tenant_id: UUID, keys: dict[str, str]) -> None:
        self.tenant_id, self.keys = tenant_id, keys


async def an_office(service: Service, tellers: Tellers) -> Office:
    tenant_id = uuid4()
    keys: dict[str, str] = {}
    await tellers.tell(a_tenant(tenant_id), a_policy(tenant_id, POLICY))
    for role in ("admin", "auditor", "handler"):
        credential, keys[role] = a_credential(tenant_id, role)
        await tellers.tell(credential)
    credential, keys["trusted"] = a_credential(tenant_id, "auditor", sees_personal_data=True)
    await tellers.tell(credential)
    async with http(service, keys["trusted"]) as client:  # the last that was told

        async def is_known() -> bool:
            return (await client.get("/v1/reports")).status_code == 200

        await until(is_known)
    return Office(tenant_id, keys)


@asynccontextmanager
async def asking(service: Service, office: Office, role: str = "admin") -> AsyncIterator[httpx.AsyncClient]:
    async with http(service, office.keys[role]) as client:
        yield client


async def counted(client: httpx.AsyncClient, as_of_seq: int, escalations: int | None = None) -> dict[str, Any]:
    """Return the statistics once they cover so many entries and nothing waits."""

    async def covers() -> dict[str, Any] | None:
        answer = await client.get("/v1/statistics")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        enough = found["as_of_seq"] >= as_of_seq and found["behind"] == 0
        return found if enough and escalations in (None, found["escalations"]) else None

    result: dict[str, Any] = await until(covers)
    return result


async def settled(service: Service, tellers: Tellers, *messages: Message) -> None:
    """Tell, and return when every consumer has applied everything and no fact is out of date."""
    await tellers.tell(*messages)

    async def is_quiet() -> bool:
        for consumer in service.consumers:
            info = await service.runtime.nats.js.consumer_info(consumer.stream, consumer.name)
            if info.num_pending or info.num_ack_pending:
                return False
        for tenant_id in {message.tenant_id for message in messages}:
            async with service.runtime.db.worker_tx(tenant_id) as tx:
                if await tx.fetchval("SELECT count(*) FROM stale WHERE tenant_id = $1", tenant_id):
                    return False
        return True

    await until(is_quiet)


async def test_complaints_are_counted_as_they_are_told(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    complaints = [Complaint(office.tenant_id, f"20260302-{number:04}") for number in range(3)]

    told = (*a_whole_life(complaints[0]), complaints[1].received(), complaints[2].received())
    await settled(service, tellers, *told)

    async with asking(service, office) as client:
        found = await counted(client, as_of_seq=7, escalations=1)
        assert {name: found[name] for name in ("received", "accepted", "assigned", "late", "escalated", "closed")} == {
            "received": 3,
            "accepted": 1,
            "assigned": 1,
            "late": 1,
            "escalated": 1,
            "closed": 1,
        }
        assert found["by"]["channel"]["phone"]["received"] == 3
        assert found["by"]["category"]["billing"]["late"] == 1
        assert found["by"]["category"][""]["received"] == 2


async def test_what_comes_again_changes_nothing(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    messages = a_whole_life(Complaint(office.tenant_id))
    await settled(service, tellers, *messages)
    async with asking(service, office) as client:
        before = (await client.get("/v1/statistics")).json()

        await settled(service, tellers, *messages, *again(messages), *reversed(messages))

        assert (await client.get("/v1/statistics")).json() == before
        assert before["fines"] == {"CNY": 7_500}
        assert before["messages"] == [{"channel": "sms", "state": "delivered", "count": 1}]


async def test_the_days_of_statistics_are_those_of_the_tenant(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    late_evening = NINE + timedelta(hours=15)  # 00:00 of the 3rd in Shanghai
    complaints = [
        Complaint(office.tenant_id, "1", at=at) for at in (NINE, late_evening - timedelta(seconds=1), late_evening)
    ]
    await settled(service, tellers, *(complaint.received() for complaint in complaints))

    async with asking(service, office) as client:

        async def received(**days: str) -> int:
            return int((await client.get("/v1/statistics", params=days)).json()["received"])

        assert await received() == 3
        assert await received(**{"from": "2026-03-02", "to": "2026-03-03"}) == 2
        assert await received(**{"from": "2026-03-03"}) == 1
        assert await received(to="2026-03-02") == 0


async def test_another_tenant_sees_nothing_of_it(service: Service, tellers: Tellers) -> None:
    mine, theirs = await an_office(service, tellers), await an_office(service, tellers)
    complaint = Complaint(mine.tenant_id)
    await settled(service, tellers, *a_whole_life(complaint))

    async with asking(service, theirs) as client:
        assert (await client.get("/v1/statistics")).json()["received"] == 0
        assert (await client.get("/v1/facts")).json()["items"] == []
        assert (await client.get("/v1/facts", params={"case_id": str(complaint.case_id)})).json()["items"] == []
        report = (await client.get("/v1/reports/invalid", params={"period": "2026-03"})).json()
        assert [figure["value"] for figure in report["figures"]] == []
        assert complaint.number not in (await client.get("/v1/exports/facts.csv")).text


async def test_a_complaint_just_stored_is_an_empty_answer_not_404(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)

    async with asking(service, office) as client:
        answer = await client.get("/v1/facts", params={"case_id": str(uuid4())})

    assert answer.status_code == 200
    assert answer.json() == {"items": [], "next_cursor": None, "as_of_seq": 0, "behind": 0}


async def test_a_fact_tells_all_but_who_complains(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    complaint = Complaint(office.tenant_id, fields={"ward": "3B", "diagnosis": "secret", "unheard_of": 1})
    await settled(
        service,
        tellers,
        complaint.received(),
        complaint.standing(clocks=[a_clock("breached")]),
        complaint.announcement("e1"),
    )

    async with asking(service, office) as client:
        answer = await client.get("/v1/facts", params={"late": "true", "category": "billing"})
        assert "c-4711" not in answer.text
        [fact] = answer.json()["items"]
        assert (fact["case_id"], fact["number"], fact["as_of_seq"]) == (str(complaint.case_id), complaint.number, 1)
        assert (fact["clocks"]["R09.21"], fact["breached"], fact["late"], fact["escalated"]) == (
            "breached",
            ["R09.21"],
            True,
            1,
        )
        assert fact["fields"] == {"ward": "3B"}
        assert (await client.get("/v1/facts", params={"late": "false"})).json()["items"] == []
    async with asking(service, office, "trusted") as client:
        [fact] = (await client.get("/v1/facts")).json()["items"]
        assert fact["fields"] == {"ward": "3B", "diagnosis": "secret"}


async def test_pages_hold_every_fact_once(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    complaints = [
        Complaint(office.tenant_id, str(number), at=NINE + timedelta(hours=number // 3)) for number in range(11)
    ]
    await settled(service, tellers, *(complaint.received() for complaint in complaints))

    seen: list[str] = []
    async with asking(service, office) as client:
        cursor: str | None = None
        while True:
            params = {"limit": "4", "from": "2026-03-02", **({"cursor": cursor} if cursor else {})}
            page = (await client.get("/v1/facts", params=params)).json()
            seen += [fact["case_id"] for fact in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break

    assert len(seen) == 11
    assert set(seen) == {str(complaint.case_id) for complaint in complaints}


async def test_reports_follow_the_policy(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    good, bad = Complaint(office.tenant_id, "1"), Complaint(office.tenant_id, "2")
    scored = good.entry("step", step="staff_scored", staff="clerk-1", attitude=85, communication=90, problem_solving=80)
    invalid = bad.standing(clocks=[a_clock("breached")])
    invalid = msgspec.structs.replace(invalid, classified=type(invalid.classified)(severity="invalid"))
    await settled(
        service, tellers, good.received(), scored, good.standing(2, clocks=[a_clock("met")]), bad.received(), invalid
    )

    async with asking(service, office, "auditor") as client:
        listed = (await client.get("/v1/reports")).json()
        assert [(item["row"], item["clause"]) for item in listed["items"]] == [
            ("fed_back", "R09.34"),
            ("invalid", "R09.33"),
            ("average_score", "R28.1"),
        ]
        assert listed["items"][1]["title"] == {"en": "Invalid"}

        async def figures(row: str, **params: str) -> list[dict[str, Any]]:
            answer = await client.get(f"/v1/reports/{row}", params=params)
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()["figures"]
            return found

        [share] = await figures("fed_back", period="2026-03")
        assert (share["value"], share["data"]["target_met"]) == ("50.00", False)
        assert share["data"]["parts"] == {"channel": {"phone": "50.00"}}
        assert [(each["value"], each["period"]) for each in await figures("invalid", period="2026-Q1")] == [
            ("1", "2026-Q1")
        ]
        assert [each["period"] for each in await figures("invalid", period="2026-Q1", each="true")] == ["2026-03"]
        [mean] = await figures("average_score", period="2026-03")
        assert (mean["subject"], mean["value"]) == ("clerk-1", "85")
        assert await figures("average_score", period="2026-04") == []
        assert await figures("invalid", period="2026-03", clause="R09.33") != []


async def test_a_report_counts_only_so_many(
    service: Service, tellers: Tellers, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = await an_office(service, tellers)
    await settled(service, tellers, *(Complaint(office.tenant_id, str(number)).received() for number in range(3)))
    settings = msgspec.structs.replace(service.runtime.settings, report_rows=2, export_rows=2, page_rows=1)
    monkeypatch.setattr(service.runtime, "settings", settings)

    async with asking(service, office) as client:
        for path in ("/v1/reports/invalid?period=2026-03", "/v1/exports/facts.csv"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/too-much-to-count")
        assert (await client.get("/v1/exports/facts.csv?to=2026-03-01")).status_code == 200


async def test_the_export_opens_safely(service: Service, tellers: Tellers, monkeypatch: pytest.MonkeyPatch) -> None:
    office = await an_office(service, tellers)
    complaint = Complaint(office.tenant_id, fields={"ward": "=HYPERLINK(1)", "diagnosis": "secret"})
    others = [Complaint(office.tenant_id, f"20260302-{number:04}") for number in range(2, 5)]
    await settled(service, tellers, *a_whole_life(complaint), *(other.received() for other in others))
    monkeypatch.setattr(service.runtime, "settings", msgspec.structs.replace(service.runtime.settings, page_rows=2))

    async with asking(service, office) as client:
        answer = await client.get("/v1/exports/facts.csv", params={"bom": "true"})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["recourse-as-of-seq"] == "8"
    assert answer.content.startswith(b"\xef\xbb\xbfcase_id,")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    by_number = {row["number"]: row for row in rows}
    assert len(rows) == len(by_number) == 4
    row = by_number[complaint.number]
    assert (row["field.ward"], row["late"], row["handler_unit"]) == ("'=HYPERLINK(1)", "true", "centre")
    assert "field.diagnosis" not in row
    assert "c-4711" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("/v1/reports/invalid?period=march", 422, "bad-period"),
        ("/v1/reports/unheard_of", 404, "not-found"),
        ("/v1/facts?cursor=AAAA", 400, "bad-cursor"),
        ("/v1/facts?cursor=%F0%9F%98%80", 400, "bad-cursor"),
        ("/v1/facts?limit=0", 400, "malformed"),
        ("/v1/facts?from=yesterday", 400, "malformed"),
        ("/v1/facts?from=0001-01-01", 422, "bad-period"),
        ("/v1/statistics?to=2026-02-30", 400, "malformed"),
    ],
)
async def test_what_cannot_be_answered_is_refused(
    service: Service, tellers: Tellers, path: str, status: int, problem: str
) -> None:
    office = await an_office(service, tellers)

    async with asking(service, office) as client:
        answer = await client.get(path)

    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")


async def test_roles(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    paths = ("/v1/statistics", "/v1/reports", "/v1/reports/invalid", "/v1/facts", "/v1/exports/facts.csv")
    for role, status in (("admin", 200), ("auditor", 200), ("handler", 403)):
        async with asking(service, office, role) as client:
            assert {(await client.get(path)).status_code for path in paths} == {status}, role
    async with http(service) as client:
        assert {(await client.get(path)).status_code for path in paths} == {401}


async def test_the_operator_counts_a_tenant_anew(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    credential, key = a_credential(OPERATOR, "operator")
    await settled(service, tellers, credential, *a_whole_life(Complaint(office.tenant_id)))

    async with http(service, key) as client:
        answer = await client.post(f"/v1/ops/reporting/tenants/{office.tenant_id}/rebuild")
        assert (answer.status_code, answer.json()) == (200, {"facts": 1, "facts_changed": 0, "sums_changed": 0})
        assert (await client.post(f"/v1/ops/reporting/tenants/{uuid4()}/rebuild")).status_code == 404
    async with asking(service, office) as client:
        assert (await client.post(f"/v1/ops/reporting/tenants/{office.tenant_id}/rebuild")).status_code == 403


async def test_a_message_that_cannot_be_read_holds_up_nobody(service: Service, tellers: Tellers) -> None:
    office = await an_office(service, tellers)
    client = tellers._clients["routing"]
    subject = f"routing.v1.{office.tenant_id}.entry.appended"
    for body in (b"{", b'{"entry": {}}', b"\xff\xfe"):
        await client.jetstream().publish(subject, body)

    await settled(service, tellers, Complaint(office.tenant_id).received())

    async with asking(service, office) as asker:
        assert (await asker.get("/v1/statistics")).json()["received"] == 1
    async with service.runtime.db.worker_tx(office.tenant_id) as tx:
        assert await tx.fetchval("SELECT count(*) FROM dead_letter WHERE consumer = 'reporting-on-entry'") == 3


def test_every_route_is_described() -> None:
    assert SPEC.name == "reporting"
    paths = {path for handler in SPEC.route_handlers for path in getattr(handler, "paths", ())}
    assert paths == {
        "/v1/statistics",
        "/v1/reports",
        "/v1/reports/{row:str}",
        "/v1/facts",
        "/v1/exports/facts.csv",
        "/v1/ops/reporting/tenants/{tenant_id:uuid}/rebuild",
    }
    assert issubclass(ReportingSettings, msgspec.Struct)

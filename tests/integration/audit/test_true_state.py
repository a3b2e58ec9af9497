"""What is true is found to be so, and the command says it in one line."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from services import cli
from services.audit import budgets
from services.audit.findings import CHECKS
from services.audit.look import connect, look_at
from services.audit.seals import HOLDERS, MASTER
from services.audit.told import gather
from tests.integration.audit.conftest import Evidence, State


async def test_a_true_state_has_no_finding(papers: Evidence) -> None:
    verdict = await papers.audit()
    assert verdict.details == []
    assert verdict.ok
    assert verdict.checks == dict.fromkeys(CHECKS, 0)
    assert verdict.compared > 1000


async def test_days_of_budgets_are_those_of_the_zone_that_the_tenant_had(state: State, papers: Evidence) -> None:
    school = state.names["school"]
    connection = await connect(state.dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE notify.day_budget SET day = day + 100 WHERE tenant_id = $1", school)
        look = await look_at(connection, await gather(connection), papers.streams, papers.journal, papers.record)
        look.told.zones[school] = {"Asia/Shanghai", "Pacific/Kiritimati"}
        await budgets.check(look)
        assert look.findings.all() == []
        look.told.zones[school] = {"Asia/Shanghai"}
        await budgets.check(look)
        assert {each.check for each in look.findings.all()} == {"I6"}
        await transaction.rollback()
    finally:
        await connection.close()


async def test_what_a_former_key_has_sealed_opens_for_as_long_as_that_key_is_kept(
    papers: Evidence, tmp_path: Path
) -> None:
    def keep(*, former: bool) -> None:
        for service in HOLDERS:
            name = MASTER.format(service)
            key = msgspec.json.decode((papers.state.folder / name).read_bytes())["key"]
            kept = {"key": base64.b64encode(bytes(32)).decode(), "previous": [key] if former else []}
            (tmp_path / name).write_bytes(msgspec.json.encode(kept))

    keep(former=True)
    assert (await papers.audit(secrets=tmp_path)).details == []
    keep(former=False)
    found = (await papers.audit(secrets=tmp_path)).details
    places = {each.what.split()[0] for each in found if each.check == "I1"}
    assert places == {"tenant_key", "staff_member.contact", "provider.sealed", "endpoint.sealed"}


def test_the_command_prints_one_line_and_says_by_its_code_whether_all_is_well(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["audit", "--dsn", state.dsn, "--nats", state.nats_url, "--json"]
    journal, provider = state.folder / "journal.jsonl", state.folder / "provider.jsonl"
    assert cli.run([*arguments, "--journal", str(journal), "--provider", str(provider)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert msgspec.json.decode(printed)["checks"] == {f"I{number}": 0 for number in range(1, 16)}

    lost = state.folder / "lost.jsonl"
    lost.write_bytes(journal.read_bytes() + _of_a_complaint_that_is_nowhere(state))
    assert cli.run([*arguments, "--journal", str(lost)]) == 1
    found = msgspec.json.decode(capsys.readouterr().out)
    assert not found["ok"]
    assert {check: number for check, number in found["checks"].items() if number} == {"I1": 1}
    assert [(each["check"], each["subject"]) for each in found["details"]] == [("I1", str(NOWHERE))]

    lost.write_bytes(b"{not a line}\n")
    assert cli.run([*arguments, "--journal", str(lost)]) == 3
    assert "journal" in capsys.readouterr().err


NOWHERE = "0190a000-0000-7000-8000-00000000dead"


def _of_a_complaint_that_is_nowhere(state: State) -> bytes:
    line = next(line for line in state.journal if line.what == "answer" and line.source == "api" and line.status == 201)
    lines = (
        msgspec.structs.replace(line, what="attempt", key="nowhere", status=0, case_id=None, number=None, answer=""),
        msgspec.structs.replace(
            line, key="nowhere", case_id=msgspec.convert(NOWHERE, type(line.tenant_id)), number=None
        ),
    )
    return b"".join(msgspec.json.encode(each) + b"\n" for each in lines)

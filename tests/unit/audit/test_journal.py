"""The journal: what its lines say of a request, and what a death of its writer leaves behind."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from services.audit.journal import Asked, JournalFile, Line, Witness, read_journal, requests

TENANT = UUID("0190a000-0000-7000-8000-000000000001")
AT = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
AUDIT = Path(__file__).resolve().parents[3] / "services" / "audit"


def asked(*answers: int | None, source: str = "api", problem: str = "") -> Asked:
    """A request with an attempt for each answer; None is an attempt that got none."""
    lines: list[Line] = []
    for status in answers:
        line = msgspec.convert({"what": "attempt", "at": AT, "tenant_id": TENANT, "source": source, "key": "one"}, Line)
        lines.append(line)
        if status is not None:
            told = problem if status >= 400 else ""
            lines.append(msgspec.structs.replace(line, what="answer", status=status, problem=told))
    [found] = requests(lines)
    return found


@pytest.mark.parametrize(
    ("answers", "stored", "refused", "for_good"),
    [
        ((201,), True, False, False),
        ((None, 503, 201), True, False, False),
        ((201, 201), True, False, False),
        ((422,), False, True, True),
        ((None, 422), False, True, True),  # it cannot have been taken before, whatever became of the first attempt
        ((429,), False, True, True),
        ((None, 429), False, True, False),  # the first attempt may have been taken
        ((503, 401), False, True, False),
        ((503,), False, False, False),
        ((None,), False, False, False),
    ],
)
def test_what_became_of_a_request(answers: tuple[int | None, ...], stored: bool, refused: bool, for_good: bool) -> None:
    found = asked(*answers)
    assert (found.is_stored, found.is_refused, found.is_refused_for_good) == (stored, refused, for_good)


def test_a_request_in_progress_is_no_refusal() -> None:
    assert not asked(409, problem="request-in-progress").is_refused
    assert asked(409, problem="refused-by-policy").is_refused


def test_a_mail_that_is_postponed_is_not_refused_and_one_that_is_refused_is() -> None:
    assert not asked(451, source="smtp").is_refused
    assert asked(451, 550, source="smtp").is_refused_for_good
    assert asked(451, 250, source="smtp").is_stored


def test_a_witness_writes_each_attempt_and_each_answer_with_the_ids_it_names(tmp_path: Path) -> None:
    file = JournalFile(tmp_path / "journal")
    witness = Witness(file.write, TENANT, "api", "one")
    witness.attempt(b"{}")
    witness.answer(503, b'{"type": "/problems/unavailable"}')
    witness.attempt(b"{}")
    witness.answer(201, msgspec.json.encode({"id": TENANT, "number": "7"}))
    file.close()
    attempt, later, again, stored = read_journal(tmp_path / "journal")
    assert [attempt.what, later.what, again.what, stored.what] == ["attempt", "answer", "attempt", "answer"]
    assert later.problem == "unavailable"
    assert (stored.case_id, stored.number, stored.status) == (TENANT, "7", 201)
    assert len({line.request for line in (attempt, later, again, stored)}) == 1


def test_a_line_that_was_cut_off_is_left_out_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    file = JournalFile(path)
    Witness(file.write, TENANT, "api", "one").attempt()
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert len(read_journal(path)) == 1
    path.write_bytes(whole[:20] + b"\n" + whole)
    with pytest.raises(msgspec.MsgspecError):
        read_journal(path)


def test_the_auditor_shares_no_code_with_the_services() -> None:
    allowed = {"services.audit", "asyncpg", "msgspec", "nats"}
    for path in AUDIT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                is_ours = name.split(".")[0] in ("services", "shared", "tests")
                assert not is_ours or any(name == each or name.startswith(f"{each}.") for each in allowed), (path, name)

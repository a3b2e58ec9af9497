"""Exports open as text in every spreadsheet program, and hold no personal data."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reporting.domain.exporting import COLUMNS, heading, line, safe, to_csv
from services.reporting.domain.rollups import Counted
from services.reporting.domain.telling import StoredFact
from shared.engine.facts import FactPenalty, FactRow

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)


def a_stored(**row: Any) -> StoredFact:
    return StoredFact(
        case_id=UUID(int=7),
        seq=3,
        case_kind="complaint",
        number="20260302-0001",
        received_at=NINE,
        last_at=NINE,
        kind=None,
        category=None,
        severity=None,
        channel=None,
        unit=None,
        state=None,
        outcome=None,
        is_late=False,
        is_closed=False,
        zone="Asia/Shanghai",
        day=date(2026, 3, 2),
        counted=Counted(day=date(2026, 3, 2)),
        body=FactRow(at=NINE, **row),
    )


def cell(name: str, **row: Any) -> str:
    return line(a_stored(**row), ())[COLUMNS.index(name)]


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1+1",
        "＋1",
        "－1",
        "＠A1",
        " =1",
        '"=1',
        "'=1",
        "\u3000=1",
        "|calc",
        "%0A",
    ],
)
def test_a_cell_that_might_be_run_is_told_to_be_text(text: str) -> None:
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "billing", "a=b", "2026-03-02", "10-15", "“=1”", "价格=高"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


def test_known_values_have_their_forms() -> None:
    assert cell("received_at") == "2026-03-02T01:00:00Z"
    assert cell("closed_at") == ""
    assert cell("late", late=True) == "true"
    assert cell("breached", breached=("R04.8", "R04.7", "R04.8")) == "R04.7; R04.8"
    assert cell("as_of_seq") == "3"


def test_fines_stand_with_their_currency_and_without_the_waived() -> None:
    def fine(minor: int, currency: str, state: str | None = None) -> FactPenalty:
        return FactPenalty(
            clause=None, party="s1", kind="fine", at=NINE, amount_minor=minor, currency=currency, state=state
        )

    penalties = (fine(10_000, "CNY"), fine(5_050, "CNY"), fine(700, "JPY"), fine(99, "CNY", "waived"))

    assert cell("fines", penalties=penalties) == "150.50 CNY; 700 JPY"


def test_own_fields_have_columns_and_are_made_safe() -> None:
    cells = line(
        a_stored(fields={"place": "=cmd", "visits": -2, "tags": ["a", "b"]}), ["visits", "place", "tags", "none"]
    )

    assert heading(["visits"])[-1] == "field.visits"
    assert cells[-4:] == ["-2", "'=cmd", "a; b", ""]


def test_who_complains_is_not_told() -> None:
    stored = a_stored(complainant_id="c-4711", complainant_type="customer")

    assert "c-4711" not in "".join(line(stored, ()))
    assert not any("complainant_id" in column for column in COLUMNS)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=2, max_size=4)))
def test_lines_read_back_as_they_were_written(lines: list[list[str]]) -> None:
    text = to_csv(lines).decode("utf-8")

    assert list(csv.reader(io.StringIO(text, newline=""))) == lines

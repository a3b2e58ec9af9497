from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain.complaint import Draft
from services.intake.domain.table import Table, column_of, decoded, read_table, row_draft
from tests.unit.intake.test_normalising import a_policy

HEAD = "姓名,手机,投诉类别,投诉内容,loss_cny,时间\n"


def a_table(text: str, columns: dict[str, str] | None = None) -> tuple[Table, tuple[tuple[int, str], ...]]:
    table, faults = read_table(text, a_policy(), columns or {})
    assert table is not None, faults
    return table, tuple((fault.row, fault.column) for fault in faults)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
def test_the_usual_encodings_are_read(encoding: str) -> None:
    text = HEAD + "张三,13812341111,服务态度,等了三个小时,,2026-03-02 10:00\n"
    found = decoded(text.encode(encoding))
    assert found is not None
    assert found[0] == text


def test_characters_beyond_gbk_are_read_from_gb18030() -> None:
    assert decoded("姓名\n㐀𠮷\n".encode("gb18030")) == ("姓名\n㐀𠮷\n", "gb18030")


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\xef\xbb\xbf\xff", b"name\n\x80\x80"])
def test_bytes_that_are_no_text_are_refused(content: bytes) -> None:
    assert decoded(content) is None


def test_a_row_becomes_a_draft() -> None:
    table, faults = a_table(HEAD + '张三,13812341111,服务态度,"第一行\n第二行, 还有",480.00,2026-03-02 10:00\n')
    assert faults == ()
    [(number, cells)] = table.rows
    draft = row_draft(table.targets, cells, "Asia/Shanghai")
    assert isinstance(draft, Draft)
    assert number == 2
    assert draft.complainant is not None
    assert (draft.complainant.name, draft.complainant.phone) == ("张三", "13812341111")
    assert draft.text == "第一行\n第二行, 还有"
    assert draft.fields == {"loss_cny": "480.00"}
    assert draft.received_at is not None
    assert draft.received_at.isoformat() == "2026-03-02T10:00:00+08:00"


def test_rows_are_counted_as_a_spreadsheet_counts_and_empty_ones_are_skipped() -> None:
    table, _ = a_table("name,text\na,x\n,,\n\nb,y\n")
    assert [number for number, _ in table.rows] == [2, 5]


def test_a_bad_row_spoils_only_itself() -> None:
    table, faults = a_table('name,text\na,x\nb,"never closed\nc,z\nd,"quoted" badly\ne,1,2\nf,v\n')
    assert [cells[0] for _, cells in table.rows] == ["a", "c", "f"]
    assert [row for row, _ in faults] == [3, 5, 6]


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", '=HYPERLINK("http://x")', "＝1"])
def test_a_cell_like_a_formula_is_text(cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    table, _ = a_table(f"name,text\na,{quoted}\n")
    draft = row_draft(table.targets, table.rows[0][1], "Asia/Shanghai")
    assert isinstance(draft, Draft)
    assert draft.text == cell


def test_a_number_kept_whole_by_a_formula_is_the_number() -> None:
    table, _ = a_table('name,phone\na,"=""13812341111"""\n')
    draft = row_draft(table.targets, table.rows[0][1], "Asia/Shanghai")
    assert isinstance(draft, Draft)
    assert draft.complainant is not None
    assert draft.complainant.phone == "13812341111"


@pytest.mark.parametrize(
    ("text", "column", "suggestion"),
    [
        ("nmae,text\n", "nmae", "name"),
        ("name,phone,手机\n", "手机", ""),
        ("", "", ""),
        (",,\n", "", ""),
    ],
)
def test_headings_that_cannot_be_used_refuse_the_table(text: str, column: str, suggestion: str) -> None:
    table, faults = read_table(text, a_policy(), {})
    assert table is None
    assert [(fault.row, fault.column, fault.suggestion) for fault in faults] == [(1, column, suggestion)]


def test_the_sources_own_headings_come_first_and_can_leave_a_column_out() -> None:
    table, _ = a_table("编码,备注,name\nC1,x,a\n", {"编码": "reference", "备注": "", "name": "complainant.name"})
    assert table.targets == ("reference", "", "complainant.name")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_in_the_headings(delimiter: str) -> None:
    table, _ = a_table(delimiter.join(("name", "phone", "text")) + "\n" + delimiter.join(("a", "1", "x")) + "\n")
    assert table.rows == ((2, ("a", "1", "x")),)


def test_a_fault_is_told_with_its_row_and_heading_and_without_the_cell() -> None:
    table, _ = a_table(HEAD + "张三,13812341111,服务态度,x,,next Tuesday\n")
    result = row_draft(table.targets, table.rows[0][1], "Asia/Shanghai")
    assert isinstance(result, tuple)
    assert [column_of(table.targets, table.columns, fault) for fault in result] == ["时间"]
    assert "Tuesday" not in result[0].detail + result[0].suggestion


@given(st.binary(max_size=400))
def test_no_bytes_make_reading_fail(content: bytes) -> None:
    found = decoded(content)
    if found is not None:
        read_table(found[0], a_policy(), {})


@given(st.lists(st.lists(st.text(max_size=20), min_size=2, max_size=2), max_size=8))
def test_what_a_spreadsheet_writes_is_read_back(rows: list[list[str]]) -> None:
    import csv
    import io

    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(("name", "text"))
    clean = [[cell.replace("\r", "").replace("\n", " ") for cell in row] for row in rows]
    writer.writerows(clean)
    table, faults = a_table(sink.getvalue())
    assert faults == ()
    assert [list(cells) for _, cells in table.rows] == [row for row in clean if any(cell.strip() for cell in row)]

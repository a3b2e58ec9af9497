"""Complaints in a table: text of any usual encoding, columns by their headings, each row by itself."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from services.intake.domain.complaint import TEXT_LIMIT, Draft, Fault
from services.intake.domain.payload import TARGETS, draft_of
from services.intake.domain.texts import is_clean
from services.intake.domain.vocabulary import labelled, near
from shared.policy.schema import Policy

ROWS_LIMIT: Final = 50_000
COLUMNS_LIMIT: Final = 100
LINES_A_ROW: Final = 200  # more lines than this in one row mean that a quotation mark is missing

# Headings that people use for each field of a draft; own fields are known by their names and labels.
_HEADINGS: Final = {
    "channel": "channel 渠道 投诉渠道 来源",
    "kind": "kind 投诉类型 性质",
    "category": "category 类别 投诉类别 分类",
    "severity": "severity 严重程度 等级",
    "anonymous": "anonymous 匿名",
    "text": "text content description 内容 投诉内容 描述",
    "subject": "subject title 标题 主题",
    "language": "language 语言",
    "received_at": "received_at received date 时间 投诉时间 受理时间 日期",
    "reference": "reference number 编号 投诉编号 工单号",
    "complainant.type": "type 投诉人类型",
    "complainant.name": "name complainant 姓名 投诉人 客户姓名",
    "complainant.phone": "phone mobile telephone 电话 手机 手机号 联系电话",
    "complainant.email": "email e-mail 邮箱 电子邮箱",
    "complainant.address": "address 地址 联系地址",
    "respondent.staff": "staff respondent 被投诉人 工号",
    "respondent.unit": "unit department 被投诉部门 科室",
    "respondent.supervisor": "supervisor 负责人",
    "handler.staff": "handler 受理人",
}
HEADINGS: Final = {heading: target for target, headings in _HEADINGS.items() for heading in headings.split()}
_ENCODINGS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SAFE_NUMBER = re.compile(r'^="(\+?[\d -]{3,40})"$', re.ASCII)
_TIMES: Final = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y年%m月%d日 %H:%M", "%Y年%m月%d日")


class TableFault(Struct, frozen=True):
    """One thing wrong with a table, without the cell. `row` counts as a spreadsheet does: the headings are row 1."""

    row: int
    column: str
    detail: str
    suggestion: str = ""


class Table(Struct, frozen=True):
    """A table as read: the target of each column, and the rows with the numbers that a spreadsheet gives them."""

    columns: tuple[str, ...]  # headings, as written
    targets: tuple[str, ...]  # `complainant.phone`, `fields.loss_cny`, …; empty: the column is not used
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def decoded(content: bytes) -> tuple[str, str] | None:
    """Return the text and the name of its encoding: UTF-8 or UTF-16 with a byte order mark, UTF-8, else GB18030; None
    for none of them.
    """
    for mark, encoding in _ENCODINGS:
        if content.startswith(mark):
            return _strictly(content, encoding)
    return _strictly(content, "utf-8") or _strictly(content, "gb18030")


def _strictly(content: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        return content.decode(encoding), encoding.removesuffix("-sig")
    except UnicodeDecodeError:
        return None


def read_table(text: str, policy: Policy, columns: Mapping[str, str]) -> tuple[Table | None, tuple[TableFault, ...]]:
    """Return the rows that can be read, and what is wrong with the others; no table when the headings cannot be used.

    Args:
        text: decoded.
        policy: whose own fields may be columns, under their names or labels.
        columns: the source's own headings, each with its target; "" leaves a column out.
    """
    faults: list[TableFault] = []
    lines = list(io.StringIO(text, newline=""))
    delimiter = _delimiter(lines[0] if lines else "")
    records = _records(lines, delimiter, faults)
    first = next(records, None)
    if first is None:
        return None, (*faults, TableFault(1, "", "the table is empty; its first row has the headings"))
    headings = tuple(cell.strip() for cell in first[1])
    targets = _targets(headings, policy, columns, faults)
    if faults:
        return None, tuple(faults)
    rows: list[tuple[int, tuple[str, ...]]] = []
    for number, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        if len(rows) == ROWS_LIMIT:
            return None, (TableFault(number, "", f"a table has at most {ROWS_LIMIT} rows; split it"),)
        if len(cells) > len(headings) and any(cell.strip() for cell in cells[len(headings) :]):
            faults.append(TableFault(number, "", "the row has more cells than there are headings"))
            continue
        rows.append((number, tuple(cells[: len(headings)])))
    return Table(headings, targets, tuple(rows)), tuple(faults)


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count) if line else ","


def _records(lines: list[str], delimiter: str, faults: list[TableFault]) -> Iterator[tuple[int, list[str]]]:
    """Yield the records with the line on which each begins. After one that cannot be read, reading goes on with the
    next line.
    """
    position = 0

    def feed(start: int) -> Iterator[str]:
        nonlocal position
        for line in lines[start : start + LINES_A_ROW]:
            position += 1
            yield line

    while position < len(lines):
        start = position
        try:
            cells = next(csv.reader(feed(start), delimiter=delimiter, strict=True))
        except (csv.Error, StopIteration):
            faults.append(
                TableFault(start + 1, "", "a quotation mark is missing, or stands inside a cell; double it there")
            )
            position = start + 1
            continue
        yield start + 1, cells


def _targets(
    headings: tuple[str, ...], policy: Policy, columns: Mapping[str, str], faults: list[TableFault]
) -> tuple[str, ...]:
    known = {label: f"fields.{name}" for label, name in labelled(policy.vocabulary.fields).items()}
    known = known | HEADINGS | {target: target for target in TARGETS} | dict(columns)
    if len(headings) > COLUMNS_LIMIT:
        faults.append(TableFault(1, "", f"a table has at most {COLUMNS_LIMIT} columns"))
        return ()
    targets: list[str] = []
    for heading in headings:
        target = known.get(heading, known.get(heading.lower(), known.get(heading.replace(" ", "_").lower())))
        if target is None and heading:
            faults.append(TableFault(1, heading[:60], "no column has this heading", near(heading, known)))
        elif target and target in targets:
            faults.append(TableFault(1, heading[:60], "another column stands for the same"))
        targets.append(target or "")
    if not any(targets) and not faults:
        faults.append(TableFault(1, "", "no column has a heading that stands for anything"))
    return tuple(targets)


def row_draft(table_targets: tuple[str, ...], cells: tuple[str, ...], zone: str) -> Draft | tuple[Fault, ...]:
    """Return the draft of one row, or its faults; a cell is text, whatever a spreadsheet would make of it.

    `="13812341111"`, written so that a spreadsheet keeps a number whole, is the number; any other cell that begins like
    a formula is left as it is, and never calculated.
    """
    draft: dict[str, Any] = {}
    faults: list[Fault] = []
    for target, cell in zip(table_targets, cells, strict=False):
        text = cell.strip()
        if not target or not text:
            continue
        path = tuple(target.split("."))
        if len(text) > TEXT_LIMIT or not is_clean(text):
            faults.append(Fault(path, f"a cell holds at most {TEXT_LIMIT} characters and no control characters"))
            continue
        if wrapped := _SAFE_NUMBER.match(text):
            text = wrapped[1]
        value: Any = text
        if target == "received_at":
            value = _time(text, zone)
            if value is None:
                faults.append(Fault(path, "this is no time", "as 2026-03-02 10:00"))
                continue
        elif target == "anonymous":
            value = text.lower() in {"true", "yes", "y", "1", "是"}
        parent, _, leaf = target.rpartition(".")
        (draft.setdefault(parent, {}) if parent else draft)[leaf] = value
    return tuple(faults) if faults else draft_of(draft)


def _time(text: str, zone: str) -> datetime | None:
    """Read a time of the tenant's zone, or an instant with its offset."""
    plain = text.replace("/", "-").replace("T", " ")
    for form in _TIMES:
        try:
            return datetime.strptime(plain, form).replace(tzinfo=ZoneInfo(zone))
        except ValueError:
            continue
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))


def column_of(table_targets: tuple[str, ...], columns: tuple[str, ...], fault: Fault) -> str:
    """Return the heading of the column that a fault of a row's draft comes from; empty when it comes from none."""
    for length in range(len(fault.path), 0, -1):
        target = ".".join(fault.path[:length])
        if target in table_targets:
            return columns[table_targets.index(target)]
    return ""

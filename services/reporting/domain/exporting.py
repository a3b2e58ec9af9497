"""Facts as a table for spreadsheets: one line a complaint, no personal data, no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from services.reporting.domain.telling import StoredFact
from shared.engine.facts import FactRow
from shared.money import format_minor

BOM: Final = "\ufeff"
"""What tells a spreadsheet program that a CSV file is UTF-8."""

COLUMNS: Final = (
    "case_id",
    "number",
    "received_at",
    "handled_at",
    "resolved_at",
    "closed_at",
    "kind",
    "category",
    "severity",
    "priority",
    "outcome",
    "channel",
    "source",
    "state",
    "accepted",
    "decline_reason",
    "anonymous",
    "complainant_type",
    "respondent_staff",
    "respondent_unit",
    "handler_staff",
    "handler_unit",
    "rating",
    "on_time",
    "late",
    "breached",
    "escalated",
    "rounds",
    "good_reason",
    "fines",
    "as_of_seq",
)

# A cell that begins with one of these is a formula to some program; the full-width forms are to those of East Asia.
_DANGEROUS: Final = frozenset("=+-@\t\r\n|%＝＋－＠")


def safe(text: str) -> str:
    """Return the text, with an apostrophe before it where a spreadsheet might take it for a formula."""
    start = text.lstrip(" \u3000\u00a0\ufeff'\"")  # what programs skip before they look
    return f"'{text}" if start[:1] in _DANGEROUS else text


def heading(fields: Sequence[str]) -> list[str]:
    return [*COLUMNS, *(f"field.{name}" for name in fields)]


def line(stored: StoredFact, fields: Sequence[str]) -> list[str]:
    """Return the cells of one complaint; `fields` names the tenant's own fields in the order of their columns."""
    row = stored.body
    known: list[Any] = [
        stored.case_id,
        stored.number,
        row.at,
        row.handled_at,
        row.resolved_at,
        row.closed_at,
        row.kind,
        row.category,
        row.severity,
        row.priority,
        row.outcome,
        row.channel,
        row.source,
        row.state,
        row.accepted,
        row.decline_reason,
        row.anonymous,
        row.complainant_type,
        row.respondent.get("staff"),
        row.respondent.get("unit"),
        row.handler.get("staff"),
        row.handler.get("unit"),
        row.rating,
        row.on_time,
        row.late,
        sorted(set(row.breached)),
        row.escalated,
        row.rounds,
        row.good_reason,
        _fines(row),
        stored.seq,
    ]
    return [_cell(value) for value in (*known, *(row.fields.get(name) for name in fields))]


def to_csv(lines: Iterable[Sequence[str]]) -> bytes:
    """Return lines as RFC 4180 in UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()


def _fines(row: FactRow) -> str:
    """Return the fines by currency, as in "150.00 CNY"."""
    sums: dict[str, int] = {}
    for penalty in row.penalties:
        if penalty.is_fine:
            sums[penalty.currency] = sums.get(penalty.currency, 0) + (penalty.amount_minor or 0)
    return "; ".join(f"{format_minor(minor, currency)} {currency}" for currency, minor in sorted(sums.items()) if minor)


def _cell(value: Any) -> str:
    """Return the text of a cell. Numbers, instants and truth values are ours and safe: a negative number stays one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return safe("; ".join(str(item) for item in value))
    return safe(str(value))

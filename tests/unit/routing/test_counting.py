"""What a subject's timeline says was counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.domain.counting import counted_entry, counts_since, items, known_at
from shared.engine import subjects
from shared.engine.calendar import CalendarBook
from shared.engine.model import SYSTEM, CountStamp, Entry
from shared.engine.rules import SubjectRule
from shared.engine.subjects import Item
from shared.policy.compiling import compile_policy
from tests.unit.routing.examples import NINE, SHOP

SUBJECT: dict[str, Any] = {
    "id": "late",
    "subject": "=complaint.category",
    "on": "received",
    "threshold": {"at_least": 3},
}
WINDOWS: list[dict[str, Any]] = [
    *({"window": each} for each in ("ever", "calendar_month", "year", "30d", "12mo")),
    {"window": "3mo", "opened_by_first": True},
]
RULES = [compile_policy({**SHOP, "subjects": [{**SUBJECT, **said}]}).subjects["late"] for said in WINDOWS]
POLICY = compile_policy(SHOP)
BOOK = CalendarBook.of(POLICY.document.calendar)
CASE = UUID(int=7)


def test_what_was_taken_back_is_not_counted() -> None:
    stamp = CountStamp(subject="s1", before=0, added=1)

    def line(seq: int, kind: str, of: int, rule: str = "late") -> Entry:
        data = counted_entry(rule, CASE, of, NINE, stamp)
        return Entry(seq=seq, kind=kind, at=NINE, by=SYSTEM, data=data)

    lines = [line(1, "counted", 2), line(2, "counted", 5), line(3, "uncounted", 2), line(4, "counted", 2, rule="other")]
    assert items(lines, "late") == [Item(at=NINE, added=1, fired=False)]
    assert len(items([*lines, line(5, "counted", 2)], "late")) == 2


def test_what_somebody_stamped_later_counted_first_counts_as_earlier_in_the_same_window() -> None:
    calendar = BOOK.at(None, NINE, NINE)
    soon, next_month = NINE + timedelta(seconds=1), NINE + timedelta(days=40)
    found = [Item(at=soon, added=1), Item(at=next_month, added=1)]
    assert known_at(found, NINE, "calendar_month", calendar) == [Item(at=NINE, added=1)]
    assert len(known_at(found, NINE, "ever", calendar)) == 2
    assert known_at(found, soon, "calendar_month", calendar) == [found[0]]


HOURS = st.integers(min_value=0, max_value=24 * 400)
LINES = st.lists(
    st.tuples(HOURS, st.integers(min_value=0, max_value=48), st.integers(min_value=1, max_value=3), st.booleans()),
    max_size=12,
)


@pytest.mark.parametrize("rule", RULES, ids=[rule.window for rule in RULES])
@given(lines=LINES, at_hours=HOURS)
def test_what_is_older_than_the_window_changes_no_count(
    rule: SubjectRule, lines: list[tuple[int, int, int, bool]], at_hours: int
) -> None:
    """Each is (when it happened, how much later it was written down, how many, whether it was taken back the next day)."""
    window = rule.window
    written: list[tuple[datetime, str, int, datetime, int]] = []
    for number, (hours, later, added, is_taken_back) in enumerate(lines, start=1):
        on = NINE + timedelta(hours=hours)
        written.append((on + timedelta(hours=later), "counted", number, on, added))
        if is_taken_back:
            written.append((on + timedelta(hours=later + 24), "uncounted", number, on, added))
    timeline = []
    for seq, (at, kind, number, on, added) in enumerate(sorted(written), start=1):
        stamp = CountStamp(subject="s1", before=0, added=added, fires=number % 2 == 0)
        data = counted_entry("late", CASE, number, on, stamp)
        timeline.append(Entry(seq=seq, kind=kind, at=at, by=SYSTEM, data=data))
    now = NINE + timedelta(hours=at_hours)
    calendar = BOOK.at(None, now, now)

    def count(read: list[Entry]) -> CountStamp:
        return subjects.stamp(rule, "s1", 1, now, known_at(items(read, "late"), now, window, calendar), calendar)

    since = counts_since(now, window, calendar)
    assert count([each for each in timeline if each.at >= since]) == count(timeline)

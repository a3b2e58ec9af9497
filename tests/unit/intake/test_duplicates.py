from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.intake.domain.duplicates import Earlier, duplicate_of, window_of
from shared.policy.schema import Duplicates

AT = datetime(2026, 3, 10, 1, 0, tzinfo=UTC)
FIRST, SECOND = UUID(int=1), UUID(int=2)
WORDS = {"kind": "external", "category": "charges"}


def earlier(complaint_id: UUID = FIRST, ago: timedelta = timedelta(days=1), **changes: Any) -> Earlier:
    values: dict[str, Any] = {"words": WORDS, "duplicate_of": None} | changes
    return Earlier(complaint_id=complaint_id, received_at=AT - ago, **values)


@pytest.mark.parametrize(
    ("ago", "found"),
    [
        (timedelta(0), True),
        (timedelta(days=7), True),
        (timedelta(days=7, microseconds=1), False),
        (timedelta(microseconds=-1), False),
    ],
)
def test_the_window_includes_both_its_ends(ago: timedelta, found: bool) -> None:
    assert (duplicate_of(Duplicates(), WORDS, AT, [earlier(ago=ago)]) == FIRST) is found


def test_another_category_is_another_complaint() -> None:
    assert duplicate_of(Duplicates(), WORDS, AT, [earlier(words={"kind": "external", "category": "attitude"})]) is None


def test_two_complaints_of_which_nothing_is_known_are_not_the_same() -> None:
    assert duplicate_of(Duplicates(), {}, AT, [earlier(words={})]) is None


def test_a_repetition_of_a_repetition_leads_to_the_first() -> None:
    again = earlier(SECOND, timedelta(hours=1), duplicate_of=FIRST)
    assert duplicate_of(Duplicates(window="1d"), WORDS, AT, [again]) == FIRST


def test_the_earliest_of_several_is_meant() -> None:
    assert duplicate_of(Duplicates(), WORDS, AT, [earlier(SECOND, timedelta(hours=1)), earlier()]) == FIRST


def test_own_fields_and_the_respondent_can_be_compared() -> None:
    rule = Duplicates(match=["fields.order_no", "respondent.staff"])
    words = {"order_no": "A1", "respondent.staff": "s1"}
    assert duplicate_of(rule, words, AT, [earlier(words=words)]) == FIRST
    assert duplicate_of(rule, words, AT, [earlier(words=words | {"order_no": "A2"})]) is None


@pytest.mark.parametrize(("window", "length"), [("24h", 24), ("7d", 168), ("2w", 336), ("30min", 0.5), ("3wd", 72)])
def test_a_window_is_a_length_of_time(window: str, length: float) -> None:
    assert window_of(Duplicates(window=window)) == timedelta(hours=length)

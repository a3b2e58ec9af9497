"""Amounts: what is read, what is refused and how helpfully, and what they are called."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.amounts import MOST, Amount, Unit, describe, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("30min", Amount(30, "min")),
        ("24h", Amount(24, "h")),
        ("8bh", Amount(8, "bh")),
        ("3d", Amount(3, "d")),
        ("3wd", Amount(3, "wd")),
        ("2w", Amount(2, "w")),
        ("3mo", Amount(3, "mo")),
        ("1y", Amount(1, "y")),
        ("0d", Amount(0, "d")),
        ("0wd", Amount(0, "wd")),
        ("eom", Amount(0, "eom")),
        ("eoq", Amount(0, "eoq")),
        ("eoy", Amount(0, "eoy")),
        ("1wd@08:00", Amount(1, "wd", "08:00")),
        ("2d@close", Amount(2, "d", "close")),
        ("3wd@end", Amount(3, "wd", "end")),
        ("eom@17:30", Amount(0, "eom", "17:30")),
    ],
)
def test_text_is_read_and_written_back(text: str, amount: Amount) -> None:
    assert parse_amount(text) == amount
    assert format_amount(amount) == text


@pytest.mark.parametrize(
    "mapping",
    [
        {"day": 10, "after": "month"},
        {"day": 10, "after": "quarter", "at": "12:00"},
        {"day": 10, "after": "half", "first_month": 12},
        {"day": 31, "after": "year", "at": "end"},
    ],
)
def test_a_mapping_is_read_and_written_back(mapping: dict[str, Any]) -> None:
    assert format_amount(parse_amount(mapping)) == mapping


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("3 wd", "did you mean '3wd'?"),
        ("3WD", "did you mean '3wd'?"),
        (" 3wd", "did you mean '3wd'?"),
        ("3 working days", "did you mean '3wd'?"),
        ("3 Days", "did you mean '3d'?"),
        ("3个工作日", "did you mean '3wd'?"),
        ("24小时", "did you mean '24h'?"),
        ("2 hrs", "did you mean '2h'?"),
        ("03wd@close ", "did you mean '3wd@close'?"),
        ("3wd @ 08:00", "did you mean '3wd@08:00'?"),
        ("1.5h", "did you mean '90min'?"),
        ("0.5d", "did you mean '12h'?"),
        ("1.5wd", "write a number and min, h, bh"),
        ("end of month", "did you mean 'eom'?"),
        ("3", "write a number and min, h, bh"),
        ("wd", "write a number and min, h, bh"),
        ("-3d", "write a number and min, h, bh"),
        ("3x", "write a number and min, h, bh"),
        ("", "write a number and min, h, bh"),
        ("３wd", "did you mean '3wd'?"),  # a full-width digit
        ("²wd", "write a number and min, h, bh"),
        ("1wd at 08:00", "did you mean '1wd@08:00'?"),
        ("1wd@8:00", "a time of day is written @08:00"),
        ("1wd@17", "a time of day is written @17:00"),
        ("1wd@24:00", "the end of the day is written @end"),
        ("1wd@25:00", "after @ comes a time like 08:00, close or end"),
        ("1wd@noon", "after @ comes a time like 08:00, close or end"),
        ("24h@close", "a time of day goes with days"),
        ("99999d", "longer than ten years, the most is 3653d"),
        ("11y", "longer than ten years, the most is 10y"),
        (3, "an amount is text like 3wd"),
        (None, "an amount is text like 3wd"),
        ({"day": 0, "after": "month"}, "day is a day of the month from 1 to 31, not 0"),
        ({"day": True, "after": "month"}, "day is a day of the month"),
        ({"after": "month"}, "day is a day of the month from 1 to 31, not None"),
        ({"day": 10, "after": "week"}, "after is one of month, quarter, half, year, not 'week'"),
        ({"day": 10}, "after is one of month, quarter, half, year, not None"),
        ({"day": 10, "after": "month", "of": 1}, "an amount has no key 'of'"),
        ({"day": 10, "after": "month", "first_month": 13}, "first_month is a month from 1 to 12"),
        ({"day": 10, "after": "month", "at": 8}, '"HH:MM", close or end, not 8'),
        ({"day": 10, "after": "month", "at": "8:00"}, "a time of day is written @08:00"),
    ],
)
def test_a_mistake_is_refused_with_the_near_miss(written: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_amount(written)


@pytest.mark.parametrize(
    ("written", "english", "chinese"),
    [
        ("3wd", "3 working days", "3个工作日"),
        ("1wd", "1 working day", "1个工作日"),
        ("1wd@08:00", "1 working day, at 08:00", "1个工作日（08:00前）"),
        ("0wd", "the same working day", "当个工作日"),
        ("0d", "the same day", "当日"),
        ("15d", "15 calendar days", "15个自然日"),
        ("24h", "24 hours", "24小时"),
        ("1h", "1 hour", "1小时"),
        ("8bh", "8 working hours", "8个工作小时"),
        ("30min", "30 minutes", "30分钟"),
        ("2w", "2 weeks", "2周"),
        ("3mo", "3 months", "3个月"),
        ("1y@close", "1 year, at close of office", "1年（下班前）"),
        ("eom", "the end of the month", "月末"),
        ({"day": 10, "after": "quarter"}, "day 10 of the month after the quarter", "季后首月10日"),
        (
            {"day": 10, "after": "month", "at": "end"},
            "day 10 of the next month, at the end of the day",
            "次月10日24时前",
        ),
    ],
)
def test_an_amount_has_a_name_in_both_languages(written: Any, english: str, chinese: str) -> None:
    assert describe(parse_amount(written)) == english
    assert describe(parse_amount(written), "zh") == chinese


@given(st.sampled_from(sorted(MOST)), st.integers(0, 10), st.sampled_from([None, "close", "end", "00:00", "23:59"]))
def test_every_amount_survives_being_written(unit: Unit, n: int, at: str | None) -> None:
    amount = Amount(n, unit, None if unit in ("min", "h", "bh") else at)
    assert parse_amount(format_amount(amount)) == amount


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        amount = parse_amount(text)
    except ValueError as refusal:
        refused = str(refusal)
    else:
        assert format_amount(amount) == text or text.startswith("0")
        return
    assert repr(text) in refused

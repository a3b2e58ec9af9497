"""Ids that sort by age, ids that follow from a fact, and amounts that never become floats."""

from __future__ import annotations

import time
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import Deriving, derived_id, new_id
from shared.money import Money, exponent, format_minor, parse_minor

CURRENCIES = st.sampled_from(["CNY", "EUR", "JPY", "KWD", "CLF", "USD"])


def test_new_ids_are_version_7_carry_the_time_and_grow() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(20_000)]
    after = time.time_ns() // 1_000_000
    assert ids == sorted(set(ids))
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert before <= ids[0].int >> 80 <= ids[-1].int >> 80 <= after + 10


def test_the_same_parts_give_the_same_id_forever() -> None:
    """Stored messages bear such ids, so the function may never change."""
    assert derived_id("case", UUID(int=7), 3) == UUID("24adb244-33e8-5b47-bda6-98aaba247ffb")


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_other_parts_give_another_id(one: list[str], other: list[str]) -> None:
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


def test_ids_that_begin_alike_are_those_that_are_derived_each_by_itself() -> None:
    deriving = Deriving("announcement", UUID(int=7))
    for parts in (("a", "bc"), ("ab", "c"), ("ü",), ()):
        assert deriving.id(*parts) == derived_id("announcement", UUID(int=7), *parts)


@given(st.integers(-(10**14), 10**14), CURRENCIES)
def test_an_amount_survives_writing_and_reading(minor: int, currency: str) -> None:
    assert parse_minor(format_minor(minor, currency), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("480.00", "CNY", 48000),
        ("480", "CNY", 48000),
        ("0.5", "CNY", 50),
        ("-0.05", "EUR", -5),
        ("7", "JPY", 7),
        ("1.234", "KWD", 1234),
    ],
)
def test_amounts_become_minor_units_by_the_currencys_decimals(amount: str, currency: str, minor: int) -> None:
    assert parse_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0.005", "CNY"),
        ("7.0", "JPY"),
        ("1,000", "CNY"),
        ("1e3", "CNY"),
        ("", "CNY"),
        (".5", "CNY"),
        ("٣", "CNY"),
        ("1", "cny"),
        ("1", "YUAN"),
    ],
)
def test_what_is_no_amount_is_refused(amount: str, currency: str) -> None:
    with pytest.raises(ValueError):
        parse_minor(amount, currency)


def test_a_share_is_rounded_half_up_to_a_whole_minor_unit() -> None:
    assert Money(25, "CNY").times(Decimal("0.5")) == Money(13, "CNY")
    assert Money(-25, "CNY").times(Decimal("0.5")) == Money(-13, "CNY")
    assert Money(1000, "CNY").times(Decimal("0.3333")) == Money(333, "CNY")


def test_two_currencies_cannot_be_reckoned_together() -> None:
    assert Money(1, "CNY") + Money(2, "CNY") == Money(3, "CNY")
    for reckon in (Money.__add__, Money.__sub__, Money.__lt__):
        with pytest.raises(ValueError, match="CNY and EUR"):
            reckon(Money(1, "CNY"), Money(1, "EUR"))
    assert str(Money(48000, "CNY")) == "480.00 CNY"
    assert [exponent(currency) for currency in ("CNY", "JPY", "KWD", "CLF")] == [2, 0, 3, 4]

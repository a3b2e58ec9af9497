from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain.numbering import number_form
from shared.policy.schema import Numbering

DAY = date(2026, 3, 2)


@pytest.mark.parametrize(
    ("pattern", "reset", "count", "number", "period"),
    [
        ("{YYYY}{MM}{DD}-{N:04}", "day", 7, "20260302-0007", "2026-03-02"),
        ("{YY}{MM}{DD}{N:02}", "day", 7, "26030207", "2026-03-02"),
        ("{YY}{MM}{DD}{N:02}", "day", 123, "260302123", "2026-03-02"),
        ("投诉〔{YYYY}〕{N}号", "year", 12, "投诉〔2026〕12号", "2026"),
        ("{N:03}/{MM}", "month", 1, "001/03", "2026-03"),
        ("C{N:06}", "never", 41, "C000041", ""),
        ("{YYYY}", "year", 3, "2026-3", "2026"),
        ("{N:02}-{N:02}", "day", 5, "05-", "2026-03-02"),
        ("{QQ}{N}", "day", 5, "{QQ}5", "2026-03-02"),
    ],
)
def test_a_number_follows_the_pattern(pattern: str, reset: str, count: int, number: str, period: str) -> None:
    form = number_form(Numbering(pattern=pattern, reset=reset), DAY)  # type: ignore[arg-type]
    assert form.number(count) == number
    assert form.period == period


def test_a_counter_that_may_not_grow_ends_at_its_width() -> None:
    assert number_form(Numbering(pattern="{N:02}", overflow="refuse"), DAY).last == 99
    assert number_form(Numbering(pattern="{N:02}", overflow="widen"), DAY).last is None


@given(st.text(max_size=40), st.integers(1, 10**6), st.integers(1, 10**6))
def test_two_counts_never_give_one_number(pattern: str, one: int, other: int) -> None:
    form = number_form(Numbering(pattern=pattern), DAY)
    assert (form.number(one) == form.number(other)) == (one == other)

"""Months, quarters, windows: on the wall clock of the calendar's zone, not in UTC."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.calendar import Calendar, CalendarSection, Period

PLAIN = Calendar.of(CalendarSection())


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


@pytest.mark.parametrize(
    ("when", "kind", "first_month", "period", "first", "after"),
    [
        ("2026-03-10 16:20", "day", 1, "2026-03-10", "2026-03-10", "2026-03-11"),
        ("2026-03-10 16:20", "week", 1, "2026-W11", "2026-03-09", "2026-03-16"),
        ("2027-01-01 16:20", "week", 1, "2026-W53", "2026-12-28", "2027-01-04"),
        ("2026-03-10 16:20", "month", 1, "2026-03", "2026-03-01", "2026-04-01"),
        ("2026-12-31 23:59", "month", 1, "2026-12", "2026-12-01", "2027-01-01"),
        ("2026-03-31 23:59", "quarter", 1, "2026-Q1", "2026-01-01", "2026-04-01"),
        ("2026-04-01 00:00", "quarter", 1, "2026-Q2", "2026-04-01", "2026-07-01"),
        ("2026-06-30 00:00", "half", 1, "2026-H1", "2026-01-01", "2026-07-01"),
        ("2026-07-01 00:00", "half", 1, "2026-H2", "2026-07-01", "2027-01-01"),
        ("2026-07-01 00:00", "year", 1, "2026", "2026-01-01", "2027-01-01"),
        ("2026-01-15 00:00", "half", 12, "2025-12-01/2026-05-31", "2025-12-01", "2026-06-01"),
        ("2026-12-15 00:00", "half", 12, "2026-12-01/2027-05-31", "2026-12-01", "2027-06-01"),
        ("2026-06-15 00:00", "half", 12, "2026-06-01/2026-11-30", "2026-06-01", "2026-12-01"),
        ("2026-03-15 00:00", "year", 4, "2025-04-01/2026-03-31", "2025-04-01", "2026-04-01"),
        ("2026-03-15 00:00", "month", 4, "2026-03", "2026-03-01", "2026-04-01"),
    ],
)
def test_a_period_has_a_name_and_bounds(
    when: str, kind: Period, first_month: int, period: str, first: str, after: str
) -> None:
    assert PLAIN.period(at(when), kind, first_month) == period
    assert PLAIN.period_bounds(period) == (at(f"{first} 00:00"), at(f"{after} 00:00"))


def test_the_month_is_the_local_one() -> None:
    assert PLAIN.month(datetime.fromisoformat("2026-02-28T16:00:00+00:00")) == "2026-03"
    assert PLAIN.month(datetime.fromisoformat("2026-02-28T15:59:59+00:00")) == "2026-02"


@pytest.mark.parametrize(
    "name", ["", "26", "2026-13", "2026-Q5", "2026-Q0", "2026-H3", "2026-W54", "2026-W0", "2026-3", "20260310", "2026-02-30",
             "2026-03-10/2026-03-01", "march", "2026-03-10/x", "2026-X1", "2026-Q", "2026-Q12"]
)  # fmt: skip
def test_what_is_no_period_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no period like"):
        PLAIN.period_bounds(name)


@given(
    st.datetimes(datetime.fromisoformat("2000-01-01"), datetime.fromisoformat("2050-01-01")),
    st.sampled_from(["day", "week", "month", "quarter", "half", "year"]),
    st.integers(1, 12),
)
def test_an_instant_lies_within_its_period(wall: datetime, kind: Period, first_month: int) -> None:
    when = wall.replace(tzinfo=PLAIN.zone)
    name = PLAIN.period(when, kind, first_month)
    start, end = PLAIN.period_bounds(name)
    assert start <= when < end
    assert PLAIN.period(start, kind, first_month) == name
    assert PLAIN.period(end, kind, first_month) != name
    assert PLAIN.period(end - timedelta(microseconds=1), kind, first_month) == name


@pytest.mark.parametrize(
    ("when", "window", "start"),
    [
        ("2026-03-10 16:20", "calendar_month", "2026-03-01 00:00"),
        ("2026-05-10 16:20", "calendar_quarter", "2026-04-01 00:00"),
        ("2026-05-10 16:20", "quarter", "2026-04-01 00:00"),
        ("2026-09-10 16:20", "half", "2026-07-01 00:00"),
        ("2026-09-10 16:20", "calendar_year", "2026-01-01 00:00"),
        ("2026-03-10 16:20", "calendar_week", "2026-03-09 00:00"),
        ("2026-03-10 16:20", "day", "2026-03-10 00:00"),
        ("2026-03-10 16:20", "12mo", "2025-03-10 00:00"),  # the anniversary is inside
        ("2026-05-31 16:20", "3mo", "2026-02-28 00:00"),
        ("2026-03-10 16:20", "30d", "2026-02-08 00:00"),
        ("2026-03-10 16:20", "1y", "2025-03-10 00:00"),
        ("2026-03-10 16:20", "1w", "2026-03-03 00:00"),
        ("2026-03-10 16:20", "2wd", "2026-03-06 00:00"),
        ("2026-03-10 16:20", "24h", "2026-03-09 16:20"),
    ],
)
def test_a_window_looks_back(when: str, window: str, start: str) -> None:
    assert PLAIN.window_start(at(when), window) == at(start)


@pytest.mark.parametrize("window", ["month long", "eom", "3", "calendar_decade"])
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match=r"is not an amount|is no window"):
        PLAIN.window_start(at("2026-03-10 16:20"), window)


def test_month_lengths() -> None:
    start, end = PLAIN.period_bounds("2024-02")
    assert end - start == timedelta(days=29)
    assert PLAIN.local(end).date() == date(2024, 3, 1)

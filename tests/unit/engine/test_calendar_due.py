"""Due instants by the table: one row per way of counting that the written regimes use."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from shared.engine.amounts import Amount, parse_amount
from shared.engine.calendar import (
    NO_PAUSE,
    BeyondHorizonError,
    Calendar,
    CalendarSection,
    CalendarSpec,
    Counting,
    OverdueUnit,
    Paused,
    Season,
)

GOLDEN_WEEK = ["2026-10-01/2026-10-07"]


HOT = Season(span="06-15/08-31", hours={"mon-fri": ["07:00-13:00"], "sat": ["07:00-09:00"]})
WINTER = Season(span="11-01/03-31", hours={"mon-thu": ["10:00-16:00"], "make-up": ["11:00-12:00"]})


def a_calendar(zone: str = "Asia/Shanghai", **spec: Any) -> Calendar:
    return Calendar.of(CalendarSection(zone=zone, calendars={"default": CalendarSpec(**spec)}))


def at(text: str) -> datetime:
    """Read "2026-03-05 11:00" on a Shanghai wall clock."""
    return datetime.fromisoformat(f"{text}+08:00")


PLAIN = a_calendar()


@pytest.mark.parametrize(
    ("start", "amount", "due"),
    [
        ("2026-03-05 11:00", "3wd", "2026-03-10 18:00"),  # K002: over a weekend, to close of office
        ("2026-09-28 10:00", "10wd", "2026-10-12 18:00"),  # K001 without the holiday
        ("2026-03-06 17:30", "24h", "2026-03-07 17:30"),  # K003: round the clock
        ("2026-03-06 17:30", "48h", "2026-03-08 17:30"),
        ("2026-03-06 17:30", "24bh", "2026-03-11 14:30"),  # K003: office hours alone
        ("2026-03-02 09:00", "15d", "2026-03-17 23:59:59"),  # K004
        ("2026-03-02 09:00", "18d", "2026-03-20 23:59:59"),
        ("2026-03-11 15:00", "1w", "2026-03-18 23:59:59"),  # K005
        ("2026-03-31 10:00", "1mo", "2026-04-30 23:59:59"),  # K006: cut to the month's last day
        ("2026-03-31 10:00", "2mo", "2026-05-31 23:59:59"),
        ("2026-03-31 10:00", "3mo", "2026-06-30 23:59:59"),
        ("2026-03-10 16:20", "0d", "2026-03-10 23:59:59"),  # K007: the same day, the next day
        ("2026-03-10 16:20", "1d", "2026-03-11 23:59:59"),
        ("2026-03-10 02:10", "30min", "2026-03-10 02:40"),  # K008: at night as well
        ("2026-03-12 10:00", "eom", "2026-03-31 23:59:59"),  # K009
        ("2026-03-10 15:00", "24h", "2026-03-11 15:00"),  # K011
        ("2026-03-09 15:00", "3wd", "2026-03-12 18:00"),  # K012
        ("2026-03-02 10:00", "5wd", "2026-03-09 18:00"),  # K013 before the pause
        ("2026-03-11 16:00", "3d", "2026-03-14 23:59:59"),  # K014: a Saturday, not moved
        ("2026-03-09 09:30", "1wd", "2026-03-10 18:00"),  # K015
        ("2026-03-09 09:30", "2wd", "2026-03-11 18:00"),
        ("2026-03-02 09:00", "7d", "2026-03-09 23:59:59"),  # K016
        ("2026-03-04 14:00", "2d", "2026-03-06 23:59:59"),
        ("2026-03-08 14:00", "2d", "2026-03-10 23:59:59"),
        ("2026-03-02 10:00", "3wd", "2026-03-05 18:00"),  # K017
        ("2026-03-02 10:00", "10wd", "2026-03-16 18:00"),
        ("2026-03-10 09:00", "18d", "2026-03-28 23:59:59"),  # K018
        ("2026-03-16 14:00", "5wd", "2026-03-23 18:00"),  # K019
        ("2026-03-03 09:30", "4wd", "2026-03-09 18:00"),  # K021
        ("2026-03-02 10:00", "3d", "2026-03-05 23:59:59"),  # K022
        ("2026-03-02 10:00", "10d", "2026-03-12 23:59:59"),
        ("2026-03-12 10:00", "24h", "2026-03-13 10:00"),  # K025
        ("2026-03-12 10:00", "5wd", "2026-03-19 18:00"),
        ("2026-03-05 10:00", "3wd", "2026-03-10 18:00"),  # K026
        ("2026-03-12 17:00", "5wd", "2026-03-19 18:00"),  # K027
        ("2026-03-12 17:00", "3wd", "2026-03-17 18:00"),
        ("2026-04-08 16:00", "1mo", "2026-05-08 23:59:59"),  # K028
        ("2026-04-08 16:00", "2mo", "2026-06-08 23:59:59"),
        ("2026-04-08 16:00", "3mo", "2026-07-08 23:59:59"),
        ("2026-03-10 00:00", "0wd", "2026-03-10 18:00"),  # K029
        ("2026-03-09 11:00", "1wd", "2026-03-10 18:00"),  # K030
        ("2026-03-12 09:00", "3mo", "2026-06-12 23:59:59"),  # K031
        ("2026-03-03 10:00", "5wd", "2026-03-10 18:00"),  # K032
        ("2026-03-09 15:00", "10wd", "2026-03-23 18:00"),
        # what the regimes leave open
        ("2026-03-07 12:00", "1wd", "2026-03-09 18:00"),  # a Saturday is day 0 too
        ("2026-03-07 12:00", "0wd", "2026-03-09 18:00"),  # and its "same working day" is Monday
        ("2026-03-05 11:00", "0wd", "2026-03-05 18:00"),
        ("2026-03-05 18:00", "0wd", "2026-03-05 18:00"),  # the instant itself is in time
        ("2026-03-05 18:00:01", "0wd", "2026-03-06 18:00"),  # later the office is closed: the next working day
        ("2026-03-06 19:30", "0wd", "2026-03-09 18:00"),
        ("2026-03-05 11:00", "1wd@08:00", "2026-03-06 08:00"),
        ("2026-03-06 11:00", "1wd@08:00", "2026-03-09 08:00"),
        ("2026-03-06 11:00", "0wd@08:00", "2026-03-09 08:00"),
        ("2026-03-05 11:00", "3wd@end", "2026-03-10 23:59:59"),
        ("2026-03-05 11:00", "2d@close", "2026-03-07 18:00"),  # a Saturday: the usual hour
        ("2026-03-05 11:00", "0d@10:00", "2026-03-06 10:00"),
        ("2026-03-05 11:00", "1w@09:30", "2026-03-12 09:30"),
        ("2024-02-29 11:00", "1y", "2025-02-28 23:59:59"),
        ("2024-01-31 11:00", "1mo", "2024-02-29 23:59:59"),
        ("2025-10-31 11:00", "4mo", "2026-02-28 23:59:59"),
        ("2025-12-31 11:00", "2mo@close", "2026-02-28 18:00"),
        ("2026-03-12 10:00", "eoq", "2026-03-31 23:59:59"),
        ("2026-04-01 10:00", "eoq", "2026-06-30 23:59:59"),
        ("2026-04-01 10:00", "eoy", "2026-12-31 23:59:59"),
        ("2026-02-11 10:00", "eom@17:00", "2026-02-28 17:00"),
        ("2026-03-31 19:00", "eom@close", "2026-04-30 18:00"),  # this month's has passed
        ("2026-03-05 12:00", "0h", "2026-03-05 12:00"),
        ("2026-03-05 12:00", "0bh", "2026-03-05 12:00"),
        ("2026-03-05 18:00", "0bh", "2026-03-06 09:00"),
        ("2026-03-07 18:00", "0bh", "2026-03-09 09:00"),
        ("2026-03-05 08:00", "9bh", "2026-03-05 18:00"),  # runs out at the close, not at the next opening
        ("2026-03-05 17:59:59", "1bh", "2026-03-06 09:59:59"),
        ("2026-03-05 09:00", "90bh", "2026-03-18 18:00"),
    ],
)
def test_a_limit_ends_where_the_defaults_say(start: str, amount: str, due: str) -> None:
    assert PLAIN.due(at(start), parse_amount(amount)) == at(due)


@pytest.mark.parametrize(
    ("start", "amount", "counting", "due"),
    [
        # K010: one limit, four ways of counting
        ("2026-03-05 19:30", "3wd", Counting(), "2026-03-10 18:00"),
        ("2026-03-05 19:30", "3wd", Counting(count_first_day=True), "2026-03-09 18:00"),
        ("2026-03-05 19:30", "3wd", Counting(cutoff="18:00"), "2026-03-11 18:00"),
        ("2026-03-05 19:30", "3wd", Counting(working_day_end="midnight"), "2026-03-10 23:59:59"),
        # the cut-off minute belongs to the day
        ("2026-03-05 18:00", "3wd", Counting(cutoff="18:00"), "2026-03-10 18:00"),
        ("2026-03-05 18:00:01", "3wd", Counting(cutoff="18:00"), "2026-03-11 18:00"),
        ("2026-03-06 19:30", "1wd", Counting(cutoff="18:00"), "2026-03-09 18:00"),  # Saturday is day 0 now
        ("2026-03-05 19:30", "3d", Counting(cutoff="18:00"), "2026-03-09 23:59:59"),
        ("2026-03-05 19:30", "0d", Counting(cutoff="18:00"), "2026-03-06 23:59:59"),
        ("2026-03-05 19:30", "1w", Counting(cutoff="18:00"), "2026-03-12 23:59:59"),  # for days alone
        # the first day counts
        ("2026-03-02 10:00", "3d", Counting(count_first_day=True), "2026-03-04 23:59:59"),
        ("2026-03-02 10:00", "1d", Counting(count_first_day=True), "2026-03-02 23:59:59"),
        ("2026-03-02 10:00", "0d", Counting(count_first_day=True), "2026-03-02 23:59:59"),
        ("2026-03-02 10:00", "1wd", Counting(count_first_day=True), "2026-03-02 18:00"),
        ("2026-03-02 19:00", "1wd", Counting(count_first_day=True), "2026-03-03 18:00"),  # never before its start
        ("2026-03-07 10:00", "1wd", Counting(count_first_day=True), "2026-03-09 18:00"),  # a Saturday can't count
        ("2026-03-02 10:00", "1w", Counting(count_first_day=True), "2026-03-09 23:59:59"),
        # the last day of a calendar limit
        ("2026-03-05 10:00", "2d", Counting(roll="next_working_day"), "2026-03-09 23:59:59"),
        ("2026-03-31 10:00", "2mo", Counting(roll="next_working_day"), "2026-06-01 23:59:59"),
        ("2026-02-28 10:00", "1w", Counting(roll="next_working_day"), "2026-03-09 23:59:59"),
        ("2026-03-05 10:00", "2d@08:00", Counting(roll="next_working_day"), "2026-03-09 08:00"),
        ("2026-03-05 10:00", "2d", Counting(calendar_day_end="close"), "2026-03-07 18:00"),
        ("2026-05-05 10:00", "eom", Counting(roll="next_working_day"), "2026-05-31 23:59:59"),  # stays in its month
        # hours
        ("2026-03-06 17:30", "24h", Counting(hour_mode="office_hours"), "2026-03-11 14:30"),
        ("2026-03-10 02:10", "30min", Counting(hour_mode="office_hours"), "2026-03-10 09:30"),
        ("2026-03-06 17:30", "24bh", Counting(hour_mode="round_the_clock"), "2026-03-11 14:30"),
    ],
)
def test_each_way_of_counting_is_a_setting(start: str, amount: str, counting: Counting, due: str) -> None:
    assert PLAIN.due(at(start), parse_amount(amount), counting) == at(due)


@pytest.mark.parametrize(
    ("spec", "start", "amount", "due"),
    [
        ({"holidays": GOLDEN_WEEK}, "2026-09-28 10:00", "10wd", "2026-10-19 18:00"),  # K001
        ({"holidays": GOLDEN_WEEK, "workdays": ["2026-10-10"]}, "2026-09-28 10:00", "10wd", "2026-10-16 18:00"),
        ({"holidays": GOLDEN_WEEK, "workdays": ["2026-10-10"]}, "2026-10-09 17:00", "2bh", "2026-10-10 10:00"),
        ({"holidays": GOLDEN_WEEK}, "2026-09-30 10:00", "1d", "2026-10-01 23:59:59"),
        # several intervals a day
        ({"hours": {"mon-fri": ["09:00-12:00", "13:30-18:00"]}}, "2026-03-05 11:00", "2bh", "2026-03-05 14:30"),
        ({"hours": {"mon-fri": ["09:00-12:00", "13:30-18:00"]}}, "2026-03-05 12:30", "1bh", "2026-03-05 14:30"),
        ({"hours": {"mon-fri": ["09:00-12:00", "13:30-18:00"]}}, "2026-03-05 11:00", "1bh", "2026-03-05 12:00"),
        ({"hours": {"mon-fri": ["09:00-12:00", "13:30-18:00"]}}, "2026-03-05 11:00", "1wd", "2026-03-06 18:00"),
        # part days and closed days
        ({"exceptions": {date(2026, 3, 6): ["09:00-12:00"]}}, "2026-03-05 11:00", "1wd", "2026-03-06 12:00"),
        ({"exceptions": {date(2026, 3, 6): ["09:00-12:00"]}}, "2026-03-05 17:00", "5bh", "2026-03-09 10:00"),
        ({"exceptions": {date(2026, 3, 6): []}}, "2026-03-05 11:00", "1wd", "2026-03-09 18:00"),
        ({"exceptions": {date(2026, 3, 7): ["10:00-11:00"]}}, "2026-03-06 11:00", "1wd", "2026-03-07 11:00"),
        # round the clock, every day
        ({"hours": {"daily": ["00:00-24:00"]}}, "2026-03-07 11:00", "1wd", "2026-03-08 23:59:59"),
        ({"hours": {"daily": ["00:00-24:00"]}}, "2026-03-07 11:00", "48bh", "2026-03-09 11:00"),
        # a night shift over midnight
        ({"hours": {"mon": ["22:00-24:00"], "tue": ["00:00-06:00"]}}, "2026-03-09 23:00", "3bh", "2026-03-10 02:00"),
        # other weeks
        ({"hours": {"sun-thu": ["08:00-16:00"]}}, "2026-03-05 11:00", "1wd", "2026-03-08 16:00"),
        ({"hours": {"sat-sun": ["08:00-16:00"]}}, "2026-03-05 11:00", "3wd", "2026-03-14 16:00"),
        # own entries beat the country's: 2026-10-10 is a make-up day, 2026-10-01 a holiday
        ({"country": "CN"}, "2026-10-09 10:00", "1wd", "2026-10-10 18:00"),
        ({"country": "CN", "holidays": ["2026-10-10"]}, "2026-10-09 10:00", "1wd", "2026-10-12 18:00"),
        ({"country": "CN", "workdays": ["2026-10-01"]}, "2026-09-30 10:00", "1wd", "2026-10-01 18:00"),
        # seasons: both ends belong to them, and they may run over the new year
        ({"seasons": [HOT]}, "2026-06-12 10:00", "1wd", "2026-06-15 13:00"),
        ({"seasons": [HOT]}, "2026-06-19 12:00", "2bh", "2026-06-20 08:00"),
        ({"seasons": [HOT]}, "2026-08-28 12:00", "3wd", "2026-09-01 18:00"),
        ({"seasons": [HOT], "holidays": ["2026-06-15"]}, "2026-06-12 10:00", "1wd", "2026-06-16 13:00"),
        (
            {"seasons": [HOT], "exceptions": {date(2026, 6, 15): ["08:00-09:00"]}},
            "2026-06-12 10:00",
            "1wd",
            "2026-06-15 09:00",
        ),
        ({"seasons": [HOT, WINTER]}, "2026-10-30 10:00", "1wd", "2026-11-02 16:00"),
        ({"seasons": [WINTER]}, "2026-12-31 10:00", "1wd", "2027-01-04 16:00"),
        ({"seasons": [WINTER]}, "2026-03-31 10:00", "1wd", "2026-04-01 18:00"),
        ({"seasons": [WINTER], "workdays": ["2026-11-07"]}, "2026-11-05 10:00", "1wd", "2026-11-07 12:00"),
        ({"hours": {}, "seasons": [HOT]}, "2026-03-05 10:00", "1wd", "2026-06-15 13:00"),
        # the hours of a make-up day
        (
            {"country": "CN", "hours": {"mon-fri": ["09:00-18:00"], "make-up": ["10:00-15:00"]}},
            "2026-10-09 10:00",
            "1wd",
            "2026-10-10 15:00",
        ),
    ],
)
def test_a_calendar_knows_its_days(spec: dict[str, Any], start: str, amount: str, due: str) -> None:
    assert a_calendar(**spec).due(at(start), parse_amount(amount)) == at(due)


@pytest.mark.parametrize(
    ("start", "after", "day", "first_month", "due"),
    [
        ("2026-03-31 10:00", "month", 10, 1, "2026-04-10 18:00"),
        ("2026-04-01 10:00", "month", 10, 1, "2026-05-10 18:00"),  # a Sunday: the usual hour
        ("2026-01-15 10:00", "month", 31, 1, "2026-02-28 18:00"),
        ("2026-12-15 10:00", "month", 5, 1, "2027-01-05 18:00"),
        ("2026-03-31 10:00", "quarter", 10, 1, "2026-04-10 18:00"),
        ("2026-04-01 10:00", "quarter", 10, 1, "2026-07-10 18:00"),
        ("2026-04-01 10:00", "half", 10, 1, "2026-07-10 18:00"),
        ("2026-05-31 10:00", "half", 10, 12, "2026-06-10 18:00"),  # R15.10: half years from June and December
        ("2026-06-01 10:00", "half", 10, 12, "2026-12-10 18:00"),
        ("2026-04-01 10:00", "year", 31, 1, "2027-01-31 18:00"),
    ],
)
def test_a_day_after_the_period(start: str, after: str, day: int, first_month: int, due: str) -> None:
    amount = parse_amount({"day": day, "after": after, "first_month": first_month})
    assert PLAIN.due(at(start), amount) == at(due)


@pytest.mark.parametrize(
    ("amount", "since", "until", "due"),
    [
        ("5wd", "2026-03-03 10:00", "2026-03-05 10:00", "2026-03-11 18:00"),  # K013
        ("5wd", "2026-03-03 10:00", "2026-03-03 17:00", "2026-03-09 18:00"),  # the same date adds none
        ("5wd", "2026-03-06 17:00", "2026-03-09 09:00", "2026-03-10 18:00"),  # a weekend is one working date
        ("5wd", "2026-03-07 09:00", "2026-03-08 17:00", "2026-03-09 18:00"),
        ("7d", "2026-03-03 10:00", "2026-03-05 10:00", "2026-03-11 23:59:59"),
        ("1mo", "2026-03-03 10:00", "2026-03-05 10:00", "2026-04-04 23:59:59"),
        ("24h", "2026-03-02 12:00", "2026-03-02 15:30", "2026-03-03 13:30"),
        ("8bh", "2026-03-02 17:00", "2026-03-03 10:00", "2026-03-03 11:00"),  # two office hours, not seventeen
        ("0wd", "2026-03-02 11:00", "2026-03-03 10:00", "2026-03-03 18:00"),
        ("eom", "2026-03-03 10:00", "2026-03-05 10:00", "2026-03-31 23:59:59"),  # an appointment stays
    ],
)
def test_a_pause_moves_a_limit_by_what_the_limit_counts(amount: str, since: str, until: str, due: str) -> None:
    limit = parse_amount(amount)
    paused = PLAIN.paused(limit, at(since), at(until))
    assert PLAIN.due(at("2026-03-02 10:00"), limit, paused=paused) == at(due)


def test_a_named_day_after_the_month_is_moved_off_a_rest_day() -> None:
    amount = parse_amount({"day": 10, "after": "month"})
    assert PLAIN.due(at("2026-04-01 10:00"), amount, Counting(roll="next_working_day")) == at("2026-05-11 18:00")


def test_pauses_add_up() -> None:
    assert Paused(days=2) + Paused(days=1, time=timedelta(hours=1)) == Paused(days=3, time=timedelta(hours=1))
    assert PLAIN.paused(parse_amount("1wd"), at("2026-03-03 10:00"), at("2026-03-03 10:00")) == NO_PAUSE


@pytest.mark.parametrize(
    ("due", "amount", "warning"),
    [
        ("2026-03-09 18:00", "1wd", "2026-03-06 18:00"),  # K033
        ("2026-03-09 18:00", "2wd", "2026-03-05 18:00"),
        ("2026-03-09 10:00", "1wd", "2026-03-06 10:00"),
        ("2026-03-09 18:00", "1wd@08:00", "2026-03-06 08:00"),
        ("2026-03-09 18:00", "0wd@08:00", "2026-03-09 08:00"),
        ("2026-03-09 18:00", "0wd", "2026-03-09 18:00"),
        ("2026-03-08 23:59:59", "1wd", "2026-03-06 23:59:59"),
        ("2026-03-09 18:00", "24h", "2026-03-08 18:00"),
        ("2026-03-09 18:00", "30min", "2026-03-09 17:30"),
        ("2026-03-09 10:00", "4bh", "2026-03-06 15:00"),  # backwards over the weekend
        ("2026-03-09 18:00", "9bh", "2026-03-09 09:00"),
        ("2026-03-09 18:00", "0bh", "2026-03-09 18:00"),
        ("2026-03-09 23:59:59", "3d", "2026-03-06 23:59:59"),
        ("2026-03-09 23:59:59", "1w", "2026-03-02 23:59:59"),
        ("2026-03-31 23:59:59", "1mo", "2026-02-28 23:59:59"),
        ("2024-02-29 12:00", "1y", "2023-02-28 12:00"),
    ],
)
def test_a_warning_is_counted_backwards(due: str, amount: str, warning: str) -> None:
    assert PLAIN.subtract(at(due), parse_amount(amount)) == at(warning)


def test_a_warning_before_a_short_day_keeps_to_the_close() -> None:
    calendar = a_calendar(exceptions={date(2026, 3, 6): ["09:00-12:00"]})
    assert calendar.subtract(at("2026-03-09 18:00"), parse_amount("1wd")) == at("2026-03-06 12:00")
    assert calendar.subtract(at("2026-03-06 12:00"), parse_amount("1wd")) == at("2026-03-05 18:00")


def test_an_end_of_month_has_no_before() -> None:
    with pytest.raises(ValueError, match="can't be counted backwards"):
        PLAIN.subtract(at("2026-03-09 18:00"), parse_amount("eom"))


@pytest.mark.parametrize(
    ("due", "done", "unit", "days"),
    [
        ("2026-03-09 18:00", "2026-03-09 18:00", "wd", 0),  # at the instant is on time
        ("2026-03-09 18:00", "2026-03-09 18:00:00.000001", "wd", 1),
        ("2026-03-09 18:00", "2026-03-10 23:00", "wd", 1),
        ("2026-03-09 18:00", "2026-03-11 00:00", "wd", 2),
        ("2026-03-06 18:00", "2026-03-08 12:00", "wd", 1),
        ("2026-03-06 18:00", "2026-03-09 00:00", "wd", 1),
        ("2026-03-06 18:00", "2026-03-10 00:00", "wd", 2),
        ("2026-03-06 23:59:59", "2026-03-08 12:00", "cd", 2),
        ("2026-03-06 23:59:59", "2026-03-06 23:59:59.5", "cd", 1),
        ("2026-03-06 18:00", "2026-03-01 12:00", "cd", 0),
    ],
)
def test_overdue_days_are_dates_after_the_due_date(due: str, done: str, unit: OverdueUnit, days: int) -> None:
    assert PLAIN.overdue_days(at(due), at(done), unit) == days


@pytest.mark.parametrize(
    ("unit", "instants"),
    [
        ("wd", ["2026-03-06 18:00:00.000001", "2026-03-10 00:00", "2026-03-11 00:00", "2026-03-12 00:00"]),
        ("cd", ["2026-03-06 18:00:00.000001", "2026-03-08 00:00", "2026-03-09 00:00", "2026-03-10 00:00"]),
    ],
)
def test_the_next_overdue_instants_are_beginnings_of_counted_dates(unit: OverdueUnit, instants: list[str]) -> None:
    due = at("2026-03-06 18:00")
    after = at("2026-03-01 00:00")
    for instant in instants:
        after = PLAIN.next_overdue_instant(due, after, unit)
        assert after == at(instant)


def test_a_result_is_utc_whatever_the_zone_of_the_start() -> None:
    start = at("2026-03-05 11:00")
    for amount in ("3wd", "24h", "8bh", "3d", "eom"):
        due = PLAIN.due(start.astimezone(UTC), parse_amount(amount))
        assert due.tzinfo is UTC
        assert PLAIN.due(start, parse_amount(amount)) == due
        assert PLAIN.due(start, parse_amount(amount)).tzinfo is UTC


def test_a_start_without_a_zone_is_refused() -> None:
    for amount in ("3wd", "24h", "8bh", "3d"):
        with pytest.raises(ValueError, match="has no time zone"):
            PLAIN.due(at("2026-03-05 11:00").replace(tzinfo=None), parse_amount(amount))


def test_working_time_and_days_between() -> None:
    assert PLAIN.working_time(at("2026-03-06 17:00"), at("2026-03-09 10:00")) == timedelta(hours=2)
    assert PLAIN.working_time(at("2026-03-07 17:00"), at("2026-03-08 10:00")) == timedelta()
    assert PLAIN.working_time(at("2026-03-09 10:00"), at("2026-03-06 17:00")) == timedelta()
    assert PLAIN.working_days_between(at("2026-03-03 10:00"), at("2026-03-05 10:00")) == 2
    assert PLAIN.working_days_between(at("2026-03-06 10:00"), at("2026-03-08 10:00")) == 0
    assert PLAIN.working_days_between(at("2026-03-05 10:00"), at("2026-03-03 10:00")) == 0


def test_open_and_close_of_a_date() -> None:
    assert PLAIN.open_of(date(2026, 3, 6)) == at("2026-03-06 09:00")
    assert PLAIN.close_of(date(2026, 3, 6)) == at("2026-03-06 18:00")
    assert PLAIN.open_of(date(2026, 3, 7)) == at("2026-03-07 00:00")
    assert PLAIN.close_of(date(2026, 3, 7)) == at("2026-03-07 18:00")
    assert [PLAIN.is_working_day(date(2026, 3, day)) for day in (6, 7, 8, 9)] == [True, False, False, True]
    assert PLAIN.next_working_day(date(2026, 3, 7)) == date(2026, 3, 9)
    assert PLAIN.next_working_day(date(2026, 3, 9)) == date(2026, 3, 9)


def test_a_calendar_without_working_time_is_an_error_and_no_endless_loop() -> None:
    nothing = a_calendar(hours={})
    for amount in (Amount(1, "wd"), Amount(1, "bh"), Amount(0, "wd"), Amount(0, "bh")):
        with pytest.raises(BeyondHorizonError, match="too little working time"):
            nothing.due(at("2026-03-06 18:00"), amount)
    with pytest.raises(BeyondHorizonError, match="too little working time"):
        nothing.subtract(at("2026-03-06 18:00"), Amount(1, "wd"))
    with pytest.raises(BeyondHorizonError, match="too little working time"):
        nothing.subtract(at("2026-03-06 18:00"), Amount(1, "bh"))


def test_what_lies_too_far_away_is_an_error() -> None:
    with pytest.raises(BeyondHorizonError):
        a_calendar(hours={"mon": ["09:00-10:00"]}).due(at("2026-03-06 18:00"), Amount(3000, "bh"))
    with pytest.raises(BeyondHorizonError):
        PLAIN.due(at("2190-03-06 18:00"), Amount(10, "y"))
    with pytest.raises(BeyondHorizonError):
        PLAIN.is_working_day(date(1800, 1, 1))


def test_years_far_apart_are_both_known() -> None:
    calendar = a_calendar()
    assert calendar.due(at("2150-03-05 11:00"), Amount(1, "wd")) == at("2150-03-06 18:00")
    assert calendar.due(at("1995-03-03 11:00"), Amount(1, "wd")) == at("1995-03-06 18:00")
    assert calendar.due(at("2026-03-05 11:00"), Amount(1, "wd")) == at("2026-03-06 18:00")
    assert calendar.due(at("2026-03-05 11:00"), Amount(2600, "wd")) == at("2036-02-21 18:00")


def test_days_late_are_counted_over_decades_too() -> None:
    calendar = a_calendar()
    for year in (2003, 1990, 1970):
        through = range(date(year, 1, 1).toordinal() + 1, date(2026, 3, 7).toordinal() + 1)
        days = sum(date.fromordinal(day).weekday() < 5 for day in through)
        assert calendar.overdue_days(at(f"{year}-01-01 08:00"), at("2026-03-07 12:00"), "wd") == days
    with pytest.raises(BeyondHorizonError):
        calendar.overdue_days(at("1905-01-01 08:00"), at("2026-03-07 12:00"), "wd")


def test_days_not_announced_make_a_due_time_provisional() -> None:
    calendar = a_calendar(announced_through=date(2026, 12, 31))
    start = at("2026-12-30 10:00")
    near, far = Amount(1, "wd"), Amount(2, "wd")
    assert not calendar.is_provisional(start, calendar.due(start, near))
    assert calendar.is_provisional(start, calendar.due(start, far))
    assert calendar.is_provisional(start, calendar.due(start, far), far)
    days = Amount(5, "d")
    assert calendar.is_provisional(start, calendar.due(start, days))
    assert not calendar.is_provisional(start, calendar.due(start, days), days)  # dates need no announcement
    assert calendar.is_provisional(start, calendar.due(start, days), days, Counting(roll="next_working_day"))
    hours = Amount(72, "h")
    assert not calendar.is_provisional(start, calendar.due(start, hours), hours)
    assert calendar.is_provisional(start, calendar.due(start, hours), hours, Counting(hour_mode="office_hours"))
    assert not PLAIN.is_provisional(start, PLAIN.due(start, far))

"""The calendar section: how it is decoded, and what is reported about it."""

from datetime import date
from typing import Any

import msgspec
import pytest

from shared.engine.calendar import Calendar, CalendarSection, CalendarSpec, Counting, problems
from shared.engine.calendar.section import interval_of, span_of, weekdays_of
from shared.engine.holidays import countries


def decoded(value: dict[str, Any]) -> CalendarSection:
    return msgspec.convert(value, CalendarSection)


def test_an_empty_section_is_monday_to_friday_in_shanghai() -> None:
    section = decoded({})
    assert section == CalendarSection()
    assert problems(section, countries()) == []
    calendar = Calendar.of(section)
    assert [calendar.is_working_day(date(2026, 3, day)) for day in range(2, 9)] == [True] * 5 + [False] * 2
    assert section.counting == Counting(
        count_first_day=False, cutoff=None, roll="none", working_day_end="close", hour_mode="round_the_clock"
    )


def test_a_whole_section_is_read() -> None:
    section = decoded(
        {
            "zone": "Europe/London",
            "default": "office",
            "calendars": {
                "office": {
                    "hours": {
                        "mon-thu": ["09:00-12:30", "13:30-18:00"],
                        "fri": ["09:00-14:00"],
                        "make-up": ["09:00-12:00"],
                    },
                    "country": "CN",
                    "holidays": ["2026-05-04", "2026-08-01/2026-08-07 summer closing"],
                    "workdays": ["2026-05-09"],
                    "exceptions": {"2026-12-24": ["09:00-12:00"], "2026-12-31": []},
                    "announced_through": "2026-12-31",
                },
                "hotline": {"hours": {"daily": ["00:00-24:00"]}},
            },
            "counting": {"count_first_day": True, "cutoff": "17:30", "roll": "next_working_day"},
        }
    )
    assert problems(section, countries()) == []
    calendar = Calendar.of(section)
    assert calendar.day(date(2026, 8, 3)).name("zh") == "summer closing"
    assert calendar.day(date(2026, 12, 24)).hours == ((540, 720),)
    assert not calendar.is_working_day(date(2026, 12, 31))
    assert Calendar.of(section, "hotline").is_working_day(date(2026, 8, 2))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"zoned": "Asia/Shanghai"}, "zoned"),
        ({"calendars": {"a": {"hour": {}}}}, "hour"),
        ({"counting": {"roll": "next_day"}}, "next_day"),
        ({"counting": {"cutoff": "5pm"}}, r"counting.cutoff"),
        ({"counting": {"count_first_days": True}}, "count_first_days"),
        ({"calendars": {"a": {"exceptions": {"2026-13-01": []}}}}, "calendars"),
    ],
)
def test_an_unknown_key_or_value_is_refused(value: dict[str, Any], place: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=place):
        decoded(value)


@pytest.mark.parametrize(
    ("section", "path", "message", "suggestion"),
    [
        ({"zone": "Asia/Shangai"}, ("zone",), "is no IANA time zone", "Asia/Shanghai"),
        ({"default": "office"}, ("default",), "there is no calendar 'office'", "one of: default"),
        ({"calendars": {}}, ("calendars",), "no calendar is given", "leave `calendars` out"),
    ],
)
def test_what_is_wrong_with_the_section(
    section: dict[str, Any], path: tuple[str, ...], message: str, suggestion: str
) -> None:
    (problem,) = problems(decoded(section))
    assert problem.path == path
    assert message in problem.message
    assert suggestion in problem.suggestion


@pytest.mark.parametrize(
    ("spec", "path", "message", "suggestion"),
    [
        ({"hours": {"monday": ["09:00-18:00"]}}, ("hours", "monday"), "names no weekday", "mon"),
        ({"hours": {"Mon-Fri": ["09:00-18:00"]}}, ("hours", "Mon-Fri"), "names no weekday", "mon-fri"),
        ({"hours": {"workday": ["09:00-18:00"]}}, ("hours", "workday"), "names no weekday", "daily or make-up"),
        ({"hours": {"mon-fri": ["09:00-18:00"], "wed": []}}, ("hours", "wed"), "wed is given by 'mon-fri'", "once"),
        ({"hours": {"mon": ["9-18"]}}, ("hours", "mon", 0), "is no span of hours", "09:00-18:00"),
        ({"hours": {"mon": ["09:00 to 17:30"]}}, ("hours", "mon", 0), "is no span of hours", "09:00-17:30"),
        ({"hours": {"mon": ["09:00-25:00"]}}, ("hours", "mon", 0), "is no span of hours", "09:00-18:00"),
        ({"hours": {"mon": ["18:00-09:00"]}}, ("hours", "mon", 0), "ends before it begins", "18:00-24:00 on this day"),
        ({"hours": {"mon": ["09:00-09:00"]}}, ("hours", "mon", 0), "ends before it begins", "night shift"),
        (
            {"hours": {"mon": ["09:00-12:00", "11:30-18:00"]}},
            ("hours", "mon", 1),
            "'11:30-18:00' overlaps '09:00-12:00'",
            "",
        ),
        ({"hours": {}}, ("hours",), "no working time", "mon-fri"),
        ({"seasons": [{"span": "summer", "hours": {}}]}, ("seasons", 0, "span"), "no part of a year", "06-15/08-31"),
        ({"seasons": [{"span": "02-30/03-10", "hours": {}}]}, ("seasons", 0, "span"), "no part of a year", ""),
        (
            {"seasons": [{"span": "06-15/08-31", "hours": {"mo": []}}]},
            ("seasons", 0, "hours", "mo"),
            "names no weekday",
            "",
        ),
        (
            {"seasons": [{"span": "11-01/03-31", "hours": {}}, {"span": "03-31/05-01", "hours": {}}]},
            ("seasons", 1, "span"),
            "overlaps '11-01/03-31'",
            "the day before",
        ),
        ({"hours": {"mon-fri": []}}, ("hours",), "no working time", "mon-fri"),
        ({"country": "XX"}, ("country",), "no holidays are known for 'XX'", "CN"),
        ({"holidays": ["1 Oct"]}, ("holidays", 0), "is no date or span of dates", "2026-10-01"),
        ({"holidays": ["2026-02-30"]}, ("holidays", 0), "is no date", ""),
        ({"holidays": ["2026-10-07/2026-10-01"]}, ("holidays", 0), "ends before it begins", "2026-10-01/2026-10-07"),
        ({"holidays": ["2026-10-01/2062-10-07"]}, ("holidays", 0), "longer than a year", "check the years"),
        (
            {"holidays": ["2026-10-01/2026-10-07", "2026-10-03"]},
            ("holidays", 1),
            "2026-10-03 stands in '2026-10-01/2026-10-07' already",
            "once",
        ),
        ({"workdays": ["2026-10-10/"]}, ("workdays", 0), "is no date", ""),
        (
            {"holidays": ["2026-10-10"], "workdays": ["2026-10-10"]},
            ("workdays", 0),
            "2026-10-10 is both a holiday and a working day",
            "keep one of them",
        ),
        (
            {"exceptions": {"2026-12-24": ["12:00-09:00"]}},
            ("exceptions", "2026-12-24", 0),
            "ends before it begins",
            "",
        ),
    ],
)
def test_what_is_wrong_with_a_calendar(
    spec: dict[str, Any], path: tuple[str | int, ...], message: str, suggestion: str
) -> None:
    (problem,) = problems(decoded({"calendars": {"default": spec}}), countries())
    assert problem.path == ("calendars", "default", *path)
    assert message in problem.message
    assert suggestion in problem.suggestion


def test_all_problems_are_reported_at_once() -> None:
    spec = {"hours": {"mo": [], "tue": ["10:00-09:00", "x"]}, "holidays": ["x"], "workdays": ["y"]}
    found = problems(decoded({"zone": "x", "default": "x", "calendars": {"a": spec, "b": spec}}))
    assert len(found) == 2 + 2 * 5
    assert len({problem.path for problem in found}) == len(found)


def test_a_working_day_out_of_a_holiday_span_is_meant() -> None:
    spec = {"holidays": ["2026-10-01/2026-10-10"], "workdays": ["2026-10-10"]}
    section = decoded({"calendars": {"default": spec}})
    assert problems(section) == []
    assert Calendar.of(section).is_working_day(date(2026, 10, 10))


def test_a_malformed_section_makes_no_calendar() -> None:
    for spec in (
        CalendarSpec(hours={"mon": ["18:00-09:00"]}),
        CalendarSpec(hours={"mon": ["09:00-12:00", "11:00-13:00"]}),
        CalendarSpec(holidays=["x"]),
        CalendarSpec(country="XX"),
    ):
        with pytest.raises(ValueError, match=r"hours|date|holidays"):
            Calendar.of(CalendarSection(calendars={"default": spec}))
    with pytest.raises(KeyError):
        Calendar.of(CalendarSection(), "office")


@pytest.mark.parametrize(
    ("key", "days"),
    [
        ("mon", ("mon",)),
        ("mon-fri", ("mon", "tue", "wed", "thu", "fri")),
        ("sun-thu", ("sun", "mon", "tue", "wed", "thu")),
        ("fri-fri", ("fri",)),
        ("make-up", ("make-up",)),
        ("mon-", None),
        ("-fri", None),
        ("mon-fri-sat", None),
        ("", None),
    ],
)
def test_keys_of_hours(key: str, days: tuple[str, ...] | None) -> None:
    assert weekdays_of(key) == days


def test_spans_of_hours_and_dates() -> None:
    assert interval_of("00:00-24:00") == (0, 1440)
    assert interval_of("24:00-24:00") is None
    assert interval_of("09:60-10:00") is None
    assert interval_of("09:00-24:01") is None
    assert span_of("2026-10-01 National Day") == (date(2026, 10, 1), date(2026, 10, 1))
    assert span_of("20261001") is None
    assert span_of("2026-W40-4") is None

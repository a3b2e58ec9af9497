"""Country days: China against a second source, day by day, and honesty about years that are not announced."""

import calendar as months
from datetime import date, datetime, timedelta

import chinese_calendar
import pytest

from shared.engine.amounts import parse_amount
from shared.engine.calendar import Calendar, CalendarSection, CalendarSpec
from shared.engine.holidays import countries, country_days

CHINA = Calendar.of(CalendarSection(calendars={"default": CalendarSpec(country="CN")}))
LAST_ANNOUNCED = max(chinese_calendar.holidays).year


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


@pytest.mark.parametrize("year", range(2015, LAST_ANNOUNCED + 1))
def test_every_day_agrees_with_the_state_councils_notice(year: int) -> None:
    day = date(year, 1, 1)
    while day.year == year:
        assert CHINA.is_working_day(day) == chinese_calendar.is_workday(day), day
        day += timedelta(days=1)


@pytest.mark.parametrize(
    ("start", "amount", "due"),
    [
        ("2017-01-23 10:00", "5wd", "2017-02-04 18:00"),  # Spring Festival, then a working Saturday
        ("2026-09-28 10:00", "10wd", "2026-10-16 18:00"),  # National Day, Saturday 10 October is worked
        ("2026-09-18 10:00", "1wd", "2026-09-20 18:00"),  # a working Sunday
        ("2018-12-28 10:00", "1wd", "2018-12-29 18:00"),  # a working Saturday by the notice of the year after
        ("2018-12-29 10:00", "1wd", "2019-01-02 18:00"),
        ("2020-01-23 10:00", "1wd", "2020-02-03 18:00"),  # the holiday that was lengthened
        ("2017-02-04 17:00", "2bh", "2017-02-06 10:00"),
    ],
)
def test_limits_over_holidays_and_make_up_days(start: str, amount: str, due: str) -> None:
    assert CHINA.due(at(start), parse_amount(amount)) == at(due)


def test_every_working_day_limit_of_a_year_agrees() -> None:
    day = date(2017, 1, 1)
    while day.year == 2017:
        expected = day
        for _ in range(5):
            expected += timedelta(days=1)
            while not chinese_calendar.is_workday(expected):
                expected += timedelta(days=1)
        due = CHINA.due(at(f"{day} 10:00"), parse_amount("5wd"))
        assert CHINA.local(due).date() == expected
        day += timedelta(days=1)


def test_a_year_is_certain_only_once_its_make_up_days_are_known() -> None:
    days = country_days("CN", range(2015, LAST_ANNOUNCED + 4))
    assert days.announced_through == date(LAST_ANNOUNCED, 12, 27)  # the next notice may still move the last four days
    assert max(days.make_up).year == LAST_ANNOUNCED
    assert any(day.year == LAST_ANNOUNCED + 1 for day in days.days_off)  # the guess is there, and is called one
    start = at(f"{LAST_ANNOUNCED}-12-24 10:00")
    assert CHINA.is_provisional(start, CHINA.due(start, parse_amount("5wd")))
    assert not CHINA.is_provisional(start, CHINA.due(start, parse_amount("1wd")))


def test_years_within_the_announced_ones_are_certain_to_the_end() -> None:
    assert country_days("CN", [2018, 2019]).announced_through == date(2019, 12, 31)
    assert country_days("CN", [LAST_ANNOUNCED + 1]).announced_through is None


def test_an_operator_may_confirm_a_year_that_has_no_make_up_days() -> None:
    spec = CalendarSpec(country="CN", announced_through=date(LAST_ANNOUNCED + 1, 12, 31))
    calendar = Calendar.of(CalendarSection(calendars={"default": spec}))
    start = at(f"{LAST_ANNOUNCED}-12-24 10:00")
    assert not calendar.is_provisional(start, calendar.due(start, parse_amount("5wd")))


def test_days_have_names_in_english_and_chinese() -> None:
    days = country_days("CN", [2026])
    assert days.days_off[date(2026, 10, 1)] == "National Day"
    assert days.names["zh"][date(2026, 10, 1)] == "国庆节"
    assert days.days_off[date(2026, 10, 7)] == "Day off (substituted from 2026-10-10)"
    assert days.days_off.keys() == days.names["zh"].keys()


def test_names_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import shared.engine.holidays as module

    expected = country_days("CN", [2026])
    for locale in ("en_US.UTF-8", "zh_CN.UTF-8", "de_DE.UTF-8"):
        monkeypatch.setenv("LANGUAGE", locale)
        module._load.cache_clear()
        module._year.cache_clear()
        assert country_days("CN", [2026]) == expected


def test_a_country_whose_holidays_stand_in_a_law_is_certain_for_all_years_asked_for() -> None:
    germany = country_days("DE-BY", range(2024, 2030))
    assert germany.announced_through == date(2029, 12, 31)
    assert germany.make_up == frozenset()
    assert germany.days_off[date(2026, 1, 6)] == "Epiphany"  # Bavaria has it, the whole country has not
    assert date(2026, 1, 6) not in country_days("DE", [2026]).days_off


def test_estimated_holidays_are_not_certain() -> None:
    emirates = country_days("AE", range(2024, 2032))
    assert emirates.announced_through is None or emirates.announced_through < date(2031, 1, 1)


@pytest.mark.parametrize("country", ["XX", "cn", "CN-99", "", "China"])
def test_an_unknown_country_is_refused(country: str) -> None:
    with pytest.raises(ValueError, match="no holidays are known"):
        country_days(country, [2026])


def test_the_list_of_countries_holds_codes() -> None:
    assert {"CN", "US", "US-CA", "DE", "DE-BY", "JP"} <= countries()
    assert {"China", "CHN", "US-XX"}.isdisjoint(countries())


def test_a_leap_year_and_a_common_one_have_all_their_days() -> None:
    for year in (2023, 2024):
        worked = sum(
            CHINA.is_working_day(date(year, 1, 1) + timedelta(days=n)) for n in range(365 + months.isleap(year))
        )
        begins, ends = CHINA.period_bounds(str(year))
        assert CHINA.working_days_between(begins - timedelta(seconds=1), ends - timedelta(seconds=1)) == worked

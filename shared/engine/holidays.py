"""Public holidays and make-up working days of countries, imported as data from the `holidays` package.

The import happens where a calendar is published; what was published is kept with it, so an update of the package never
moves a date that somebody relied on. The package guesses days that no government has announced yet and does not say so;
`announced_through` does.
"""

import re
import warnings
from collections.abc import Iterable
from datetime import date
from functools import cache
from typing import Any, Final

import holidays as package
import msgspec

USUAL_YEARS: Final = range(2010, 2037)
"""Years imported where nothing else is asked for."""

NEW_YEAR_MAY_MOVE: Final = (12, 27)
"""The notice for a year may move the last days of the year before: Monday 2018-12-31 became a day off, and Saturday
2018-12-29 a working day, by the notice for 2019. So the last announced year is certain up to here only."""

LONGEST_WITHOUT_NOTICE: Final = 5
"""Years without a moved rest day after which the data are taken to end, or the country to move none."""


class CountryDays(msgspec.Struct, frozen=True, kw_only=True):
    """What a country says about single dates.

    days_off: date → name in English; weekend dates may be among them.
    make_up: dates at a weekend that are worked.
    announced_through: the last date that is certain; later ones are the package's guess. None: nothing is certain.
    names: language → date → name, for languages other than English that the data have.
    """

    country: str
    days_off: dict[date, str]
    make_up: frozenset[date]
    announced_through: date | None
    names: dict[str, dict[date, str]] = {}


@cache
def countries() -> frozenset[str]:
    """Return the codes that can be imported: of countries as in ISO 3166, and of their parts as in `US-CA`."""
    known = package.list_supported_countries(include_aliases=False)
    return frozenset(known) | {f"{code}-{part}" for code, parts in known.items() for part in parts}


def country_days(country: str, years: Iterable[int] = USUAL_YEARS) -> CountryDays:
    """Return a country's days off and make-up working days in the given years.

    Args:
        country: `CN`, or with a part of the country `US-CA`.
        years: without gaps; days outside them are unknown and never announced.

    Raises:
        ValueError: the country or its part is not known.
    """
    if country not in countries():
        raise ValueError(f"no holidays are known for {country!r}")
    wanted = sorted(set(years))
    loaded = {year: _year(country, year) for year in wanted}
    chinese = {day: name for year in loaded.values() for day, name in year.chinese.items()}
    return CountryDays(
        country=country,
        days_off={day: name for year in loaded.values() for day, name in year.english.items()},
        make_up=frozenset().union(*(year.make_up for year in loaded.values())),
        announced_through=_announced_through(country, wanted),
        names={"zh": chinese} if chinese else {},
    )


def _announced_through(country: str, years: list[int]) -> date | None:
    """Return the last certain date of an unbroken run of announced years from the first one asked for."""
    last_notice = _last_notice(country)
    certain: date | None = None
    for year in years:
        if _year(country, year).estimated or (last_notice is not None and year > last_notice):
            break
        certain = date(year, *NEW_YEAR_MAY_MOVE) if year == last_notice else date(year, 12, 31)
    return certain


@cache
def _last_notice(country: str) -> int | None:
    """Return the last year for which the government moved rest days by a notice; None where none does so.

    China's State Council does it late in each year for the next one; until the make-up days are in the data, a year is
    not announced.
    """
    last: int | None = None
    year = 2015
    while year - (last or 2015) <= LONGEST_WITHOUT_NOTICE:
        if any(day.year == year for day in _load(country, year).weekend_workdays):
            last = year
        year += 1
    return last


class _Year(msgspec.Struct, frozen=True):
    english: dict[date, str]
    chinese: dict[date, str]
    make_up: frozenset[date]
    estimated: bool


@cache
def _year(country: str, year: int) -> _Year:
    moved = frozenset(day for day in _load(country, year).weekend_workdays if day.year == year)
    english = _names(country, year, "en_US")
    chinese = _names(country, year, "zh_CN")
    own = english or _names(country, year, _load(country, year).default_language)
    return _Year(own, chinese, moved, any("estimated" in name for name in own.values()))


def _names(country: str, year: int, language: str | None) -> dict[date, str]:
    """Return the days off with their names in one language; nothing if the data don't have it."""
    held = _load(country, year, language)
    if language != held.default_language and language not in held.supported_languages:
        return {}
    days = sorted((day, str(name)) for day, name in held.items() if day.year == year)
    return {day: _MONTH_FIRST.sub(r"\3-\1-\2", name) for day, name in days}


_MONTH_FIRST: Final = re.compile(r"\b(\d\d)/(\d\d)/(\d{4})\b")


@cache
def _load(country: str, year: int, language: str | None = None) -> Any:
    """Return the package's object; without a language its names follow the machine's locale, so don't use them."""
    code, _, part = country.partition("-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a year outside the data is empty; `announced_through` tells so
        return package.country_holidays(code, subdiv=part or None, years=year, language=language)

"""What one date is on a calendar: its office hours, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Final, Literal

import msgspec

from shared.engine.calendar.section import (
    MAKE_UP,
    MINUTES_A_DAY,
    WEEKDAYS,
    CalendarSpec,
    Interval,
    days_in,
    intervals_of,
    is_within,
    season_of,
    span_of,
    weekdays_of,
)
from shared.engine.holidays import CountryDays, country_days

Cause = Literal["working_day", "make_up_day", "part_day", "weekend", "holiday", "closed"]
WORKED: Final = frozenset({"working_day", "make_up_day", "part_day"})


class Day(msgspec.Struct, frozen=True):
    """Office hours of a date and the cause; `names`: a holiday's by language, under "" as the author wrote it."""

    hours: tuple[Interval, ...]
    cause: Cause
    names: Mapping[str, str] = {}

    def name(self, lang: str) -> str:
        """Return the holiday's name, in the language if it is known in it; "" if it has none."""
        return self.names.get(lang) or self.names.get("") or self.names.get("en") or ""


class _Week(msgspec.Struct, frozen=True):
    days: tuple[tuple[Interval, ...], ...]  # from Monday
    make_up: tuple[Interval, ...]  # of a rest day that is worked

    @classmethod
    def of(cls, hours: Mapping[str, Sequence[str]]) -> _Week:
        by_name = {weekday: intervals_of(ranges) for key, ranges in hours.items() for weekday in weekdays_of(key) or ()}
        days = tuple(by_name.get(weekday, ()) for weekday in WEEKDAYS)
        return cls(days, by_name.get(MAKE_UP) or next((each for each in days if each), ()))


class DayRules:
    """One edition of one calendar: what each date is.

    For a date the first of these decides: exceptions, own workdays, own holidays, the country's make-up days, its days
    off, the week of its season, the week.
    """

    __slots__ = ("_exceptions", "_fixed", "_seasons", "_week", "announced_through", "usual_close")

    announced_through: date | None
    """The last date that is certain; None: all are."""
    usual_close: int
    """Minutes after midnight at which the calendar's longest weekday closes."""

    def __init__(self, spec: CalendarSpec, days: CountryDays | None = None) -> None:
        """Read a calendar.

        Args:
            spec: without problems.
            days: of its country, as they were when it was published; None: as the data have them now.

        Raises:
            ValueError: a span of hours or dates is malformed, or the country is unknown.
        """
        if days is None and spec.country is not None:
            days = country_days(spec.country)
        self._week = _Week.of(spec.hours)
        self._seasons = [(season_of(season.span), _Week.of(season.hours)) for season in spec.seasons]
        usual = max(self._week.days, key=lambda hours: hours[-1][1] if hours else 0)
        self.usual_close = usual[-1][1] if usual else MINUTES_A_DAY
        self._exceptions = {day: intervals_of(ranges) for day, ranges in spec.exceptions.items()}
        self._fixed = self._fixed_days(spec, days)
        certain = None if days is None else days.announced_through or date.min
        self.announced_through = spec.announced_through or certain

    def _fixed_days(self, spec: CalendarSpec, days: CountryDays | None) -> dict[date, Day]:
        fixed: dict[date, Day] = {}
        if days is not None:
            for day, name in days.days_off.items():
                names = {lang: known[day] for lang, known in days.names.items() if day in known}
                fixed[day] = Day((), "holiday", {"en": name, **names})
            for day in days.make_up:
                fixed[day] = self._worked(day)
        for day, name in _named_dates(spec.holidays):
            before = fixed.get(day)
            inherited = before.names if before is not None and before.cause == "holiday" else {}
            fixed[day] = Day((), "holiday", {"": name} if name else inherited)
        for day, name in _named_dates(spec.workdays):
            fixed[day] = self._worked(day, name)
        return fixed

    def _week_of(self, day: date) -> _Week:
        for season, week in self._seasons:
            if season is not None and is_within((day.month, day.day), season):
                return week
        return self._week

    def _worked(self, day: date, name: str = "") -> Day:
        week = self._week_of(day)
        weekly = week.days[day.weekday()]
        return Day(weekly or week.make_up, "working_day" if weekly else "make_up_day", {"": name} if name else {})

    def day(self, day: date) -> Day:
        """Return what the date is."""
        own = self._exceptions.get(day)
        if own is not None:
            return Day(own, "part_day" if own else "closed")
        fixed = self._fixed.get(day)
        if fixed is not None:
            return fixed
        hours = self._week_of(day).days[day.weekday()]
        return Day(hours, "working_day") if hours else _WEEKEND


_WEEKEND: Final = Day((), "weekend")


def _named_dates(written: list[str]) -> list[tuple[date, str]]:
    named: list[tuple[date, str]] = []
    for text in written:
        span = span_of(text)
        if span is None:
            raise ValueError(f"{text!r} is no date or span of dates")
        name = text.partition(" ")[2].strip()
        named += ((day, name) for day in days_in(span))
    return named


@lru_cache(maxsize=256)
def _rules_of(encoded: bytes, days: bytes) -> DayRules:
    spec = msgspec.json.decode(encoded, type=CalendarSpec)
    return DayRules(spec, msgspec.json.decode(days, type=CountryDays) if days else None)


def rules_of(spec: CalendarSpec, days: CountryDays | None = None) -> DayRules:
    """Return the rules of a calendar; equal calendars share one, so that many tenants on one country cost one."""
    return _rules_of(msgspec.json.encode(spec), b"" if days is None else msgspec.json.encode(days))

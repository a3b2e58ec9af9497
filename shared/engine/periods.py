"""Periods of reports: days, months, quarters, halves and years in the tenant's zone."""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from msgspec import Struct


class Period(Struct, frozen=True):
    """`[start_on, end_on)` in the tenant's zone, with the name a report gives it."""

    name: str
    start_on: date
    end_on: date

    def bounds(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """Return the instants `[start, end)`; a day begins at its first midnight."""
        return _midnight(self.start_on, zone), _midnight(self.end_on, zone)


_MONTHS: Final = {"month": 1, "quarter": 3, "half": 6, "year": 12}


def period_at(at: datetime, length: str, zone: tzinfo, first_month: int = 1) -> Period:
    """Return the period in which an instant lies; the years that halves and quarters divide begin in `first_month`."""
    return period_on(at.astimezone(zone).date(), length, first_month)


def period_on(day: date, length: str, first_month: int = 1) -> Period:
    if length == "day":
        return Period(day.isoformat(), day, day + timedelta(days=1))
    months = _MONTHS[length]
    since = day.year * 12 + (day.month - 1) - (first_month - 1)
    start = since - since % months + (first_month - 1)
    start_on, end_on = _month_start(start), _month_start(start + months)
    return Period(_name(start_on, end_on, length), start_on, end_on)


def _name(start_on: date, end_on: date, length: str) -> str:
    """Return 2026-03, 2026-Q1, 2026-H1, 2026; where the year does not begin in January, its first and last day."""
    if length == "month":
        return f"{start_on:%Y-%m}"
    months = _MONTHS[length]
    if (start_on.month - 1) % months:
        return f"{start_on}/{end_on - timedelta(days=1)}"
    if length == "year":
        return f"{start_on:%Y}"
    return f"{start_on:%Y}-{'Q' if length == 'quarter' else 'H'}{(start_on.month - 1) // months + 1}"


def parse_period(text: str) -> Period:
    """Return the period written 2026-03-01, 2026-03, 2026-Q1, 2026-H1, 2026 or 2025-12-01/2026-05-31."""
    try:
        if "/" in text:
            first, _, last = text.partition("/")
            start_on, end_on = date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1)
            if end_on <= start_on or len(text) != 21:
                raise ValueError
            return Period(text, start_on, end_on)
        year = int(text[:4]) if text[:4].isascii() and text[:4].isdigit() else 0
        rest = text[4:]
        if rest == "":
            found = period_on(date(year, 1, 1), "year")
        elif rest in ("-Q1", "-Q2", "-Q3", "-Q4"):
            found = period_on(date(year, int(rest[2]) * 3, 1), "quarter")
        elif rest in ("-H1", "-H2"):
            found = period_on(date(year, int(rest[2]) * 6, 1), "half")
        elif len(text) == 7:
            found = period_on(date.fromisoformat(f"{text}-01"), "month")
        else:
            found = period_on(date.fromisoformat(text), "day")
        if found.name != text:
            raise ValueError
        return found
    except (ValueError, OverflowError):
        forms = "2026-03, 2026-Q1, 2026-H1, 2026, a date, or two dates with a slash"
        raise ValueError(f"{text!r} is not a period: {forms}") from None


def _month_start(months: int) -> date:
    return date(months // 12, months % 12 + 1, 1)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)

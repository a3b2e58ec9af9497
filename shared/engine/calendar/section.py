"""The `calendar` section of a policy: its form, and what can be wrong with it.

The Structs hold what the author wrote, as text; `problems` reports everything wrong at once, with the place, and
`Calendar` refuses a section that has problems.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Final, Literal

import msgspec

from shared.engine.calendar.localtime import is_known_zone

Roll = Literal["none", "next_working_day"]
DayEnd = Literal["close", "midnight"]
HourMode = Literal["round_the_clock", "office_hours"]
ClockTime = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", examples=["17:30"])]

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAKE_UP: Final = "make-up"
USUAL_HOURS: Final[dict[str, list[str]]] = {"mon-fri": ["09:00-18:00"]}
MINUTES_A_DAY: Final = 24 * 60
LONGEST_SPAN: Final = timedelta(days=366)

Interval = tuple[int, int]
"""Minutes after midnight, opening and closing; closing at 1440 is the end of the day."""
MonthDay = tuple[int, int]


class Counting(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How days and hours are counted; a clock may change single values for itself.

    count_first_day: the day of the start is day 1 already, if it counts at all.
    cutoff: a start later than this time of day belongs to the next date (days and working days only).
    roll: what happens to a calendar limit whose last day is no working day.
    working_day_end: a working-day limit ends at close of office or at 23:59:59 of its last day.
    calendar_day_end: the same for calendar days, weeks, months and years.
    hour_mode: whether `h` and `min` run round the clock; `bh` never does.
    """

    count_first_day: bool = False
    cutoff: ClockTime | None = None
    roll: Roll = "none"
    working_day_end: DayEnd = "close"
    calendar_day_end: DayEnd = "midnight"
    hour_mode: HourMode = "round_the_clock"


class Season(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A part of each year with a week of its own, such as the hot months.

    span: its first and last day, "06-15/08-31"; it may run over the end of the year.
    hours: what takes the place of the calendar's `hours`, written in the same way.
    """

    span: str
    hours: dict[str, list[str]]


class CalendarSpec(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One calendar: a week, and what differs from it on single dates.

    hours: office hours by weekday (`mon`, `mon-fri`, `daily`; `make-up` for make-up working days), each "09:00-12:00".
    country: public holidays and make-up working days are taken from its calendar: `CN`, or with a part of it `US-CA`.
    seasons: parts of each year in which the week is another.
    holidays: closed dates, "2026-10-01" or "2026-10-01/2026-10-07", a name may follow after a space.
    workdays: dates worked although the week or a holiday says otherwise; written as holidays are.
    exceptions: the hours of single dates; none means closed.
    announced_through: the last date whose holidays are known; for a country, where the data alone do not say so.

    For one date, the first of these that speaks decides: exceptions, workdays, holidays, the country, the season's week, the week.
    """

    hours: dict[str, list[str]] = msgspec.field(default_factory=lambda: dict(USUAL_HOURS))
    country: str | None = None
    seasons: list[Season] = []
    holidays: list[str] = []
    workdays: list[str] = []
    exceptions: dict[date, list[str]] = {}
    announced_through: date | None = None


class CalendarSection(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which days and hours count, and how.

    zone: the IANA time zone of the offices.
    default: the calendar that is meant where none is named.
    calendars: the calendars by name.
    counting: how days and hours are counted.
    """

    zone: str = "Asia/Shanghai"
    default: str = "default"
    calendars: dict[str, CalendarSpec] = msgspec.field(default_factory=lambda: {"default": CalendarSpec()})
    counting: Counting = Counting()


class CalendarProblem(msgspec.Struct, frozen=True):
    """One thing wrong with a section. `path` starts below `calendar`; `suggestion` is empty where there is none."""

    path: tuple[str | int, ...]
    message: str
    suggestion: str = ""


def problems(section: CalendarSection, countries: frozenset[str] | None = None) -> list[CalendarProblem]:
    """Return all that is wrong with a section, in the order of the document.

    Args:
        section: as decoded.
        countries: what can be imported, `shared.engine.holidays.countries()`; None: not checked here.
    """
    found: list[CalendarProblem] = []
    if not is_known_zone(section.zone):
        found.append(CalendarProblem(("zone",), f"{section.zone!r} is no IANA time zone", "Asia/Shanghai"))
    if not section.calendars:
        found.append(
            CalendarProblem(("calendars",), "no calendar is given", "leave `calendars` out for Monday to Friday")
        )
    elif section.default not in section.calendars:
        names = ", ".join(section.calendars)
        found.append(CalendarProblem(("default",), f"there is no calendar {section.default!r}", f"one of: {names}"))
    for name, spec in section.calendars.items():
        found += (
            CalendarProblem(("calendars", name, *problem.path), problem.message, problem.suggestion)
            for problem in spec_problems(spec, countries)
        )
    return found


def spec_problems(spec: CalendarSpec, countries: frozenset[str] | None = None) -> Iterator[CalendarProblem]:
    """Yield what is wrong with one calendar, paths from the calendar down."""
    yield from _hours_problems(spec.hours)
    yield from _season_problems(spec.seasons)
    if spec.country is not None and countries is not None and spec.country not in countries:
        yield CalendarProblem(("country",), f"no holidays are known for {spec.country!r}", "a code like CN or US-CA")
    for key, written in (("holidays", spec.holidays), ("workdays", spec.workdays)):
        yield from _dates_problems(key, written)
    overlap = _dates_of(spec.holidays) & _dates_of(spec.workdays)
    for day in sorted(overlap):
        index = next(i for i, text in enumerate(spec.workdays) if day in _dates_of([text]))
        if spec.workdays[index].partition(" ")[0] in {text.partition(" ")[0] for text in spec.holidays}:
            yield CalendarProblem(("workdays", index), f"{day} is both a holiday and a working day", "keep one of them")
    for day, ranges in spec.exceptions.items():
        yield from _day_problems(("exceptions", day.isoformat()), ranges)
    in_season = any(any(season.hours.values()) for season in spec.seasons)
    if not any(spec.hours.values()) and not any(spec.exceptions.values()) and not in_season:
        yield CalendarProblem(
            ("hours",), "the calendar has no working time, no limit on it would ever end", "mon-fri: [09:00-18:00]"
        )


def _season_problems(seasons: Sequence[Season]) -> Iterator[CalendarProblem]:
    taken: dict[MonthDay, str] = {}
    for index, season in enumerate(seasons):
        for problem in _hours_problems(season.hours):
            yield CalendarProblem(("seasons", index, *problem.path), problem.message, problem.suggestion)
        ends = season_of(season.span)
        if ends is None:
            told = f"{season.span!r} is no part of a year"
            yield CalendarProblem(("seasons", index, "span"), told, "06-15/08-31")
            continue
        days = [(day.month, day.day) for day in days_in((date(2024, 1, 1), date(2024, 12, 31)))]
        own = [day for day in days if is_within(day, ends)]
        if twice := next((taken[day] for day in own if day in taken), None):
            told = f"{season.span!r} overlaps {twice!r}"
            yield CalendarProblem(("seasons", index, "span"), told, "let one season end the day before the next begins")
        taken |= dict.fromkeys(own, season.span)


def _hours_problems(hours: Mapping[str, Sequence[str]]) -> Iterator[CalendarProblem]:
    given: dict[str, str] = {}
    for key, ranges in hours.items():
        days = weekdays_of(key)
        if days is None:
            yield CalendarProblem(("hours", key), f"{key!r} names no weekday", _near_weekday(key))
        for day in days or ():
            if day in given:
                yield CalendarProblem(
                    ("hours", key), f"{day} is given by {given[day]!r} already", "name each weekday once"
                )
                break
            given[day] = key
        yield from _day_problems(("hours", key), ranges)


def _day_problems(path: tuple[str | int, ...], ranges: Sequence[str]) -> Iterator[CalendarProblem]:
    read: list[tuple[Interval, int]] = []
    for index, text in enumerate(ranges):
        interval = interval_of(text)
        if interval is None:
            yield CalendarProblem((*path, index), f"{text!r} is no span of hours", _near_interval(text))
        elif interval[1] <= interval[0]:
            halves = f"{text.partition('-')[0]}-24:00 on this day and 00:00-{text.partition('-')[2]} on the next"
            yield CalendarProblem((*path, index), f"{text!r} ends before it begins", f"for a night shift: {halves}")
        else:
            read.append((interval, index))
    for (earlier, first), (later, second) in zip(sorted(read), sorted(read)[1:], strict=False):
        if later[0] < earlier[1]:
            place = max(first, second)
            message = f"{ranges[place]!r} overlaps {ranges[min(first, second)]!r}"
            yield CalendarProblem((*path, place), message, "let one span end where the next begins")


def _dates_problems(key: str, written: Sequence[str]) -> Iterator[CalendarProblem]:
    seen: dict[date, int] = {}
    for index, text in enumerate(written):
        span = span_of(text)
        if span is None:
            yield CalendarProblem(
                (key, index), f"{text!r} is no date or span of dates", "2026-10-01 or 2026-10-01/2026-10-07"
            )
            continue
        if span[1] < span[0]:
            turned = f"{span[1]}/{span[0]}"
            yield CalendarProblem((key, index), f"the span {text!r} ends before it begins", turned)
            continue
        if span[1] - span[0] > LONGEST_SPAN:
            yield CalendarProblem((key, index), f"the span {text!r} is longer than a year", "check the years")
            continue
        days = list(days_in(span))
        if twice := next((day for day in days if day in seen), None):
            yield CalendarProblem(
                (key, index), f"{twice} stands in {written[seen[twice]]!r} already", "name each date once"
            )
        seen.update((day, index) for day in days)


def weekdays_of(key: str) -> tuple[str, ...] | None:
    """Return the weekdays that a key of `hours` stands for, in order; None if it stands for none."""
    if key == "daily":
        return WEEKDAYS
    if key == MAKE_UP:
        return (MAKE_UP,)
    first, dash, last = key.partition("-")
    if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
        return None
    start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
    return tuple(WEEKDAYS[day % 7] for day in range(start, end + 1 if end >= start else end + 8))


def interval_of(text: str) -> Interval | None:
    """Return a span of hours like "09:00-12:00" in minutes after midnight; None if it is not of that form.

    The end may be 24:00; nothing says here that it lies after the beginning.
    """
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text, re.ASCII)
    if found is None:
        return None
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    if minute > 59 or end_minute > 59 or start >= MINUTES_A_DAY or end > MINUTES_A_DAY:
        return None
    return start, end


def intervals_of(ranges: Sequence[str]) -> tuple[Interval, ...]:
    """Return the spans of one day in order, those that touch joined; raises ValueError for one that is wrong."""
    read: list[Interval] = []
    for text in ranges:
        interval = interval_of(text)
        if interval is None or interval[1] <= interval[0]:
            raise ValueError(f"{text!r} is no span of hours")
        read.append(interval)
    joined: list[Interval] = []
    for start, end in sorted(read):
        if joined and start < joined[-1][1]:
            raise ValueError(f"hours overlap: {', '.join(ranges)}")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def span_of(text: str) -> tuple[date, date] | None:
    """Return first and last date of "2026-10-01" or "2026-10-01/2026-10-07 name"; None if it is neither."""
    first, slash, last = text.partition(" ")[0].partition("/")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", first, re.ASCII) or (
        slash and not re.fullmatch(r"\d{4}-\d\d-\d\d", last, re.ASCII)
    ):
        return None
    try:
        return date.fromisoformat(first), date.fromisoformat(last or first)
    except ValueError:
        return None


def season_of(text: str) -> tuple[MonthDay, MonthDay] | None:
    """Return first and last day of "06-15/08-31" as month and day; None if it is not of that form."""
    found = re.fullmatch(r"(\d\d)-(\d\d)/(\d\d)-(\d\d)", text, re.ASCII)
    if found is None:
        return None
    month, day, last_month, last_day = map(int, found.groups())
    try:
        date(2024, month, day), date(2024, last_month, last_day)
    except ValueError:
        return None
    return (month, day), (last_month, last_day)


def is_within(day: MonthDay, season: tuple[MonthDay, MonthDay]) -> bool:
    """Return whether a day of the year lies in a season, both ends included."""
    first, last = season
    return first <= day <= last if first <= last else day >= first or day <= last


def days_in(span: tuple[date, date]) -> Iterator[date]:
    """Yield the dates of a span, both ends included."""
    for ordinal in range(span[0].toordinal(), span[1].toordinal() + 1):
        yield date.fromordinal(ordinal)


def _dates_of(written: Sequence[str]) -> set[date]:
    spans = (span for text in written if (span := span_of(text)))
    return {day for span in spans if span[1] - span[0] <= LONGEST_SPAN for day in days_in(span)}


def _near_weekday(key: str) -> str:
    parts = [part[:3] for part in re.split(r"[^a-z]+", key.lower()) if part]
    if 1 <= len(parts) <= 2 and all(part in WEEKDAYS for part in parts):
        return "-".join(parts)
    return "mon, mon-fri, daily or make-up"


def _near_interval(text: str) -> str:
    found = re.fullmatch(r"\s*(\d{1,2})(?:[:.](\d\d))?\s*(?:-|–|to)\s*(\d{1,2})(?:[:.](\d\d))?\s*", text)
    if found is None:
        return "09:00-18:00"
    near = f"{int(found[1]):02d}:{found[2] or '00'}-{int(found[3]):02d}:{found[4] or '00'}"
    return near if interval_of(near) else "09:00-18:00"

"""Daylight saving, changes of zone and dates that never were, in wall-clock terms."""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from shared.engine.amounts import parse_amount
from shared.engine.calendar import Calendar, CalendarSection, CalendarSpec, Counting
from shared.engine.calendar.localtime import end_of_date, instant_of, start_of_date, zone_of

NEW_YORK, LORD_HOWE, APIA = "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"
SHANGHAI, LONDON, BEIRUT, ST_JOHNS = "Asia/Shanghai", "Europe/London", "Asia/Beirut", "America/St_Johns"
EVERY_HOUR = {"daily": ["00:00-24:00"]}


def a_calendar(zone: str, hours: dict[str, list[str]] | None = None) -> Calendar:
    spec = CalendarSpec() if hours is None else CalendarSpec(hours=hours)
    return Calendar.of(CalendarSection(zone=zone, calendars={"default": spec}))


@pytest.mark.parametrize(
    ("zone", "wall", "instant"),
    [
        (NEW_YORK, "2025-03-09 01:59:59", "2025-03-09T06:59:59Z"),
        (NEW_YORK, "2025-03-09 02:00", "2025-03-09T07:00:00Z"),  # the gap: its first existing instant
        (NEW_YORK, "2025-03-09 02:30", "2025-03-09T07:00:00Z"),
        (NEW_YORK, "2025-03-09 02:59:59", "2025-03-09T07:00:00Z"),
        (NEW_YORK, "2025-03-09 03:00", "2025-03-09T07:00:00Z"),
        (NEW_YORK, "2025-11-02 00:59:59", "2025-11-02T04:59:59Z"),
        (NEW_YORK, "2025-11-02 01:00", "2025-11-02T05:00:00Z"),  # the fold: the first of the two
        (NEW_YORK, "2025-11-02 01:30", "2025-11-02T05:30:00Z"),
        (NEW_YORK, "2025-11-02 02:00", "2025-11-02T07:00:00Z"),
        (LORD_HOWE, "2025-10-05 02:15", "2025-10-04T15:30:00Z"),  # half an hour forward
        (LORD_HOWE, "2025-10-05 02:30", "2025-10-04T15:30:00Z"),
        (LORD_HOWE, "2025-04-06 01:45", "2025-04-05T14:45:00Z"),  # half an hour back
        (LORD_HOWE, "2025-04-06 02:00", "2025-04-05T15:30:00Z"),
        (SHANGHAI, "1986-05-04 02:30", "1986-05-03T18:00:00Z"),  # summer time of 1986 to 1991
        (SHANGHAI, "1986-07-01 09:00", "1986-07-01T00:00:00Z"),
        (SHANGHAI, "1986-09-14 01:30", "1986-09-13T16:30:00Z"),
        (SHANGHAI, "1991-09-15 03:00", "1991-09-14T19:00:00Z"),
        (SHANGHAI, "2026-03-05 09:00", "2026-03-05T01:00:00Z"),
        (APIA, "2011-12-29 12:00", "2011-12-29T22:00:00Z"),
        (APIA, "2011-12-30 12:00", "2011-12-30T10:00:00Z"),  # a Friday that Samoa left out
        (APIA, "2011-12-31 00:00", "2011-12-30T10:00:00Z"),
        (BEIRUT, "2025-03-30 00:00", "2025-03-29T22:00:00Z"),  # midnight itself is skipped
    ],
)
def test_a_wall_time_is_the_first_instant_that_exists(zone: str, wall: str, instant: str) -> None:
    assert instant_of(datetime.fromisoformat(wall), zone_of(zone)) == datetime.fromisoformat(instant)


@pytest.mark.parametrize(
    ("zone", "day", "first", "last"),
    [
        (NEW_YORK, "2025-03-09", "2025-03-09T05:00:00Z", "2025-03-10T03:59:59Z"),  # 23 hours
        (NEW_YORK, "2025-11-02", "2025-11-02T04:00:00Z", "2025-11-03T04:59:59Z"),  # 25 hours
        (BEIRUT, "2025-03-30", "2025-03-29T22:00:00Z", "2025-03-30T20:59:59Z"),  # begins at 01:00
        (BEIRUT, "2025-10-25", "2025-10-24T21:00:00Z", "2025-10-25T21:59:59Z"),  # its last hour comes twice
        (APIA, "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T09:59:59Z"),
        (APIA, "2011-12-30", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z"),  # empty
        (LORD_HOWE, "2025-10-05", "2025-10-04T13:30:00Z", "2025-10-05T12:59:59Z"),
        (ST_JOHNS, "2005-10-29", "2005-10-29T02:30:00Z", "2005-10-30T03:29:59Z"),  # back one hour at 00:01
    ],
)
def test_a_date_has_its_own_length(zone: str, day: str, first: str, last: str) -> None:
    when = date.fromisoformat(day)
    assert start_of_date(when, zone_of(zone)) == datetime.fromisoformat(first)
    assert end_of_date(when, zone_of(zone)) == datetime.fromisoformat(last)


@pytest.mark.parametrize(
    ("zone", "start", "amount", "due"),
    [
        # hours elapse, dates are dates
        (NEW_YORK, "2025-03-08T12:00:00-05:00", "24h", "2025-03-09T13:00:00-04:00"),
        (NEW_YORK, "2025-03-08T12:00:00-05:00", "1d", "2025-03-09T23:59:59-04:00"),
        (NEW_YORK, "2025-03-08T12:00:00-05:00", "1d@12:00", "2025-03-09T12:00:00-04:00"),
        (NEW_YORK, "2025-03-08T12:00:00-05:00", "1d@02:30", "2025-03-09T03:00:00-04:00"),
        (NEW_YORK, "2025-11-01T12:00:00-04:00", "24h", "2025-11-02T11:00:00-05:00"),
        (NEW_YORK, "2025-11-01T12:00:00-04:00", "1d", "2025-11-02T23:59:59-05:00"),
        (NEW_YORK, "2025-11-01T12:00:00-04:00", "1d@01:30", "2025-11-02T01:30:00-04:00"),
        (NEW_YORK, "2025-11-02T01:30:00-05:00", "0d", "2025-11-02T23:59:59-05:00"),
        (NEW_YORK, "2025-03-07T12:00:00-05:00", "1wd", "2025-03-10T18:00:00-04:00"),
        (NEW_YORK, "2025-03-07T17:00:00-05:00", "2bh", "2025-03-10T10:00:00-04:00"),
        (NEW_YORK, "2025-10-31T17:00:00-04:00", "2bh", "2025-11-03T10:00:00-05:00"),
        (NEW_YORK, "2025-01-31T12:00:00-05:00", "2mo", "2025-03-31T23:59:59-04:00"),
        (LORD_HOWE, "2025-10-04T12:00:00+10:30", "24h", "2025-10-05T12:30:00+11:00"),
        (LORD_HOWE, "2025-10-04T12:00:00+10:30", "1d", "2025-10-05T23:59:59+11:00"),
        (LORD_HOWE, "2025-04-05T12:00:00+11:00", "24h", "2025-04-06T11:30:00+10:30"),
        (SHANGHAI, "1986-05-03T12:00:00+08:00", "24h", "1986-05-04T13:00:00+09:00"),
        (SHANGHAI, "1986-05-03T12:00:00+08:00", "1wd", "1986-05-05T18:00:00+09:00"),
        (SHANGHAI, "1986-09-12T12:00:00+09:00", "1wd", "1986-09-15T18:00:00+08:00"),
        (SHANGHAI, "1991-09-14T12:00:00+09:00", "1d", "1991-09-15T23:59:59+08:00"),
        (APIA, "2011-12-28T12:00:00-10:00", "1wd", "2011-12-29T18:00:00-10:00"),
        (APIA, "2011-12-29T12:00:00-10:00", "1wd", "2012-01-02T18:00:00+14:00"),  # there was no Friday to work on
        (APIA, "2011-12-29T12:00:00-10:00", "24h", "2011-12-31T12:00:00+14:00"),
        (APIA, "2011-12-29T12:00:00-10:00", "1d", "2011-12-31T00:00:00+14:00"),  # the end of a date left out
        (APIA, "2011-12-29T12:00:00-10:00", "2d", "2011-12-31T23:59:59+14:00"),
        (BEIRUT, "2025-10-25T12:00:00+03:00", "0d", "2025-10-25T23:59:59+02:00"),
        (ST_JOHNS, "2005-10-29T12:00:00-02:30", "0d", "2005-10-29T23:59:59-03:30"),
        (LONDON, "2026-03-27T17:00:00+00:00", "2bh", "2026-03-30T10:00:00+01:00"),
    ],
)
def test_limits_across_a_change_of_the_clock(zone: str, start: str, amount: str, due: str) -> None:
    assert a_calendar(zone).due(datetime.fromisoformat(start), parse_amount(amount)) == datetime.fromisoformat(due)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (NEW_YORK, "2025-03-09", 23.0),
        (NEW_YORK, "2025-11-02", 25.0),
        (LORD_HOWE, "2025-10-05", 23.5),
        (LORD_HOWE, "2025-04-06", 24.5),
        (APIA, "2011-12-30", 0.0),
        (SHANGHAI, "1987-04-12", 23.0),
        (SHANGHAI, "2026-03-05", 24.0),
    ],
)
def test_an_office_that_never_closes_works_as_long_as_the_date_is(zone: str, day: str, hours: float) -> None:
    calendar = a_calendar(zone, EVERY_HOUR)
    when = date.fromisoformat(day)
    begins, ends = calendar.start_of(when), calendar.start_of(when + timedelta(days=1))
    assert calendar.working_time(begins, ends) == timedelta(hours=hours) == ends - begins


def test_night_hours_meet_without_a_hole_or_an_overlap_when_the_clock_changes() -> None:
    for day in (date(2025, 3, 9), date(2025, 11, 2)):
        halves = a_calendar(NEW_YORK, {"daily": ["00:00-02:30", "02:30-24:00"]})
        begins, ends = halves.start_of(day), halves.start_of(day + timedelta(days=1))
        assert halves.working_time(begins, ends) == ends - begins


def test_a_warning_backwards_keeps_the_time_on_the_wall() -> None:
    calendar = a_calendar(NEW_YORK)
    due = datetime.fromisoformat("2025-03-10T10:00:00-04:00")
    assert calendar.subtract(due, parse_amount("1wd")) == datetime.fromisoformat("2025-03-07T10:00:00-05:00")
    assert calendar.subtract(due, parse_amount("24h")) == datetime.fromisoformat("2025-03-09T10:00:00-04:00")


def test_overdue_days_begin_at_local_midnight() -> None:
    calendar = a_calendar(NEW_YORK)
    due = datetime.fromisoformat("2025-03-07T23:59:59-05:00")
    second = calendar.next_overdue_instant(due, due + timedelta(seconds=1), "cd")
    assert second == datetime.fromisoformat("2025-03-09T00:00:00-05:00")
    assert calendar.next_overdue_instant(due, second, "cd") == datetime.fromisoformat("2025-03-10T00:00:00-04:00")


def test_the_cutoff_is_read_on_the_wall_of_the_zone() -> None:
    counting = Counting(cutoff="17:00")
    start = datetime(2025, 3, 6, 21, 30, tzinfo=UTC)  # 16:30 in New York, 21:30 in London
    assert a_calendar(NEW_YORK).due(start, parse_amount("1wd"), counting) == datetime(2025, 3, 7, 23, tzinfo=UTC)
    assert a_calendar(LONDON).due(start, parse_amount("1wd"), counting) == datetime(2025, 3, 10, 18, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Asia/Shangai", "", "Asia", "../etc/passwd", "+08:00"])
def test_a_name_that_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="is no IANA time zone"):
        zone_of(zone)


@pytest.mark.parametrize("zone", [NEW_YORK, LORD_HOWE, APIA, SHANGHAI, BEIRUT, ST_JOHNS, "Africa/Casablanca"])
def test_every_minute_of_a_year_lies_in_its_date(zone: str) -> None:
    """No instant is before the start or after the end of the date that the wall clock shows, but for repeated midnights."""
    tz = ZoneInfo(zone)
    for year in (1986, 2005, 2011, 2025):
        at = datetime(year, 1, 1, tzinfo=UTC)
        while at.year == year:
            shown = at.astimezone(tz).date()
            assert start_of_date(shown, tz) <= at <= end_of_date(shown, tz) + timedelta(seconds=1)
            at += timedelta(minutes=73)


def test_a_fixed_offset_works_as_a_zone() -> None:
    assert instant_of(datetime.fromisoformat("2026-03-05"), timezone(timedelta(hours=8))) == datetime(
        2026, 3, 4, 16, tzinfo=UTC
    )

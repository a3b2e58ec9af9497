"""From a date and a time on the wall to the instant, in any IANA zone.

A time that a zone skips (a spring gap, the Friday that Samoa never had) becomes the first instant after it that exists.
A time that comes twice (an autumn fold) means the first; the last second of a date is the later one, so that a date
never ends before something that happened on it.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LAST_SECOND = time(23, 59, 59)
_DAY = timedelta(days=1)


@cache
def zone_of(name: str) -> ZoneInfo:
    """Return the zone; raises ValueError for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as failure:
        raise ValueError(f"{name!r} is no IANA time zone") from failure


def is_known_zone(name: str) -> bool:
    """Whether this is the name of an IANA zone."""
    try:
        zone_of(name)
    except ValueError:
        return False
    return True


def instant_of(wall: datetime, zone: tzinfo, *, later: bool = False) -> datetime:
    """Return the UTC instant of a naive wall time: the first that exists, or the `later` of two.

    Args:
        wall: naive; its fold is ignored.
        zone: any zone whose offsets change seldom (at most once in two days).
        later: of a wall time that comes twice take the second.
    """
    early = wall.replace(tzinfo=zone, fold=0).utcoffset()
    late = wall.replace(tzinfo=zone, fold=1).utcoffset()
    if early is None or late is None:
        raise ValueError("the zone has no offsets")
    if early == late:
        return (wall - early).replace(tzinfo=UTC)
    if early < late:  # the offset grows: this wall time is skipped
        return _transition((wall - late).replace(tzinfo=UTC), (wall - early).replace(tzinfo=UTC), zone)
    return (wall - (late if later else early)).replace(tzinfo=UTC)


def _transition(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """Return the first instant in `(before, after]` with the offset of `after`, to the second."""
    offset = after.astimezone(zone).utcoffset()
    seconds = int((after - before).total_seconds())
    low, high = 0, seconds
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before.replace(microsecond=0) + timedelta(seconds=high)


def start_of_date(day: date, zone: tzinfo) -> datetime:
    """Return the instant at which a date begins."""
    return instant_of(datetime.combine(day, time()), zone)


def end_of_date(day: date, zone: tzinfo) -> datetime:
    """Return 23:59:59 of a date, the later one where the hour comes twice."""
    return instant_of(datetime.combine(day, LAST_SECOND), zone, later=True)

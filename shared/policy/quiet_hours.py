"""Hours in which nobody is disturbed: `"21:00-08:00"` in the tenant's zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

_FORM = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


class QuietHours(Struct, frozen=True):
    """A stretch of each day on the wall clock, `[start, end)`; it may reach over midnight."""

    start: time
    end: time

    def hold(self, local: datetime) -> bool:
        """Whether the wall clock reads a quiet time."""
        reads = local.time().replace(fold=0)
        if self.start < self.end:
            return self.start <= reads < self.end
        return reads >= self.start or reads < self.end


def parse_quiet_hours(text: str) -> QuietHours:
    """Read `HH:MM-HH:MM`. Raises ValueError, also for two equal times, which would mean either never or always."""
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError('quiet hours are written "21:00-08:00"')
    from_hour, from_minute, to_hour, to_minute = (int(part) for part in found.groups())
    hours = QuietHours(time(from_hour, from_minute), time(to_hour, to_minute))
    if hours.start == hours.end:
        raise ValueError("quiet hours that begin and end at the same time are either never or always")
    return hours


def held_until(at: datetime, hours: QuietHours, zone: ZoneInfo) -> datetime | None:
    """Return the first instant at or after `at` that is not quiet, aware UTC; None when `at` itself is not quiet.

    Where the clocks are put back, an end that is read twice counts when nothing quiet follows it; where they are put
    forward over the end, the stretch ends with the jump.
    """
    local = at.astimezone(zone)
    if not hours.hold(local):
        return None
    for days in (0, 1, 2):  # two: a zone may skip a whole day
        wall = datetime.combine(local.date() + timedelta(days=days), hours.end)
        for fold in (0, 1):
            end = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            if end > at and not hours.hold(end.astimezone(zone)) and _quiet_before(end, hours, zone):
                return _first_after_gap(end, hours, zone)
    raise ValueError(f"quiet hours without an end in {zone.key}")


def _quiet_before(end: datetime, hours: QuietHours, zone: ZoneInfo) -> bool:
    """Whether the minute before belongs to the stretch, or was skipped by the zone's jump."""
    return hours.hold((end - timedelta(minutes=1)).astimezone(zone)) or end.astimezone(zone).time() != hours.end


def _first_after_gap(end: datetime, hours: QuietHours, zone: ZoneInfo) -> datetime:
    """`end` itself, or, where the wall clock never reads it, the instant of the jump that skipped it."""
    if end.astimezone(zone).time() == hours.end:
        return end
    while not hours.hold((end - timedelta(minutes=1)).astimezone(zone)):
        end -= timedelta(minutes=1)
    return end

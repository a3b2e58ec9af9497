"""Quiet hours on the tenant's wall clock, also where the clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policy.quiet_hours import held_until, parse_quiet_hours

SHANGHAI = "Asia/Shanghai"
CASES = [
    # zone, hours, now on the wall (with its fold), end on the wall as UTC offset shows it; None: not quiet
    (SHANGHAI, "21:00-08:00", "2026-11-20T20:59:59+08:00", None),
    (SHANGHAI, "21:00-08:00", "2026-11-20T21:00:00+08:00", "2026-11-21T08:00:00+08:00"),
    (SHANGHAI, "21:00-08:00", "2026-11-20T23:59:59+08:00", "2026-11-21T08:00:00+08:00"),
    (SHANGHAI, "21:00-08:00", "2026-11-21T00:00:00+08:00", "2026-11-21T08:00:00+08:00"),
    (SHANGHAI, "21:00-08:00", "2026-11-21T07:59:59.999999+08:00", "2026-11-21T08:00:00+08:00"),
    (SHANGHAI, "21:00-08:00", "2026-11-21T08:00:00+08:00", None),
    (SHANGHAI, "21:00-08:00", "2026-12-31T22:00:00+08:00", "2027-01-01T08:00:00+08:00"),
    (SHANGHAI, "12:00-14:00", "2026-11-20T11:59:00+08:00", None),
    (SHANGHAI, "12:00-14:00", "2026-11-20T12:00:00+08:00", "2026-11-20T14:00:00+08:00"),
    (SHANGHAI, "12:00-14:00", "2026-11-20T14:00:00+08:00", None),
    (SHANGHAI, "00:00-07:30", "2026-11-20T00:00:00+08:00", "2026-11-20T07:30:00+08:00"),
    (SHANGHAI, "22:00-00:00", "2026-11-20T23:30:00+08:00", "2026-11-21T00:00:00+08:00"),
    # New York puts its clocks forward on 2025-03-09 at 02:00 and back on 2025-11-02 at 02:00.
    ("America/New_York", "22:00-07:00", "2025-03-08T23:00:00-05:00", "2025-03-09T07:00:00-04:00"),
    ("America/New_York", "22:00-02:30", "2025-03-08T23:00:00-05:00", "2025-03-09T03:00:00-04:00"),
    ("America/New_York", "02:15-02:45", "2025-03-09T03:00:00-04:00", None),
    ("America/New_York", "22:00-07:00", "2025-11-01T23:00:00-04:00", "2025-11-02T07:00:00-05:00"),
    ("America/New_York", "22:00-01:30", "2025-11-02T00:30:00-04:00", "2025-11-02T01:30:00-04:00"),
    ("America/New_York", "22:00-01:30", "2025-11-02T01:10:00-05:00", "2025-11-02T01:30:00-05:00"),
    # Lord Howe moves by half an hour, Samoa skipped 2011-12-30 whole.
    ("Australia/Lord_Howe", "22:00-06:00", "2025-10-04T23:00:00+10:30", "2025-10-05T06:00:00+11:00"),
    ("Pacific/Apia", "21:00-08:00", "2011-12-29T22:00:00-10:00", "2011-12-31T08:00:00+14:00"),
]


@pytest.mark.parametrize(("zone", "hours", "now", "end"), CASES)
def test_held_until(zone: str, hours: str, now: str, end: str | None) -> None:
    found = held_until(datetime.fromisoformat(now).astimezone(UTC), parse_quiet_hours(hours), ZoneInfo(zone))
    assert found == (None if end is None else datetime.fromisoformat(end))


@pytest.mark.parametrize(
    "text",
    [
        *["21:00", "21:00-", "21-08", "24:00-08:00", "21:60-08:00", "21:00–08:00", "08:00-08:00", "9:00-17:00"],
        "",
        "21:00-08:00 ",
        "٢١:٠٠-٠٨:٠٠",
    ],
)
def test_what_is_not_quiet_hours(text: str) -> None:
    with pytest.raises(ValueError, match="quiet hours"):
        parse_quiet_hours(text)


minutes = st.integers(0, 1439)
instants = st.datetimes(datetime(2011, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
zones = st.sampled_from([SHANGHAI, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Europe/Berlin", "UTC"])


@given(at=instants, start=minutes, end=minutes, zone=zones)
def test_a_held_message_goes_out_later_within_two_days_and_never_in_quiet_hours(
    at: datetime, start: int, end: int, zone: str
) -> None:
    if start == end:
        return
    hours = parse_quiet_hours(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    until = held_until(at, hours, ZoneInfo(zone))
    if until is None:
        assert not hours.hold(at.astimezone(ZoneInfo(zone)))
    else:
        assert at < until <= at + timedelta(days=2)
        assert not hours.hold(until.astimezone(ZoneInfo(zone)))
        assert held_until(until, hours, ZoneInfo(zone)) is None

"""Date arithmetic on one calendar: sorted UTC intervals, running totals, bisection.

Semantics, each a setting of `Counting` where a regime may want it otherwise: the day of the start is not counted; a
working-day limit ends at close of office of its last day, a calendar limit at 23:59:59 of its last day, which is not
moved; hours run round the clock; a month limit ends on the same day of the month or the month's last.
"""

from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

import msgspec

from shared.engine.amounts import ANCHORS, TIME_UNITS, Amount, format_amount, parse_amount
from shared.engine.calendar.days import Day, DayRules, rules_of
from shared.engine.calendar.localtime import end_of_date, instant_of, start_of_date, zone_of
from shared.engine.calendar.section import MINUTES_A_DAY, CalendarSection, Counting
from shared.engine.holidays import CountryDays

OverdueUnit = Literal["wd", "cd"]
Period = Literal["day", "week", "month", "quarter", "half", "year"]

USUAL_COUNTING: Final = Counting()
YEARS_AHEAD: Final = 20
YEARS_BACK: Final = 20
YEARS_BETWEEN: Final = 100
FIRST_YEAR: Final = 1901
LAST_YEAR: Final = 2199

_ZERO: Final = timedelta()
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_NEAR: Final = 16  # intervals; most limits end within them, so that the search among thousands is spared
_TICK: Final = timedelta(microseconds=1)
_MONTHS: Final[Mapping[str, int]] = {"month": 1, "quarter": 3, "half": 6, "year": 12}
_ANCHOR_PERIOD: Final[Mapping[str, Period]] = {"eom": "month", "eoq": "quarter", "eoy": "year"}


class BeyondHorizonError(ValueError):
    """The result lies further away than a calendar is built for, or the calendar has no working time on the way."""


class Paused(msgspec.Struct, frozen=True):
    """What pauses add to a limit: dates for limits in days, time for limits in hours."""

    days: int = 0
    time: timedelta = _ZERO

    def __add__(self, other: "Paused") -> "Paused":
        return Paused(self.days + other.days, self.time + other.time)


NO_PAUSE: Final = Paused()


class _Year(msgspec.Struct, frozen=True):
    """One year's working time, in UTC: is each date worked, its close if it is, start and end of each interval."""

    is_even: bool  # the zone keeps one offset all year: every date has 24 hours
    worked: list[bool]
    closes: list[datetime]
    starts: list[datetime]
    ends: list[datetime]


class _Table:
    """The years built so far, end to end, with running totals. Never changed; a wider one takes its place."""

    __slots__ = (
        "before",
        "begins",
        "by_day",
        "closes",
        "days",
        "ends",
        "first",
        "first_year",
        "is_even",
        "last_year",
        "size",
        "starts",
        "totals",
        "working",
    )

    def __init__(self, first_year: int, years: Sequence[_Year], begins: datetime, stops: datetime) -> None:
        self.first_year, self.last_year = first_year, first_year + len(years) - 1
        self.begins = begins
        self.days = (stops - begins).days  # whole days that the table covers
        self.first = date(first_year, 1, 1).toordinal()
        self.before = [0]  # working dates before the n-th date of the table
        self.working: list[int] = []  # ordinals of the working dates
        ordinal, count = self.first, 0
        for year in years:
            for worked in year.worked:
                if worked:
                    count += 1
                    self.working.append(ordinal)
                self.before.append(count)
                ordinal += 1
        self.size = ordinal - self.first
        self.is_even = self.days == self.size and all(year.is_even for year in years)
        self.closes = [close for year in years for close in year.closes]
        self.starts = [start for year in years for start in year.starts]
        self.ends = [end for year in years for end in year.ends]
        self.by_day = [  # intervals that start before the n-th 24 hours of the table
            bisect_left(self.starts, begins + _DAY * day) for day in range(self.days + 2)
        ]
        self.totals: list[timedelta] = []  # working time from the table's start to each interval's end
        total = _ZERO
        for start, end in zip(self.starts, self.ends, strict=True):
            total += end - start
            self.totals.append(total)


class Calendar:
    """One calendar as it stood at a certain time. Immutable; tables are built per year when first needed.

    All instants given may be in any zone, all returned are aware UTC.
    """

    __slots__ = ("_day_ends", "_firsts", "_rules", "_table", "_years", "announced_through", "name", "zone")

    def __init__(
        self,
        zone: str,
        rules: DayRules | Sequence[tuple[date, DayRules]],
        *,
        name: str = "default",
        announced_through: date | None = None,
    ) -> None:
        """Make a calendar.

        Args:
            zone: IANA name.
            rules: what each date is; several editions as (first date, rules), in order, the first from `date.min`.
            name: of the calendar, for explanations.
            announced_through: the last certain date; None: that of the only edition.
        """
        editions = [(date.min, rules)] if isinstance(rules, DayRules) else list(rules)
        if not editions or editions[0][0] != date.min or any(a[0] >= b[0] for a, b in pairwise(editions)):
            raise ValueError("editions start at date.min and follow one another")
        self.name = name
        self.zone = zone_of(zone)
        self.announced_through = (
            announced_through if announced_through or len(editions) > 1 else editions[0][1].announced_through
        )
        self._firsts = [first for first, _ in editions]
        self._rules = [edition for _, edition in editions]
        self._years: dict[int, _Year] = {}
        self._day_ends: dict[date, datetime] = {}
        self._table: _Table | None = None

    @staticmethod
    def of(section: CalendarSection, name: str | None = None, days: CountryDays | None = None) -> "Calendar":
        """Return a section's calendar of that name, or its default one; raises KeyError if there is none."""
        chosen = section.default if name is None else name
        rules = rules_of(section.calendars[chosen], days)
        return shared_calendar(section.zone, ((date.min, rules),), chosen, rules.announced_through)

    # ---- dates and the wall clock

    def local(self, at: datetime) -> datetime:
        """Return the instant as the wall clock shows it."""
        return at.astimezone(self.zone)

    def ordinal(self, at: datetime) -> int:
        """Return the local date of an instant, as its ordinal."""
        table = self._table
        if table is not None and table.is_even:  # days of 24 hours can be counted, which is faster than asking the zone
            days = (at - table.begins).days
            if 0 <= days < table.size:
                return table.first + days
        return at.astimezone(self.zone).toordinal()

    def day(self, day: date) -> Day:
        """Return what a date is: its office hours and the cause."""
        return self._rules[bisect_right(self._firsts, day) - 1].day(day)

    def is_working_day(self, day: date) -> bool:
        """Whether any office hour lies on the date."""
        table = self._covering(day, day)
        index = day.toordinal() - table.first
        return table.before[index + 1] > table.before[index]

    def start_of(self, day: date) -> datetime:
        """Return the first instant of a date."""
        return start_of_date(day, self.zone)

    def end_of(self, day: date) -> datetime:
        """Return 23:59:59 of a date, the end of a calendar limit."""
        end = self._day_ends.get(day)
        if end is None:
            end = self._day_ends[day] = end_of_date(day, self.zone)
        return end

    def open_of(self, day: date) -> datetime:
        """Return the opening of the office; on a date without office hours, the start of the date."""
        hours = self.day(day).hours
        return self._at_minute(day, hours[0][0]) if hours else self.start_of(day)

    def close_of(self, day: date) -> datetime:
        """Return the close of office; on a date without office hours, the hour at which the calendar usually closes.

        An office open until 24:00 closes at 23:59:59, so that the limit ends on the date that it names.
        """
        table = self._covering(day, day)
        index = day.toordinal() - table.first
        if table.before[index + 1] > table.before[index]:
            return table.closes[table.before[index]]
        minute = self._rules[bisect_right(self._firsts, day) - 1].usual_close
        return self.end_of(day) if minute == MINUTES_A_DAY else self._at_minute(day, minute)

    def next_working_day(self, day: date) -> date:
        """Return the first working date on or after a date."""
        return self._nth_working(day, 0)

    # ---- due instants

    def due(
        self, start: datetime, amount: Amount, counting: Counting = USUAL_COUNTING, paused: Paused = NO_PAUSE
    ) -> datetime:
        """Return the instant by which a limit that starts at `start` is to be met.

        Args:
            start: aware.
            amount: the limit.
            counting: how days and hours are counted.
            paused: what pauses add, summed up from `paused`.

        Returns:
            Aware UTC, never before `start`: where the computed time of its day has passed already (`0wd` after the
            close of office), the limit ends at that time of the next day that counts.

        Raises:
            BeyondHorizonError: no end within `YEARS_AHEAD` years.
        """
        unit = amount.unit
        if start.tzinfo is None:
            raise ValueError(f"{start} has no time zone")
        if unit == "wd":
            return self._due_working_day(start, amount, counting, paused.days)
        if unit == "h" or unit == "bh" or unit == "min":
            length = (_MINUTE if unit == "min" else _HOUR) * amount.n
            if paused is not NO_PAUSE:
                length += paused.time
            if unit == "bh" or counting.hour_mode == "office_hours":
                return self.add_working(start, length)
            return (start if start.tzinfo is UTC else start.astimezone(UTC)) + length
        return self._due_date(start, amount, counting, paused.days)

    def _due_working_day(self, start: datetime, amount: Amount, counting: Counting, paused: int) -> datetime:
        table = self._table
        if (
            counting.cutoff is not None
            or table is None
            or not table.is_even
            or not 0 <= (index := (start - table.begins).days) < table.size
        ):  # the short way, see `ordinal`, does not lead there
            ordinal = self.ordinal(start)
            if counting.cutoff is not None and is_after_cutoff(self.local(start), counting.cutoff):
                ordinal += 1
            if table is None or not 0 <= (index := ordinal - table.first) < table.size:
                table = self._grown(self.local(start).year)
                index = ordinal - table.first
        n = amount.n
        if n and not counting.count_first_day:
            position = table.before[index + 1] + n + paused - 1
        else:
            position = table.before[index] + max(n - 1, 0) + paused
        at = amount.at
        plain = (at or counting.working_day_end) == "close"
        while True:
            while position >= len(table.working):
                table = self._wider(table, self.local(start).year)
            due = (
                table.closes[position]
                if plain
                else self.time_on(date.fromordinal(table.working[position]), at or "end")
            )
            if due >= start:
                return due
            position += 1

    def _due_date(self, start: datetime, amount: Amount, counting: Counting, paused: int) -> datetime:
        day = self.due_date(start, amount, counting, paused)
        at, rolls = time_of(amount, counting), is_rolled(amount, counting)
        due = self.time_on(self.next_working_day(day) if rolls else day, at)
        while due < start:  # that time of the day has passed
            day = self.date_after(day, amount)
            due = self.time_on(self.next_working_day(day) if rolls else day, at)
        return due

    def due_date(self, start: datetime, amount: Amount, counting: Counting = USUAL_COUNTING, paused: int = 0) -> date:
        """Return the date on which a calendar limit ends, before any roll; for units from days up, and anchors."""
        local = start.astimezone(self.zone)
        day, n = local.date(), amount.n
        if amount.after is not None and amount.day is not None:
            _, last = self._period_dates(day, amount.after, amount.first_month)
            return _clamped(last.year, last.month + 1, amount.day)
        if amount.unit in ANCHORS:
            return self._period_dates(day, _ANCHOR_PERIOD[amount.unit])[1]
        if amount.unit == "d":
            after = counting.cutoff is not None and is_after_cutoff(local, counting.cutoff)
            end = day.toordinal() + after + n - (1 if counting.count_first_day and n else 0)
            return _date(end + paused)
        if amount.unit == "w":
            return _date(day.toordinal() + 7 * n + paused)
        months = n if amount.unit == "mo" else 12 * n
        return _date(_clamped(day.year, day.month + months, day.day).toordinal() + paused)

    def date_after(self, day: date, amount: Amount) -> date:
        """Return the next date on which a calendar limit may end, when the time of this one has passed."""
        if amount.unit in ANCHORS and amount.after is None:
            return self._period_dates(day + _DAY, _ANCHOR_PERIOD[amount.unit])[1]
        return day + _DAY

    def time_on(self, day: date, at: str) -> datetime:
        """Return a time of a date: "HH:MM", "close" of office or "end" of the day."""
        if at == "close":
            return self.close_of(day)
        if at == "end":
            return self.end_of(day)
        return instant_of(datetime.combine(day, time.fromisoformat(at)), self.zone)

    def is_provisional(
        self, start: datetime, due: datetime, amount: Amount | None = None, counting: Counting = USUAL_COUNTING
    ) -> bool:
        """Whether a due instant leans on days that are not announced yet.

        Args:
            start: of the limit.
            due: as computed by this calendar.
            amount: of the limit, if known: hours round the clock and plain calendar days need no announcement.
            counting: its counting.
        """
        if self.announced_through is None or (amount is not None and not _asks_the_calendar(amount, counting)):
            return False
        return self.local(max(start, due)).date() > self.announced_through

    # ---- lengths

    def add_working(self, start: datetime, length: timedelta) -> datetime:
        """Return the instant by which so much working time has passed since `start`.

        Time that runs out exactly at a close ends there, not at the next opening. No time at all ends at `start`, or
        outside office hours at the next opening. A negative length counts backwards.
        """
        at = start if start.tzinfo is UTC else start.astimezone(UTC)
        table = self._table
        if table is None or not 0 <= (day := (at - table.begins).days) < table.days:
            table = self._grown(self.local(at).year)
            day = (at - table.begins).days
        index = bisect_right(table.starts, at, table.by_day[day], table.by_day[day + 1]) - 1
        if length <= _ZERO:
            return self._back(table, at, index, length)
        totals = table.totals
        if index < 0:
            target, index = length, 0
        else:
            target = totals[index] + length
            end = table.ends[index]
            if end > at:
                target -= end - at
        near = index + _NEAR
        if near < len(totals) and totals[near] >= target:
            found = bisect_left(totals, target, index, near)
        else:
            found = bisect_left(totals, target, index)
            while found == len(table.totals):
                table = self._wider(table, self.local(at).year)
                found = bisect_left(table.totals, target, index)
        return table.ends[found] - (table.totals[found] - target)

    def _back(self, table: _Table, at: datetime, index: int, length: timedelta) -> datetime:
        if length == _ZERO:
            if index >= 0 and at < table.ends[index]:
                return at
            while index + 1 >= len(table.starts):
                table = self._wider(table, self.local(at).year)
                index = bisect_right(table.starts, at) - 1
            return table.starts[index + 1]
        target = self.worked_until(table, at) + length
        while target < _ZERO:
            before = table.totals[-1] if table.totals else _ZERO
            table = self._wider_back(table, self.local(at).year)
            target += (table.totals[-1] if table.totals else _ZERO) - before
        found = bisect_right(table.totals, target)
        begun = table.totals[found] - (table.ends[found] - table.starts[found])
        return table.starts[found] + (target - begun)

    @staticmethod
    def worked_until(table: _Table, at: datetime) -> timedelta:
        """Return the working time from the table's beginning to an instant."""
        index = bisect_right(table.starts, at) - 1
        if index < 0:
            return _ZERO
        left = table.ends[index] - at
        return table.totals[index] - left if left > _ZERO else table.totals[index]

    def working_time(self, a: datetime, b: datetime) -> timedelta:
        """Return the office hours in `[a, b)`; nothing if `b` is not later."""
        if b <= a:
            return _ZERO
        table = self._covering(self.local(a).date(), self.local(b).date())
        return self.worked_until(table, b) - self.worked_until(table, a)

    def working_days_between(self, a: datetime, b: datetime) -> int:
        """Return the number of working dates after the date of `a` up to and including the date of `b`."""
        return self._working_dates(self.ordinal(a), self.ordinal(b))

    def _working_dates(self, after: int, through: int) -> int:
        """Return the number of working dates after an ordinal up to and including another."""
        if through <= after:
            return 0
        table = self._table
        if table is None or after < table.first or through >= table.first + table.size:
            table = self._covering(date.fromordinal(after), date.fromordinal(through))
        return table.before[through - table.first + 1] - table.before[after - table.first + 1]

    def paused(self, amount: Amount, since: datetime, until: datetime, counting: Counting = USUAL_COUNTING) -> Paused:
        """Return what one pause adds to a limit: working dates, calendar dates or time, as the limit counts.

        Pauses add up; an anchored date ("end of the month") is an appointment and is moved by none.
        """
        if until <= since or amount.unit in ANCHORS:
            return NO_PAUSE
        if amount.unit == "wd":
            return Paused(days=self.working_days_between(since, until))
        if amount.unit == "bh" or (amount.unit in TIME_UNITS and counting.hour_mode == "office_hours"):
            return Paused(time=self.working_time(since, until))
        if amount.unit in TIME_UNITS:
            return Paused(time=until - since)
        return Paused(days=self.ordinal(until) - self.ordinal(since))

    # ---- late

    def overdue_days(self, due: datetime, done: datetime, unit: OverdueUnit) -> int:
        """Return how many dates lie after the due date, up to and including that of `done`; at least 1 once late."""
        if done <= due:
            return 0
        after, through = self.ordinal(due), self.ordinal(done)
        return max(1, self._working_dates(after, through) if unit == "wd" else through - after)

    def next_overdue_instant(self, due: datetime, after: datetime, unit: OverdueUnit) -> datetime:
        """Return the next instant later than `after` at which `overdue_days` grows.

        The first is one microsecond after `due`; the others are the beginnings of counted dates, from the second on.
        """
        if after < due + _TICK:
            return due.astimezone(UTC) + _TICK
        due_date = self.local(due).date()
        day = max(self.local(after).date(), due_date)
        counted = self.overdue_days(due, after, unit)
        while True:
            day = self._nth_working(day, 1) if unit == "wd" else day + _DAY
            begins = self.start_of(day)
            if begins > after and self.overdue_days(due, begins, unit) > counted:
                return begins

    def subtract(self, due: datetime, amount: Amount, counting: Counting = USUAL_COUNTING) -> datetime:
        """Return the instant that lies an amount before another, for warnings.

        Days are counted back by dates: one working day before Monday's close of office is Friday's close, before Monday
        10:00 it is Friday 10:00; `@08:00` names the time instead.

        Raises:
            ValueError: "before" has no meaning for the end of a month, quarter or year.
        """
        if amount.unit in ANCHORS:
            raise ValueError(f"{format_amount(amount)!r} can't be counted backwards")
        if amount.unit in TIME_UNITS:
            length = (_MINUTE if amount.unit == "min" else _HOUR) * amount.n
            if amount.unit == "bh" or counting.hour_mode == "office_hours":
                return self.add_working(due, -length) if length else due.astimezone(UTC)
            return due.astimezone(UTC) - length
        ordinal = self.ordinal(due)
        if amount.unit == "wd" and amount.at is None and amount.n:
            table = self._table
            if table is not None and 0 <= (index := ordinal - table.first) < table.size:
                position = table.before[index]
                if position >= amount.n and table.before[index + 1] > position and due == table.closes[position]:
                    return table.closes[position - amount.n]  # from a close of office to a close of office
        due_on = date.fromordinal(ordinal)
        day = self._days_before(due_on, amount)
        if amount.at is not None:
            return self.time_on(day, amount.at)
        if day == due_on:
            return due.astimezone(UTC)
        if due == self.close_of(due_on):
            return self.close_of(day)
        return instant_of(datetime.combine(day, self.local(due).time()), self.zone)

    def _days_before(self, day: date, amount: Amount) -> date:
        if amount.unit == "wd":
            return self._nth_working(day, -amount.n) if amount.n else day
        if amount.unit in ("mo", "y"):
            return _clamped(day.year, day.month - amount.n * (1 if amount.unit == "mo" else 12), day.day)
        return _date(day.toordinal() - amount.n * (7 if amount.unit == "w" else 1))

    # ---- periods

    def month(self, at: datetime) -> str:
        """Return the local month, as in "2026-03"."""
        return self.period(at, "month")

    def period(self, at: datetime, kind: Period, first_month: int = 1) -> str:
        """Return the name of the local period: 2026-03-10, 2026-W11, 2026-03, 2026-Q1, 2026-H1, 2026.

        Args:
            at: an instant in it.
            kind: its length.
            first_month: where the year begins; other than January, quarters, halves and years are named by their ends,
                as in 2025-12-01/2026-05-31.
        """
        day = self.local(at).date()
        if kind == "month":
            return f"{day.year:04d}-{day.month:02d}"
        if kind == "day":
            return day.isoformat()
        if kind == "week":
            iso = day.isocalendar()
            return f"{iso.year:04d}-W{iso.week:02d}"
        first, last = self._period_dates(day, kind, first_month)
        if first_month != 1:
            return f"{first}/{last}"
        number = (first.month - 1) // _MONTHS[kind] + 1
        return {"quarter": f"{day.year:04d}-Q{number}", "half": f"{day.year:04d}-H{number}"}.get(
            kind, f"{day.year:04d}"
        )

    def period_bounds(self, period: str) -> tuple[datetime, datetime]:
        """Return beginning and end, `[start, end)`, of a period named as `period` names it.

        Raises:
            ValueError: it is no such name.
        """
        first, last = _period_named(period)
        return self.start_of(first), self.start_of(last + _DAY)

    @staticmethod
    def _period_dates(day: date, kind: str, first_month: int = 1) -> tuple[date, date]:
        if kind in ("day", "week"):
            first = day - timedelta(days=day.weekday() if kind == "week" else 0)
            return first, first + timedelta(days=6 if kind == "week" else 0)
        length = _MONTHS[kind]
        into = (day.month - first_month) % 12 % length
        return _clamped(day.year, day.month - into, 1), _clamped(day.year, day.month - into + length - 1, 31)

    def window_start(self, at: datetime, window: str) -> datetime:
        """Return the beginning of the window that ends at or holds `at`; what happens exactly then is inside.

        Args:
            at: the instant that looks back.
            window: `calendar_month` (and day, week, quarter, half, year, with or without `calendar_`), or an amount for
                a rolling one: `12mo`, `30d`, `5wd` begin with a date, `24h` at the instant.
        """
        kind = window.removeprefix("calendar_")
        if kind in ("day", "week", *_MONTHS):
            return self.start_of(self._period_dates(self.local(at).date(), kind)[0])
        amount = parse_amount(window)
        if amount.unit in TIME_UNITS:
            return self.subtract(at, amount)
        if amount.unit in ANCHORS:
            raise ValueError(f"{window!r} is no window")
        return self.start_of(self._days_before(self.local(at).date(), amount))

    # ---- tables

    def intervals(self, a: datetime, b: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the office intervals that meet `[a, b)`, cut to it, in order."""
        if b <= a:
            return
        table = self._covering(self.local(a).date(), self.local(b).date())
        index = max(bisect_right(table.starts, a) - 1, 0)
        while index < len(table.starts) and table.starts[index] < b:
            start, end = max(table.starts[index], a), min(table.ends[index], b)
            if start < end:
                yield start.astimezone(UTC), end.astimezone(UTC)
            index += 1

    def _nth_working(self, day: date, n: int) -> date:
        """Return the n-th working date after a date; 0: on or after it; negative: before it."""
        table = self._covering(day, day)
        index = day.toordinal() - table.first
        position = (
            table.before[index] if n == 0 else table.before[index + 1] + n - 1 if n > 0 else table.before[index] + n
        )
        while position < 0:
            held = len(table.working)
            table = self._wider_back(table, day.year)
            position += len(table.working) - held
        while position >= len(table.working):
            table = self._wider(table, day.year)
        return date.fromordinal(table.working[position])

    def _covering(self, first: date, last: date) -> _Table:
        table = self._table
        if table is not None and table.first <= first.toordinal() and last.toordinal() < table.first + table.size:
            return table
        if last.year - first.year > YEARS_BETWEEN:
            raise BeyondHorizonError(f"{first} to {last} is more than {YEARS_BETWEEN} years")
        self._grown(first.year)
        table = self._grown(last.year)
        if first.toordinal() < table.first:  # it began anew, so far do they lie apart
            table = self._build(first.year - 1, last.year + 1)
        return table

    def _grown(self, year: int) -> _Table:
        """Return a table that covers a year and its neighbours."""
        table = self._table
        if table is not None and table.last_year < year - YEARS_AHEAD - 1:
            self._table = table = None  # far from what was asked before: begin anew rather than fill the gap
        if table is not None and table.first_year > year + YEARS_AHEAD + 1:
            self._table = table = None
        first = year - 1 if table is None else min(table.first_year, year - 1)
        last = year + 1 if table is None else max(table.last_year, year + 1)
        return self._build(first, last)

    def _build(self, first: int, last: int) -> _Table:
        if first < FIRST_YEAR or last > LAST_YEAR:
            raise BeyondHorizonError(
                f"calendars reach from {FIRST_YEAR} to {LAST_YEAR}, not to {first if first < FIRST_YEAR else last}"
            )
        for year in range(first, last + 1):
            if year not in self._years:
                self._years[year] = self._build_year(year)
        years = [self._years[year] for year in range(first, last + 1)]
        table = _Table(first, years, self.start_of(date(first, 1, 1)), self.start_of(date(last + 1, 1, 1)))
        self._table = table
        return table

    def _wider(self, table: _Table, start_year: int) -> _Table:
        """Return a table with more years ahead; raises BeyondHorizonError where there are to be no more."""
        years = table.last_year - start_year
        if years >= YEARS_AHEAD:
            raise BeyondHorizonError(
                f"calendar {self.name!r} has too little working time in the {YEARS_AHEAD} years after {start_year}"
            )
        return self._build(table.first_year, start_year + min(max(years + 1, 2 * years), YEARS_AHEAD))

    def _wider_back(self, table: _Table, start_year: int) -> _Table:
        """Return a table with one year more before; positions and totals in it are shifted."""
        if table.first_year <= start_year - YEARS_BACK:
            raise BeyondHorizonError(
                f"calendar {self.name!r} has too little working time in the {YEARS_BACK} years before {start_year}"
            )
        return self._build(table.first_year - 1, table.last_year)

    def _build_year(self, year: int) -> _Year:
        first, offsets = date(year, 1, 1).toordinal(), offsets_of(self.zone, year)
        built = _Year(len(set(offsets)) == 1, [], [], [], [])
        new_year = datetime(year, 1, 1, tzinfo=UTC)
        for place, (offset, next_offset) in enumerate(pairwise(offsets)):
            day = date.fromordinal(first + place)
            hours = self.day(day).hours
            close: datetime | None = None
            midnight = new_year + _DAY * place - offset if hours else new_year
            for opens, closes in hours:
                if offset == next_offset:  # the clock does not change on this date
                    start, end = midnight + _minutes(opens), midnight + _minutes(closes)
                else:
                    start, end = self._at_minute(day, opens), self._at_minute(day, closes)
                if start < end:  # a zone may skip the hours, or the whole date
                    built.starts.append(start)
                    built.ends.append(end)
                    close = end if closes < MINUTES_A_DAY else self.end_of(day)
            built.worked.append(close is not None)
            if close is not None:
                built.closes.append(close)
        return built

    def _at_minute(self, day: date, minute: int) -> datetime:
        if minute == MINUTES_A_DAY:
            return self.start_of(day + _DAY)
        return instant_of(datetime.combine(day, time(minute // 60, minute % 60)), self.zone)


@lru_cache(maxsize=256)
def offsets_of(zone: tzinfo, year: int) -> tuple[timedelta, ...]:
    """Return the zone's offset at each midnight from the year's first to the next year's; before a change that falls on it."""
    first, after = date(year, 1, 1).toordinal(), date(year + 1, 1, 1).toordinal()
    midnights = [datetime.fromordinal(ordinal).replace(tzinfo=zone) for ordinal in range(first, after + 1)]
    return tuple([midnight.utcoffset() or _ZERO for midnight in midnights])


@lru_cache(maxsize=MINUTES_A_DAY + 1)
def _minutes(count: int) -> timedelta:
    return _MINUTE * count


@lru_cache(maxsize=1024)
def shared_calendar(
    zone: str, editions: tuple[tuple[date, DayRules], ...], name: str, announced_through: date | None
) -> Calendar:
    """Return a calendar, the same one for equal arguments: tables are built once for all tenants that count alike."""
    return Calendar(zone, editions, name=name, announced_through=announced_through)


def is_after_cutoff(local: datetime, cutoff: str) -> bool:
    """Whether a wall time is later than the cut-off; the minute itself still belongs to the day."""
    return local.time() > time.fromisoformat(cutoff)


def is_rolled(amount: Amount, counting: Counting) -> bool:
    """Whether a limit that would end on a rest day ends on the next working day; the end of a month stays in its month."""
    return counting.roll == "next_working_day" and (amount.unit not in ANCHORS or amount.after is not None)


def time_of(amount: Amount, counting: Counting) -> str:
    """Return the time of its last day at which a limit in days ends: "close", "end" or "HH:MM"."""
    if amount.at is not None:
        return amount.at
    if amount.unit == "wd":
        return "close" if counting.working_day_end == "close" else "end"
    return "close" if amount.after is not None or counting.calendar_day_end == "close" else "end"


def _asks_the_calendar(amount: Amount, counting: Counting) -> bool:
    if amount.unit in ("min", "h"):
        return counting.hour_mode == "office_hours"
    if amount.unit in ("bh", "wd"):
        return True
    return is_rolled(amount, counting) or time_of(amount, counting) == "close"


def _date(ordinal: int) -> date:
    if not 1 <= ordinal <= date.max.toordinal():
        raise BeyondHorizonError("the date lies outside the calendar")
    return date.fromordinal(ordinal)


def _clamped(year: int, month: int, day: int) -> date:
    """Return a date from a month number that may lie outside 1 to 12, the day cut to the month's last."""
    years, months = divmod(month - 1, 12)
    year += years
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise BeyondHorizonError(f"the year {year} lies outside the calendar")
    return date(year, months + 1, min(day, monthrange(year, months + 1)[1]))


def _period_named(period: str) -> tuple[date, date]:
    try:
        if "/" in period:
            first, last = (date.fromisoformat(end) for end in period.split("/"))
        elif len(period) == 10:
            first = last = date.fromisoformat(period)
        elif period[4:6] == "-W":
            first = date.fromisocalendar(int(period[:4]), int(period[6:]), 1)
            last = first + timedelta(days=6)
        else:
            year, kind, number = int(period[:4]), period[4:6], period[6:]
            length = {"": 12, "-Q": 3, "-H": 6}.get(kind, 1)
            index = 1 if length == 12 else int(number) if length > 1 else int(period[5:])
            if len(period) not in (4, 7) or not 1 <= index <= 12 // length:
                raise ValueError(period)
            first, last = date(year, (index - 1) * length + 1, 1), _clamped(year, index * length, 31)
        if last < first:
            raise ValueError(period)
    except ValueError as failure:
        raise ValueError(
            f"{period!r} is no period like 2026-03-10, 2026-W11, 2026-03, 2026-Q1, 2026-H1, 2026"
        ) from failure
    return first, last

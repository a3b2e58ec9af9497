"""What holds for every calendar, start and amount: checked against a second, slow way of counting."""

from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.engine.amounts import Amount
from shared.engine.calendar import (
    NO_PAUSE,
    Calendar,
    CalendarSection,
    CalendarSpec,
    Counting,
    DayRules,
    OverdueUnit,
    explain,
    readd,
)
from shared.engine.calendar.section import WEEKDAYS, interval_of

SHANGHAI = ZoneInfo("Asia/Shanghai")
ZONES = ("Asia/Shanghai", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Asia/Kolkata")
DAY = timedelta(days=1)

WEEKS: tuple[dict[str, list[str]], ...] = (
    {"mon-fri": ["09:00-18:00"]},
    {"mon-fri": ["08:30-12:00", "13:30-17:30"], "sat": ["09:00-12:00"]},
    {"sun-thu": ["07:00-15:00"]},
    {"daily": ["00:00-24:00"]},
    {"mon": ["22:00-24:00"], "tue": ["00:00-06:00", "20:00-23:00"], "fri": ["10:00-11:00"]},
)
dates = st.dates(date(2025, 1, 1), date(2027, 12, 31))
specs = st.builds(
    lambda hours, holidays, workdays, shorter: CalendarSpec(
        hours=hours,
        holidays=[str(day) for day in holidays],
        workdays=[str(day) for day in workdays],
        exceptions={day: ["10:00-12:00"] if day.day % 2 else [] for day in shorter},
    ),
    st.sampled_from(WEEKS),
    st.sets(dates, max_size=40),
    st.sets(dates, max_size=10),
    st.sets(dates, max_size=10),
)
calendars = st.builds(
    lambda zone, spec: CalendarSection(zone=zone, calendars={"default": spec}), st.sampled_from(ZONES), specs
)
starts = st.datetimes(datetime.fromisoformat("2025-06-01"), datetime.fromisoformat("2027-06-01")).map(
    lambda wall: wall.replace(tzinfo=UTC)
)
countings = st.builds(
    Counting,
    count_first_day=st.booleans(),
    cutoff=st.sampled_from([None, "17:00", "12:30"]),
    roll=st.sampled_from(["none", "next_working_day"]),
    working_day_end=st.sampled_from(["close", "midnight"]),
    calendar_day_end=st.sampled_from(["midnight", "close"]),
    hour_mode=st.sampled_from(["round_the_clock", "office_hours"]),
)
time_amounts = st.builds(Amount, st.integers(0, 200), st.sampled_from(["min", "h", "bh"]))
day_amounts = st.builds(
    Amount,
    st.integers(0, 30),
    st.sampled_from(["d", "wd", "w", "mo", "y"]),
    st.sampled_from([None, None, "close", "end", "08:00"]),
).map(lambda amount: Amount(min(amount.n, 3), "y", amount.at) if amount.unit == "y" else amount)
anchors = st.one_of(
    st.builds(Amount, st.just(0), st.sampled_from(["eom", "eoq", "eoy"]), st.sampled_from([None, "12:00"])),
    st.builds(Amount, st.just(0), st.just("eoq"), st.none(), st.integers(1, 31), st.just("quarter")),
    st.builds(Amount, st.just(0), st.just("eoy"), st.none(), st.integers(1, 31), st.just("half"), st.just(12)),
)
amounts = st.one_of(time_amounts, day_amounts, anchors)
thorough = settings(max_examples=80, deadline=None)


class Plodding:
    """The slow way: one day, one minute at a time, in Shanghai, where the clock never changes."""

    def __init__(self, spec: CalendarSpec) -> None:
        self.week = {weekday: spans for key, spans in spec.hours.items() for weekday in self.weekdays(key)}
        self.usual = max(spans[-1].split("-")[1] for spans in spec.hours.values())
        self.spec = spec

    @staticmethod
    def weekdays(key: str) -> list[str]:
        if key == "daily":
            return list(WEEKDAYS)
        first, _, last = key.partition("-")
        days = [first]
        while last and days[-1] != last:
            days.append(WEEKDAYS[(WEEKDAYS.index(days[-1]) + 1) % 7])
        return days

    def hours(self, day: date) -> list[str]:
        weekly = self.week.get(WEEKDAYS[day.weekday()], [])
        if day in self.spec.exceptions:
            return self.spec.exceptions[day]
        if str(day) in self.spec.workdays:
            return weekly or next(self.week[name] for name in WEEKDAYS if name in self.week)
        return [] if str(day) in self.spec.holidays else weekly

    def end(self, day: date, at: str) -> datetime:
        if at == "close":
            hours = self.hours(day)
            at = hours[-1].split("-")[1] if hours else self.usual
        wall = time(23, 59, 59) if at in ("end", "24:00") else time.fromisoformat(at)
        return datetime.combine(day, wall, SHANGHAI)

    def is_open(self, minute: datetime) -> bool:
        now = minute.hour * 60 + minute.minute
        spans = [interval_of(text) for text in self.hours(minute.date())]
        return any(span is not None and span[0] <= now < span[1] for span in spans)

    def due(self, start: datetime, amount: Amount, counting: Counting) -> datetime:
        local = start.astimezone(SHANGHAI)
        day, n = local.date(), amount.n
        if amount.unit in ("wd", "d") and counting.cutoff and local.time() > time.fromisoformat(counting.cutoff):
            day += DAY
        if amount.unit == "wd":
            at = amount.at or ("close" if counting.working_day_end == "close" else "end")
            left = n - 1 if counting.count_first_day and n and self.hours(day) else n
            while left or not self.hours(day):
                day += DAY
                left -= bool(left and self.hours(day))
            while self.end(day, at) < start:
                day += DAY
                while not self.hours(day):
                    day += DAY
            return self.end(day, at)
        at = amount.at or ("close" if counting.calendar_day_end == "close" else "end")
        if amount.unit == "d":
            day += DAY * (n - 1 if counting.count_first_day and n else n)
        elif amount.unit == "w":
            day += 7 * n * DAY
        else:
            for _ in range(n if amount.unit == "mo" else 12 * n):
                first = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                day = first
            day = day.replace(day=min(local.day, monthrange(day.year, day.month)[1]))
        while True:
            last = day
            while counting.roll == "next_working_day" and not self.hours(last):
                last += DAY
            if self.end(last, at) >= start:
                return self.end(last, at)
            day += DAY

    def worked_minutes(self, start: datetime, minutes: int) -> datetime:
        at = start.astimezone(SHANGHAI)
        while minutes:
            minutes -= self.is_open(at)
            at += timedelta(minutes=1)
        return at


@thorough
@given(specs, starts, day_amounts, countings)
def test_the_fast_way_agrees_with_the_slow_one(
    spec: CalendarSpec, start: datetime, amount: Amount, counting: Counting
) -> None:
    calendar = Calendar.of(CalendarSection(calendars={"default": spec}))
    assert calendar.due(start, amount, counting) == Plodding(spec).due(start, amount, counting)


@settings(max_examples=60, deadline=None)
@given(specs, starts, st.integers(1, 900))
def test_working_time_agrees_with_counting_minutes(spec: CalendarSpec, start: datetime, minutes: int) -> None:
    calendar = Calendar.of(CalendarSection(calendars={"default": spec}))
    start = start.replace(second=0, microsecond=0)
    end = Plodding(spec).worked_minutes(start, minutes)
    assert calendar.add_working(start, timedelta(minutes=minutes)) == end
    assert calendar.working_time(start, end) == timedelta(minutes=minutes)


@thorough
@given(calendars, starts, amounts, countings)
def test_a_limit_never_ends_before_it_starts(
    section: CalendarSection, start: datetime, amount: Amount, counting: Counting
) -> None:
    due = Calendar.of(section).due(start, amount, counting)
    assert due >= start
    assert due.tzinfo is UTC


@thorough
@given(calendars, starts, amounts, countings, st.timedeltas(timedelta(), timedelta(days=40)))
def test_who_starts_later_is_not_due_earlier(
    section: CalendarSection, start: datetime, amount: Amount, counting: Counting, later: timedelta
) -> None:
    calendar = Calendar.of(section)
    assert calendar.due(start, amount, counting) <= calendar.due(start + later, amount, counting)


@thorough
@given(calendars, starts, st.one_of(time_amounts, day_amounts), countings, st.integers(0, 9))
def test_who_has_more_is_not_due_earlier(
    section: CalendarSection, start: datetime, amount: Amount, counting: Counting, more: int
) -> None:
    calendar = Calendar.of(section)
    longer = Amount(amount.n + more, amount.unit, amount.at)
    assert calendar.due(start, amount, counting) <= calendar.due(start, longer, counting)


@thorough
@given(
    calendars,
    starts,
    amounts,
    countings,
    st.lists(st.tuples(st.timedeltas(timedelta(), DAY), st.timedeltas(timedelta(), 9 * DAY)), max_size=3),
)
def test_explanations_add_up_to_the_due_instant_and_to_the_amount(
    section: CalendarSection,
    start: datetime,
    amount: Amount,
    counting: Counting,
    waits: list[tuple[timedelta, timedelta]],
) -> None:
    calendar = Calendar.of(section)
    pauses: list[tuple[datetime, datetime]] = []
    paused, at = NO_PAUSE, start
    for run, wait in waits:  # a clock that is due can't be paused any more
        if (since := at + run) <= calendar.due(start, amount, counting, paused):
            pauses.append((since, since + wait))
            paused += calendar.paused(amount, since, since + wait, counting)
            at = since + wait
    total = readd(explain(calendar, start, amount, counting, pauses))
    assert total.until == calendar.due(start, amount, counting, paused)
    if amount.unit in ("min", "h", "bh"):
        assert total.time == timedelta(minutes=amount.n) * (1 if amount.unit == "min" else 60)
    else:
        assert total.counted == amount.n


@thorough
@given(calendars, starts, st.one_of(time_amounts, day_amounts), st.timedeltas(timedelta(), 9 * DAY))
def test_a_pause_moves_the_due_instant_by_exactly_its_length(
    section: CalendarSection, start: datetime, amount: Amount, wait: timedelta
) -> None:
    calendar = Calendar.of(section)
    paused = calendar.paused(amount, start, start + wait)
    due, moved = calendar.due(start, amount), calendar.due(start, amount, paused=paused)
    if amount.unit in ("min", "h"):
        assert moved - due == wait
    elif amount.unit == "bh":
        assert calendar.working_time(due, moved) == calendar.working_time(start, start + wait)
    elif amount.at is None and amount.n:
        between = calendar.working_days_between if amount.unit == "wd" else _dates_between(calendar)
        assert between(due, moved) == between(start, start + wait)


def _dates_between(calendar: Calendar) -> Callable[[datetime, datetime], int]:
    return lambda a, b: (calendar.local(b).date() - calendar.local(a).date()).days


@thorough
@given(calendars, starts, amounts, countings, st.lists(st.timedeltas(timedelta(), 5 * DAY), min_size=2, max_size=4))
def test_a_pause_in_pieces_is_as_long_as_in_one(
    section: CalendarSection, start: datetime, amount: Amount, counting: Counting, pieces: list[timedelta]
) -> None:
    calendar = Calendar.of(section)
    at, total = start, NO_PAUSE
    for piece in pieces:
        total += calendar.paused(amount, at, at + piece, counting)
        at += piece
    assert total == calendar.paused(amount, start, at, counting)


@thorough
@given(
    calendars, starts, st.timedeltas(timedelta(microseconds=1), 9 * DAY), st.timedeltas(timedelta(microseconds=1), DAY)
)
def test_working_time_can_be_added_in_two_parts_and_taken_back(
    section: CalendarSection, start: datetime, one: timedelta, two: timedelta
) -> None:
    calendar = Calendar.of(section)
    end = calendar.add_working(start, one)
    assert calendar.add_working(end, two) == calendar.add_working(start, one + two)
    assert calendar.working_time(start, end) == one
    back = calendar.add_working(end, -one)
    assert calendar.working_time(back, end) == one
    assert back >= start.astimezone(UTC)
    assert calendar.working_time(start, back) == timedelta()


@thorough
@given(calendars, starts, st.timedeltas(timedelta(), 20 * DAY), st.sampled_from(["wd", "cd"]))
def test_the_next_overdue_instant_is_where_the_count_grows(
    section: CalendarSection, due: datetime, later: timedelta, unit: OverdueUnit
) -> None:
    calendar = Calendar.of(section)
    after = due + later
    grows = calendar.next_overdue_instant(due, after, unit)
    assert grows > after
    assert calendar.overdue_days(due, grows, unit) == calendar.overdue_days(due, after, unit) + 1
    assert calendar.overdue_days(due, grows - timedelta(microseconds=1), unit) == calendar.overdue_days(
        due, after, unit
    )


@thorough
@given(calendars, starts, st.integers(1, 30))
def test_a_working_day_before_and_after_meet(section: CalendarSection, start: datetime, n: int) -> None:
    calendar = Calendar.of(section)
    due = calendar.due(start, Amount(n, "wd"))
    warned = calendar.subtract(due, Amount(n, "wd"))
    assert calendar.due(warned, Amount(n, "wd")) == due
    assert calendar.working_days_between(warned, due) == n


@thorough
@given(calendars, st.lists(st.tuples(starts, amounts), min_size=2, max_size=5))
def test_what_was_asked_before_changes_no_answer(
    section: CalendarSection, questions: list[tuple[datetime, Amount]]
) -> None:
    rules = DayRules(section.calendars["default"])
    used = Calendar(section.zone, rules)
    for start, amount in questions:
        assert used.due(start, amount) == Calendar(section.zone, rules).due(start, amount)

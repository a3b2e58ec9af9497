"""How many due instants a calendar of three years finds in a second, on one core.

`python -m tests.bench.calendar` prints the figures as JSON; the suite that weighs them against its targets calls `measure`.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from statistics import median
from time import perf_counter

from shared.engine.amounts import Amount, parse_amount
from shared.engine.calendar import Calendar, CalendarSpec, DayRules, explain

STARTS = 2_000
ROUNDS = 10
RUNS = 7
BREAK_OF_NOON = {"mon-fri": ["09:00-12:00", "13:30-18:00"]}


def a_calendar() -> Calendar:
    """Three years of office hours with a break at noon, ten holidays a year and a make-up day after each."""
    days = [date(year, month, 7) for year in (2025, 2026, 2027) for month in range(1, 11)]
    spec = CalendarSpec(
        hours=BREAK_OF_NOON,
        holidays=[str(day) for day in days],
        workdays=[str(day + timedelta(days=2)) for day in days],
    )
    return Calendar("Asia/Shanghai", DayRules(spec))


def measure(seed: int = 1, runs: int = RUNS) -> dict[str, float]:
    """Return operations per second, the median of interleaved runs.

    Args:
        seed: of the starts and lengths.
        runs: of each figure.
    """
    random = Random(seed)
    calendar = a_calendar()
    begins = datetime(2025, 1, 1, tzinfo=UTC)
    starts = [begins + timedelta(minutes=random.randrange(900 * 1440)) for _ in range(STARTS)]
    working_days = [Amount(random.randint(1, 30), "wd") for _ in starts]
    working_hours = [Amount(random.randint(1, 80), "bh") for _ in starts]
    days = [Amount(random.randint(1, 60), "d") for _ in starts]
    months = [Amount(random.randint(1, 6), "mo") for _ in starts]
    figures: dict[str, Callable[[], int]] = {
        "add_working_days_per_second": lambda: _due(calendar, starts, working_days),
        "add_working_hours_per_second": lambda: _due(calendar, starts, working_hours),
        "add_calendar_days_per_second": lambda: _due(calendar, starts, days),
        "add_months_per_second": lambda: _due(calendar, starts, months),
        "explain_ten_working_days_per_second": lambda: _explain(calendar, starts[:200]),
        "build_calendar_per_second": _build,
    }
    for warm in figures.values():
        warm()
    rates: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(runs):
        for name, run in figures.items():
            began = perf_counter()
            done = run()
            rates[name].append(done / (perf_counter() - began))
    return {name: round(median(found), 1) for name, found in rates.items()}


def _due(calendar: Calendar, starts: list[datetime], amounts: list[Amount]) -> int:
    due = calendar.due
    for _ in range(ROUNDS):
        for start, amount in zip(starts, amounts, strict=True):
            due(start, amount)
    return ROUNDS * len(starts)


def _explain(calendar: Calendar, starts: list[datetime]) -> int:
    amount = parse_amount("10wd")
    for start in starts:
        explain(calendar, start, amount)
    return len(starts)


def _build() -> int:
    a_calendar().due(datetime(2026, 6, 1, tzinfo=UTC), Amount(1, "wd"))
    return 1


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(), indent=2) + "\n")

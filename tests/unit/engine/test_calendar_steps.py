"""Explanations by example: each step with its cause, in English and Chinese."""

from datetime import date, datetime
from typing import Any

import msgspec
import pytest

from shared.engine.amounts import parse_amount
from shared.engine.calendar import Calendar, CalendarSection, CalendarSpec, Counting, Step, Sum, explain, readd, render

GOLDEN_WEEK = ["2026-10-01/2026-10-07 National Day"]


def a_calendar(**spec: Any) -> Calendar:
    return Calendar.of(CalendarSection(calendars={"default": CalendarSpec(**spec)}))


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


PLAIN = a_calendar()
CHINA = a_calendar(country="CN")


def told(calendar: Calendar, start: str, amount: str, counting: Counting | None = None, **more: Any) -> list[str]:
    lang = more.pop("lang", "en")
    steps = explain(calendar, at(start), parse_amount(amount), counting or Counting(), **more)
    return render(calendar, steps, lang)


def test_working_days_over_a_holiday_with_a_make_up_saturday() -> None:
    calendar = a_calendar(holidays=GOLDEN_WEEK, workdays=["2026-10-10"])
    assert told(calendar, "2026-09-29 09:00", "4wd") == [
        "Tue 09-29 day of the start, not counted",
        "Wed 09-30 working day 1",
        "Thu 10-01 – Wed 10-07 holiday: National Day",
        "Thu 10-08 working day 2",
        "Fri 10-09 working day 3",
        "Sat 10-10 make-up day 4",
        "due Sat 10-10 18:00 (close of office)",
    ]


def test_the_same_in_chinese_with_the_countrys_names() -> None:
    assert told(CHINA, "2026-09-30 09:00", "3wd", lang="zh") == [
        "09-30 周三 起始当日，不计",
        "10-01 周四 – 10-03 周六 国庆节，不计",
        "10-04 周日 周末，不计",
        "10-05 周一 国庆节（补假），不计",
        "10-06 周二 休息日（由 2026-09-20 调休），不计",
        "10-07 周三 休息日（由 2026-10-10 调休），不计",
        "10-08 周四 第1个工作日",
        "10-09 周五 第2个工作日",
        "10-10 周六 调休上班，第3个工作日",
        "截止 10-10 周六 18:00（下班时间）",
    ]


def test_working_hours_name_what_was_skipped_and_why() -> None:
    calendar = a_calendar(
        hours={"mon-fri": ["09:00-12:00", "13:00-18:00"]}, exceptions={date(2026, 3, 6): ["09:00-12:00"]}
    )
    assert told(calendar, "2026-03-05 16:00", "6bh") == [
        "Thu 03-05 16:00 – 18:00 2 h of office hours",
        "Thu 03-05 18:00 – Fri 03-06 09:00 outside office hours",
        "Fri 03-06 09:00 – 12:00 3 h of office hours",
        "Fri 03-06 12:00 – Sat 03-07 00:00 outside office hours",
        "Sat 03-07 00:00 – Mon 03-09 00:00 weekend",
        "Mon 03-09 00:00 – 09:00 outside office hours",
        "Mon 03-09 09:00 – 10:00 1 h of office hours",
        "due Mon 03-09 10:00",
    ]


def test_a_pause_is_taken_out_again() -> None:
    pause = [(at("2026-03-03 10:00"), at("2026-03-05 10:00"))]
    lines = told(PLAIN, "2026-03-02 10:00", "5wd", pauses=pause)
    assert lines[-3:] == [
        "Wed 03-11 working day 7",
        "Tue 03-03 10:00 – Thu 03-05 10:00 paused: 2 days not counted",
        "due Wed 03-11 18:00 (close of office)",
    ]
    assert told(PLAIN, "2026-03-03 09:00", "24h", pauses=pause) == [
        "Tue 03-03 09:00 – 10:00 1 h",
        "Tue 03-03 10:00 – Thu 03-05 10:00 paused",
        "Thu 03-05 10:00 – Fri 03-06 09:00 23 h",
        "due Fri 03-06 09:00",
    ]
    assert told(PLAIN, "2026-03-02 10:00", "3d", pauses=pause, lang="zh")[-2:] == [
        "03-03 周二 10:00 – 03-05 周四 10:00 暂停，扣除2天",
        "截止 03-07 周六 23:59:59（当日结束）",
    ]


@pytest.mark.parametrize(
    ("start", "amount", "counting", "lines"),
    [
        (
            "2026-03-05 19:30",
            "1wd",
            Counting(cutoff="18:00"),
            [
                "Thu 03-05 after the cut-off, belongs to the next date",
                "Fri 03-06 day of the start, not counted",
                "Sat 03-07 – Sun 03-08 weekend",
                "Mon 03-09 working day 1",
                "due Mon 03-09 18:00 (close of office)",
            ],
        ),
        (
            "2026-03-05 10:00",
            "2wd",
            Counting(count_first_day=True),
            ["Thu 03-05 working day 1", "Fri 03-06 working day 2", "due Fri 03-06 18:00 (close of office)"],
        ),
        (
            "2026-03-06 19:30",
            "0wd",
            Counting(),
            [
                "Fri 03-06 the working day itself",
                "Sat 03-07 – Sun 03-08 weekend",
                "Mon 03-09 instead, that time of the day had passed",
                "due Mon 03-09 18:00 (close of office)",
            ],
        ),
        (
            "2026-03-05 10:00",
            "2d",
            Counting(roll="next_working_day"),
            [
                "Thu 03-05 day of the start, not counted",
                "Fri 03-06 – Sat 03-07 calendar days, 2 in all",
                "Sun 03-08 weekend",
                "Mon 03-09 the first working day after it",
                "due Mon 03-09 23:59:59 (end of the day)",
            ],
        ),
        (
            "2026-11-30 10:00",
            "3mo",
            Counting(),
            [
                "Mon 11-30 day of the start, not counted",
                "Tue 12-01 – Sun 2027-02-28 3 months",
                "due Sun 2027-02-28 23:59:59 (end of the day)",
            ],
        ),
        (
            "2026-03-12 10:00",
            "eom",
            Counting(),
            ["Thu 03-12 – Tue 03-31 up to the date named", "due Tue 03-31 23:59:59 (end of the day)"],
        ),
        ("2026-03-12 10:00", "1wd@08:00", Counting(), [
            "Thu 03-12 day of the start, not counted",
            "Fri 03-13 working day 1",
            "due Fri 03-13 08:00",
        ]),
        ("2026-03-12 10:00", "90min", Counting(), ["Thu 03-12 10:00 – 11:30 1 h 30 min", "due Thu 03-12 11:30"]),
    ],
)  # fmt: skip
def test_each_rule_of_counting_has_its_step(start: str, amount: str, counting: Counting, lines: list[str]) -> None:
    assert told(PLAIN, start, amount, counting) == lines


def test_every_cause_has_words_in_both_languages() -> None:
    day, when = date(2026, 3, 5), at("2026-03-05 10:00")
    for cause in Step.__annotations__["cause"].__args__:
        step = Step(cause=cause, first=day, last=day, end=when if cause == "end" else None)
        for lang in ("en", "zh"):
            (line,) = render(PLAIN, [step], lang)
            assert "03-05" in line
            assert line.strip() != "03-05"


def test_steps_travel_as_json() -> None:
    steps = explain(CHINA, at("2026-09-30 09:00"), parse_amount("3wd"))
    assert msgspec.json.decode(msgspec.json.encode(steps), type=list[Step]) == steps


def test_steps_that_do_not_add_up_are_found() -> None:
    steps = explain(CHINA, at("2026-09-28 10:00"), parse_amount("10wd"))
    assert readd(steps) == Sum(10, at("2026-09-28 10:00") - at("2026-09-28 10:00"), at("2026-10-16 18:00"))
    hours = explain(PLAIN, at("2026-03-05 16:00"), parse_amount("6bh"))
    for broken in (
        steps[:3] + steps[4:],  # a step is missing
        steps[:-1],  # the end is
        [],
        [*steps[:2], steps[1], *steps[2:]],  # a step twice
        [msgspec.structs.replace(steps[0], counted=1), *steps[1:]],
        [*steps[:-1], msgspec.structs.replace(steps[-1], last=date(2026, 10, 17))],
        hours[:1] + hours[2:],
        [*hours[:-1], msgspec.structs.replace(hours[-1], end=at("2026-03-09 10:00"))],
    ):
        with pytest.raises(ValueError, match=r"total|followed|end"):
            readd(broken)


def test_what_is_skipped_says_so() -> None:
    steps = explain(CHINA, at("2026-09-30 09:00"), parse_amount("1wd"))
    assert [step.skipped for step in steps] == [True] * 6 + [False, False]

"""The administrators' page on calendars says what the product does."""

import re
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
import yaml

from shared.engine.amounts import parse_amount
from shared.engine.calendar import Calendar, CalendarSection, CalendarSpec, Counting, explain, problems, render
from shared.engine.holidays import countries

PAGE = (Path(__file__).parents[3] / "docs" / "calendars.md").read_text(encoding="utf-8")
PLAIN = Calendar.of(CalendarSection())
CHINA = Calendar.of(CalendarSection(calendars={"default": CalendarSpec(country="CN")}))


def rows(mark: str) -> list[list[str]]:
    table = PAGE.split(f"<!-- {mark} -->\n")[1].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert cells
    return cells


def at(text: str) -> datetime:
    """Read "Thu 2026-03-05 11:00"; the weekday has to be right."""
    weekday, _, rest = text.partition(" ")
    found = datetime.fromisoformat(f"{rest}+08:00")
    assert f"{found:%a}" == weekday
    return found


@pytest.mark.parametrize(
    ("calendar", "row"),
    [(PLAIN, row) for row in rows("plain")] + [(CHINA, row) for row in rows("china")],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_the_examples_hold(calendar: Calendar, row: list[str]) -> None:
    start, limit, due, _ = row
    assert calendar.due(at(start), parse_amount(limit.strip("`"))) == at(due)


@pytest.mark.parametrize("row", rows("counting"), ids=lambda row: str(row[0]))
def test_the_ways_of_counting_hold(row: list[str]) -> None:
    counting = msgspec.convert(yaml.safe_load(row[0].strip("`")), Counting)
    assert PLAIN.due(at("Thu 2026-03-05 19:30"), parse_amount("3wd"), counting) == at(row[1])


def test_the_calendar_shown_is_valid() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    section = msgspec.convert(yaml.safe_load(shown)["calendar"], CalendarSection)
    assert problems(section, countries()) == []
    assert Calendar.of(section).close_of(at("Thu 2026-12-24 08:00").date()) == at("Thu 2026-12-24 12:00")


def test_the_explanation_shown_is_the_one_given() -> None:
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    spec = CalendarSpec(holidays=["2026-10-01/2026-10-07 National Day"], workdays=["2026-10-10"])
    calendar = Calendar.of(CalendarSection(calendars={"default": spec}))
    assert render(calendar, explain(calendar, at("Tue 2026-09-29 09:00"), parse_amount("4wd"))) == shown.splitlines()


def test_every_setting_of_counting_is_on_the_page() -> None:
    for field in (*Counting.__struct_fields__, *CalendarSpec.__struct_fields__, *CalendarSection.__struct_fields__):
        assert re.search(rf"`{field}`|\b{field}:", PAGE), field

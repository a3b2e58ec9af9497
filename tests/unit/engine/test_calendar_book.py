"""Dated editions: what a clock keeps, what it takes over, and when."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from shared.engine.amounts import parse_amount
from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec, Revision
from shared.engine.holidays import CountryDays, country_days

SHANGHAI = "Asia/Shanghai"
THREE = parse_amount("3wd")


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+08:00")


def an_edition(published: str, *, moves_running: bool = False, **spec: Any) -> Revision:
    return Revision(published_at=at(published), spec=CalendarSpec(**spec), moves_running=moves_running)


def a_book(*editions: Revision) -> CalendarBook:
    return CalendarBook(SHANGHAI, {"default": editions})


FIRST = an_edition("2026-01-01 00:00", announced_through=date(2026, 12, 31))
NEXT_YEAR = an_edition(
    "2026-11-10 09:00",
    holidays=["2026-12-25", "2027-01-01/2027-01-03"],
    workdays=["2027-01-09"],
    announced_through=date(2027, 12, 31),
)


def due(book: CalendarBook, started: str, known: str, amount: str = "3wd") -> datetime:
    start = at(started)
    return book.at(None, start, at(known)).due(start, parse_amount(amount))


def test_a_clock_keeps_announced_days_and_takes_the_others_from_the_first_edition_that_announces_them() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    start = "2026-10-08 10:00"
    # 2026-12-25 became a holiday later: a clock that had begun keeps it as a working day
    assert due(book, start, "2026-11-10 09:00", "56wd") == at("2026-12-25 18:00")
    # days of the next year: the guess at first, then as announced
    assert due(book, start, "2026-11-09 12:00", "61wd") == at("2027-01-01 18:00")
    assert due(book, start, "2026-11-10 09:00", "61wd") == at("2027-01-04 18:00")


def test_a_clock_that_starts_later_counts_on_the_later_edition() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    assert due(book, "2026-12-24 10:00", "2026-12-24 10:00", "1wd") == at("2026-12-28 18:00")
    assert due(a_book(FIRST), "2026-12-24 10:00", "2026-12-24 10:00", "1wd") == at("2026-12-25 18:00")


def test_an_edition_in_force_at_the_very_instant_counts() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    assert book.at(None, at("2026-11-10 09:00"), at("2026-11-10 09:00")).announced_through == date(2027, 12, 31)
    assert not book.at(None, at("2026-11-10 08:59"), at("2026-11-10 08:59")).is_working_day(date(2026, 12, 26))


def test_a_due_time_is_provisional_until_its_days_are_announced() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    start = at("2026-10-08 10:00")
    before, after = (book.at(None, start, at(known)) for known in ("2026-11-01 00:00", "2026-11-11 00:00"))
    limit = parse_amount("61wd")
    assert before.is_provisional(start, before.due(start, limit))
    assert not after.is_provisional(start, after.due(start, limit))


def test_the_first_announcement_of_a_day_stands_against_later_ones() -> None:
    corrected = an_edition("2026-12-01 00:00", holidays=["2027-01-04"], announced_through=date(2027, 12, 31))
    book = a_book(FIRST, NEXT_YEAR, corrected)
    calendar = book.at(None, at("2026-10-08 10:00"), at("2026-12-31 00:00"))
    assert calendar.is_working_day(date(2027, 1, 4))
    assert not book.at(None, at("2026-12-02 00:00"), at("2026-12-31 00:00")).is_working_day(date(2027, 1, 4))


def test_an_edition_that_moves_running_clocks_counts_from_its_own_date_on() -> None:
    closing = an_edition(
        "2026-03-05 15:00",
        moves_running=True,
        holidays=["2026-03-04", "2026-03-06"],  # the 4th has passed by then
        announced_through=date(2026, 12, 31),
    )
    book = a_book(FIRST, closing)
    start = "2026-03-03 10:00"
    assert due(book, start, "2026-03-05 14:59") == at("2026-03-06 18:00")
    assert due(book, start, "2026-03-05 15:00") == at("2026-03-09 18:00")
    silent = a_book(FIRST, Revision(published_at=closing.published_at, spec=closing.spec))
    assert due(silent, start, "2026-03-05 15:00") == at("2026-03-06 18:00")


def test_an_edition_after_one_that_moves_clocks_announces_what_that_left_open() -> None:
    closing = an_edition("2026-03-05 15:00", moves_running=True, announced_through=date(2026, 12, 31))
    book = a_book(FIRST, closing, NEXT_YEAR)
    calendar = book.at(None, at("2026-03-03 10:00"), at("2026-12-01 00:00"))
    assert calendar.announced_through == date(2027, 12, 31)
    assert calendar.is_working_day(date(2026, 12, 25))
    assert not calendar.is_working_day(date(2027, 1, 1))


def test_a_clock_older_than_all_editions_counts_on_the_first() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    assert due(book, "2025-03-03 10:00", "2025-03-03 10:00") == at("2025-03-06 18:00")
    assert book.at(None, at("2025-03-03 10:00"), at("2026-12-01 00:00")).announced_through == date(2027, 12, 31)


def test_it_is_known_which_clocks_an_edition_may_move() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    before, after = at("2026-11-10 08:00"), at("2026-11-10 10:00")
    assert book.moves(None, at("2026-10-08 10:00"), before, after)
    assert not book.moves(None, at("2026-11-11 10:00"), before, after)
    same = an_edition("2026-11-10 09:00", holidays=["2026-12-25"], announced_through=date(2026, 12, 31))
    assert not a_book(FIRST, same).moves(None, at("2026-10-08 10:00"), before, after)


def test_the_same_question_gets_the_same_calendar() -> None:
    book = a_book(FIRST, NEXT_YEAR)
    one = book.at(None, at("2026-10-08 10:00"), at("2026-12-01 00:00"))
    assert one is book.at("default", at("2026-05-08 10:00"), at("2026-12-09 00:00"))
    assert one is not book.at(None, at("2026-12-01 10:00"), at("2026-12-09 00:00"))


def test_tenants_that_count_alike_share_one_calendar() -> None:
    now = at("2026-12-01 00:00")
    assert a_book(FIRST).at(None, now, now) is a_book(FIRST).at(None, now, now)
    other = an_edition("2026-01-01 00:00", announced_through=date(2026, 12, 30))
    assert a_book(FIRST).at(None, now, now) is not a_book(other).at(None, now, now)


def test_the_order_in_which_editions_are_given_does_not_matter() -> None:
    start, known = at("2026-10-08 10:00"), at("2026-12-01 00:00")
    limit = parse_amount("61wd")
    one, other = a_book(FIRST, NEXT_YEAR), a_book(NEXT_YEAR, FIRST)
    assert one.at(None, start, known).due(start, limit) == other.at(None, start, known).due(start, limit)


def test_another_edition_makes_another_book() -> None:
    book = a_book(FIRST)
    longer = book.with_revision("default", NEXT_YEAR).with_revision("hotline", FIRST)
    assert longer.names() == ("default", "hotline")
    assert book.names() == ("default",)
    assert due(longer, "2026-12-24 10:00", "2026-12-24 10:00", "1wd") == at("2026-12-28 18:00")
    assert longer.at("hotline", at("2026-12-24 10:00"), at("2026-12-24 10:00")).name == "hotline"


def test_country_days_are_kept_as_they_were_published() -> None:
    empty = CountryDays(country="CN", days_off={}, make_up=frozenset(), announced_through=date(2026, 12, 31))
    spec = CalendarSpec(country="CN")
    kept = CalendarBook(SHANGHAI, {"default": [Revision(published_at=at("2026-01-01 00:00"), spec=spec, days=empty)]})
    now = at("2026-09-30 10:00")
    assert kept.at(None, now, now).is_working_day(date(2026, 10, 1))
    current = CalendarBook.of(CalendarSection(calendars={"default": spec}))
    assert not current.at(None, now, now).is_working_day(date(2026, 10, 1))
    stored = CalendarBook.of(
        CalendarSection(calendars={"default": spec}), {"default": country_days("CN", [2025, 2026])}
    )
    assert stored.at(None, now, now).announced_through == date(2026, 12, 27)


def test_a_book_needs_a_zone_and_editions() -> None:
    with pytest.raises(ValueError, match="is no IANA time zone"):
        CalendarBook("Asia/Shangai", {"default": [FIRST]})
    with pytest.raises(ValueError, match="at least one edition"):
        CalendarBook(SHANGHAI, {"default": []})
    with pytest.raises(KeyError):
        a_book(FIRST).at("hotline", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))


def test_a_section_gives_its_default_and_its_counting() -> None:
    section = CalendarSection(default="office", calendars={"office": CalendarSpec(), "hotline": CalendarSpec()})
    book = CalendarBook.of(section)
    assert book.default == "office"
    assert book.counting == section.counting
    assert book.at(None, at("2026-01-01 00:00"), at("2026-01-01 00:00")).name == "office"

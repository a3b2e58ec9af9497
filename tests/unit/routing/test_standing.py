"""What is read off a case: columns, owner, counts, differences, deadlines to keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.routing.domain import approving, years
from services.routing.domain.columns import columns, rank
from services.routing.domain.counting import taken_back
from services.routing.domain.joining import strictest
from services.routing.domain.moving import difference
from services.routing.domain.naming import naming, route_to
from services.routing.moving import differ
from shared.engine.calendar import CalendarBook
from shared.engine.case import fold
from shared.engine.model import SYSTEM, Actor, CountStamp, Entry, Standing
from shared.policy.compiling import compile_policy
from tests.unit.routing.examples import NINE, SHOP

POLICY = compile_policy(SHOP)
BOOK = CalendarBook.of(POLICY.document.calendar)
CASE = UUID(int=7)


def a_timeline(*entries: tuple[str, float, dict[str, Any]]) -> list[Entry]:
    lines = [("received", 0.0, {"channel": "phone"}), *entries]
    return [
        Entry(seq=seq, kind=kind, at=NINE + timedelta(hours=hours), by=Actor(id="anna"), data=data)
        for seq, (kind, hours, data) in enumerate(lines, start=1)
    ]


def a_standing(timeline: list[Entry], days: float = 0.5) -> Standing:
    return fold({1: POLICY}, timeline, BOOK, NINE + timedelta(days=days))


def test_columns_name_the_earliest_limit_and_the_first_one_missed() -> None:
    running = columns(a_standing(a_timeline()))
    assert (running.due_at, running.breached_at) == (datetime(2026, 3, 5, 10, tzinfo=UTC), None)
    late = columns(a_standing(a_timeline(), days=4))
    assert (late.due_at, late.breached_at) == (
        datetime(2026, 3, 16, 10, tzinfo=UTC),
        datetime(2026, 3, 5, 10, tzinfo=UTC),
    )
    done = columns(a_standing(a_timeline(("replied", 100, {})), days=5))
    assert (done.due_at, done.breached_at) == (datetime(2026, 3, 16, 10, tzinfo=UTC), None)
    assert columns(a_standing(a_timeline()), timers=["reply"]).due_at == datetime(2026, 3, 16, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [(1, 2), ("1", 2), ("urgent", "high"), ("high", None), (None, "low"), ("strange", "low"), (0, 1)],
)
def test_priorities_have_an_order(earlier: Any, later: Any) -> None:
    assert rank(earlier) < rank(later)


def test_the_policy_names_the_owner_until_a_person_does() -> None:
    by_route = naming(a_timeline(), a_standing(a_timeline()))
    assert by_route.route is not None
    assert (by_route.route.rule, by_route.route.unit, by_route.seq) == ("desk", "desk", 1)
    timeline = a_timeline(("replied", 1, {}), ("assigned", 2, {"staff": "ben"}), ("commented", 3, {}))
    by_person = naming(timeline, a_standing(timeline))
    assert by_person.route is not None
    assert (by_person.route.staff, by_person.seq) == ("ben", 3)
    assert by_person.key != by_route.key


def test_a_return_that_names_nobody_goes_back_and_a_loose_name_is_told_by_the_staff() -> None:
    back = a_timeline(("transferred", 1, {"to": "workshop"}), ("returned", 2, {}))
    assert naming(back[:2], a_standing(back[:2])).to == "workshop"
    assert naming(back, a_standing(back)).is_back
    assert (route_to("x", "role").role, route_to("x", "staff").staff, route_to("x", "unknown").unit) == ("x", "x", "x")


def test_the_strictest_of_all_running_deadlines_is_kept() -> None:
    older = a_standing(a_timeline())
    later = [Entry(seq=1, kind="received", at=NINE + timedelta(days=1), by=SYSTEM, data={})]
    younger = fold({1: POLICY}, later, BOOK, NINE + timedelta(days=1, hours=1))
    assert strictest([older, younger]) == strictest([younger, older])
    assert strictest([older, younger])["reply"] == datetime(2026, 3, 5, 10, tzinfo=UTC)
    missed = a_standing(a_timeline(), days=4)
    assert set(strictest([missed])) == {"close"}


def test_a_difference_is_about_what_holds_not_about_the_version() -> None:
    timeline = a_timeline()
    other = compile_policy({**SHOP, "clocks": [{**SHOP["clocks"][0], "within": "5wd"}, SHOP["clocks"][1]]}, version=2)
    changed = Entry(
        seq=2, kind="policy_changed", at=NINE + timedelta(hours=1), by=SYSTEM, data={"version": 2, "effect": "from_now"}
    )
    before = a_standing(timeline)
    after = fold({1: POLICY, 2: other}, [*timeline, changed], BOOK, NINE + timedelta(days=0.5))
    found = difference(before, after)
    assert [(clock.rule, clock.was, clock.becomes) for clock in found.clocks] == [
        ("reply", datetime(2026, 3, 5, 10, tzinfo=UTC), datetime(2026, 3, 9, 10, tzinfo=UTC))
    ]
    same = fold({1: POLICY, 2: compile_policy(SHOP, version=2)}, [*timeline, changed], BOOK, NINE + timedelta(days=0.5))
    assert not difference(before, same)


def test_only_rules_make_two_policies_differ() -> None:
    assert not differ(
        POLICY, compile_policy({**SHOP, "title": "Another", "guidance": [{"clause": "X", "text": "kind"}]})
    )
    assert differ(POLICY, compile_policy({**SHOP, "clocks": SHOP["clocks"][:1]}))


def test_a_reversal_takes_back_decisions_once_and_never_the_receipt() -> None:
    stamp = CountStamp(subject="s1", before=0, added=1)
    lines = a_timeline(
        ("resolved", 1, {"outcome": "upheld"}), ("reconsidered", 2, {"outcome": "not_upheld"}), ("withdrawn", 3, {})
    )
    counted = [
        Entry(
            seq=each.seq,
            kind=each.kind,
            at=each.at,
            by=each.by,
            data=each.data,
            counts={"late": stamp} if each.seq < 3 else {},
        )
        for each in lines
    ]
    assert taken_back(counted[:3], counted[2]) == [("late", stamp, 2)]
    assert taken_back(counted, counted[3]) == []
    upheld = Entry(seq=3, kind="reconsidered", at=NINE, by=SYSTEM, data={"outcome": "upheld"})
    assert taken_back([*counted[:2], upheld], upheld) == []


def test_requests_and_decisions_are_read_off_the_entries() -> None:
    lines = a_timeline(
        ("approval_requested", 1, {"step": "decision"}), ("approved", 2, {"step": "decision"}), ("extended", 3, {})
    )
    assert approving.requested(lines[1]) == approving.Requested(kind="approval", step="decision")
    assert approving.decided(lines[2]) == approving.Decided(kind=None, step="decision", decision="approved")
    assert approving.decided(lines[3]) == approving.Decided(kind="extension", step=None, decision="approved")
    assert approving.requested(lines[2]) is None
    assert approving.decided(lines[1]) is None


def test_a_year_of_duties_is_the_tenants_own() -> None:
    eve = datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert (years.year_of(eve, "Asia/Shanghai"), years.year_of(eve, "UTC")) == (2027, 2026)
    assert years.start_of(2027, "Asia/Shanghai") == eve
    assert years.first_line(2026, "Asia/Shanghai") == {"year": 2026, "until": eve.isoformat()}

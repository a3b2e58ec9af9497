"""Who gets a complaint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.domain.picking import NOBODY_NAMED, pick
from services.routing.domain.staffing import Absence, Member
from shared.engine.model import RouteView

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
AWAY = (Absence(start=NINE - timedelta(days=1), end=NINE + timedelta(days=1)),)


def a_route(**parts: str) -> RouteView:
    return RouteView(rule="r", clause="X.1", **parts)  # type: ignore[arg-type]  # names of the parts


def staff(*members: Member) -> dict[str, Member]:
    return {member.staff_id: member for member in members}


def clerk(name: str, **values: object) -> Member:
    return Member(**{"staff_id": name, "roles": ("clerk",), "unit": "desk", **values})  # type: ignore[arg-type]


def test_the_one_with_the_fewest_open_complaints_is_taken() -> None:
    found = pick(a_route(unit="desk", role="clerk"), staff(clerk("a", open_cases=3), clerk("b", open_cases=1)), NINE)
    assert (found.staff_id, found.unit, found.role, found.rule) == ("b", "desk", "clerk", "r")


def test_among_equals_who_has_waited_longest_then_by_name() -> None:
    earlier, later = NINE - timedelta(hours=2), NINE - timedelta(hours=1)
    waited = staff(clerk("a", assigned_at=later), clerk("b", assigned_at=earlier))
    assert pick(a_route(role="clerk"), waited, NINE).staff_id == "b"
    never = staff(clerk("c", assigned_at=earlier), clerk("b"), clerk("a"))
    assert pick(a_route(role="clerk"), never, NINE).staff_id == "a"


def test_an_absent_person_is_replaced_by_the_first_present_deputy() -> None:
    members = staff(
        clerk("a", absences=AWAY, deputy="b"), clerk("b", absences=AWAY, deputy="c", roles=()), clerk("c", roles=())
    )
    found = pick(a_route(role="clerk"), members, NINE)
    assert (found.staff_id, found.in_place_of) == ("c", "a")


def test_deputies_that_name_each_other_end() -> None:
    members = staff(clerk("a", absences=AWAY, deputy="b"), clerk("b", absences=AWAY, deputy="a"))
    found = pick(a_route(role="clerk"), members, NINE)
    assert (found.staff_id, found.role) == (None, "clerk")


def test_an_absence_ends_at_its_end() -> None:
    members = staff(clerk("a", absences=(Absence(start=NINE - timedelta(days=1), end=NINE),)))
    assert pick(a_route(role="clerk"), members, NINE).staff_id == "a"
    assert pick(a_route(role="clerk"), members, NINE - timedelta(microseconds=1)).staff_id is None


def test_nobody_is_taken_whom_the_policy_refuses() -> None:
    members = staff(clerk("a"), clerk("b", open_cases=9))
    assert pick(a_route(role="clerk"), members, NINE, is_refused=lambda name: name == "a").staff_id == "b"
    assert pick(a_route(role="clerk"), members, NINE, is_refused=lambda _: True).staff_id is None


def test_people_whom_it_concerns_are_taken_only_when_there_is_no_one_else() -> None:
    members = staff(clerk("a"), clerk("b", open_cases=9))
    assert pick(a_route(role="clerk"), members, NINE, concerned=frozenset({"a"})).staff_id == "b"
    assert pick(a_route(role="clerk"), staff(clerk("a")), NINE, concerned=frozenset({"a"})).staff_id == "a"


def test_a_role_that_nobody_holds_in_the_unit_is_looked_for_elsewhere_then_the_unit_serves() -> None:
    elsewhere = staff(clerk("a", unit="workshop"), clerk("b", roles=()))
    assert pick(a_route(unit="desk", role="clerk"), elsewhere, NINE).staff_id == "a"
    nowhere = staff(clerk("a", unit="workshop", roles=()), clerk("b", roles=()))
    assert pick(a_route(unit="desk", role="clerk"), nowhere, NINE).staff_id == "b"


def test_a_named_person_gets_it_or_their_deputy_or_the_unit() -> None:
    members = staff(clerk("a", absences=AWAY), clerk("b", open_cases=9))
    assert pick(a_route(staff="b"), members, NINE).staff_id == "b"
    assert pick(a_route(staff="a", unit="desk"), members, NINE).staff_id == "b"
    assert pick(a_route(staff="a"), members, NINE).staff_id is None
    assert pick(a_route(staff="new"), members, NINE).staff_id == "new"


def test_a_complaint_that_no_route_names_anybody_for_goes_to_the_supervisors() -> None:
    assert pick(None, {}, NINE).role == NOBODY_NAMED
    members = staff(Member(staff_id="s", roles=(NOBODY_NAMED,)))
    assert pick(None, members, NINE).staff_id == "s"


def test_former_members_get_nothing() -> None:
    assert pick(a_route(role="clerk"), staff(clerk("a", active=False)), NINE).staff_id is None


@given(
    loads=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    away=st.sets(st.integers(0, 7)),
    refused=st.sets(st.integers(0, 7)),
)
def test_whoever_is_taken_is_there_and_not_refused_and_nobody_fitting_has_less(
    loads: list[int], away: set[int], refused: set[int]
) -> None:
    members = staff(
        *(clerk(f"s{n}", open_cases=load, absences=AWAY if n in away else ()) for n, load in enumerate(loads))
    )
    fitting = [n for n in range(len(loads)) if n not in away and n not in refused]
    found = pick(a_route(role="clerk"), members, NINE, is_refused=lambda name: int(name[1:]) in refused)
    if not fitting:
        assert found.staff_id is None
    else:
        assert found.staff_id is not None
        assert int(found.staff_id[1:]) in fitting
        assert members[found.staff_id].open_cases == min(loads[n] for n in fitting)


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_order_of_the_staff_does_not_matter(order: tuple[str, str]) -> None:
    assert pick(a_route(role="clerk"), staff(*(clerk(name) for name in order)), NINE).staff_id == "a"

"""In which roles somebody may act, and who is behind a name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.routing.domain.acting import in_part
from services.routing.domain.staffing import Absence, Member, actor, holders, roles_of
from shared.engine.model import Actor

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
AWAY = (Absence(start=NINE - timedelta(days=1)),)


def staff(*members: Member) -> dict[str, Member]:
    return {member.staff_id: member for member in members}


TWO = staff(
    Member(staff_id="anna", roles=("clerk",), unit="desk"),
    Member(staff_id="mia", roles=("manager",), unit="workshop", deputy="anna"),
)
MIA_AWAY = {**TWO, "mia": Member(staff_id="mia", roles=("manager",), unit="workshop", deputy="anna", absences=AWAY)}


def test_somebody_acts_in_all_their_roles_and_their_unit() -> None:
    assert actor(TWO, "anna", NINE) == Actor(id="anna", roles=("clerk", "desk"), unit="desk")


def test_a_deputy_acts_in_the_absent_persons_roles_while_they_are_away() -> None:
    assert roles_of(TWO, "anna", NINE) == ("clerk", "desk")
    assert roles_of(MIA_AWAY, "anna", NINE) == ("clerk", "desk", "manager", "workshop")
    assert actor(MIA_AWAY, "anna", NINE, "manager") == Actor(id="anna", roles=("manager",), unit="workshop")


def test_somebody_who_names_a_role_acts_in_it_alone() -> None:
    assert actor(TWO, "anna", NINE, "clerk") == Actor(id="anna", roles=("clerk",), unit="desk")
    assert actor(TWO, "anna", NINE, "manager") is None


def test_a_person_acts_in_the_part_they_have_in_the_matter() -> None:
    complaint = {"handler": {"staff": "anna", "head": "mia"}, "respondent": {"staff": "ben", "supervisor": "mia"}}
    assert in_part(Actor(id="anna", roles=("clerk",)), complaint).roles == ("clerk", "handler")
    assert in_part(Actor(id="mia"), complaint).roles == ("handler_head", "head", "respondent_supervisor", "supervisor")
    assert in_part(Actor(id="zoe", roles=("clerk",)), complaint).roles == ("clerk",)
    assert in_part(Actor(id="anna"), {"handler": None}).roles == ()


def test_a_name_is_the_narrowest_thing_it_can_be() -> None:
    members = [Member(staff_id="desk"), Member(staff_id="a", roles=("desk",)), Member(staff_id="b", unit="desk")]
    assert holders(members, "desk") == ("staff", ("desk",))
    assert holders(members[1:], "desk") == ("role", ("a",))
    assert holders(members[2:], "desk") == ("unit", ("b",))
    assert holders(members, "nobody") == ("unknown", ())
    assert holders([Member(staff_id="a", active=False)], "a") == ("unknown", ())

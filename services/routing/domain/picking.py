"""Who gets a complaint: the route names a person, a role or a unit, and this chooses the person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from services.routing.domain.staffing import Member, stand_in
from shared.engine.model import RouteView

_NEVER = datetime(1, 1, 1, tzinfo=UTC)
NOBODY_NAMED = "supervisor"
"""The role a complaint goes to when no route names anybody: it must never be nobody's."""


class Pick(msgspec.Struct, frozen=True, kw_only=True):
    """Where a complaint goes. `staff_id` is None when the unit or role has nobody who can take it: it waits in their work list.

    Args:
        in_place_of: the absent person whose deputy was taken.
        rule: the route that decided, None when none did.
    """

    unit: str | None
    role: str | None
    staff_id: str | None
    as_: str | None = None
    in_place_of: str | None = None
    rule: str | None = None
    clause: str | list[str] | None = None


def pick(
    route: RouteView | None,
    staff: Mapping[str, Member],
    at: datetime,
    *,
    is_refused: Callable[[str], bool] = lambda _: False,
    concerned: frozenset[str] = frozenset(),
) -> Pick:
    """Return the assignee.

    Of those whom the route means the present one with the fewest open complaints is taken, among equals who has waited longest for
    one, then by name. An absent person is replaced by their deputy. Nobody is taken whom a gate of the policy refuses; people whom the
    matter concerns (the respondent, somebody with an interest in it) are taken only when there is no one else.

    Args:
        route: the first of the policy's routes that holds.
        staff: everybody, by staff id.
        at: for absences.
        is_refused: whether the policy refuses to have this person as the assignee.
        concerned: staff ids of people with an interest in the matter.
    """
    if route is None:
        return Pick(
            unit=None,
            role=NOBODY_NAMED,
            staff_id=_best(_holding(staff, None, NOBODY_NAMED), staff, at, is_refused, concerned)[0],
        )
    if (
        route.staff and route.staff not in staff
    ):  # a person the staff data do not know (yet): the policy or somebody said so
        return Pick(
            unit=route.unit,
            role=route.role,
            staff_id=route.staff,
            as_=route.as_,
            rule=route.rule or None,
            clause=route.clause,
        )
    named = [route.staff] if route.staff else _holding(staff, route.unit, route.role)
    chosen, absent = _best(named, staff, at, is_refused, concerned)
    if chosen is None and route.staff and (route.unit or route.role):
        chosen, absent = _best(_holding(staff, route.unit, route.role), staff, at, is_refused, concerned)
    unit = route.unit
    if unit is None and chosen is not None:
        unit = staff[absent or chosen].unit
    return Pick(
        unit=unit,
        role=route.role,
        staff_id=chosen,
        as_=route.as_,
        in_place_of=absent,
        rule=route.rule or None,
        clause=route.clause,
    )


def _holding(staff: Mapping[str, Member], unit: str | None, role: str | None) -> list[str]:
    """Those who hold the role in the unit; where nobody does, those who hold the role anywhere, then those of the unit."""
    both = [name for name, member in staff.items() if _fits(member, unit, role)]
    if both or unit is None or role is None:
        return both
    return [name for name, member in staff.items() if _fits(member, None, role)] or [
        name for name, member in staff.items() if _fits(member, unit, None)
    ]


def _fits(member: Member, unit: str | None, role: str | None) -> bool:
    if unit is None and role is None:
        return False
    return member.active and (unit is None or member.unit == unit) and (role is None or role in member.roles)


def _best(
    names: list[str],
    staff: Mapping[str, Member],
    at: datetime,
    is_refused: Callable[[str], bool],
    concerned: frozenset[str],
) -> tuple[str | None, str | None]:
    """Return the one taken, and for whom they stand in, if they do."""
    candidates: dict[str, str | None] = {}
    for name in sorted(names):
        acting = stand_in(staff, name, at)
        if acting is None:
            continue
        if acting == name:
            candidates[name] = None
        else:
            candidates.setdefault(acting, name)

    def order(name: str) -> tuple[bool, int, datetime, str]:
        member = staff[name]
        return name in concerned, member.open_cases, member.assigned_at or _NEVER, name

    for name in sorted(candidates, key=order):
        if not is_refused(name):
            return name, candidates[name]
    return None, None

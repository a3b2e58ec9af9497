"""Staff as routing knows them, and in which roles a person may act at an instant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from shared.engine.model import Actor

NameKind = Literal["staff", "role", "unit", "unknown"]


class Absence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch `[start, end)` in which somebody is away; without an end until further notice."""

    start: datetime
    end: datetime | None = None

    def covers(self, at: datetime) -> bool:
        return self.start <= at and (self.end is None or at < self.end)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member of staff, without name and contact.

    Args:
        open_cases: how many complaints they have in hand; what balancing the load goes by.
        assigned_at: when they were given one last.
    """

    staff_id: str
    roles: tuple[str, ...] = ()
    unit: str | None = None
    active: bool = True
    deputy: str | None = None
    absences: tuple[Absence, ...] = ()
    open_cases: int = 0
    assigned_at: datetime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Their roles and their unit: what they may act as."""
        return self.roles if self.unit is None else (*self.roles, self.unit)

    def is_present(self, at: datetime) -> bool:
        return self.active and not any(absence.covers(at) for absence in self.absences)

    def absent_until(self, at: datetime) -> datetime | None:
        """Return the end of the absence that covers `at`; None when there is none, or none is known."""
        ends = [absence.end for absence in self.absences if absence.covers(at) and absence.end is not None]
        return max(ends, default=None)


def stand_in(staff: Mapping[str, Member], staff_id: str, at: datetime) -> str | None:
    """Return who acts for this person at `at`: themselves when present, else the first present one along the chain of deputies.

    None when nobody along the chain is present, or when the chain closes on itself.
    """
    asked: set[str] = set()
    name: str | None = staff_id
    while name is not None and name not in asked:
        asked.add(name)
        member = staff.get(name)
        if member is None:
            return None
        if member.is_present(at):
            return name
        name = member.deputy
    return None


def roles_of(staff: Mapping[str, Member], staff_id: str, at: datetime) -> tuple[str, ...]:
    """Return the roles and units in which a person may act: their own, then those of everybody whose deputy they are just now."""
    own = staff[staff_id]
    names = [*own.names]
    for other in sorted(staff):
        if other != staff_id and not staff[other].is_present(at) and stand_in(staff, other, at) == staff_id:
            names += staff[other].names
    return tuple(dict.fromkeys(names))


def actor(staff: Mapping[str, Member], staff_id: str, at: datetime, acting_as: str | None = None) -> Actor | None:
    """Return who acts: the person in all their roles, or in the one role or unit they name; None when it is not theirs."""
    member = staff[staff_id]
    roles = roles_of(staff, staff_id, at)
    if acting_as is None or acting_as == staff_id:
        return Actor(id=staff_id, roles=roles, unit=member.unit)
    if acting_as not in roles:
        return None
    unit = member.unit if acting_as in {*member.roles, member.unit} else _unit_of(staff, acting_as, staff_id, at)
    return Actor(id=staff_id, roles=(acting_as,), unit=unit)


def _unit_of(staff: Mapping[str, Member], name: str, deputy: str, at: datetime) -> str | None:
    """The unit of the absent person in whose place the deputy acts."""
    for other in sorted(staff):
        held = staff[other]
        if name in {*held.roles, held.unit} and not held.is_present(at) and stand_in(staff, other, at) == deputy:
            return held.unit
    return None


def holders(staff: Iterable[Member], name: str) -> tuple[NameKind, tuple[str, ...]]:
    """Return what a name is (staff, role, unit or unknown) and the staff ids that bear it, active ones only, in order.

    A name that is several things is the narrowest of them: a person before a role before a unit.
    """
    known = sorted((member for member in staff if member.active), key=lambda member: member.staff_id)
    if any(member.staff_id == name for member in known):
        return "staff", (name,)
    by_role = tuple(member.staff_id for member in known if name in member.roles)
    if by_role:
        return "role", by_role
    by_unit = tuple(member.staff_id for member in known if member.unit == name)
    return ("unit", by_unit) if by_unit else ("unknown", ())

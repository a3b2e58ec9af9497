"""Whom a case's timeline names as the one who must act: the policy's route, or a person's later assignment, transfer or return."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.engine.model import Entry, RouteView, Standing

_NAMING_KINDS = frozenset({"assigned", "transferred", "returned"})


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """Where the case belongs and why.

    Args:
        key: the same as long as the same thing names the owner; a new one is a new assignment.
        seq: the entry it follows from.
        route: the policy's route; for an entry, what the entry says in the form of one.
        to: a name whose meaning (person, role or unit) staff data must tell.
        is_back: a return that names nobody: it goes to whoever had the case before.
    """

    key: str
    seq: int
    route: RouteView | None
    to: str | None = None
    is_back: bool = False


def naming(timeline: Sequence[Entry], standing: Standing) -> Naming:
    """Return what names the owner: the latest of route and entry, a route that follows from the entry itself before the entry."""
    owner = standing.owner
    floor = 0 if owner is None else owner.seq
    for entry in reversed(timeline):
        if entry.seq <= floor:
            break
        if entry.kind in _NAMING_KINDS:
            named = _named_by(entry)
            if named is not None:
                return named
    if owner is None:
        return Naming(key="nobody", seq=1, route=None)
    return Naming(key=f"{owner.seq}:{owner.rule}:{owner.unit}:{owner.role}:{owner.staff}", seq=owner.seq, route=owner)


def _named_by(entry: Entry) -> Naming | None:
    staff, unit, role, to = (_name(entry.data.get(part)) for part in ("staff", "unit", "role", "to"))
    key = f"{entry.seq}:{entry.kind}"
    if staff is None and unit is None and role is None:
        if to is not None:
            return Naming(key=key, seq=entry.seq, route=None, to=to)
        return Naming(key=key, seq=entry.seq, route=None, is_back=True) if entry.kind == "returned" else None
    route = RouteView(rule="", clause=None, unit=unit, role=role, staff=staff, at=entry.at, seq=entry.seq)
    return Naming(key=key, seq=entry.seq, route=route)


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def route_to(name: str, kind: str) -> RouteView:
    """Return the route that a name means, once staff data have told what it is. A name nobody bears is taken for a unit's."""
    return RouteView(
        rule="",
        clause=None,
        staff=name if kind == "staff" else None,
        role=name if kind == "role" else None,
        unit=name if kind in ("unit", "unknown") else None,
    )

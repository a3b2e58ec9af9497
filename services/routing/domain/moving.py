"""What a publication does to a case: the same timeline folded before and after, and the difference between the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from shared.engine.model import ClockView, PenaltyView, Standing


class MovedClock(msgspec.Struct, frozen=True, kw_only=True):
    """A limit whose due instant or state differs. `was` or `becomes` is None for one that appears or falls away."""

    rule: str
    run: int
    clause: str | list[str] | None
    was: datetime | None
    becomes: datetime | None
    state_was: str | None
    state_becomes: str | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`clocks`: moved limits. `parts`: what else differs, by name (state, routing, penalties, …)."""

    clocks: tuple[MovedClock, ...]
    parts: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.clocks or self.parts)


def difference(before: Standing, after: Standing) -> Difference:
    """Return how two standings of one case at one instant differ in what they say, not in which version says it."""
    parts = [
        name
        for name, one, other in (
            ("state", before.state, after.state),
            ("closed", before.closed, after.closed),
            ("class", _class(before), _class(after)),
            ("routing", _owner(before), _owner(after)),
            ("penalties", _penalties(before.penalties), _penalties(after.penalties)),
            ("effects", _effects(before), _effects(after)),
            ("next", before.next_at, after.next_at),
        )
        if one != other
    ]
    return Difference(clocks=moved_clocks(before, after), parts=tuple(parts))


def moved_clocks(before: Standing, after: Standing) -> tuple[MovedClock, ...]:
    """Return the limits whose latest due instant or state differs, in the order in which they fall due."""
    old, new = _latest(before.clocks), _latest(after.clocks)
    found = []
    for key in old.keys() | new.keys():
        one, other = old.get(key), new.get(key)
        if one is not None and other is not None and (one.due_at, one.state) == (other.due_at, other.state):
            continue
        shown = other or one
        assert shown is not None
        found.append(
            MovedClock(
                rule=shown.rule,
                run=shown.run,
                clause=shown.clause,
                was=one.due_at if one else None,
                becomes=other.due_at if other else None,
                state_was=one.state if one else None,
                state_becomes=other.state if other else None,
            )
        )
    return tuple(sorted(found, key=lambda clock: ((clock.becomes or clock.was or before.now), clock.rule, clock.run)))


def _latest(clocks: tuple[ClockView, ...]) -> dict[tuple[str, int], ClockView]:
    latest: dict[tuple[str, int], ClockView] = {}
    for clock in clocks:
        key = (clock.rule, clock.run)
        if key not in latest or clock.part > latest[key].part:
            latest[key] = clock
    return latest


def _class(standing: Standing) -> tuple[Any, ...]:
    named = standing.classified
    return named.kind, named.category, named.severity, named.priority, named.respondent


def _owner(standing: Standing) -> tuple[Any, ...] | None:
    owner = standing.owner
    return None if owner is None else (owner.unit, owner.role, owner.staff)


def _penalties(penalties: tuple[PenaltyView, ...]) -> list[tuple[Any, ...]]:
    return sorted(
        (str(each.clause), each.party, each.kind, each.amount_minor or 0, str(each.state), each.key)
        for each in penalties
    )


def _effects(standing: Standing) -> set[str]:
    return {effect.key for effect in standing.effects}

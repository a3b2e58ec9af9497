"""What a case is found and sorted by in work lists: read off its standing, never decided here."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import msgspec

from shared.engine.model import Standing
from shared.engine.rules import CompiledPolicy

USUAL_RANK: Final = 50
_RANKS: Final = {
    "critical": 5,
    "urgent": 10,
    "highest": 10,
    "high": 20,
    "normal": 50,
    "medium": 50,
    "low": 80,
    "lowest": 90,
}


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """`rank`: 0 first. `due_at`: the earliest limit that still runs. `breached_at`: the earliest that was missed and is still undone.
    `creates`: how many complaints have come of this case.
    """

    current_policy_version: int
    state: str
    closed: bool
    outcome: str | None
    class_kind: str | None
    category: str | None
    severity: str | None
    priority: str | None
    rank: int
    respondent: str | None
    due_at: datetime | None
    breached_at: datetime | None
    provisional: bool
    creates: int = 0


def columns(standing: Standing, timers: Collection[str] = ()) -> Columns:
    """Return the columns of a standing. `timers`: clocks that act by themselves, which nobody owes anything."""
    owed = [clock for clock in standing.clocks if clock.rule not in timers and clock.stopped_at is None]
    dues = [clock.due_at for clock in owed if clock.state == "running" and clock.due_at is not None]
    missed = [clock.breached_at for clock in owed if clock.state == "breached" and clock.breached_at is not None]
    named = standing.classified
    return Columns(
        current_policy_version=standing.policy_version,
        state=standing.state,
        closed=standing.closed,
        outcome=standing.outcome,
        class_kind=named.kind,
        category=named.category,
        severity=named.severity,
        priority=None if named.priority is None else str(named.priority),
        rank=rank(named.priority),
        respondent=named.respondent,
        due_at=min(dues, default=None),
        breached_at=min(missed, default=None),
        provisional=any(clock.provisional and clock.state in ("running", "paused") for clock in standing.clocks),
        creates=sum(effect.kind == "created" for effect in standing.effects),
    )


def bare_columns(policy: CompiledPolicy) -> Columns:
    """Return the columns of a case that has no standing of its own, such as a subject: it is what is counted for."""
    return Columns(
        current_policy_version=policy.version,
        state=policy.initial,
        closed=False,
        outcome=None,
        class_kind=None,
        category=None,
        severity=None,
        priority=None,
        rank=USUAL_RANK,
        respondent=None,
        due_at=None,
        breached_at=None,
        provisional=False,
    )


def rank(priority: str | int | None) -> int:
    """Return where a priority stands: 1 before 2 before 3, the usual words between them, any other word as the usual one."""
    if priority is None:
        return USUAL_RANK
    if isinstance(priority, int):
        return max(0, min(priority, 99)) * 10
    if priority.isdecimal() and priority.isascii():
        return rank(int(priority[:4]))
    return _RANKS.get(priority, USUAL_RANK)

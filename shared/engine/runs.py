"""One run of one clock: when it is due, when it rests, how late it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from shared.engine.amounts import Amount
from shared.engine.calendar import NO_PAUSE, Calendar, Counting, Paused
from shared.engine.model import ClockState, ClockView
from shared.engine.rules import ClockRule, amount_text

INSTANT = timedelta(microseconds=1)
"""A limit is met at its due instant and broken one microsecond later."""

DAY_UNITS = frozenset({"d", "wd", "w", "mo", "y", "eom", "eoq", "eoy"})


class Run(Struct, eq=False, gc=False):
    """A started clock. Changes while the engine runs, shown to the world as `ClockView`."""

    rule: ClockRule
    number: int
    started_at: datetime
    by_seq: int
    policy_version: int
    anchor_at: datetime
    calendar: Calendar
    counting: Counting
    unit: str | None = None  # in which days late are counted, where the rule says it
    amount: Amount | None = None
    due_at: datetime | None = None
    part: int = 0
    state: ClockState = "running"
    stopped_at: datetime | None = None
    breached_at: datetime | None = None
    paused_at: datetime | None = None
    pause_rule: Any = None
    owner: str | None = None
    data: dict[str, Any] = {}
    expected: frozenset[str] = frozenset()  # the triggers still missing of those that are all needed
    paused: Paused = NO_PAUSE
    pauses: tuple[tuple[datetime, datetime], ...] = ()

    @property
    def ref(self) -> str:
        """What effects of this run are keyed by."""
        return f"{self.rule.id}.{self.by_seq}.{self.number}"

    @property
    def active(self) -> bool:
        """Whether something can still stop it: it runs, rests, or is overdue and not yet done."""
        return self.stopped_at is None and self.state != "fired"

    def state_at(self, at: datetime | None) -> ClockState:
        """The state as of `at`, also between the due instant and the engine's next step."""
        return "breached" if at is not None and self.is_late(at) else self.state

    def is_late(self, at: datetime) -> bool:
        """Whether the limit was missed by `at`."""
        if self.state == "running":
            return self.due_at is not None and at > self.due_at and not self.rule.timer
        return self.state == "breached"

    def overdue_unit(self) -> str:
        """Working dates for a limit in working days or office hours, calendar dates for the others."""
        if self.unit is not None:
            return self.unit
        return "wd" if self.amount is not None and self.amount.unit in ("wd", "bh") else "cd"

    def overdue_days(self, at: datetime) -> int:
        """Days late (D11) at `at`, or at the stop if that was earlier; 0 when in time."""
        if self.due_at is None:
            return 0
        until = at if self.stopped_at is None or self.stopped_at > at else self.stopped_at
        if until <= self.due_at:
            return 0
        return self.calendar.overdue_days(self.due_at, until, "wd" if self.overdue_unit() == "wd" else "cd")

    def view(self, now: datetime, shown_as: ClockState | None = None, stopped_at: datetime | None = None) -> ClockView:
        """The run as it stands at `now`; or the part of it that ends, shown as in another state and as stopped."""
        rule, amount, number = self.rule, self.amount, self.number
        state, breached_at = self.state, self.breached_at
        if breached_at is None and state != "met" and self.is_late(now):
            state, breached_at = "breached", self.due_at
        data = self.data.copy()
        if breached_at is not None:
            data["overdue_days"], data["overdue_unit"] = self.overdue_days(now), self.overdue_unit()
        data["round"] = number + 1
        return ClockView(  # in the order of its fields: so many keywords would cost more than the rest of the view
            rule.id,
            number,
            self.part,
            rule.clause,
            rule.name,
            shown_as or state,
            self.started_at,
            self.anchor_at,
            self.due_at,
            stopped_at or self.stopped_at,
            breached_at,
            self.calendar.announced_through is not None and self.provisional(),
            self.owner,
            rule.fixed_text if amount is rule.fixed else None if amount is None else amount_text(amount),
            rule.calendar,
            self.by_seq,
            self.policy_version,
            data,
        )

    def provisional(self) -> bool:
        """Whether the due instant leans on days that are not announced yet."""
        if self.due_at is None or self.amount is None:
            return False
        return self.calendar.is_provisional(self.anchor_at, self.due_at, self.amount, self.counting)

    def after_pause(self, since: datetime, until: datetime, count: str) -> tuple[datetime, Paused]:
        """The due instant after a rest, and what all rests so far add to the limit.

        A limit in days moves by the days of its own kind that the rest took up and keeps its time of day; a limit in hours moves by exactly
        the length of the rest, counted as the limit counts; an agreed instant moves by the length of the rest.
        """
        assert self.due_at is not None
        if self.amount is None:
            return self.due_at + (until - since), self.paused + Paused(time=until - since)
        if count == "time" and self.amount.unit in DAY_UNITS:
            length = self.calendar.working_time(since, until) if self.amount.unit == "wd" else until - since
            moved = self.calendar.add_working(self.due_at, length) if self.amount.unit == "wd" else self.due_at + length
            return moved, self.paused + Paused(time=length)
        paused = self.paused + self.calendar.paused(self.amount, since, until, self.counting)
        return self.calendar.due(self.anchor_at, self.amount, self.counting, paused), paused

"""Values that go into the engine and come out of it.

A **case** is its timeline. `Entry` is one line of it, `Standing` is everything that follows from the timeline, the policy, the calendars
and the instant at which it is looked at. All instants are aware UTC, money is whole minor units, ranges are `[start, end)` except that a
deadline includes its instant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

ENTRY_KINDS: frozenset[str] = frozenset((
    "received", "supplemented", "materials_requested", "classified", "accepted", "declined", "acknowledged",
    "assigned", "signed_for", "returned", "transferred", "investigated", "responded", "proposed",
    "approval_requested", "approved", "rejected", "agreed", "disagreed", "implemented", "replied", "resolved",
    "surveyed", "followed_up", "closed", "archived", "reopened", "paused", "resumed", "extension_requested",
    "extended", "escalated", "reported", "handed_over", "reconsideration_requested", "reconsidered", "compensated",
    "withdrawn", "linked", "merged", "split", "corrected", "counted", "uncounted", "policy_changed",
    "calendar_changed", "commented", "step", "penalty_decided", "penalty_waived", "penalty_appealed",
    "penalty_appeal_decided",
))  # fmt: skip
EFFECT_KINDS: frozenset[str] = frozenset(
    ["escalated", "notified", "task", "deemed", "created", "published", "closed", "warned", "reported"]
)
ClockState = Literal["running", "paused", "met", "breached", "superseded", "cancelled", "fired"]


class Actor(Struct, frozen=True, kw_only=True, gc=False):
    """Who did it, in which roles: stamped by the writer, because who heads a unit is known only then."""

    id: str  # staff id, unit, role or `system`
    roles: tuple[str, ...] = ()  # roles and units in which the actor acts
    unit: str | None = None


SYSTEM = Actor(id="system", roles=("system",))


class CountStamp(Struct, frozen=True, kw_only=True, gc=False):
    """What a subject's counter said when the entry was written; the entry's writer asks the subject's case and stamps the answer."""

    subject: str
    before: int  # in the window, without this entry
    added: int
    opened_at: datetime | None = None  # when the window opened, for windows opened by the first
    fires: bool = False
    times: int = 0  # how many times the rule has fired for the subject, this one included


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """One line of a timeline. `data` holds typed, non-free values only: free text is in the vault and referred to by `text_id`."""

    seq: int
    kind: str
    at: datetime
    by: Actor
    data: dict[str, Any] = {}
    counts: dict[str, CountStamp] = {}  # by subject rule
    key: str | None = None  # of the effect that caused it, when `by` is the system

    @property
    def keys(self) -> tuple[str, ...]:
        """The triggers that it is: its kind, and its kind with the step it is about."""
        step = self.data.get("step")
        return (self.kind,) if step is None else (self.kind, f"{self.kind}:{step}")


class ClockView(Struct, frozen=True, gc=False):
    """One run of one clock."""

    rule: str
    run: int  # 0, 1, …: which start of the rule
    part: int  # 0, 1, …: which due instant of that run (a pause or a new policy supersedes the former)
    clause: str | list[str] | None
    name: str | None
    state: ClockState
    started_at: datetime
    anchor_at: datetime  # what the amount counts from
    due_at: datetime | None  # None: only measured
    stopped_at: datetime | None = None
    breached_at: datetime | None = None  # the due instant that was missed
    provisional: bool = False  # reaches days that are not announced yet
    owner: str | None = None
    amount: str | None = None  # as it was counted: "3wd"
    calendar: str = ""
    started_by: int = 0  # seq of the entry that started it; 0: an instant of the engine's own
    policy_version: int = 1
    data: dict[str, Any] = {}


class EffectView(Struct, frozen=True, kw_only=True, gc=False):
    """Something the system does by itself, at the instant it bears."""

    key: str  # (scope, rule, seq of the starting entry, recurrence, rung, addressee): never a due time, a version or a severity
    rule: str
    clause: str | list[str] | None
    kind: str
    at: datetime
    to: str | None = None
    what: str | None = None
    by: str | None = None
    data: dict[str, Any] = {}
    policy_version: int = 1
    silent: bool = False  # of a retroactive change or an import: recorded, told to nobody


class Step(Struct, frozen=True, kw_only=True, gc=False):
    """One line of a computation: `label` names the operation, `value` its result as text."""

    label: str
    value: str
    detail: dict[str, Any] = {}


class PenaltyView(Struct, frozen=True, gc=False):
    """One imposed thing, or one that waits for a decision. `amount_minor` is None where none is fixed."""

    key: str
    rule: str
    clause: str | list[str] | None
    party: str
    kind: str
    at: datetime
    amount_minor: int | None = None
    currency: str = "CNY"
    range_minor: tuple[int | None, int | None] | None = None
    points: int | None = None
    sanction: str | None = None
    state: str | None = None  # None: imposed | needs_decision | replaced | correction | waived | appealed
    number: int | None = None
    because: str | None = None
    multiplier_clause: str | None = None
    data: dict[str, Any] = {}
    steps: tuple[Step, ...] = ()  # the arithmetic
    policy_version: int = 1


class RouteView(Struct, frozen=True, kw_only=True, gc=False):
    rule: str
    clause: str | list[str] | None
    unit: str | None = None
    role: str | None = None
    staff: str | None = None
    as_: str | None = None
    members: tuple[str, ...] = ()
    at: datetime | None = None
    seq: int = 0
    auto: bool = False


class CounterView(Struct, frozen=True, kw_only=True, gc=False):
    rule: str
    clause: str | list[str] | None
    subject: str
    count: int
    at: datetime
    data: dict[str, Any] = {}


class AcceptanceView(Struct, frozen=True, kw_only=True, gc=False):
    accepted: bool
    at: datetime
    reason: str | None = None
    clause: str | list[str] | None = None


class ClassView(Struct, frozen=True, kw_only=True, gc=False):
    """The class of the case; `clauses` says which clause set which part."""

    kind: str | None = None
    category: str | None = None
    severity: str | None = None
    priority: str | int | None = None
    respondent: str | None = None
    clauses: dict[str, str | list[str] | None] = {}


class Refusal(Struct, frozen=True, kw_only=True, gc=False):
    """Why an entry is not taken."""

    rule: str
    clause: str | list[str] | None
    reason: str
    detail: str = ""


class Problem(Struct, frozen=True, kw_only=True, gc=False):
    """A rule that could not be evaluated on this case: visible, never false by silence."""

    rule: str
    path: str
    detail: str
    seq: int


class Standing(Struct, frozen=True, kw_only=True, gc=False):
    """What holds at `now`."""

    seq: int  # of the last entry taken into account
    now: datetime
    policy_version: int
    state: str
    closed: bool
    acceptance: AcceptanceView | None
    classified: ClassView
    outcome: str | None
    routing: tuple[RouteView, ...]
    clocks: tuple[ClockView, ...]
    effects: tuple[EffectView, ...]
    penalties: tuple[PenaltyView, ...]
    counters: tuple[CounterView, ...]
    problems: tuple[Problem, ...]
    next_at: datetime | None  # the next instant at which anything changes by itself
    first_contact: str | None = None
    owner: RouteView | None = None  # who must act now

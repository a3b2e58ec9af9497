"""What is known of a case while it is folded, and the few things that every stage does with it.

The stages are modules of functions over this state: `noting`, `classing`, `accepting`, `clocks`, `acting`, `counting`, `imposing`;
`refusing` answers questions, `changing` goes on under other rules, `case` walks through the events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from heapq import heappush
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from shared.engine.calendar import Calendar, CalendarBook
from shared.engine.calendar.localtime import zone_of
from shared.engine.model import (
    AcceptanceView,
    ClockView,
    CounterView,
    CountStamp,
    EffectView,
    Entry,
    PenaltyView,
    Problem,
    RouteView,
)
from shared.engine.rules import (
    CLASS_PARTS,
    AcceptanceRule,
    ActionRule,
    Clause,
    CompiledPolicy,
    Expr,
    Inputs,
    Rule,
    SubjectRule,
    Value,
    first_of,
)
from shared.engine.runs import Run
from shared.engine.scope import Scope
from shared.policy.cel.problems import EvaluationError

if TYPE_CHECKING:
    from shared.engine.penalties import Liability

CLASS_NAMES: Final = ("kind", "category", "severity", "priority", "respondent_name")
"""Under which name of the complaint each part of the class is found."""

NOTHING_SAID: Final[Mapping[str, Any]] = dict.fromkeys(
    [
        *CLASS_NAMES,
        "channel",
        "anonymous",
        "received_at",
        "complainant",
        "respondent",
        "handler",
        "outcome",
        "state",
        "number",
        "accepted",
        "decline_reason",
    ]
)
ENDS: Final = frozenset({"declined", "withdrawn", "merged"})
"""States in which running limits are cancelled: nobody owes anything any more."""

SYSTEM_ROLES: Final = ("system",)

Counter = Callable[[SubjectRule, str, int, datetime], CountStamp | None]


class Context(Struct, eq=False, gc=False):
    """What a trigger is about, besides the case: put into the scope while its rules are looked at."""

    at: datetime
    data: Mapping[str, Any]
    ref: str  # what effects are keyed by: the entry's seq, or the clock's rule, run and part
    entry: Entry | None = None
    clock_run: Run | None = None
    count: Mapping[str, Any] | None = None
    penalty: Mapping[str, Any] | None = None
    liability: Any = None  # of a trigger `penalty:`, the Liability


class Later(Struct, eq=False, gc=False):
    """An action that waits for its instant."""

    rule: ActionRule
    context: Context
    dropped: bool = False


class Watch(Struct, eq=False, gc=False):
    """Tells whether what some rules read of the case has changed since they were last looked at."""

    inputs: Inputs
    alert: bool = True  # the complaint or its fields were written to
    complaint: Any = None
    fields: Any = None  # as long as the fields are the same, so is their mapping

    def expect_change(self) -> None:
        """Let the rules be looked at again in any case."""
        self.alert = True
        self.fields = None

    def sees_change(self, scope: Scope) -> bool:
        inputs = self.inputs
        if inputs.always:
            return True
        if not self.alert:
            return False
        self.alert = False
        complaint = None if inputs.complaint is None else inputs.complaint(scope.complaint)
        if self.fields is scope.fields and self.complaint == complaint:
            return False
        self.complaint, self.fields = complaint, scope.fields
        return True


class CaseState:
    """One case between two events."""

    __slots__ = (
        "_calendar",
        "acceptance",
        "acceptance_watch",
        "at",
        "calendars",
        "case_kind",
        "class_clauses",
        "class_watch",
        "counted_here",
        "counter",
        "counters",
        "current",
        "decided_by_person",
        "effect_keys",
        "effects",
        "first_contact",
        "former",
        "heap",
        "judged",
        "keeps_records",
        "kept",
        "known_at",
        "last_at",
        "last_start",
        "liabilities",
        "once",
        "owner",
        "policies",
        "policy",
        "problems",
        "queue",
        "route_keys",
        "routes",
        "runs",
        "scope",
        "seq",
        "serial",
        "shown_class",
        "silent_until",
        "state",
        "stated",
        "waiting",
        "while_watch",
        "worked_out",
    )

    def __init__(
        self,
        policies: Mapping[int, CompiledPolicy],
        calendars: CalendarBook,
        *,
        policy_version: int = 1,
        case_kind: str = "complaint",
        counter: Counter | None = None,
    ) -> None:
        self.policies = policies
        self.calendars = calendars
        self.policy = policies[policy_version]
        self.case_kind = case_kind
        self.counter = counter
        self.scope = Scope(self.policy.settings, zone_of(calendars.zone))
        # the case as it stands
        self.seq = 0
        self.at: datetime | None = None
        self.state = self.policy.initial
        self.stated: dict[str, Any] = {}
        self.class_clauses: dict[str, Clause] = {}
        self.acceptance: AcceptanceView | None = None
        self.decided_by_person = False
        self.owner: RouteView | None = None
        self.first_contact: str | None = None
        # what came of it
        self.runs = self.scope.runs
        self.former: list[ClockView] = []
        self.effects: list[EffectView] = []
        self.effect_keys: set[str] = set()
        self.routes: list[RouteView] = []
        self.route_keys: set[tuple[Any, ...]] = set()
        self.liabilities: list[Liability] = []
        self.worked_out: dict[int, list[PenaltyView]] | None = None  # while a standing is made: by liability
        self.once: set[tuple[Any, ...]] = set()
        self.counters: dict[tuple[str, str], CounterView] = {}
        self.counted_here: set[tuple[str, str]] = set()
        self.problems: list[Problem] = []
        # what happened before
        self.last_at: dict[str, datetime] = {}  # when each trigger of an entry came last
        self.last_start: dict[str, Context] = {}  # of clocks with `while`: the latest start
        # what is to come
        self.waiting: list[Later] = []
        self.heap: list[tuple[datetime, int, str, Any, int]] = []
        self.serial = 0
        self.queue: deque[tuple[str, Context]] = deque()
        self.silent_until: datetime | None = None
        self.known_at: datetime | None = None
        self.current: Entry | None = None
        self._calendar: Calendar | None = None
        self.kept = self.policy.kept
        if len(policies) > 1:  # what a later version reads is kept from the beginning
            for version in policies.values():
                self.kept |= version.kept
        self.scope.complaint = {**NOTHING_SAID, "state": self.state}
        self.keeps_records = self.kept.records
        self.scope.collected = {name: [] for name in self.kept.collected}
        self.watch()

    def watch(self) -> None:
        """Look at the rules of this policy for the first time."""
        policy = self.policy
        self.class_watch = Watch(policy.class_inputs)
        self.while_watch = Watch(policy.while_inputs)
        self.acceptance_watch = Watch(policy.acceptance_inputs)
        self.shown_class = self.class_now()
        self.judged: AcceptanceRule | None = None  # the rule of acceptance that applies

    def touch(self) -> None:
        """Say that the complaint or its fields were written to."""
        self.class_watch.alert = self.while_watch.alert = self.acceptance_watch.alert = True

    # -- looking at values -------------------------------------------------------------------------------------------------------------

    @property
    def calendar(self) -> Calendar:
        """The tenant's main calendar, for months and dates."""
        if self._calendar is None:
            at = self.at or self.known_at
            assert at is not None
            self._calendar = self.calendars.at(self.policy.calendar_name, at, at)
        return self._calendar

    def class_now(self) -> tuple[Any, ...]:
        complaint = self.scope.complaint
        return tuple([complaint[name] for name in CLASS_NAMES])

    def holds(self, condition: Expr | None, rule: Rule) -> bool:
        """Whether a condition is true; one that cannot be evaluated is a visible problem, and the rule does not apply."""
        if condition is None:
            return True
        try:
            return condition(self.scope) is True
        except EvaluationError as error:
            self.problem(rule, str(error))
            return False

    def applies(self, condition: Expr | None, rule: Rule) -> bool:
        """Whether a rule applies to its trigger: the trigger's own condition holds, and the rule's."""
        when = rule.when
        return (condition is None or self.holds(condition, rule)) and (when is None or self.holds(when, rule))

    def value(self, value: Value, rule: Rule) -> Any:
        if not callable(value):
            return value
        try:
            return value(self.scope)
        except EvaluationError as error:
            self.problem(rule, str(error))
            return None

    def first(self, values: tuple[Value, ...], rule: Rule) -> str | None:
        try:
            return first_of(values, self.scope)
        except EvaluationError as error:
            self.problem(rule, str(error))
            return None

    def problem(self, rule: Rule, detail: str) -> None:
        problem = Problem(rule=rule.id, path=rule.path, detail=detail, seq=self.seq)
        if problem not in self.problems:
            self.problems.append(problem)

    # -- what happens next -------------------------------------------------------------------------------------------------------------

    def reach(self, at: datetime) -> None:
        """Go on to an instant; never back."""
        if self.at is None or at > self.at:
            self.at = at
            self._calendar = None

    def push(self, at: datetime, what: str, thing: Any, part: int = 0) -> None:
        """Put something on the agenda."""
        self.serial = serial = self.serial + 1
        heappush(self.heap, (at, serial, what, thing, part))

    def trigger(self, key: str, context: Context) -> None:
        """Let what waits for this follow the event at hand."""
        if key in self.policy.on:
            self.queue.append((key, context))

    def clock_event(self, what: str, run: Run, at: datetime) -> None:
        key = run.rule.keys[what]
        seen = self.scope.seen
        seen[key] = seen.get(key, 0) + 1
        if key in self.policy.on:
            self.queue.append((key, Context(at, run.data, run.ref, clock_run=run)))

    def enter(self, context: Context) -> None:
        """Let expressions see what the event is about."""
        scope = self.scope
        scope.data, scope.at = context.data, context.at
        scope.clock_run, scope.count, scope.penalty = context.clock_run, context.count, context.penalty
        entry = context.entry
        if entry is None:
            scope.by, scope.roles, scope.actor_unit = "system", SYSTEM_ROLES, None
        else:
            by = entry.by
            scope.by, scope.roles, scope.actor_unit = by.id, by.roles, by.unit

    def look_at(self, entry: Entry) -> None:
        """Let expressions see what an entry says."""
        self.enter(Context(entry.at, entry.data, str(entry.seq), entry))

    def enter_state(self, state: str, context: Context) -> None:
        self.state = self.scope.complaint["state"] = state
        self.touch()
        self.trigger(f"state:{state}", context)
        if state in ENDS:
            self.queue.append(("end", context))


__all__ = ["CLASS_NAMES", "CLASS_PARTS", "ENDS", "CaseState", "Context", "Counter", "Later", "Watch"]

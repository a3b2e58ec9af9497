"""What is known of a case while it is folded, and the few things that every stage does with it.

The stages are modules of functions over this state: `noting`, `classing`, `accepting`, `clocks`, `acting`, `counting`, `imposing`;
`refusing` answers questions, `changing` goes on under other rules, `case` walks through the events.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from operator import itemgetter
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
    CLASS_NAMES,
    COMPLAINT_PARTS,
    AcceptanceRule,
    ActionRule,
    Clause,
    CompiledPolicy,
    Expr,
    Rule,
    SubjectRule,
    Value,
    first_of,
)
from shared.engine.runs import Run
from shared.engine.scope import Context, Scope
from shared.policy.cel.problems import EvaluationError

if TYPE_CHECKING:
    from shared.engine.penalties import Liability

NOTHING_SAID: Final[dict[str, Any]] = dict.fromkeys(COMPLAINT_PARTS)
ENDS: Final = frozenset({"declined", "withdrawn", "merged"})
"""States in which running limits are cancelled: nobody owes anything any more."""

CLASS_OF: Final[Callable[[Mapping[str, Any]], tuple[Any, ...]]] = itemgetter(*CLASS_NAMES)

Counter = Callable[[SubjectRule, str, int, datetime], CountStamp | None]


class Later(Struct, eq=False, gc=False):
    """An action that waits for its instant."""

    rule: ActionRule
    context: Context
    dropped: bool = False


class CaseState:
    """One case between two events."""

    __slots__ = (
        "acceptance",
        "agenda",
        "alerts",
        "at",
        "calendars",
        "case_kind",
        "class_clauses",
        "counted_here",
        "counter",
        "counters",
        "current",
        "decided_by_person",
        "effect_keys",
        "effects",
        "first_contact",
        "former",
        "is_declined",
        "judged",
        "keeps_records",
        "kept",
        "known_at",
        "last_start",
        "liabilities",
        "looked_at",
        "once",
        "owner",
        "past",
        "policies",
        "policy",
        "problems",
        "queue",
        "route_keys",
        "routes",
        "runs",
        "scope",
        "seq",
        "serials",
        "shown_class",
        "silent_until",
        "state",
        "stated",
        "waiting",
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
        self.is_declined = False
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
        self.past = self.scope.past  # the entries so far
        self.last_start: dict[str, Context] = {}  # of clocks with `while`: the latest start
        # what is to come
        self.waiting: list[Later] = []
        self.agenda: list[tuple[datetime, int, str, Any, int]] = []  # in order; the second part tells equals apart
        self.serials = count()
        self.queue: list[tuple[str, Context]] = []  # what the event at hand has set off
        self.silent_until: datetime | None = None
        self.known_at: datetime | None = None
        self.current: Entry | None = None
        self.kept = self.policy.kept
        if len(policies) > 1:  # what a later version reads is kept from the beginning
            for version in policies.values():
                self.kept |= version.kept
        self.scope.complaint = NOTHING_SAID.copy()
        self.scope.complaint["state"] = self.state
        self.keeps_records = self.kept.records
        if self.kept.collected:
            self.scope.collected = {name: [] for name in self.kept.collected}
        self.watch()

    def watch(self) -> None:
        """Look at the rules of this policy for the first time."""
        self.alerts = self.policy.groups  # the groups of rules of which something that they read was written to
        self.looked_at: dict[
            int, tuple[Any, Any]
        ] = {}  # by group: the fields and parts of the complaint as it saw them
        self.shown_class = self.class_now()
        self.judged: AcceptanceRule | None = None  # the rule of acceptance that applies

    def write(self, part: str, value: Any) -> None:
        """Set a part of the complaint, and let the rules that read it be looked at again."""
        self.scope.complaint[part] = value
        self.alerts |= self.policy.readers[part]

    def expect_change(self, group: int) -> None:
        """Let a group of rules be looked at again in any case."""
        self.alerts |= group & self.policy.groups
        self.looked_at.pop(group, None)

    def sees_change(self, group: int) -> bool:
        """Whether what a group of rules reads of the case has changed since they were last looked at."""
        inputs = self.policy.inputs[group]
        if inputs.always:
            return True
        if not self.alerts & group:
            return False
        self.alerts &= ~group
        scope, known = self.scope, self.looked_at.get(group)
        complaint = None if inputs.complaint is None else inputs.complaint(scope.complaint)
        # As long as the fields are the same, so is their mapping.
        if known is not None and known[0] is scope.fields and known[1] == complaint:
            return False
        self.looked_at[group] = (scope.fields, complaint)
        return True

    # -- looking at values -------------------------------------------------------------------------------------------------------------

    @property
    def calendar(self) -> Calendar:
        """The tenant's main calendar, for months and dates."""
        at = self.at or self.known_at
        assert at is not None
        return self.calendars.at(self.policy.calendar_name, at, at)

    def class_now(self) -> tuple[Any, ...]:
        complaint = self.scope.complaint
        return CLASS_OF(complaint)

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
        try:
            return (condition is None or condition(self.scope) is True) and (when is None or when(self.scope) is True)
        except EvaluationError as error:
            self.problem(rule, str(error))
            return False

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

    def push(self, at: datetime, what: str, thing: Any, part: int = 0) -> None:
        """Put something on the agenda."""
        insort(self.agenda, (at, next(self.serials), what, thing, part))

    def trigger(self, key: str, context: Context) -> None:
        """Let what waits for this follow the event at hand."""
        if key in self.policy.on:
            self.queue.append((key, context))

    def clock_event(self, key: str, run: Run, at: datetime) -> None:
        """Note what became of a clock, and let what waits for it follow."""
        self.scope.happened.append(key)
        if key in self.policy.on:
            self.queue.append((key, Context(at, run.data, run.ref, clock_run=run)))

    def look_at(self, entry: Entry) -> None:
        """Let expressions see what an entry says."""
        self.scope.context = Context(entry.at, entry.data, entry.seq, entry, entry.by)

    def enter_state(self, state: str, context: Context) -> None:
        policy = self.policy
        self.state = self.scope.complaint["state"] = state
        self.alerts |= policy.readers["state"]
        key = "state:" + state
        if key in policy.on:
            self.queue.append((key, context))
        if state in ENDS:
            self.queue.append(("end", context))


__all__ = ["ENDS", "CaseState", "Context", "Counter", "Later"]

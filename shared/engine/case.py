"""The engine: a case is its timeline, and `fold` says what follows from it.

A small discrete-event loop walks entries and due instants in one order; at one instant entries come first, then due instants. What one
event sets off goes through the stages class → acceptance → state → clocks → routing → effects → counts → penalties; what a stage finds out (a new state, a
breach, an imposed penalty) is an event of its own, handled after the one that caused it. Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from heapq import heappop, heappush
from typing import Any

from shared.engine.amounts import Amount, parse_amount
from shared.engine.calendar import Calendar, CalendarBook
from shared.engine.duties import Occurrence, occurrences
from shared.engine.model import (
    AcceptanceView,
    Actor,
    ClassView,
    ClockView,
    CounterView,
    CountStamp,
    EffectView,
    Entry,
    PenaltyView,
    Problem,
    Refusal,
    RouteView,
    Standing,
)
from shared.engine.penalties import Decision, Liability, decision_limits
from shared.engine.rules import (
    AcceptanceRule,
    ActionRule,
    Clause,
    ClockRule,
    CompiledPolicy,
    Do,
    DutyRule,
    Expr,
    GateRule,
    Handlers,
    Inputs,
    PenaltyRule,
    RouteRule,
    Rule,
    Rung,
    SubjectRule,
    Value,
    clauses_of,
    first_of,
)
from shared.engine.runs import INSTANT, Run
from shared.engine.scope import Scope, count_record, penalty_record
from shared.money import parse_minor
from shared.policy.cel.problems import EvaluationError

CLASS_PARTS = ("kind", "category", "severity", "priority", "respondent")
CLASS_NAMES = {"respondent": "respondent_name"}
COMPLAINT_PARTS = (
    *CLASS_PARTS[:4],
    "channel",
    "anonymous",
    "received_at",
    "complainant",
    "respondent",
    "respondent_name",
    "handler",
    "outcome",
    "state",
    "number",
    "accepted",
    "decline_reason",
)
STATE_OF_KIND = {
    "accepted": "accepted",
    "declined": "declined",
    "assigned": "assigned",
    "resolved": "resolved",
    "closed": "closed",
    "reopened": "reopened",
    "archived": "archived",
    "withdrawn": "withdrawn",
    "handed_over": "handed_over",
}
ENDS = frozenset({"declined", "withdrawn", "merged"})
"""States in which running limits are cancelled: nobody owes anything any more."""

MOST_DERIVED = 500
"""How many events one event may set off; the linter refuses rules that create their own trigger, this is the net below it."""

NOTHING_SAID: Mapping[str, Any] = dict.fromkeys(COMPLAINT_PARTS)

Counter = Callable[[SubjectRule, str, int, datetime], CountStamp | None]
_NONE = Handlers()


class LoopError(Exception):
    """Rules set each other off without end."""


class Context:
    """What a trigger is about, besides the case: put into the scope while its rules are looked at."""

    __slots__ = ("at", "clock_run", "count", "data", "entry", "liability", "penalty", "ref")

    def __init__(
        self,
        at: datetime,
        data: Mapping[str, Any],
        ref: str,
        *,
        entry: Entry | None = None,
        clock_run: Run | None = None,
        count: Mapping[str, Any] | None = None,
        penalty: Mapping[str, Any] | None = None,
        liability: Liability | None = None,
    ) -> None:
        self.at = at
        self.data = data
        self.ref = ref  # what effects are keyed by: the entry's seq, or the clock's rule, run and part
        self.entry = entry
        self.clock_run = clock_run
        self.count = count
        self.penalty = penalty
        self.liability = liability


class Watch:
    """Tells whether what some rules read of the case has changed since they were last looked at."""

    __slots__ = ("complaint", "fields", "inputs")

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.complaint: Any = None
        self.fields: Any = None  # as long as the fields are the same, so is their mapping

    def sees_change(self, scope: Scope) -> bool:
        inputs = self.inputs
        if inputs.always:
            return True
        complaint = None if inputs.complaint is None else inputs.complaint(scope.complaint)
        if self.fields is scope.fields and self.complaint == complaint:
            return False
        self.complaint, self.fields = complaint, scope.fields
        return True


class Later:
    """An action that waits for its instant."""

    __slots__ = ("context", "dropped", "rule")

    def __init__(self, rule: ActionRule, context: Context) -> None:
        self.rule = rule
        self.context = context
        self.dropped = False


class Case:
    """The state of one case while entries are applied and time goes on."""

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
        self.scope = Scope(self, self.policy.settings)
        self.seq = 0
        self.at: datetime | None = None
        self.state = self.policy.initial
        self.stated: dict[str, Any] = {}
        self.class_clauses: dict[str, Clause] = {}
        self.acceptance: AcceptanceView | None = None
        self.decided_by_person = False
        self.runs: dict[str, list[Run]] = {}
        self.former: list[ClockView] = []
        self.effects: list[EffectView] = []
        self.effect_keys: set[str] = set()
        self.routes: list[RouteView] = []
        self.route_keys: set[tuple[Any, ...]] = set()
        self.liabilities: list[Liability] = []
        self.once: set[tuple[Any, ...]] = set()
        self.counts: dict[str, Any] = {}
        self.counters: dict[tuple[str, str], CounterView] = {}
        self.counted_here: set[tuple[str, str]] = set()
        self.problems: list[Problem] = []
        self.seen_entries: list[dict[str, Any]] = []
        self.last_at: dict[str, datetime] = {}  # when each trigger of an entry came last
        self.last_start: dict[str, Context] = {}  # of clocks with `while`: the latest start
        self.waiting: list[Later] = []
        self.heap: list[tuple[datetime, int, str, Any, int]] = []
        self.serial = 0
        self.queue: deque[tuple[str, Context]] = deque()
        self.derived = 0
        self.silent_until: datetime | None = None
        self.known_at: datetime | None = None
        self.owner: RouteView | None = None
        self.first_contact: str | None = None
        self.current: Entry | None = None
        self._calendar: Calendar | None = None
        self.kept = self.policy.kept
        if len(policies) > 1:  # what a later version reads is kept from the beginning
            for version in policies.values():
                self.kept |= version.kept
        self.scope.complaint = {**NOTHING_SAID, "state": self.state}
        self.scope.collected = {name: [] for name in self.kept.collected}
        self._watch()

    def _watch(self) -> None:
        """Look at the rules of this policy for the first time."""
        self.class_watch = Watch(self.policy.class_inputs)
        self.while_watch = Watch(self.policy.while_inputs)
        self.acceptance_watch = Watch(self.policy.acceptance_inputs)
        self.shown_class = self._class()
        self.restated = True  # a part of the class was stated and the rules have not been asked since
        self.unsettled = True  # a clock with `while` was started and not looked at since
        self.judged: AcceptanceRule | None = None  # the rule of acceptance that applies

    # -- looking at values -------------------------------------------------------------------------------------------------------------

    @property
    def calendar(self) -> Calendar:
        """The tenant's main calendar, for months and dates."""
        if self._calendar is None:
            at = self.at or self.known_at
            assert at is not None
            self._calendar = self.calendars.at(self.policy.calendar_name, at, at)
        return self._calendar

    def holds(self, condition: Expr | None, rule: Rule) -> bool:
        """Whether a condition is true; one that cannot be evaluated is a visible problem, and the rule does not apply."""
        if condition is None:
            return True
        try:
            return condition(self.scope) is True
        except EvaluationError as error:
            self._problem(rule, str(error))
            return False

    def value(self, value: Value, rule: Rule) -> Any:
        if not callable(value):
            return value
        try:
            return value(self.scope)
        except EvaluationError as error:
            self._problem(rule, str(error))
            return None

    def first(self, values: tuple[Value, ...], rule: Rule) -> str | None:
        try:
            return first_of(values, self.scope)
        except EvaluationError as error:
            self._problem(rule, str(error))
            return None

    def _problem(self, rule: Rule, detail: str) -> None:
        problem = Problem(rule=rule.id, path=rule.path, detail=detail, seq=self.seq)
        if problem not in self.problems:
            self.problems.append(problem)

    # -- the loop ----------------------------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Take one entry, after everything that was due before it."""
        self.advance(entry.at, inclusive=False)
        self.at = entry.at
        self._calendar = None
        self.seq = entry.seq
        self.current = entry
        if entry.kind == "policy_changed":
            self._change_policy(entry)
        elif entry.kind == "calendar_changed":
            self._change_calendar(entry)
        if (
            self.case_kind == "duty" and entry.kind == "received"
        ):  # the first line of a year of duties: nobody complained
            self.begin_duties(entry.at, datetime.fromisoformat(str(entry.data["until"])))
            self.current = None
            return
        self._look_at(entry)
        keys = _keys(entry)
        self._note(entry, keys)
        context = Context(entry.at, entry.data, str(entry.seq), entry=entry)
        if self.case_kind == "complaint" and entry.kind == "received" and self.policy.accept_at_receipt:
            if self.policy.accept_when is None or self.policy.accept_when(self.scope) is True:
                self.acceptance = AcceptanceView(accepted=True, at=entry.at)
                self.scope.complaint["accepted"] = True
        if self.policy.classifies:
            self._classify(keys, context)
        self._accept(entry, keys, context)
        self._handle(keys, context)
        if entry.kind == "counted":
            self._take_counts(entry, context)
        self._drain()
        if entry.kind in ("merged", "split") and entry.data.get("deadlines"):
            self._tighten(entry)
        self.current = None

    def advance(self, to: datetime, *, inclusive: bool = True) -> None:
        """Handle what is due up to `to`, in order; `to` itself only when inclusive."""
        heap = self.heap
        while heap and (heap[0][0] < to or (inclusive and heap[0][0] == to)):
            _, _, what, thing, part = heappop(heap)
            self._due(what, thing, part)
            self._drain()

    def _push(self, at: datetime, what: str, thing: Any, part: int = 0) -> None:
        self.serial += 1
        heappush(self.heap, (at, self.serial, what, thing, part))

    def _due(self, what: str, thing: Any, part: int) -> None:
        if what == "due":
            run: Run = thing
            if run.part != part or run.state != "running" or run.due_at is None:
                return
            due = run.due_at
            self._at(due)
            if run.rule.timer:
                run.state, run.stopped_at = "fired", None
                self._clock_event("fired", run, due)
                self._repeat(run, due)
            else:
                run.state, run.breached_at = "breached", due
                self._clock_event("breach", run, due)
        elif what == "rung":
            run, rung = thing
            if run.part != part or not run.active or run.state == "paused" or run.due_at is None:
                return
            if rung.before is not None and run.state != "running":
                return
            at = self._rung_at(run, rung)
            self._at(at)
            self._enter(Context(at, run.data, _run_ref(run), clock_run=run))
            if self.holds(rung.when, rung):
                self._do(rung, rung.do, at, f"{_run_ref(run)}:{rung.id}")
        elif what == "later":
            later: Later = thing
            if later.dropped:
                return
            self.waiting.remove(later)
            self._at(later.context.at)
            self._enter(later.context)
            self._act(later.rule, later.context)
        elif what == "duty":
            self._begin_duty(thing)

    def _at(self, at: datetime) -> None:
        if self.at is None or at > self.at:
            self.at = at
            self._calendar = None

    def _drain(self) -> None:
        """Handle what the last event set off, until all is quiet."""
        count = 0
        while self.queue:
            count += 1
            if count > MOST_DERIVED:
                raise LoopError("the rules set each other off without end")
            key, context = self.queue.popleft()
            self._enter(context)
            self._handle((key,), context)

    def _clock_event(self, what: str, run: Run, at: datetime) -> None:
        key = f"{what}:{run.rule.id}"
        self.scope.seen[key] = self.scope.seen.get(key, 0) + 1
        if key in self.policy.on:
            self.queue.append((key, Context(at, run.data, _run_ref(run), clock_run=run)))

    def _trigger(self, key: str, context: Context) -> None:
        if key in self.policy.on:
            self.queue.append((key, context))

    def _enter(self, context: Context) -> None:
        scope = self.scope
        scope.data, scope.at = context.data, context.at
        scope.clock_run, scope.count, scope.penalty = context.clock_run, context.count, context.penalty
        if context.entry is None:
            scope.by, scope.roles, scope.actor_unit = "system", ["system"], None
        else:
            self._actor(context.entry.by)

    def _actor(self, actor: Actor) -> None:
        scope = self.scope
        scope.by, scope.roles, scope.actor_unit = actor.id, list(actor.roles), actor.unit

    # -- what an entry says ------------------------------------------------------------------------------------------------------------

    def _look_at(self, entry: Entry) -> None:
        scope = self.scope
        scope.data, scope.at = entry.data, entry.at
        scope.clock_run = scope.count = scope.penalty = None
        self._actor(entry.by)

    def _note(self, entry: Entry, keys: tuple[str, ...]) -> None:
        """Take over what the entry states, and remember it."""
        scope, data = self.scope, entry.data
        complaint = scope.complaint
        if entry.kind == "received":
            for part in CLASS_PARTS[:4]:
                if data.get(part) is not None:
                    self.stated[part] = data[part]
                complaint[part] = data.get(part)
            complaint["channel"] = data.get("channel")
            complaint["anonymous"] = bool(data.get("anonymous", False))
            complaint["received_at"] = entry.at
            complaint["complainant"] = data.get("complainant") or {}
            complaint["respondent"] = dict(data.get("respondent") or {})
            complaint["handler"] = dict(data.get("handler") or {})
            complaint["number"] = data.get("number")
            scope.fields = dict(data.get("fields") or {})
            self.restated = True
            self.first_contact = scope.fields.get("first_receiver") or entry.by.id
        elif entry.kind != "step":
            parts = ("category", "severity", "priority")
            for part in (*parts, "kind") if entry.kind in ("classified", "corrected") else parts:
                if data.get(part) is not None:
                    self.stated[part] = complaint[part] = data[part]
                    self.class_clauses.pop(part, None)  # no rule set it any more
                    self.restated = True
            if data.get("outcome") is not None:
                complaint["outcome"] = data["outcome"]
            if entry.kind == "assigned":
                named = {part: data[part] for part in ("staff", "unit") if data.get(part) is not None}
                complaint["handler"] = {**(complaint["handler"] or {}), **named}
            if entry.kind == "withdrawn":
                complaint["outcome"] = "withdrawn"
            if entry.kind == "corrected" and data.get("respondent_of"):
                complaint["respondent"] = dict(data["respondent_of"])
        if isinstance(data.get("fields"), dict) and entry.kind != "received":
            scope.fields = {**scope.fields, **data["fields"]}
        kept = self.kept
        for key in keys:
            scope.seen[key] = scope.seen.get(key, 0) + 1
            self.last_at[key] = entry.at
            if kept.last is None or key in kept.last:
                scope.last[key] = _record(entry, key)
        if kept.entries:
            self.seen_entries.append(_record(entry, keys[-1]))
        for name in kept.collected:
            value = data.get(name)
            if value.__class__ is list and name != "next_dates":
                known = scope.collected[name]
                known.extend(one for one in value if isinstance(one, str) and one not in known)
            elif value.__class__ is str and value not in scope.collected[name]:  # one name is a list of one
                scope.collected[name].append(value)

    def _class(self) -> dict[str, Any]:
        return {part: self.scope.complaint[CLASS_NAMES.get(part, part)] for part in CLASS_PARTS}

    def _classify(self, keys: tuple[str, ...], context: Context) -> None:
        """Set the class anew: rules with `override` before what was stated, what was stated before the other rules."""
        policy, complaint = self.policy, self.scope.complaint
        handlers = [one for key in keys if (one := policy.on.get(key)) is not None and one.classes]
        if not (self.class_watch.sees_change(self.scope) or self.restated or handlers):
            return
        self.restated = False
        former = self.shown_class
        chosen = self._chosen()
        for one in handlers:
            for condition, rule in one.classes:
                if self.holds(condition, rule) and self.holds(rule.when, rule):
                    for part, value in rule.set:
                        found = self.value(value, rule)
                        chosen[part] = (found, rule.clause)
                        self.stated[part] = found
                        self.class_clauses[part] = rule.clause
                        self.restated = True
        for part in CLASS_PARTS:
            name = CLASS_NAMES.get(part, part)
            if part in chosen:
                complaint[name], self.class_clauses[part] = chosen[part]
            elif part in self.stated:
                complaint[name] = self.stated[part]
            else:
                complaint[name] = None
                self.class_clauses.pop(part, None)
        self.shown_class = self._class()
        entry = context.entry
        for part, shown in self.shown_class.items():
            if (
                shown != former[part]
                or (shown and entry is not None and entry.kind == "received")
                or (entry is not None and entry.kind == "classified" and entry.data.get(part) is not None)
            ):
                self._trigger(f"class:{part}", context)

    def _chosen(self) -> dict[str, tuple[Any, Clause]]:
        """What the rules without a trigger set, and by which clause."""
        chosen: dict[str, tuple[Any, Clause]] = {}
        forced: set[str] = set()
        for rule in self.policy.classes:
            wanted = [
                (part, value)
                for part, value in rule.set
                if (part not in chosen or (rule.override and part not in forced))
                and (rule.override or part not in self.stated)
            ]
            if not wanted or not self.holds(rule.when, rule):
                continue
            for part, value in wanted:
                chosen[part] = (self.value(value, rule), rule.clause)
                if rule.override:
                    forced.add(part)
        return chosen

    def _accept(self, entry: Entry, keys: tuple[str, ...], context: Context) -> None:
        before = self.acceptance
        complaint = self.scope.complaint
        if entry.kind == "accepted":
            self.acceptance, self.decided_by_person = AcceptanceView(accepted=True, at=entry.at), True
        elif entry.kind == "declined":
            reason = entry.data.get("reason")
            clause = self.policy.decline_clauses.get(str(reason))
            self.acceptance = AcceptanceView(accepted=False, at=entry.at, reason=reason, clause=clause)
            self.decided_by_person = True
        for key in keys:
            for condition, rule in self.policy.on.get(key, _NONE).acceptance:
                if self.holds(condition, rule) and self.holds(rule.when, rule):
                    self._accept_by(rule, entry.at)
                    self.decided_by_person = True
                    break
        if not self.decided_by_person:
            if self.acceptance_watch.sees_change(self.scope):
                self.judged = next((rule for rule in self.policy.acceptance if self.holds(rule.when, rule)), None)
            standing = self.judged
            if standing is not None:
                if (
                    self.acceptance is None
                    or self.acceptance.accepted != standing.accepted
                    or self.acceptance.clause != standing.clause
                ):
                    self._accept_by(standing, entry.at)
            elif self.acceptance is not None and not self.acceptance.accepted:
                self.acceptance = AcceptanceView(accepted=True, at=entry.at) if self.policy.accept_at_receipt else None
        if self.acceptance is before and entry.kind != "received":
            return
        complaint["accepted"] = None if self.acceptance is None else self.acceptance.accepted
        complaint["decline_reason"] = None if self.acceptance is None else self.acceptance.reason
        if self.acceptance is not None:
            self._trigger("decision:accepted" if self.acceptance.accepted else "decision:declined", context)

    def _accept_by(self, rule: AcceptanceRule, at: datetime) -> None:
        reason = None if rule.accepted else self.value(rule.reason, rule)
        clause = (
            rule.clause if rule.clause is not None or rule.accepted else self.policy.decline_clauses.get(str(reason))
        )
        self.acceptance = AcceptanceView(accepted=rule.accepted, at=at, reason=reason, clause=clause)

    # -- the stages --------------------------------------------------------------------------------------------------------------------

    def _handle(self, keys: tuple[str, ...], context: Context) -> None:
        if keys == ("end",):
            for runs in self.runs.values():
                for run in runs:
                    if run.active and run.state_at(context.at) != "breached":
                        run.state, run.stopped_at = "cancelled", context.at
            return
        on = self.policy.on
        found = [on[key] for key in keys if key in on]
        self._change_state(keys, found, context)
        if found:
            for handlers in found:
                self._stop_clocks(handlers, keys, context)
            for handlers in found:
                for condition, clock in handlers.starts:
                    if condition is None or self.holds(condition, clock):
                        self._start(clock, context)
        if self.policy.whiles and (
            context.entry is not None or any(key.startswith(("class:", "state:", "decision:")) for key in keys)
        ):
            self._reconsider(context)
        for handlers in found:
            for condition, route in handlers.routes:
                if (condition is None or self.holds(condition, route)) and self.holds(route.when, route):
                    self._route(route, context)
            for condition, action in handlers.unless:
                if condition is None or self.holds(condition, action):
                    for later in [later for later in self.waiting if later.rule is action]:
                        later.dropped = True
                        self.waiting.remove(later)
            for condition, action in handlers.actions:
                if (condition is None or self.holds(condition, action)) and self.holds(action.when, action):
                    self._plan(action, context)
            for condition, subject in handlers.subjects:
                if (condition is None or self.holds(condition, subject)) and self.holds(subject.when, subject):
                    self._count(subject, context)
        if context.entry is not None and keys[0] == context.entry.kind and keys[0].startswith("penalty_"):
            self._decide(context.entry, context)
        for handlers in found:
            for condition, penalty in handlers.penalties:
                if (condition is None or self.holds(condition, penalty)) and self.holds(penalty.when, penalty):
                    self._impose(penalty, keys, context)

    def _change_state(self, keys: tuple[str, ...], found: list[Handlers], context: Context) -> None:
        entered: str | None = None
        ruled = False
        for handlers in found:
            for condition, rule in handlers.states:
                ruled = True
                if (condition is None or self.holds(condition, rule)) and self.holds(rule.when, rule):
                    entered = rule.state
        entry = context.entry
        if entered is None and not ruled and entry is not None and keys[0] == entry.kind:
            usual = STATE_OF_KIND.get(entry.kind)
            words = self.policy.document.vocabulary.states
            if entry.kind == "merged" and entry.data.get("into"):
                usual, words = "merged", {}
            if usual is not None and (not words or usual in words or usual in ("withdrawn", "handed_over")):
                entered = usual
        if entered is not None:
            self._enter_state(entered, context)

    def _enter_state(self, state: str, context: Context) -> None:
        self.state = self.scope.complaint["state"] = state
        self._trigger(f"state:{state}", context)
        if state in ENDS:
            self.queue.append(("end", context))

    def _stop_clocks(self, handlers: Handlers, keys: tuple[str, ...], context: Context) -> None:
        at = context.at
        for condition, clock, pause in handlers.pauses:
            if condition is None or self.holds(condition, clock):
                for run in self.runs.get(clock.id, ()):
                    if run.state == "running" and (run.due_at is None or at <= run.due_at):
                        run.state, run.paused_at, run.pause_rule = "paused", at, pause
        for condition, clock, pause in handlers.resumes:
            if condition is None or self.holds(condition, clock):
                for run in self.runs.get(clock.id, ()):
                    if run.state == "paused" and run.pause_rule is pause:
                        self._resume(run, at)
        for condition, clock in handlers.stops:
            if condition is None or self.holds(condition, clock):
                self._stop(clock, keys, context)
        for condition, clock in handlers.cancels:
            if condition is None or self.holds(condition, clock):
                for run in self.runs.get(clock.id, ()):
                    if run.active:
                        if run.state != "breached":
                            run.state = "cancelled"
                        run.stopped_at = at

    def _stop(self, clock: ClockRule, keys: tuple[str, ...], context: Context) -> None:
        active = [run for run in self.runs.get(clock.id, ()) if run.active]
        if clock.repeat_count is not None:
            active = active[:1]
        if self.case_kind == "duty":
            active = _turns(active, context.data)
        for run in active:
            if clock.stop_all:
                run.expected.difference_update(keys)
                if run.expected:
                    continue
            if run.state_at(context.at) == "breached":
                run.state, run.breached_at = "breached", run.due_at
            else:
                run.state = "met"
            run.stopped_at = context.at
            self._clock_event("met" if run.state == "met" else "late", run, context.at)
            self._repeat(run, context.at)

    def _repeat(self, run: Run, at: datetime) -> None:
        """An open-ended series: the next begins where the last ended."""
        rule = run.rule
        if rule.repeat_every is None or rule.repeat_count is not None:
            return
        if self.state in self.policy.closed and not rule.repeat_after_closing:
            return
        self._begin(rule, Context(at, run.data, _run_ref(run), clock_run=run), anchor=run.due_at or at)

    def _start(self, rule: ClockRule, context: Context) -> None:
        if rule.while_ is not None:
            self.last_start[rule.id] = context
            self.unsettled = True
            if not self.holds(rule.while_, rule):
                return
        if self.holds(rule.when, rule):
            self._begin(rule, context)

    def _begin(self, rule: ClockRule, context: Context, anchor: datetime | None = None) -> None:
        if rule.while_ is not None:
            self.unsettled = True
        active = [run for run in self.runs.get(rule.id, ()) if run.active]
        if active and rule.again == "ignore":
            return
        if rule.again == "restart":
            for run in active:
                self._supersede(run, context.at)
        for other in rule.supersedes:
            for run in self.runs.get(other, ()):
                if run.active and (other != rule.id or run in active):
                    self._supersede(run, context.at)
        count = rule.repeat_count or 1
        base = anchor
        if base is None:
            base = context.at
            if rule.anchor is not None:
                found = self.value(rule.anchor, rule)
                if found == "received":
                    found = self.scope.complaint.get("received_at")
                if isinstance(found, datetime):
                    base = found
                elif found is not None:
                    self._problem(rule, "the anchor is no instant")
        for place in range(count):
            runs = self.runs.setdefault(rule.id, [])
            run = Run(rule, len(runs), context.at, self.seq if context.entry is not None else 0, self.policy.version)
            run.anchor_at = base
            run.calendar = self.calendars.at(rule.calendar, context.at, context.at)
            run.counting = rule.counting
            run.owner = self.first(rule.owner, rule)
            run.data = {name: self.value(value, rule) for name, value in rule.data}
            runs.append(run)
            self._set_due(run, place)
            self._arm(run)
            self._clock_event("started", run, context.at)
            if rule.inside:
                self._check_inside(run, context)

    def _set_due(self, run: Run, place: int = 0) -> None:
        run.amount, run.due_at = self._limit(run, place)

    def _limit(self, run: Run, place: int) -> tuple[Amount | None, datetime | None]:
        """The run's amount and due instant under its rule; (None, instant) for one that was agreed, (None, None) where nothing is set."""
        rule, calendar, counting = run.rule, run.calendar, run.counting
        assert calendar is not None
        assert counting is not None
        limit: Any = None
        for condition, value in rule.cases:
            if condition is None or self.holds(condition, rule):
                limit = self.value(value, rule)
                break
        if isinstance(limit, datetime):
            return None, limit
        every = rule.repeat_every
        if every is not None and (limit is None or place):
            limit = Amount(n=every.n * (place + 1), unit=every.unit, at=every.at)
        if isinstance(limit, str):
            try:
                limit = parse_amount(limit)
            except ValueError as error:
                self._problem(rule, str(error))
                return None, None
        if limit is None:
            return None, None
        return limit, calendar.due(run.anchor_at, limit, counting, run.paused)

    def _arm(self, run: Run) -> None:
        """Put the run's instants on the agenda."""
        if run.due_at is None:
            return
        self._push(run.due_at if run.rule.timer else run.due_at + INSTANT, "due", run, run.part)
        for rung in run.rule.rungs:
            at = self._rung_at(run, rung)
            if rung.before is not None and at <= run.started_at:
                continue
            self._push(
                at if rung.before is not None or rung.after is None or rung.after.n else run.due_at + INSTANT,
                "rung",
                (run, rung),
                run.part,
            )

    def _rung_at(self, run: Run, rung: Rung) -> datetime:
        assert run.due_at is not None
        assert run.calendar is not None
        assert run.counting is not None
        if rung.before is not None:
            return run.calendar.subtract(run.due_at, rung.before)
        if rung.after is None or rung.after.n == 0:
            return run.due_at
        return run.calendar.due(run.due_at, rung.after, run.counting)

    def _supersede(self, run: Run, at: datetime) -> None:
        """A limit that another takes the place of; one that is breached stays breached and can still be stopped."""
        if run.state_at(at) == "breached":
            return
        run.state = "superseded"
        run.stopped_at = at

    def _resume(self, run: Run, at: datetime) -> None:
        run.state = "running"
        paused_at, run.paused_at = run.paused_at, None
        if run.due_at is None or paused_at is None:
            return
        due, run.paused = run.after_pause(paused_at, at, run.pause_rule.count)
        run.pauses.append((paused_at, at))
        if due == run.due_at:
            self._arm(run)  # what was on the agenda may have come and gone while it rested
            return
        self._move(run, due, at)
        if run.paused.days:
            run.data = {**run.data, "paused_working_days": run.paused.days}

    def _move(self, run: Run, due: datetime, at: datetime) -> None:
        """Give the run another due instant; the former one stays visible as superseded."""
        former = run.view(at)
        self.former.append(_as_superseded(former, at))
        run.part += 1
        run.due_at = due
        self._arm(run)

    def _check_inside(self, run: Run, context: Context) -> None:
        outer = [
            one.due_at
            for name in run.rule.inside
            for one in self.runs.get(name, ())
            if one.active and one.due_at is not None
        ]
        if run.due_at is None or not outer or run.due_at <= min(outer):
            return
        before = self.scope.clock_run
        self.scope.clock_run = run
        self._do(run.rule, run.rule.inside_do, context.at, f"{_run_ref(run)}:inside")
        self.scope.clock_run = before

    def _reconsider(self, context: Context) -> None:
        """Clocks that depend on the class: out when it no longer fits, in when it does now."""
        if not (self.while_watch.sees_change(self.scope) or self.unsettled):
            return
        self.unsettled = False
        for rule in self.policy.whiles:
            start = self.last_start.get(rule.id)
            if start is None:
                continue
            if not self.holds(rule.while_, rule):
                for run in self.runs.get(rule.id, ()):
                    if run.active:
                        self._supersede(run, context.at)
            elif not self.runs.get(rule.id):
                self.unsettled = True  # it may start yet
                if start is context or self._ended(rule, start):
                    continue
                moved = Context(context.at, start.data, context.ref, entry=context.entry)
                self._enter(moved)
                if self.holds(rule.when, rule):
                    self._begin(
                        rule, moved, anchor=start.at if rule.reanchor == "start" and rule.anchor is None else None
                    )
                self._enter(context)

    def _ended(self, rule: ClockRule, start: Context) -> bool:
        """Whether the step that the clock waits for was already done after its start."""
        ends = self.policy.stop_triggers.get(rule.id, ())
        return any(
            (at := self.last_at.get(key)) is not None
            and at >= start.at
            and not (self.current is not None and at == self.current.at)
            for key in ends
        )

    def _route(self, rule: RouteRule, context: Context) -> None:
        unit, role, staff = (self.value(part, rule) for part in (rule.unit, rule.role, rule.staff))
        members = self.value(rule.members, rule) or ()
        as_ = self.value(rule.as_, rule)
        names = unit if isinstance(unit, list) else [unit]
        for name in names:
            if name is None and role is None and staff is None:
                continue
            key = (name, role, staff, as_, rule.id, context.ref)
            if key in self.route_keys:
                continue
            self.route_keys.add(key)
            route = RouteView(
                rule=rule.id,
                clause=rule.clause,
                unit=name,
                role=role,
                staff=staff,
                as_=as_,
                members=tuple(members) if isinstance(members, list | tuple) else (str(members),),
                at=context.at,
                seq=self.seq,
                auto=rule.auto,
            )
            self.routes.append(route)
            if as_ in (None, "lead", "handling_owner", "first_responsible"):
                self.owner = (
                    route
                    if self.owner is None or (context.entry is not None and context.entry.kind != "received")
                    else self.owner
                )

    def _plan(self, rule: ActionRule, context: Context) -> None:
        if rule.once:
            if (rule.id,) in self.once:
                return
            self.once.add((rule.id,))
        if rule.after is None:
            self._act(rule, context)
            return
        at = self.value(rule.after, rule)
        if isinstance(at, str):
            try:
                at = parse_amount(at)
            except ValueError as error:
                self._problem(rule, str(error))
                return
        if isinstance(at, Amount):
            at = self.calendar.due(context.at, at, self.policy.counting)
        if not isinstance(at, datetime):
            return  # nothing set: measured only
        moved = Context(
            at,
            context.data,
            context.ref,
            entry=context.entry,
            clock_run=context.clock_run,
            count=context.count,
            penalty=context.penalty,
        )
        later = Later(rule, moved)
        self.waiting.append(later)
        self._push(at, "later", later)

    def _act(self, rule: ActionRule, context: Context) -> None:
        self._do(rule, rule.do, context.at, context.ref)
        state = rule.state
        if state is None and any(do.kind == "closed" and do.what is None for do in rule.do):
            state = "closed"
        if state is not None:
            self._enter_state(state, context)
        self._trigger(f"action:{rule.id}", context)

    def _do(self, rule: Rule, todo: tuple[Do, ...], at: datetime, ref: str) -> None:
        for place, do in enumerate(todo):
            to = self.value(do.to, rule)
            what = self.value(do.what, rule)
            by = self.value(do.by, rule)
            data = {name: self.value(value, rule) for name, value in do.data}
            for addressee in to if isinstance(to, list | tuple) else (to,):
                key = f"{rule.id}:{ref}:{place}:{addressee or ''}"
                if key in self.effect_keys:
                    continue
                self.effect_keys.add(key)
                self.effects.append(
                    EffectView(
                        key=key,
                        rule=rule.id,
                        clause=rule.clause,
                        kind=do.kind,
                        at=at,
                        to=addressee,
                        what=what,
                        by=by,
                        data=data,
                        policy_version=self.policy.version,
                        silent=self.silent_until is not None and at <= self.silent_until,
                    )
                )

    def _count(self, rule: SubjectRule, context: Context) -> None:
        subject = self.first(rule.subject, rule)
        if subject is None:
            return
        added = self.value(rule.add, rule)
        if not isinstance(added, int) or added == 0:
            return
        if rule.once_per_case and (rule.id, subject) in self.counted_here:
            return
        self.counted_here.add((rule.id, subject))
        stamp = self.current.counts.get(rule.id) if self.current is not None else None
        if stamp is None and self.counter is not None:
            stamp = self.counter(rule, subject, added, context.at)
        if stamp is None:
            return
        self._counted(rule, stamp, context)

    def _take_counts(self, entry: Entry, context: Context) -> None:
        """A count that no entry caused (a breach) reaches the case as an entry of its own."""
        for name, stamp in entry.counts.items():
            rule = self.policy.subjects.get(name)
            if rule is not None:
                self._counted(rule, stamp, context)

    def _counted(self, rule: SubjectRule, stamp: CountStamp, context: Context) -> None:
        record = count_record(rule.id, stamp)
        self.counts[rule.id] = record
        if self.policy.classes:  # a rule may classify by the count
            self._classify((), Context(context.at, context.data, context.ref))
        before = self.scope.count
        self.scope.count = record
        data = {name: self.value(value, rule) for name, value in rule.data}
        self.scope.count = before
        if data.get("period") in ("day", "month", "quarter", "half", "year"):
            data["period"] = self.calendar.period(context.at, data["period"])
        if rule.show:
            self.counters[rule.id, stamp.subject] = CounterView(
                rule=rule.id,
                clause=rule.clause,
                subject=stamp.subject,
                count=stamp.before + stamp.added,
                at=context.at,
                data=data,
            )
        if stamp.fires or (rule.more_than is None and rule.at_least is None):
            moved = Context(
                context.at, context.data, context.ref, entry=context.entry, clock_run=context.clock_run, count=record
            )
            self._trigger(f"count:{rule.id}", moved)

    # -- penalties ---------------------------------------------------------------------------------------------------------------------

    def _impose(self, rule: PenaltyRule, keys: tuple[str, ...], context: Context) -> None:
        decision = "penalty_decided" in keys
        if decision and context.data.get("clause") not in rule.clauses:
            return
        if decision and any(one.seq == self.seq and one.rule.id == rule.id for one in self.liabilities):
            return
        if decision and self._decided_now(rule):
            return
        party = None
        if decision:
            party = context.data.get("party")
        if party is None:
            party = self.first(rule.party, rule)
        if party is None:
            return
        if rule.once_per:
            once = (rule.id, party, *(str(self.value(one, rule)) for one in rule.once_per))
            if once in self.once:
                return
            self.once.add(once)
        liability = Liability(rule, party, context.at, self.seq, len(self.liabilities))
        liability.data = context.data
        liability.clock_run = context.clock_run
        liability.count = context.count
        liability.source = context.liability
        self.liabilities.append(liability)
        if decision and liability.open_item() is not None and context.entry is not None:
            liability.decision = _decision(context.entry, self.policy)
        self._penalty_event("imposed", liability, context)
        if liability.open_item() is None or liability.decision is not None:
            self._penalty_event("penalty", liability, context)

    def _decided_now(self, rule: PenaltyRule) -> bool:
        """Whether this very entry has just decided a waiting penalty of the rule."""
        return any(
            one.rule is rule
            and one.decision is not None
            and one.decision.at == self.at
            and one.decision.data is self.scope.data
            for one in self.liabilities
        )

    def _penalty_event(self, what: str, liability: Liability, context: Context) -> None:
        key = f"{what}:{liability.rule.id}"
        if key in self.policy.on:  # what nobody waits for need not be worked out
            self.queue.append((key, self._penalty_context(liability, context)))

    def _penalty_context(self, liability: Liability, context: Context) -> Context:
        view = liability.first_view(self, context.at)
        record = None if view is None else penalty_record(view, self.policy.exponent)
        return Context(
            context.at,
            context.data,
            context.ref,
            entry=context.entry,
            clock_run=context.clock_run,
            penalty=record,
            liability=liability,
        )

    def _decide(self, entry: Entry, context: Context) -> None:
        """A decision, waiver, appeal or appeal decision reaches the penalties of its clause and party."""
        clause, party = entry.data.get("clause"), entry.data.get("party")
        mine = [
            one
            for one in self.liabilities
            if clause in one.rule.clauses and not one.void and (party is None or one.party == party)
        ]
        if entry.kind == "penalty_decided":
            waiting = [one for one in mine if one.open_item() is not None]
            has_figure = any(entry.data.get(name) is not None for name in ("amount_cny", "percent", "share_percent"))
            undecided = [one for one in waiting if one.decision is None] or (waiting[-1:] if has_figure else [])
            for one in undecided[:1] if party is None else undecided:
                one.decision = _decision(entry, self.policy)
                self._penalty_event("penalty", one, context)
        elif entry.kind == "penalty_waived":
            for one in mine:
                one.waived = _decision(entry, self.policy)
        elif entry.kind == "penalty_appealed":
            for one in mine:
                one.appealed_at = entry.at
        elif entry.kind == "penalty_appeal_decided":
            for one in mine:
                one.correction = _decision(entry, self.policy)
                self._penalty_event("penalty", one, context)

    def _penalties(self, now: datetime) -> list[PenaltyView]:
        """What is imposed as of `now`: exclusions first, then competing rules."""
        lively = [one for one in self.liabilities if not one.void and self._stands(one)]
        views = [(one, one.views(self, now)) for one in lively]
        found: list[PenaltyView] = []
        dropped: set[int] = set()
        groups: dict[tuple[str, str], list[int]] = {}
        for place, (one, _) in enumerate(views):
            if one.rule.stack is not None:
                groups.setdefault((one.rule.stack, one.party), []).append(place)
        sanctions: set[tuple[str, str, str]] = set()
        for (stack, _), places in groups.items():
            if self.policy.stacks.get(stack, "highest") == "highest" and len(places) > 1:
                best = max(places, key=lambda place: (sum(view.amount_minor or 0 for view in views[place][1]), -place))
                dropped.update(place for place in places if place != best)
        for place, (one, shown) in enumerate(views):
            if place in dropped:
                continue
            for view in shown:
                if one.rule.stack is not None and view.sanction is not None:
                    mark = (one.rule.stack, one.party, view.sanction)
                    if mark in sanctions:
                        continue
                    sanctions.add(mark)
                found.append(view)
        return found

    def _stands(self, one: Liability) -> bool:
        scope = self.scope
        if one.source is not None and (one.source.void or not self._stands(one.source)):
            return False  # a share of nothing
        saved = scope.data, scope.at, scope.clock_run, scope.count, scope.penalty
        scope.data, scope.at, scope.clock_run, scope.count = one.data, one.at, one.clock_run, one.count
        try:
            if one.rule.while_ is not None and not self.holds(one.rule.while_, one.rule):
                return False
            return self._excluded(one.rule) is None
        finally:
            scope.data, scope.at, scope.clock_run, scope.count, scope.penalty = saved

    def _excluded(self, rule: PenaltyRule) -> tuple[Clause] | None:
        for condition, rules, clause in self.policy.exclusions:
            if (not rules or rule.id in rules) and self.holds(condition, rule):
                return (clause,)
        return None

    # -- changes of the rules --------------------------------------------------------------------------------------------------------

    def _change_policy(self, entry: Entry) -> None:
        """Go on under another version. Breached clocks stay as they are; running ones get the new limit, never one already past."""
        version = int(entry.data["version"])
        policy = self.policies[version]
        self.policy = policy
        self.scope.settings = policy.settings
        self._watch()
        for name, runs in self.runs.items():
            rule = policy.clocks.get(name)
            for run in runs:
                if not run.active:
                    continue
                if rule is None:
                    self._supersede(run, entry.at)
                    continue
                run.rule = rule
                if run.state_at(entry.at) == "breached":
                    continue
                run.policy_version = version
                run.counting = rule.counting
                self._recompute(run, entry.at)

    def _change_calendar(self, entry: Entry) -> None:
        """Days that were not announced are known now, or an exception moves running clocks."""
        self.known_at = entry.at
        for runs in self.runs.values():
            for run in runs:
                if run.active and run.state_at(entry.at) in ("running", "paused"):
                    run.calendar = self.calendars.at(run.rule.calendar, run.started_at, entry.at)
                    self._recompute(run, entry.at)

    def _recompute(self, run: Run, at: datetime) -> None:
        if run.due_at is None:
            return
        saved = self.scope.data
        self.scope.data = run.data
        amount, due = self._limit(run, run.number if run.rule.repeat_count else 0)
        self.scope.data = saved
        if due is not None and due != run.due_at and due > at:
            run.amount = amount
            self._move(run, due, at)

    def _tighten(self, entry: Entry) -> None:
        """Of merged or split complaints each keeps the strictest deadline."""
        for name, text in entry.data["deadlines"].items():
            due = datetime.fromisoformat(text) if isinstance(text, str) else text
            for run in self.runs.get(name, ()):
                if run.active and run.state == "running" and run.due_at is not None and due < run.due_at:
                    self._move(run, due, entry.at)

    # -- duties ------------------------------------------------------------------------------------------------------------------------

    def begin_duties(self, start: datetime, end: datetime) -> None:
        """Put every occurrence of every duty that touches [start, end] on the agenda."""
        self.at = self.at or start
        for duty in self.policy.duties:
            calendar = self.calendars.at(duty.clock.calendar, start, start)
            for occurrence in occurrences(duty, calendar, start, end):
                self._push(max(occurrence.starts_at, start), "duty", (duty, occurrence))

    def _begin_duty(self, thing: tuple[DutyRule, Occurrence]) -> None:
        duty, occurrence = thing
        rule = duty.clock
        self._at(occurrence.starts_at)
        runs = self.runs.setdefault(rule.id, [])
        run = Run(rule, len(runs), occurrence.starts_at, 0, self.policy.version)
        run.calendar = self.calendars.at(rule.calendar, occurrence.starts_at, occurrence.starts_at)
        run.counting = rule.counting
        run.data = {"period": occurrence.period}
        if occurrence.unit is not None:
            run.data["unit"] = occurrence.unit
        context = Context(occurrence.starts_at, run.data, _run_ref(run), clock_run=run)
        self._enter(context)
        run.owner = self.first(rule.owner, rule)
        if run.owner is not None:
            run.data["owner"] = run.owner
        run.due_at = occurrence.due_at
        runs.append(run)
        self._arm(run)
        self._do(rule, duty.do, occurrence.starts_at, f"{_run_ref(run)}:start")
        self._clock_event("started", run, occurrence.starts_at)

    # -- questions -----------------------------------------------------------------------------------------------------------------------

    def refusal(self, entry: Entry) -> Refusal | None:
        """Which rule refuses this entry, if one does. The case goes on to the entry's instant, the entry itself changes nothing."""
        self.advance(entry.at, inclusive=False)
        self.at = entry.at if self.at is None or entry.at > self.at else self.at
        self._look_at(entry)
        for key in _keys(entry):
            for condition, gate in self.policy.on.get(key, _NONE).gates:
                if condition is not None and not self.holds(condition, gate):
                    continue
                if self._refuses(gate, entry.by):
                    reason = self.value(gate.reason, gate)
                    return Refusal(rule=gate.id, clause=gate.clause, reason=str(reason or "forbidden"))
        if entry.kind == "accepted":
            for rule in self.policy.acceptance:
                if not rule.accepted and rule.when is not None and self.holds(rule.when, rule):
                    return Refusal(rule=rule.id, clause=rule.clause, reason=str(self.value(rule.reason, rule)))
        if entry.kind == "penalty_decided":
            return self._refuses_decision(entry)
        if entry.kind in ("penalty_appealed", "penalty_appeal_decided", "penalty_waived"):
            return self._refuses_appeal(entry)
        return None

    def _refuses(self, gate: GateRule, actor: Actor) -> bool:
        if gate.by is not None:
            names = {actor.id, actor.unit, *actor.roles}
            allowed: set[Any] = set()
            for value in gate.by:
                found = self.value(value, gate)
                if isinstance(found, list | tuple):
                    allowed.update(found)
                else:
                    allowed.add(found)
            if names & allowed - {None}:
                return False
        return self.holds(gate.when, gate)

    def _refuses_decision(self, entry: Entry) -> Refusal | None:
        clause, party = entry.data.get("clause"), entry.data.get("party")
        rules = [rule for rule in self.policy.penalties if clause in rule.clauses]
        if not rules:
            return Refusal(
                rule="penalties",
                clause=None,
                reason="no_such_penalty",
                detail=f"no penalty rule carries the clause {clause}",
            )
        for rule in rules:
            excluded = self._excluded(rule)
            if excluded is not None:
                return Refusal(rule=rule.id, clause=excluded[0], reason="forbidden")
        waiting = [
            one
            for one in self.liabilities
            if one.rule in rules and one.open_item() is not None and (party is None or one.party == party)
        ]
        by_decision = [rule for rule in rules if rule.by_decision and any(item.by_person for item in rule.impose)]
        chosen: tuple[PenaltyRule, Liability | None] | None = None
        undecided = [one for one in waiting if one.decision is None] or waiting
        if undecided:
            chosen = (undecided[0].rule, undecided[0])
        elif by_decision:
            fitting = [rule for rule in by_decision if self.holds(rule.when, rule)] or by_decision
            chosen = (fitting[0], None)
        actor = {entry.by.id, entry.by.unit, *entry.by.roles}
        if chosen is None:  # a sanction: there is no figure to decide, but not everybody may
            sanctioning = [rule for rule in rules if rule.by_decision and rule.decided_by]
            if sanctioning and not any(actor & set(rule.decided_by) for rule in sanctioning):
                return Refusal(rule=sanctioning[0].id, clause=sanctioning[0].clause, reason="beyond_authority")
            return None
        rule, liability = chosen
        if rule.decided_by and not actor & set(rule.decided_by):
            return Refusal(rule=rule.id, clause=rule.clause, reason="beyond_authority")
        limits = decision_limits(self, liability, rule, entry.at)
        self._look_at(entry)
        if limits is None:
            return None
        decision = _decision(entry, self.policy)
        amount = decision.amount_minor
        if decision.percent is not None:
            item = next(item for item in rule.impose if item.by_person)
            if item.percent_range is not None:
                low, high = (Decimal(one) for one in item.percent_range)
                if decision.percent < low:
                    return Refusal(rule=rule.id, clause=rule.clause, reason="below_minimum")
                if decision.percent > high:
                    return Refusal(rule=rule.id, clause=rule.clause, reason="above_maximum")
        if amount is not None and limits[0] is not None and amount < limits[0]:
            return Refusal(rule=rule.id, clause=rule.clause, reason="below_minimum")
        if amount is not None and limits[1] is not None and amount > limits[1]:
            return Refusal(rule=rule.id, clause=rule.clause, reason="above_maximum")
        return None

    def _refuses_appeal(self, entry: Entry) -> Refusal | None:
        clause, party = entry.data.get("clause"), entry.data.get("party")
        mine = [one for one in self.liabilities if clause in one.rule.clauses and (party is None or one.party == party)]
        if not mine:
            return Refusal(
                rule="penalties", clause=None, reason="no_such_penalty", detail="nothing is imposed under this clause"
            )
        if entry.kind == "penalty_appealed" and all(self._too_late_to_appeal(one, entry.at) for one in mine):
            return Refusal(rule=mine[0].rule.id, clause=mine[0].rule.appeal_clause, reason="too_late")
        actor = {entry.by.id, entry.by.unit, *entry.by.roles}
        if entry.kind == "penalty_appeal_decided":
            for one in mine:
                if one.rule.appeal_by and not actor & set(one.rule.appeal_by):
                    return Refusal(rule=one.rule.id, clause=one.rule.appeal_clause, reason="beyond_authority")
        return None

    def _too_late_to_appeal(self, liability: Liability, at: datetime) -> bool:
        """Whether the time for an appeal has passed: it runs from the decision, or from when the penalty came about."""
        within = liability.rule.appeal_within
        if within is None:
            return False
        since = liability.at if liability.decision is None else liability.decision.at
        calendar = self.calendars.at(self.policy.calendar_name, since, since)
        return at > calendar.due(since, within, self.policy.counting)

    def classified(self) -> ClassView:
        """The class, and for each part the clause of the rule that set it, else that of the word itself."""
        complaint = self.scope.complaint
        words = self.policy.document.vocabulary
        clauses: dict[str, Clause] = {}
        for part, terms in (("kind", words.kinds), ("category", words.categories), ("severity", words.severities)):
            clause = getattr(terms.get(complaint.get(part)), "clause", None)
            if clause is not None:
                clauses[part] = clause
        return ClassView(
            kind=complaint.get("kind"),
            category=complaint.get("category"),
            severity=complaint.get("severity"),
            priority=complaint.get("priority"),
            respondent=complaint.get("respondent_name"),
            clauses={**clauses, **self.class_clauses},
        )

    def standing(self, now: datetime) -> Standing:
        """Everything that holds at `now`."""
        self.advance(now)
        self._at(now)
        penalties = self._penalties(now)
        clocks = [*self.former, *(run.view(now) for runs in self.runs.values() for run in runs)]
        clocks.sort(key=lambda view: (view.started_at, view.rule, view.run, view.part))
        return Standing(
            seq=self.seq,
            now=now,
            policy_version=self.policy.version,
            state=self.state,
            closed=self.state in self.policy.closed,
            acceptance=self.acceptance,
            classified=self.classified(),
            outcome=self.scope.complaint.get("outcome"),
            routing=tuple(self.routes),
            clocks=tuple(clocks),
            effects=tuple(self.effects),
            penalties=tuple(penalties),
            counters=tuple(self.counters.values()),
            problems=tuple(self.problems),
            next_at=self.next_at(now),
            first_contact=self.first_contact,
            owner=self.owner,
        )

    def next_at(self, now: datetime) -> datetime | None:
        """The next instant at which anything changes by itself."""
        heap = self.heap
        while heap and self._stale(heap[0]):
            heappop(heap)
        instants = [heap[0][0]] if heap else []
        for one in self.liabilities:
            growth = one.next_growth(now)
            if growth is not None and growth > now:
                instants.append(growth)
        return min(instants, default=None)

    def _stale(self, item: tuple[datetime, int, str, Any, int]) -> bool:
        _, _, what, thing, part = item
        if what == "due":
            return bool(thing.part != part or thing.state != "running")
        if what == "rung":
            run = thing[0]
            return bool(run.part != part or not run.active)
        return bool(what == "later" and thing.dropped)

    def facts(self) -> list[tuple[str, Clause, Any]]:
        """The policy's derived figures of this case: (name, clause, value)."""
        self.scope.clock_run = self.scope.count = self.scope.penalty = None
        found = []
        for rule in self.policy.facts:
            if self.holds(rule.when, rule):
                value = self.value(rule.value, rule)
                if value is not None:
                    found.append((rule.name, rule.clause, value))
        return found


def _turns(runs: list[Run], data: Mapping[str, Any]) -> list[Run]:
    """The turns of a duty that an entry is proof of: those it names by their period or unit; all where it names none, or in other words."""
    period, unit = str(data.get("period") or ""), data.get("unit")
    if any(len(period) == len(str(run.data.get("period") or "")) > 0 for run in runs):
        runs = [run for run in runs if run.data.get("period") == period]
    if unit is not None and any("unit" in run.data for run in runs):
        runs = [run for run in runs if run.data.get("unit") == unit]
    return runs


def _keys(entry: Entry) -> tuple[str, ...]:
    """The triggers that an entry is: its kind, and its kind with the step it is about."""
    step = entry.data.get("step")
    return (entry.kind,) if step is None else (entry.kind, f"{entry.kind}:{step}")


def _record(entry: Entry, key: str) -> dict[str, Any]:
    """An entry as `last` and `entries` show it."""
    by = entry.by
    roles = (*by.roles, by.unit) if by.unit else by.roles
    return {
        "trigger": key,
        "kind": entry.kind,
        "at": entry.at,
        "by": by.id,
        "roles": list(dict.fromkeys(roles)),
        "data": entry.data,
    }


def _run_ref(run: Run) -> str:
    return f"{run.rule.id}.{run.by_seq}.{run.number}"


def _as_superseded(view: ClockView, at: datetime) -> ClockView:
    from msgspec.structs import replace

    return replace(view, state="superseded", stopped_at=at)


def _decision(entry: Entry, policy: CompiledPolicy) -> Decision:
    amount = entry.data.get("amount_cny")
    percent: Decimal | None = None
    for name in ("percent", "share_percent"):
        if entry.data.get(name) is not None:
            try:
                percent = Decimal(str(entry.data[name]))
            except InvalidOperation:
                percent = None
    minor = None if amount is None else parse_minor(str(amount), policy.currency)
    return Decision(minor, percent, entry.by.id, entry.at, entry.data)


def replay(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    *,
    policy_version: int = 1,
    case_kind: str = "complaint",
    counter: Counter | None = None,
) -> Case:
    """A case with the timeline applied. A retroactive change of policy replays all of it under the new version, silently up to the change."""
    last = next(
        (
            entry
            for entry in reversed(timeline)
            if entry.kind == "policy_changed" and entry.data.get("effect") == "retroactive"
        ),
        None,
    )
    if last is not None:
        policy_version = int(last.data["version"])
    case = Case(policies, calendars, policy_version=policy_version, case_kind=case_kind, counter=counter)
    if last is not None:
        case.silent_until = last.at
    for entry in timeline:
        if entry.kind == "policy_changed" and last is not None and entry.seq <= last.seq:
            case.seq = entry.seq
            case.advance(entry.at, inclusive=False)
            continue
        case.apply(entry)
    return case


def fold(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    now: datetime,
    *,
    policy_version: int = 1,
    case_kind: str = "complaint",
) -> Standing:
    """What follows from the timeline at `now`.

    Args:
        policies: every version that the timeline refers to.
        timeline: entries from seq 1 without a gap.
        calendars: all revisions known.
        now: aware UTC, not before the last entry.
    """
    return replay(policies, timeline, calendars, policy_version=policy_version, case_kind=case_kind).standing(now)


def refusal(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    entry: Entry,
    *,
    policy_version: int = 1,
    case_kind: str = "complaint",
) -> Refusal | None:
    """Which rule refuses `entry` after this timeline, or None."""
    return replay(policies, timeline, calendars, policy_version=policy_version, case_kind=case_kind).refusal(entry)


__all__ = ["Case", "LoopError", "clauses_of", "fold", "refusal", "replay"]

"""The engine: a case is its timeline, and `fold` says what follows from it.

A small discrete-event loop walks entries and due instants in one order; at one instant entries come first, then due instants. What one
event sets off goes through the stages class → acceptance → state → clocks → routing → effects → counts → penalties; what a stage finds
out (a new state, a breach, an imposed penalty) is an event of its own, handled after the one that caused it. Each stage is a module of
its own over the state of the case (shared/engine/state.py). Nothing here does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import replace

from shared.engine.accepting import accept, accept_at_receipt
from shared.engine.acting import act, change_state, do, drop_waiting, plan, route
from shared.engine.calendar import CalendarBook
from shared.engine.changing import change_calendar, change_policy, tighten
from shared.engine.classing import class_of, classify
from shared.engine.clocks import cancel_all, move_clocks, reconsider, repeat
from shared.engine.counting import count, take_counts
from shared.engine.duties import begin_duty, occurrences
from shared.engine.imposing import decide, impose, penalties
from shared.engine.model import ClassView, Entry, Refusal, Standing
from shared.engine.noting import SAID_LATER, keep, take_over
from shared.engine.refusing import refusal as refusal_of
from shared.engine.rules import CLASSES, WHILES, Clause, CompiledPolicy, Handlers, Rung, clauses_of
from shared.engine.runs import INSTANT, Run
from shared.engine.state import CaseState, Context, Counter, Later

MOST_DERIVED: Final = 500
"""How many events one event may set off; the linter refuses rules that create their own trigger, this is the net below it."""

CHANGES_CLASS: Final = ("class:", "state:", "decision:")

KIND: Final = attrgetter("kind")
IN_ORDER: Final = attrgetter("started_at", "rule", "run", "part")


class LoopError(Exception):
    """Rules set each other off without end."""


class Case(CaseState):
    """One case: entries are applied to it, and time goes on."""

    __slots__ = ()

    # -- the loop ----------------------------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Take one entry, after everything that was due before it."""
        self.follow((entry,))

    def follow(self, timeline: Iterable[Entry]) -> None:
        """Take entries in their order, each after everything that was due before it."""
        scope, agenda, queue, keeps_records = self.scope, self.agenda, self.queue, self.keeps_records
        known, note = self.policy.entries, self.past.append
        for entry in timeline:
            at, data = entry.at, entry.data
            if agenda and agenda[0][0] < at:
                self.advance(at, inclusive=False)
            self.at, self.seq, self.current = at, entry.seq, entry
            handlers = known.get(entry.kind)
            if handlers is None or handlers.is_rare or "step" in data:  # most entries are none of these
                if self.case_kind == "duty" and entry.kind == "received":
                    until = datetime.fromisoformat(str(data["until"]))
                    self.begin_duties(at, until)  # a year of duties: nobody complained
                    continue
                if entry.kind == "policy_changed":
                    change_policy(self, entry)
                    known = self.policy.entries
                elif entry.kind == "calendar_changed":
                    change_calendar(self, entry)
                handlers = self.policy.set_off_by(entry)
            context = scope.context = Context(at, data, entry.seq, entry, entry.by)
            note(entry)
            if keeps_records:
                keep(self, entry)
            if handlers.tells or not SAID_LATER.isdisjoint(data):
                take_over(self, entry)
                if handlers.is_rare:
                    accept_at_receipt(self, entry)
            if self.alerts & CLASSES or handlers.classes:
                classify(self, handlers, context)
            if handlers.judges or self.is_declined:
                accept(self, entry, handlers, context)
            if handlers.enters is not None:
                self.enter_state(handlers.enters, context)
            elif handlers.moves_state:
                change_state(self, handlers, context)
            if handlers.moves_clocks:
                move_clocks(self, handlers, context)
            if self.alerts & WHILES:
                reconsider(self, context)
            if handlers.acts:
                self._act_on(handlers, context)
            if handlers.is_rare:
                take_counts(self, entry, context)
                self._drain()
                tighten(self, entry)
            elif queue:
                self._drain()

    def advance(self, to: datetime, *, inclusive: bool = True) -> None:
        """Handle what is due up to `to`, in order; `to` itself only when inclusive."""
        agenda, queue = self.agenda, self.queue
        self.current = None  # what happens now is no entry's doing
        before = to + INSTANT if inclusive else to
        while agenda and agenda[0][0] < before:
            _, _, what, thing, part = agenda.pop(0)
            if what == "due":
                if thing.part == part and thing.state == "running":
                    self._due(thing)
            elif what == "rung":
                run, rung, at = thing
                if run.part == part and run.stopped_at is None and run.state != "paused":
                    self._climb(run, rung, at)
            elif what == "later":
                self._act_late(thing)
            elif what == "duty":
                begin_duty(self, *thing)
            if queue:
                self._drain()

    def _due(self, run: Run) -> None:
        """The instant of a limit has passed, or a timer's has come."""
        due = run.due_at
        assert due is not None
        self.reach(due)
        if run.rule.timer:
            run.state, run.stopped_at = "fired", None
            self.clock_event(run.rule.fired_key, run, due)
            repeat(self, run, due)
        else:
            run.state, run.breached_at = "breached", due
            self.clock_event(run.rule.breach_key, run, due)

    def _climb(self, run: Run, rung: Rung, at: datetime) -> None:
        """A step before or after a limit."""
        if run.state != "running" and (rung.before is not None or not run.active):
            return
        self.reach(at)
        ref = run.ref
        self.scope.context = Context(at, run.data, ref, clock_run=run)
        if self.holds(rung.when, rung):
            do(self, rung, rung.do, at, f"{ref}:{rung.id}")

    def _act_late(self, later: Later) -> None:
        if later.dropped:
            return
        self.waiting.remove(later)
        self.reach(later.context.at)
        self.scope.context = later.context
        act(self, later.rule, later.context)

    def _drain(self) -> None:
        """Take what the last event set off through the stages, until all is quiet."""
        queue = self.queue
        for key, context in queue:  # it grows while it is walked through
            if len(queue) > MOST_DERIVED:
                raise LoopError("the rules set each other off without end")
            if key == "end":
                cancel_all(self, context.at)
                continue
            self.scope.context = context
            handlers = self.policy.on[key]
            if handlers.moves_state:
                change_state(self, handlers, context)
            if handlers.moves_clocks:
                move_clocks(self, handlers, context)
            if self.alerts & WHILES and (context.entry is not None or key.startswith(CHANGES_CLASS)):
                reconsider(self, context)
            if handlers.acts:
                self._act_on(handlers, context)
        queue.clear()

    def _act_on(self, handlers: Handlers, context: Context) -> None:
        """Routing, effects, counts and penalties."""
        for condition, routing in handlers.routes:
            if self.applies(condition, routing):
                route(self, routing, context)
        for condition, action in handlers.unless:
            if condition is None or self.holds(condition, action):
                drop_waiting(self, action)
        for condition, action in handlers.actions:
            if self.applies(condition, action):
                plan(self, action, context)
        for condition, subject in handlers.subjects:
            if self.applies(condition, subject):
                count(self, subject, context)
        if handlers.decides and context.entry is not None:
            decide(self, context.entry, context)
        for condition, penalty in handlers.penalties:
            if self.applies(condition, penalty):
                impose(self, penalty, handlers.keys, context)

    def begin_duties(self, start: datetime, end: datetime) -> None:
        """Put every occurrence of every duty that touches [start, end] on the agenda."""
        self.at = self.at or start
        for duty in self.policy.duties:
            calendar = self.calendars.at(duty.clock.calendar, start, start)
            for occurrence in occurrences(duty, calendar, start, end):
                self.push(max(occurrence.starts_at, start), "duty", (duty, occurrence))

    # -- questions ---------------------------------------------------------------------------------------------------------------------

    def refusal(self, entry: Entry) -> Refusal | None:
        """Which rule refuses this entry, if one does. The case goes on to the entry's instant, the entry itself changes nothing."""
        self.advance(entry.at, inclusive=False)
        self.at = entry.at if self.at is None or entry.at > self.at else self.at
        return refusal_of(self, entry)

    def classified(self) -> ClassView:
        """The class, and for each part the clause that set it."""
        return class_of(self)

    def standing(self, now: datetime) -> Standing:
        """Everything that holds at `now`."""
        self.advance(now)
        self.reach(now)
        clocks = [run.view(now) for runs in self.runs.values() for run in runs]
        if self.former:
            clocks.extend(self.former)
        clocks.sort(key=IN_ORDER)
        policy = self.policy
        return Standing(
            seq=self.seq,
            now=now,
            policy_version=policy.version,
            state=self.state,
            closed=self.state in policy.closed,
            acceptance=self.acceptance,
            classified=class_of(self),
            outcome=self.scope.complaint["outcome"],
            routing=tuple(self.routes),
            clocks=tuple(clocks),
            effects=tuple(self.effects),
            penalties=tuple(penalties(self, now)) if self.liabilities else (),
            counters=tuple(self.counters.values()),
            problems=tuple(self.problems),
            next_at=self.next_at(now),
            first_contact=self.first_contact,
            owner=self.owner,
        )

    def next_at(self, now: datetime) -> datetime | None:
        """The next instant at which anything changes by itself."""
        agenda = self.agenda
        while agenda and _is_stale(agenda[0]):
            agenda.pop(0)
        instants = [agenda[0][0]] if agenda else []
        for one in self.liabilities:
            growth = one.next_growth(now)
            if growth is not None and growth > now:
                instants.append(growth)
        return min(instants, default=None)

    def facts(self) -> list[tuple[str, Clause, Any]]:
        """The policy's derived figures of this case: (name, clause, value)."""
        self.scope.context = replace(self.scope.context, clock_run=None, count=None, penalty=None)
        found = []
        for rule in self.policy.facts:
            if self.holds(rule.when, rule):
                value = self.value(rule.value, rule)
                if value is not None:
                    found.append((rule.name, rule.clause, value))
        return found


def _is_stale(item: tuple[datetime, int, str, Any, int]) -> bool:
    """Whether nothing will come of a line of the agenda any more."""
    _, _, what, thing, part = item
    if what == "due":
        return bool(thing.part != part or thing.state != "running")
    if what == "rung":
        run = thing[0]
        return bool(run.part != part or not run.active)
    return bool(what == "later" and thing.dropped)


def replay(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    *,
    policy_version: int = 1,
    case_kind: str = "complaint",
    counter: Counter | None = None,
) -> Case:
    """A case with the timeline applied.

    A retroactive change of policy replays all of it under the new version, silently up to the change.
    """
    last = None
    if len(policies) > 1 and "policy_changed" in map(KIND, timeline):  # most timelines have none
        changes = [entry for entry in timeline if entry.kind == "policy_changed"]
        last = next((entry for entry in reversed(changes) if entry.data.get("effect") == "retroactive"), None)
    if last is not None:
        policy_version = int(last.data["version"])
    case = Case(policies, calendars, policy_version=policy_version, case_kind=case_kind, counter=counter)
    if last is None:
        case.follow(timeline)
        return case
    case.silent_until = last.at
    for entry in timeline:
        if entry.kind == "policy_changed" and entry.seq <= last.seq:
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

"""A policy ready to run: rules with their expressions compiled, indexed by what sets them off.

Made by `shared.policy.compiling` from the document; the engine reads nothing else. An expression is a callable of the engine's scope, a
value is a callable or a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from msgspec import Struct

from shared.engine.amounts import Amount
from shared.engine.calendar import Counting

Expr = Callable[[Any], Any]
Value = Any  # a callable of the scope, or a constant
Clause = str | list[str] | None

CLASS_PARTS: Final = ("kind", "category", "severity", "priority", "respondent")


@dataclass(slots=True)
class Rule:
    """What all compiled rules have; `path` is the JSON pointer of the rule in the document."""

    id: str
    clause: Clause
    path: str
    when: Expr | None


@dataclass(slots=True)
class AcceptanceRule(Rule):
    accepted: bool
    reason: Value


@dataclass(slots=True)
class ClassRule(Rule):
    set: tuple[tuple[str, Value], ...]
    override: bool


@dataclass(slots=True)
class RouteRule(Rule):
    unit: Value
    role: Value
    staff: Value
    members: Value
    as_: Value
    auto: bool
    literal: bool  # no part of it is computed


@dataclass(slots=True)
class StateRule(Rule):
    state: str


@dataclass(slots=True)
class GateRule(Rule):
    by: tuple[Value, ...] | None
    reason: Value


@dataclass(slots=True)
class Do:
    kind: str
    to: Value
    what: Value
    by: Value
    data: tuple[tuple[str, Value], ...]
    literal: bool  # nothing of it is computed


@dataclass(slots=True)
class Rung(Rule):
    before: Amount | None
    after: Amount | None
    do: tuple[Do, ...]


@dataclass(slots=True)
class PauseRule:
    count: str


@dataclass(slots=True)
class ClockRule(Rule):
    cases: tuple[
        tuple[Expr | None, Value], ...
    ]  # condition → Amount, or a callable giving an amount's text or an instant
    while_: Expr | None
    anchor: Value
    reanchor: str
    again: str
    supersedes: tuple[str, ...]
    stop_all: tuple[str, ...]  # the triggers that are all needed; empty: any stops
    repeat_every: Amount | None
    repeat_count: int | None
    repeat_after_closing: bool
    timer: bool
    inside: tuple[str, ...]
    inside_do: tuple[Do, ...]
    rungs: tuple[Rung, ...]
    owner: tuple[Value, ...]
    calendar: str
    counting: Counting
    overdue_unit: str | None
    name: str | None
    data: tuple[tuple[str, Value], ...]
    pauses: tuple[PauseRule, ...]
    fixed: Amount | None = None  # the limit, where it depends on nothing
    keys: Mapping[str, str] = field(init=False)  # the triggers of what happens to it

    def __post_init__(self) -> None:
        self.keys = {what: f"{what}:{self.id}" for what in ("started", "met", "late", "breach", "fired")}


@dataclass(slots=True)
class DutyRule:
    """A duty is a clock whose runs follow the calendar instead of entries."""

    clock: ClockRule
    every: str
    due: Amount | None
    periods: tuple[tuple[str, str], ...]  # month-day windows
    per: tuple[str, ...]
    do: tuple[Do, ...]
    missed: tuple[Do, ...]


@dataclass(slots=True)
class ActionRule(Rule):
    do: tuple[Do, ...]
    after: Value  # Amount, callable, or None
    once: bool
    state: str | None


@dataclass(slots=True)
class SubjectRule(Rule):
    subject: tuple[Value, ...]
    add: Value
    window: str
    more_than: int | None
    at_least: int | None
    fire: str
    data: tuple[tuple[str, Value], ...]
    show: bool
    once_per_case: bool
    history: Expr | None
    triggers: tuple[tuple[str, Expr | None], ...]


@dataclass(slots=True)
class Imposed:
    kind: str
    amount: Value
    at_least: int | None
    at_most: int | None
    decided: bool
    percent: Value
    percent_range: tuple[str, str] | None
    tiers: tuple[tuple[int | None, str], ...]  # upper edge in minor units, percent
    used: Value  # minor units that earlier sums have used up of the tiers
    of: Value
    accrual: tuple[int, int, str, str | None, int | None] | None  # first, per day, start, unit, cap
    factor: Value
    points: Value
    sanction: Value
    number: Value
    multiply: tuple[tuple[Expr | None, Value, Clause], ...]
    instalments: tuple[Value, str] | None
    cap: Value
    when: Expr | None
    data: tuple[tuple[str, Value], ...]
    by_person: bool = field(init=False)

    def __post_init__(self) -> None:
        is_range = self.at_least is not None or self.at_most is not None or self.percent_range is not None
        self.by_person = self.decided or is_range


@dataclass(slots=True)
class PenaltyRule(Rule):
    party: tuple[Value, ...]
    impose: tuple[Imposed, ...]
    while_: Expr | None
    decided_by: tuple[str, ...]
    once_per: tuple[Value, ...]
    stack: str | None
    because: str | None
    appeal_clause: Clause
    appeal_by: tuple[str, ...]
    appeal_within: Amount | None  # from when it was imposed, or decided; None: without limit
    by_decision: bool  # a penalty_decided entry is enough
    open_item: Imposed | None = field(init=False)  # what a person decides, if there is such a thing

    def __post_init__(self) -> None:
        self.open_item = next((item for item in self.impose if item.by_person), None)

    @property
    def clauses(self) -> tuple[str, ...]:
        return clauses_of(self.clause)


@dataclass(slots=True)
class FactRule(Rule):
    name: str
    value: Value


@dataclass(slots=True)
class ReportRule(Rule):
    """Figures over fact rows; `done`, `of`, `subject` take a fact-row scope."""

    row: str
    value: str
    where: Expr | None
    done: Expr | None
    of: Value
    entries: tuple[str, ...]
    entries_when: tuple[Expr | None, ...]
    period: str
    period_of: str
    by: tuple[str, ...]
    subject: Value
    target: str | None
    first_month: int = 1


@dataclass(slots=True)
class MessageRule(Rule):
    to: tuple[Value, ...]
    channel: tuple[str, ...]
    template: Mapping[str, str]
    subject: Mapping[str, str]
    quiet_hours: str | None
    triggers: tuple[tuple[str, Expr | None], ...]


@dataclass(slots=True)
class Handlers:
    """Everything that one trigger sets off, in document order; each with the trigger's own condition."""

    acceptance: list[tuple[Expr | None, AcceptanceRule]] = field(default_factory=list)
    classes: list[tuple[Expr | None, ClassRule]] = field(default_factory=list)
    states: list[tuple[Expr | None, StateRule]] = field(default_factory=list)
    stops: list[tuple[Expr | None, ClockRule]] = field(default_factory=list)
    cancels: list[tuple[Expr | None, ClockRule]] = field(default_factory=list)
    pauses: list[tuple[Expr | None, ClockRule, PauseRule]] = field(default_factory=list)
    resumes: list[tuple[Expr | None, ClockRule, PauseRule]] = field(default_factory=list)
    starts: list[tuple[Expr | None, ClockRule]] = field(default_factory=list)
    routes: list[tuple[Expr | None, RouteRule]] = field(default_factory=list)
    actions: list[tuple[Expr | None, ActionRule]] = field(default_factory=list)
    unless: list[tuple[Expr | None, ActionRule]] = field(default_factory=list)
    subjects: list[tuple[Expr | None, SubjectRule]] = field(default_factory=list)
    penalties: list[tuple[Expr | None, PenaltyRule]] = field(default_factory=list)
    gates: list[tuple[Expr | None, GateRule]] = field(default_factory=list)
    moves_clocks: bool = False  # whether any of pauses, resumes, stops, cancels
    acts: bool = False  # whether any of routes, unless, actions, subjects

    def joined(self, other: Handlers) -> Handlers:
        """What two triggers of one event set off, stage by stage."""
        found = Handlers()
        for stage in STAGES:
            getattr(found, stage).extend([*getattr(self, stage), *getattr(other, stage)])
        found.settle()
        return found

    def settle(self) -> None:
        """Once all is in: note which stages there are, so that the others cost nothing."""
        self.moves_clocks = bool(self.pauses or self.resumes or self.stops or self.cancels)
        self.acts = bool(self.routes or self.unless or self.actions or self.subjects)


class Inputs(Struct, frozen=True):
    """What some rules read of the case, so that they are looked at again only when it has changed."""

    complaint: Callable[[Mapping[str, Any]], Any] | None = None  # the parts of the complaint that they read, together
    always: bool = False  # they read more than the complaint, its fields and the settings


class Kept(Struct, frozen=True):
    """What of the entries is kept because some expression reads it."""

    entries: bool = False  # all of them, for `entries`
    last: frozenset[str] | None = frozenset()  # the triggers of `last`; None: any
    collected: tuple[str, ...] = ()  # the data keys of `collected`
    times: frozenset[str] = frozenset()  # the triggers whose latest instant a clock with `while` asks for

    def __or__(self, other: Kept) -> Kept:
        return Kept(
            self.entries or other.entries,
            None if self.last is None or other.last is None else self.last | other.last,
            tuple(dict.fromkeys((*self.collected, *other.collected))),
            self.times | other.times,
        )

    @property
    def records(self) -> bool:
        """Whether whole entries or parts of their data are kept at all."""
        return self.entries or self.last != frozenset() or bool(self.collected)


STAGES = tuple(one.name for one in fields(Handlers) if one.default_factory is list)


@dataclass(slots=True)
class CompiledPolicy:
    """One version of one tenant's policy, immutable once made."""

    version: int
    regime: str | None
    title: str
    currency: str
    exponent: int
    document: Any  # the decoded shared.policy.schema.Policy
    settings: Mapping[str, Any]
    on: Mapping[str, Handlers]
    initial: str
    closed: frozenset[str]
    accept_at_receipt: bool
    accept_when: Expr | None
    acceptance: tuple[AcceptanceRule, ...]  # those without a trigger
    decline_clauses: Mapping[str, Clause]
    classes: tuple[ClassRule, ...]
    clocks: Mapping[str, ClockRule]
    stop_triggers: Mapping[str, tuple[str, ...]]
    whiles: tuple[ClockRule, ...]  # clocks with a `while`
    duties: tuple[DutyRule, ...]
    penalties: tuple[PenaltyRule, ...]
    subjects: Mapping[str, SubjectRule]
    exclusions: tuple[tuple[Expr, frozenset[str], Clause], ...]
    stacks: Mapping[str, str]
    facts: tuple[FactRule, ...]
    reports: tuple[ReportRule, ...]
    messages: tuple[MessageRule, ...]
    warnings: tuple[Any, ...]  # shared.policy.problems.PolicyProblem
    incomplete: tuple[tuple[Clause, str, Mapping[str, Any]], ...]
    usual_states: Mapping[str, str]  # which state a kind of entry leads to where no rule says it
    word_clauses: Mapping[tuple[str, str], Clause]  # of words of the class: (part, word) → clause
    judges_acceptance: bool  # whether any rule accepts or declines
    awaited_class: tuple[tuple[int, str, str], ...]  # of the parts whose change is waited for: place, part, trigger
    classifies: bool  # whether any rule sets the class or waits for a change of it
    class_inputs: Inputs  # of `classes`
    while_inputs: Inputs  # of `whiles`
    acceptance_inputs: Inputs  # of `acceptance`
    kept: Kept
    calendar_name: str
    counting: Counting
    clause_rules: Mapping[str, tuple[str, ...]]
    joined: dict[tuple[str, ...], Handlers] = field(default_factory=dict)  # of entries with a step, as they come up

    def handlers_of(self, keys: tuple[str, ...]) -> Handlers | None:
        """What an entry sets off by its kind and by its step together."""
        found = self.on.get(keys[0])
        by_step = None if len(keys) == 1 else self.on.get(keys[1])
        if found is None or by_step is None:
            return by_step or found
        known = self.joined.get(keys)
        if known is None:
            known = self.joined[keys] = found.joined(by_step)
        return known


def clauses_of(clause: Clause) -> tuple[str, ...]:
    if clause is None:
        return ()
    return (clause,) if isinstance(clause, str) else tuple(clause)


def value_of(value: Value, scope: Any) -> Any:
    """A constant as it is, an expression evaluated."""
    return value(scope) if callable(value) else value


def first_of(values: tuple[Value, ...], scope: Any) -> str | None:
    """The first that is known of a list with fallbacks."""
    for value in values:
        found = value(scope) if callable(value) else value
        if found is not None and found != "":
            return str(found)
    return None

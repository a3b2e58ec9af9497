"""A policy ready to run: rules with their expressions compiled, indexed by what sets them off.

Made by `shared.policy.compiling` from the document; the engine reads nothing else. An expression is a callable of the engine's scope, a
value is a callable or a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final

from msgspec import Struct

from shared.engine.amounts import Amount, format_amount
from shared.engine.calendar import Counting
from shared.engine.model import Entry, Step

Expr = Callable[[Any], Any]
Value = Any  # a callable of the scope, or a constant
Clause = str | list[str] | None
Target = tuple[str | None, str | None, str | None]  # unit, role, staff

LISTS: Final = (list, tuple)
NOBODY: Final = (None, None, None)

CLASS_PARTS: Final = ("kind", "category", "severity", "priority", "respondent")
CLASS_NAMES: Final = ("kind", "category", "severity", "priority", "respondent_name")
"""Under which name of the complaint each part of the class is found."""
COMPLAINT_PARTS: Final = (
    *CLASS_NAMES,
    *("channel", "anonymous", "received_at", "complainant", "respondent", "handler", "number"),
    *("outcome", "state", "accepted", "decline_reason"),
)

# Kinds of entries with which the engine does something of its own.
DECIDES_ACCEPTANCE: Final = frozenset({"received", "accepted", "declined"})
ON_THE_LEDGER: Final = frozenset({"penalty_decided", "penalty_waived", "penalty_appealed", "penalty_appeal_decided"})
TELLING: Final = frozenset({"received", "assigned", "withdrawn", "corrected"})
RARE: Final = frozenset({"received", "policy_changed", "calendar_changed", "merged", "split", "counted"})

# Groups of rules that are looked at again only when what they read has changed; several of them are told as a sum.
CLASSES: Final = 1  # rules of the class without a trigger
WHILES: Final = 2  # clocks with `while`
ACCEPTANCE: Final = 4  # rules of acceptance without a trigger


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
    targets: tuple[Target, ...] | None = field(init=False)  # where no part of it is computed

    def __post_init__(self) -> None:
        parts = (self.unit, self.role, self.staff, self.as_)
        literal = self.members is None and not any(callable(part) for part in parts)
        self.targets = targets(self.unit, self.role, self.staff) if literal else None


def targets(unit: Any, role: Any, staff: Any) -> tuple[Target, ...]:
    """Whom a route names, each of which may be one name or a list of them."""
    one = (unit, role, staff)
    if not (isinstance(unit, LISTS) or isinstance(role, LISTS) or isinstance(staff, LISTS)):
        return () if one == NOBODY else (one,)
    lists = [value if isinstance(value, LISTS) else (value,) for value in one]
    return tuple(target for target in product(*lists) if target != NOBODY)


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
    plain_limit: Amount | None = field(init=False)  # where each start is one run and nothing of it is computed
    starts_plainly: bool = field(init=False)  # each start is a run, whatever the case is like
    arms_plainly: bool = field(init=False)  # its limit is all that is put on the agenda
    stops_plainly: bool = field(init=False)  # any stop ends every run, and none follows
    fixed_text: str | None = field(init=False)  # the limit as a policy writes it, on one line
    started_key: str = field(init=False)  # the triggers of what happens to it
    met_key: str = field(init=False)
    late_key: str = field(init=False)
    breach_key: str = field(init=False)
    fired_key: str = field(init=False)

    def __post_init__(self) -> None:
        self.stops_plainly = self.repeat_count is None and self.repeat_every is None and not self.stop_all
        self.fixed_text = None if self.fixed is None else amount_text(self.fixed)
        computed = self.stop_all or self.owner or self.data or self.inside
        self.plain_limit = self.fixed if self.repeat_count is None and not computed else None
        self.starts_plainly = self.while_ is None and self.when is None
        self.arms_plainly = not (self.rungs or self.timer)
        self.started_key, self.met_key, self.late_key = f"started:{self.id}", f"met:{self.id}", f"late:{self.id}"
        self.breach_key, self.fired_key = f"breach:{self.id}", f"fired:{self.id}"


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


class Fixed(Struct, frozen=True):
    """An amount that depends on nothing, with its arithmetic."""

    minor: int
    steps: tuple[Step, ...]


class Accrual(Struct, frozen=True):
    """An amount for the breach and one for each further overdue day, in minor units."""

    first: int
    per_day: int
    start: str
    unit: str | None
    cap: int | None
    first_step: Step  # of the arithmetic
    per_day_text: str


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
    accrual: Accrual | None
    factor: Value
    points: Value
    sanction: Value
    number: Value
    multiply: tuple[tuple[Expr | None, Value, Clause], ...]
    instalments: tuple[Value, str] | None
    cap: Value
    when: Expr | None
    data: tuple[tuple[str, Value], ...]
    fixed: Fixed | None  # where the amount is a figure and stays as it is
    by_person: bool = field(init=False)
    plain: bool = field(init=False)  # what is worked out is what is imposed
    literal: bool = field(init=False)  # nothing of it is computed from the case

    def __post_init__(self) -> None:
        is_range = self.at_least is not None or self.at_most is not None or self.percent_range is not None
        self.by_person = self.decided or is_range
        changed = self.multiply or self.cap is not None or self.instalments is not None or self.factor is not None
        self.plain = not (self.by_person or changed)
        values = (
            *(self.amount, self.percent, self.used, self.of, self.factor, self.points, self.sanction, self.number),
            *(value for _, value in self.data),
            *(self.instalments or ()),
            self.cap,
        )
        self.literal = self.when is None and not self.multiply and not any(callable(value) for value in values)


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
    literal: bool = field(init=False)  # nothing of what it imposes is computed from the case
    imposed_key: str = field(init=False)  # the trigger of its coming about
    penalty_key: str = field(init=False)  # and of its amount being known

    def __post_init__(self) -> None:
        self.open_item = next((item for item in self.impose if item.by_person), None)
        self.literal = all(item.literal for item in self.impose)
        self.imposed_key, self.penalty_key = f"imposed:{self.id}", f"penalty:{self.id}"

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

    acceptance: tuple[tuple[Expr | None, AcceptanceRule], ...] = ()
    classes: tuple[tuple[Expr | None, ClassRule], ...] = ()
    states: tuple[tuple[Expr | None, StateRule], ...] = ()
    stops: tuple[tuple[Expr | None, ClockRule], ...] = ()
    cancels: tuple[tuple[Expr | None, ClockRule], ...] = ()
    pauses: tuple[tuple[Expr | None, ClockRule, PauseRule], ...] = ()
    resumes: tuple[tuple[Expr | None, ClockRule, PauseRule], ...] = ()
    starts: tuple[tuple[Expr | None, ClockRule], ...] = ()
    routes: tuple[tuple[Expr | None, RouteRule], ...] = ()
    actions: tuple[tuple[Expr | None, ActionRule], ...] = ()
    unless: tuple[tuple[Expr | None, ActionRule], ...] = ()
    subjects: tuple[tuple[Expr | None, SubjectRule], ...] = ()
    penalties: tuple[tuple[Expr | None, PenaltyRule], ...] = ()
    gates: tuple[tuple[Expr | None, GateRule], ...] = ()
    enters: str | None = None  # the state to enter in any case
    moves_state: bool = False  # whether there may be one
    moves_clocks: bool = False  # whether any of pauses, resumes, stops, cancels, starts
    acts: bool = False  # whether any of routes, unless, actions, subjects, penalties, or a decision on penalties
    reads_penalty: bool = False  # whether a rule asks about the penalty of the trigger, other than for its own amount
    # of the kind of entry that the trigger is, if it is one
    keys: tuple[str, ...] = ()
    usual_state: str | None = None  # where it leads without a rule
    judges: bool = False  # whether acceptance may change
    decides: bool = False  # whether people decide on penalties by it
    tells: bool = False  # whether it says something of the complaint by its kind
    is_rare: bool = False  # whether the engine does something of its own with it

    def joined(self, other: Handlers) -> Handlers:
        """What a kind of entry and a step of it set off together, stage by stage; for the rest as the kind alone."""
        found = replace(self, keys=(*self.keys, *other.keys), reads_penalty=self.reads_penalty or other.reads_penalty)
        for stage in STAGES:
            setattr(found, stage, getattr(self, stage) + getattr(other, stage))
        found.settle()
        return found

    def settle(self) -> None:
        """Once all is in: note which stages there are, so that the others cost nothing."""
        self.moves_state = bool(self.states) or self.usual_state is not None
        self.enters = None if self.states or self.usual_state == "merged" else self.usual_state
        self.moves_clocks = bool(self.pauses or self.resumes or self.stops or self.cancels or self.starts)
        self.acts = bool(self.routes or self.unless or self.actions or self.subjects or self.penalties) or self.decides

    def paths(self) -> set[str]:
        """The places of the rules in the document."""
        return {
            part.path for stage in STAGES for line in getattr(self, stage) for part in line if isinstance(part, Rule)
        }


class Inputs(Struct, frozen=True):
    """What some rules read of the case, so that they are looked at again only when it has changed."""

    complaint: Callable[[Mapping[str, Any]], Any] | None = None  # the parts of the complaint that they read, together
    names: frozenset[str] = frozenset()  # of these parts
    always: bool = False  # they read more than the complaint, its fields and the settings


class Kept(Struct, frozen=True):
    """What of the entries is kept because some expression reads it."""

    entries: bool = False  # all of them, for `entries`
    last: frozenset[str] | None = frozenset()  # the triggers of `last`; None: any
    collected: tuple[str, ...] = ()  # the data keys of `collected`

    def __or__(self, other: Kept) -> Kept:
        return Kept(
            self.entries or other.entries,
            None if self.last is None or other.last is None else self.last | other.last,
            tuple(dict.fromkeys((*self.collected, *other.collected))),
        )

    @property
    def records(self) -> bool:
        """Whether whole entries or parts of their data are kept at all."""
        return self.entries or self.last != frozenset() or bool(self.collected)


STAGES: Final = (
    *("acceptance", "classes", "states", "stops", "cancels", "pauses", "resumes", "starts"),
    *("routes", "actions", "unless", "subjects", "penalties", "gates"),
)
"""The fields of `Handlers` that hold rules."""


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
    entries: Mapping[str, Handlers]  # by kind of entry, also of kinds that nothing waits for
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
    word_clauses: Mapping[tuple[str, str], Clause]  # of words of the class: (part, word) → clause
    awaited_class: tuple[tuple[int, str, str], ...]  # of the parts whose change is waited for: place, part, trigger
    inputs: Mapping[int, Inputs]  # of CLASSES, WHILES, ACCEPTANCE
    readers: Mapping[str, int]  # by each part of the complaint: which of these groups read it, as one sum
    class_readers: int  # which of them read a part of the class
    kept: Kept
    calendar_name: str
    counting: Counting
    clause_rules: Mapping[str, tuple[str, ...]]
    groups: int  # those of CLASSES, WHILES, ACCEPTANCE that have rules
    joined: dict[str, Handlers] = field(default_factory=dict)  # of entries with a step, as they come up

    def set_off_by(self, entry: Entry) -> Handlers:
        """What an entry sets off by its kind and by the step it is about together."""
        keys = entry.keys
        found = self.entries.get(entry.kind) or Handlers(keys=keys[:1])
        by_step = None if len(keys) == 1 else self.on.get(keys[1])
        if by_step is None:
            return found
        known = self.joined.get(keys[1])
        if known is None:
            known = self.joined[keys[1]] = found.joined(by_step)
        return known


def clauses_of(clause: Clause) -> tuple[str, ...]:
    if clause is None:
        return ()
    return (clause,) if isinstance(clause, str) else tuple(clause)


def amount_text(amount: Amount) -> str:
    """The amount as a policy writes it, on one line."""
    written = format_amount(amount)
    return written if isinstance(written, str) else f"day {written['day']} after {written['after']}"


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

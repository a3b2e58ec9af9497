"""The policy document: one msgspec Struct per section, unknown keys refused.

A policy is what a tenant's administrator writes. The document is plain YAML or JSON; these Structs are its only definition: the decoder,
the JSON Schema for editors and the language reference are all derived from them.

Conventions that hold everywhere:

* An **expression** is a CEL text (`when: 'complaint.severity == "complex"'`); see `shared/policy/scope.py` for the names it may use.
* A **value** is a literal, or an expression when it is a text that begins with `=` (`party: =complaint.respondent.staff`).
* A **trigger** is the name of what happened: an entry kind (`accepted`), an entry kind with its step (`step:callback`,
  `approved:decision`), or something the engine found out (`breach:ID`, `fired:ID`, `met:ID`, `started:ID` of a clock, `count:ID` of a subject
  rule, `penalty:ID`, `state:NAME`, `class:kind|category|severity|priority|respondent`, `decision:accepted`, `decision:declined`, `action:ID`). A trigger may carry a condition:
  `{on: replied, when: 'data.final'}`.
* Before decoding, `{setting: ID}` is replaced by the tenant's value of that setting (`{setting: ID, key: K}` by one part of a mapping), `{setting: ID, cases: {value: …}}` by the case that
  the value picks, and a rule with `if: EXPRESSION over settings` is dropped where the expression is false.
* `clause` names the clause (or clauses) of the written regime that a rule carries out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from shared.engine.calendar import CalendarSection

RuleId = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=80, description="stable name of the rule, snake_case")
]
Name = Annotated[str, Meta(pattern=r"^[^\s=][^\n]*$", max_length=120)]
Expression = Annotated[str, Meta(max_length=2000, description="a condition in CEL")]
Clauses = str | list[str] | None
Text = str | dict[str, str]  # one text, or one per language: {en: …, zh: …}
Value = Any  # a literal, or "=expression"


class Trigger(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One thing that happens, with an optional condition on it."""

    on: str
    when: Expression | None = None


Triggers = str | Trigger | list[str | Trigger]


class Setting(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A choice that the written regime leaves to the tenant."""

    type: Literal["enum", "bool", "int", "money", "amount", "text", "name", "list", "map", "any"] = "any"
    default: Any = None  # None: unset; nothing is computed from it until the tenant sets a value
    values: list[Any] | None = None
    meaning: Text = ""
    clause: Clauses = None


class Term(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A word of the tenant's vocabulary with its meaning."""

    meaning: Text = ""
    label: Text = ""
    clause: Clauses = None


class Field(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A field of the tenant's own on a complaint."""

    type: Literal["text", "name", "bool", "int", "money", "date", "instant", "list", "person", "unit"]
    values: list[str] | None = None
    meaning: Text = ""
    label: Text = ""
    clause: Clauses = None
    restricted: bool = False  # shown only to those who may see personal data
    personal: bool = False  # kept in the vault, never on the timeline


class Fact(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A derived figure or list of one case, computed when asked for."""

    name: Name
    value: Value
    when: Expression | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Vocabulary(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The words of the regime: what a complaint may be and what may be said about it."""

    kinds: dict[Name, str | Term] = {}
    categories: dict[Name, str | Term] = {}
    severities: dict[Name, str | Term] = {}
    outcomes: dict[Name, str | Term] = {}  # beside upheld, partly_upheld, not_upheld, malicious, withdrawn
    states: dict[Name, str | Term] = {}
    fields: dict[Name, Field] = {}
    steps: dict[Name, str | Term] = {}
    data: dict[Name, str] = {}  # own keys of an entry's data: name -> type, beside the common ones
    sanctions: dict[Name, str | Term] = {}
    tasks: dict[Name, str | Term] = {}
    ratings: list[Name] = []
    facts: list[Fact] = []


class Unit(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    meaning: Text = ""
    label: Text = ""
    head: Name | None = None  # role that answers for the unit
    parent: Name | None = None
    external: bool = False  # an authority, a supplier, a police station: told, never logged in
    clause: Clauses = None


class Role(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    meaning: Text = ""
    label: Text = ""
    unit: Name | None = None
    deputy: Name | None = None  # the B handler: takes over when the holder is absent
    external: bool = False
    clause: Clauses = None


class Group(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    members: list[Name]
    chair: Name | None = None
    meaning: Text = ""
    clause: Clauses = None


class Organisation(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Units, roles and standing groups; who holds a role is staff data, not policy."""

    units: dict[Name, str | Unit] = {}
    roles: dict[Name, str | Role] = {}
    groups: dict[Name, Group] = {}


class Channel(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A way in: where it is, when it is open, what is published about it."""

    meaning: Text = ""
    label: Text = ""
    address: str = ""
    hours: str = ""
    place: str = ""
    clause: Clauses = None


class Acceptance(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One rule that accepts or declines. Without `on` it is looked at after every entry until a person has decided, and a declining rule
    also refuses an `accepted` entry while it holds; with `on` it decides when that happens. The first that holds wins."""

    on: Triggers | None = None
    when: Expression | None = None
    accepted: bool = True
    reason: Value = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Required(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Fields that must be there before an entry is taken."""

    fields: list[Name]  # names of own fields, or complaint.category and the like
    before: Triggers = "accepted"
    when: Expression | None = None
    reason: Name = "required_field_missing"
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Numbering(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How complaints are numbered: {YYYY} {YY} {MM} {DD} {N:02}; the counter starts anew each period."""

    pattern: str = "{YYYY}{MM}{DD}-{N:04}"
    reset: Literal["day", "month", "year", "never"] = "day"
    overflow: Literal["widen", "refuse"] = "widen"
    clause: Clauses = None


class Duplicates(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A complaint of the same complainant that matches an open one within the window is linked to it, not stored twice."""

    window: str = "7d"
    match: list[Name] = msgspec.field(default_factory=lambda: ["kind", "category"])


class Intake(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who may complain and how, what is asked for, when it is taken."""

    channels: dict[Name, str | Channel] = {}
    acceptance: Literal["at_receipt", "by_entry"] = "by_entry"
    accept_when: Expression | None = None  # with at_receipt: only where this holds, else an `accepted` entry is awaited
    acceptance_rules: list[Acceptance] = []
    decline_reasons: dict[Name, str | Term] = {}
    required: list[Required] = []
    numbering: Numbering = Numbering()
    duplicates: Duplicates | None = None
    anonymous: Literal["accept", "refuse", "lead"] = "accept"
    retention: str = "3y"
    clause: Clauses = None


class ClassRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Sets the class while the condition holds; what a person or the complaint itself states stays, unless `override`."""

    set: dict[Literal["kind", "category", "severity", "priority", "respondent"], Value]
    when: Expression | None = None
    on: Triggers | None = None  # default: looked at after every entry
    override: bool = False
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class RouteRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Names who must act. Every rule that holds adds its line; the first of them owns the case until a person assigns it."""

    on: Triggers = "received"
    when: Expression | None = None
    unit: Value = None
    role: Value = None
    staff: Value = None
    members: Value = None
    as_: Value = msgspec.field(default=None, name="as")
    auto: bool = False  # the service also enters `assigned` by itself
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class StateRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Enters a state when something happens; the last rule that holds at one instant wins."""

    state: Name
    on: Triggers
    when: Expression | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Gate(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Refuses an entry. Everything is allowed that no gate refuses.

    With `by`: refused when the actor holds none of these roles or units (names, or "=expression").
    With `when`: refused when the condition holds. With both: refused by anyone else while the condition holds.
    """

    on: Triggers
    when: Expression | None = None
    by: list[Value] | None = None
    reason: Value = "forbidden"
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Workflow(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    initial: Name = "received"
    states: list[StateRule] = []
    gates: list[Gate] = []
    # states in which nothing more is owed
    closed: list[Name] = msgspec.field(
        default_factory=lambda: ["closed", "declined", "archived", "withdrawn", "handed_over"]
    )


class Do(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What the system does by itself."""

    kind: Literal["escalated", "notified", "task", "deemed", "created", "published", "closed", "warned", "reported"]
    to: Value = None  # one addressee or a list: one effect each
    what: Value = None
    by: Value = None
    data: dict[str, Value] = {}


class Pause(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A stretch that the clock does not count."""

    from_: Triggers = msgspec.field(default="paused", name="from")
    to: Triggers = "resumed"
    count: Literal["auto", "days", "time"] = "auto"  # auto: whole days on limits in days, exact time on limits in hours


class Case(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    is_: Value = msgspec.field(name="is")
    when: Expression | None = None


class Repeat(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    every: str
    count: int | None = None  # all of them run from the start; without a count the next begins when one ends
    after_closing: bool = False  # without a count: also in a state in which nothing more is owed


class Step(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A rung: something done at a distance from the due instant."""

    do: list[Do] = []
    before: str | None = None  # a warning this long before the due instant, counted backwards on the calendar
    after: str | None = None  # a rung this long after it; `0h` is the breach itself
    id: RuleId | None = None
    clause: Clauses = None
    when: Expression | None = None


class CountingChange(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What one limit counts otherwise than the calendar's profile."""

    count_first_day: bool | None = None
    cutoff: str | None = None
    roll: Literal["none", "next_working_day"] | None = None
    working_day_end: Literal["close", "midnight"] | None = None
    hour_mode: Literal["round_the_clock", "office_hours"] | None = None


class Clock(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Time counted towards one deadline."""

    id: RuleId
    start: Triggers
    within: Value = (
        None  # an amount ("3wd"), "=expression" giving an amount or an instant, or a list of cases; None: only measured
    )
    stop: Triggers = []
    stop_needs: Literal["any", "all"] = "any"
    cancel: Triggers = []
    when: Expression | None = None  # looked at when it would start
    while_: Expression | None = msgspec.field(
        default=None, name="while"
    )  # looked at whenever the class changes; false: superseded
    anchor: Value = None  # what the amount counts from; default the start, or "=expression" giving an instant
    reanchor: Literal["start", "change"] = (
        "start"  # when a change of class brings the clock in: from its start event, or from the change
    )
    again: Literal["ignore", "new", "restart"] = "ignore"  # a start while it runs
    supersedes: list[RuleId] = []
    pauses: list[Pause] = []
    repeat: Repeat | None = None
    kind: Literal["limit", "timer"] = "limit"  # a timer acts at its due instant (state fired), a limit can be breached
    inside: RuleId | list[RuleId] | None = None  # warned when this due instant lies after that of an outer one
    inside_do: list[Do] = []
    steps: list[Step] = []
    owner: Value = None  # who owes it: name or "=expression", or a list with fallbacks
    calendar: Name | None = None
    counting: CountingChange | None = None
    overdue_unit: Literal["wd", "cd"] | None = None
    name: Name | None = None  # tells several limits of one clause apart
    title: Text = ""
    data: dict[str, Value] = {}
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Action(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """On something, when a condition holds, at once or later: do."""

    id: RuleId
    on: Triggers
    do: list[Do] = []
    when: Expression | None = None
    after: Value = None  # an amount from the trigger ("1wd@08:00"), or "=expression" giving an instant; default at once
    unless: Triggers = []  # one of these before the later instant: not done
    once: bool = False
    state: Name | None = None  # also enter this state
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Threshold(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    more_than: int | None = None
    at_least: int | None = None
    fire: Literal["once_per_window", "every_time", "every_multiple"] = "once_per_window"


class Subject(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Counts or sums over the complaints, penalties or acts that concern one person, unit, customer, issue or vehicle."""

    id: RuleId
    subject: Value  # whom it is counted for
    on: Triggers  # what counts; penalty:ID counts imposed penalties
    when: Expression | None = None
    add: Value = 1  # a number, or "=expression"; money counts in whole minor units
    window: str = "ever"  # ever | calendar_month | quarter | half | year | 12mo, 30d (rolling)
    opened_by_first: bool = False  # the first item opens the window, which then lasts for `window`
    history: Expression | None = None  # which earlier complaints count; default: the same `when`
    threshold: Threshold | None = None
    data: dict[str, Value] = {}
    once_per_case: bool = False
    show: bool = True
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Tier(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    percent: str
    to: str | None = None  # upper edge, included; the last tier has none


class Accrual(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """An amount that grows with every overdue day of the clock that was breached."""

    first: str
    per_day: str
    start: Literal["base_covers_first_day", "base_plus_every_day"] = "base_covers_first_day"
    unit: Literal["wd", "cd", "working_day", "calendar_day"] | None = None
    cap: str | None = None


class Multiply(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    by: Value
    when: Expression | None = None
    clause: Clauses = None


class Instalments(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    count: Value
    first: Literal["this_month", "next_month"] = "next_month"


class Imposed(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One thing that a penalty rule imposes. Exactly one way of fixing the amount, none for a sanction."""

    kind: Literal["fine", "deduction", "points", "compensation", "recovery", "pay_factor", "clawback", "sanction"] = (
        "fine"
    )
    amount: Value = None  # "100.00" or "=expression" giving money
    at_least: str | None = None  # decided by a person, not below
    at_most: str | None = None  # decided by a person, not above
    decided: bool = False  # decided by a person, no figure in the policy
    percent: Value = None  # of `of`: "20"
    percent_range: list[str] | None = None  # decided by a person between these percentages of `of`
    tiers: list[Tier] = []
    used: Value = None  # how much of the slices earlier sums have used up, in whole minor units (a count of money)
    of: Value = None
    accrual: Accrual | None = None
    factor: Value = None  # pay factor: "0" means that all of `of` is lost
    points: Value = None
    sanction: Value = None
    number: Value = None
    multiply: list[Multiply] = []
    instalments: Instalments | None = None
    cap: Value = None
    when: Expression | None = None
    data: dict[str, Value] = {}


class Appeal(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    clause: Clauses = None
    decided_by: list[Name] = []
    within: str | None = None


class Penalty(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What is imposed on whom, when; what a person must decide waits as `needs_decision`.

    A `penalty_decided` entry with this clause decides it. Where the rule lists `penalty_decided` among its triggers the decision alone is enough.
    """

    id: RuleId
    on: Triggers
    party: Value  # a name, "=expression", or a list with fallbacks: the first that is known
    impose: list[Imposed]
    when: Expression | None = None
    while_: Expression | None = msgspec.field(default=None, name="while")  # looked at after every entry; false: void
    decided_by: list[Name] = []  # a decision by anyone else is refused
    once_per: list[Value] = []  # at most one for these values, e.g. the form and the party
    stack: Name | None = None  # group whose rules compete, see penalties.stacks
    because: Name | None = None
    appeal: Appeal | None = None
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Exclusion(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """While it holds nothing is imposed, and what was imposed falls away."""

    when: Expression
    rules: list[RuleId] = []  # default: all
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Stack(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    mode: Literal["highest", "sum"] = "highest"
    clause: Clauses = None


class Penalties(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    rules: list[Penalty] = []
    excluded: list[Exclusion] = []
    stacks: dict[Name, Stack] = {}


class MessageRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who is told what, how."""

    id: RuleId
    on: Triggers  # entry triggers, and effect:KIND (effect:escalated, effect:warned, …)
    to: list[Value]  # complainant, respondent, handler, a role, a unit
    channel: list[Literal["sms", "email", "webhook"]]
    template: Text  # Liquid; {{ number }}, {{ due_at }}, … (docs/messages.md)
    subject: Text = ""
    when: Expression | None = None
    quiet_hours: str | None = None  # "21:00-08:00": sent when they end
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Window(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A window within each year, `06-01/06-10`, and the span of the year that the work covers, `12-01/05-31`."""

    window: Annotated[str, Meta(pattern=r"^\d\d-\d\d/\d\d-\d\d$")]
    covers: Annotated[str, Meta(pattern=r"^(\d\d-\d\d/\d\d-\d\d)?$")] = ""


class Duty(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A recurring task without a complaint: one occurrence a period, a clock each."""

    id: RuleId
    every: Annotated[
        str,
        Meta(
            pattern=r"^(day|working_day|week|week:(mon|tue|wed|thu|fri|sat|sun)|month|quarter|half|year|unset|1d|1wd|1w|1mo|3mo|6mo|12mo|1y|"
            r"daily|weekly|monthly|quarterly|half_yearly|yearly|calendar_month)$"
        ),
    ] = "year"  # `quarterly` and `3mo` mean the quarter, and so on
    due: Value = None  # an amount from the start of the turn; default: close of office of a day, the end of the last day of anything longer
    proof: Triggers = []
    owner: Value = None
    do: list[Do] = []  # done at the start of each occurrence (usually a task)
    missed: list[Do] = []  # done when it is breached
    per: list[Name] = []  # one occurrence for each of these units
    windows: list[Window] = []  # explicit windows within each year instead of `every`
    title: Text = ""
    calendar: Name | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Row(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One figure of a report, per period: how it is made from the fact rows of the tenant."""

    row: Name
    value: Literal["count", "percent", "sum", "mean", "per"] = "count"
    where: Expression | None = None  # which facts count
    done: Expression | None = None  # percent: which of them are done; "=expression" with a number: how many
    of: Value = None  # sum, mean: "=expression" over a fact row
    entries: Triggers | None = None  # take the figures from entries with this trigger instead of complaints
    period: Literal["day", "month", "quarter", "half", "year"] = "month"
    period_of: Literal["received", "handled", "resolved", "entry", "due"] = "received"
    first_month: Annotated[int, Meta(ge=1, le=12)] = (
        1  # in which the year begins that quarters and halves divide; 12: halves from December
    )
    by: list[str] = []
    subject: Value = None
    target: str | None = None
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Guidance(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What handlers are shown: conduct, scripts, checklists. No machine depends on it."""

    clause: Clauses
    text: Text
    checklist: list[Text] = []
    stage: Name | None = None  # state or step at which it is shown


class ByDesignNot(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A clause that is left out on purpose."""

    clause: Clauses
    reason: Text


class Incomplete(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A clause whose figure is missing in the written text: kept, shown, never fires."""

    clause: Clauses
    problem: Literal["no_amount", "no_channel", "no_limit"] = "no_amount"
    text: Text = ""
    unless: Expression | None = None  # over settings: complete once this holds
    data: dict[str, Value] = {}


class Policy(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A tenant's complaint regime."""

    policy: Literal[1]  # version of the language
    title: Text
    regime: Annotated[str, Meta(pattern=r"^[A-Z]\d\d$")] | None = None
    description: Text = ""
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "CNY"
    settings: dict[str, Setting] = {}
    calendar: CalendarSection = msgspec.field(default_factory=CalendarSection)
    vocabulary: Vocabulary = Vocabulary()
    organisation: Organisation = Organisation()
    intake: Intake = Intake()
    classification: list[ClassRule] = []
    routing: list[RouteRule] = []
    workflow: Workflow = Workflow()
    clocks: list[Clock] = []
    actions: list[Action] = []
    subjects: list[Subject] = []
    penalties: Penalties = Penalties()
    messages: list[MessageRule] = []
    duties: list[Duty] = []
    reports: list[Row] = []
    guidance: list[Guidance] = []
    by_design_not: list[ByDesignNot] = []
    incomplete: list[Incomplete] = []

"""The policy document: one msgspec Struct per section, unknown keys refused.

A policy is what a tenant's administrator writes. The document is plain YAML or JSON; these Structs are its only definition: the decoder,
the JSON Schema for editors and the language reference are all derived from them.

Conventions that hold everywhere:

* An **expression** is a CEL text (`when: 'complaint.severity == "complex"'`); see `shared/policy/scope.py` for the names it may use.
* A **value** is a literal, or an expression when it is a text that begins with `=` (`party: =complaint.respondent.staff`).
* A **trigger** is the name of what happened: an entry kind (`accepted`), an entry kind with its step (`step:callback`,
  `approved:decision`), or something the engine found out (`breach:ID`; all of them in `compiling.ENGINE_TRIGGERS`). A trigger
  may carry a condition: `{on: replied, when: 'data.final'}`.
* Before decoding, `{setting: ID}` is replaced by the tenant's value of that setting (`{setting: ID, key: K}` by one part of a
  mapping), `{setting: ID, cases: {value: …}}` by the case that the value picks, and a rule with `if: EXPRESSION over settings`
  is dropped where the expression is false.
* A docstring says what the section is, then `key: meaning` for each key (`shared/policy/meanings.py` reads them).
* `clause` names the clause (or clauses) of the written regime that a rule carries out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from shared.engine.calendar import CalendarSection
from shared.engine.calendar.section import ClockTime

RuleId = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=80, description="stable name of the rule, snake_case")
]
Name = Annotated[str, Meta(pattern=r"^[^\s=][^\n]*$", max_length=120)]
Expression = Annotated[str, Meta(max_length=2000, description="a condition in CEL")]
Clauses = str | list[str] | None
Text = str | dict[str, str]  # one text, or one per language: {en: …, zh: …}
Value = Any  # a literal, or "=expression"


class Trigger(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One thing that happens, with an optional condition on it.

    on: what happens.
    when: it counts only if this holds then.
    """

    on: str
    when: Expression | None = None


Triggers = str | Trigger | list[str | Trigger]


class Setting(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A choice that the written regime leaves to the tenant.

    type: what kind of value it is, for whoever chooses.
    default: the value until the tenant chooses; `null`: unset, and nothing is computed from it until then.
    values: what there is to choose from; without it anything of the type.
    """

    type: Literal["enum", "bool", "int", "money", "amount", "text", "name", "list", "map", "any"] = "any"
    default: Any = None
    values: list[Any] | None = None
    meaning: Text = ""
    clause: Clauses = None


class Term(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A word of the tenant's vocabulary with its meaning. A plain text in its place is the meaning alone."""

    meaning: Text = ""
    label: Text = ""
    clause: Clauses = None


class Field(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A field of the tenant's own on a complaint.

    type: what it holds; `name` is a word or code, `text` free text, `list` several names, `person` and `unit` a name of the roster.
    values: what there is to choose from, for the type `name`.
    restricted: shown only to those who may see personal data.
    personal: kept in the vault, never on the timeline.
    """

    type: Literal["text", "name", "bool", "int", "money", "date", "instant", "list", "person", "unit"]
    values: list[str] | None = None
    meaning: Text = ""
    label: Text = ""
    clause: Clauses = None
    restricted: bool = False
    personal: bool = False


class Fact(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A derived figure or list of one case, computed when asked for.

    name: under which reports and people find it.
    value: how it is worked out.
    when: left out where this does not hold.
    """

    name: Name
    value: Value
    when: Expression | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Vocabulary(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The words of the regime: what a complaint may be and what may be said about it.

    kinds: the broadest class, such as external and internal.
    categories: what it is about.
    severities: how grave it is.
    outcomes: findings beside upheld, partly_upheld, not_upheld, malicious, withdrawn.
    states: where it may stand; `workflow` says what leads there.
    fields: what else is noted on a complaint.
    steps: steps of the regime's own, entered as `step` with their name.
    data: own keys that entries may carry beside the common ones: name → type (the types of fields).
    sanctions: penalties other than money.
    tasks: what the system may ask people to do.
    ratings: answers to the question whether the complainant is satisfied, best first.
    facts: derived figures of one case.
    """

    kinds: dict[Name, str | Term] = {}
    categories: dict[Name, str | Term] = {}
    severities: dict[Name, str | Term] = {}
    outcomes: dict[Name, str | Term] = {}
    states: dict[Name, str | Term] = {}
    fields: dict[Name, Field] = {}
    steps: dict[Name, str | Term] = {}
    data: dict[Name, str] = {}
    sanctions: dict[Name, str | Term] = {}
    tasks: dict[Name, str | Term] = {}
    ratings: list[Name] = []
    facts: list[Fact] = []


class Unit(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A part of the organisation, or a body outside it.

    head: role that answers for the unit.
    parent: the unit it belongs to.
    external: an authority, a supplier, a police station: told, never logged in.
    """

    meaning: Text = ""
    label: Text = ""
    head: Name | None = None
    parent: Name | None = None
    external: bool = False
    clause: Clauses = None


class Role(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A part that people play; who plays it is staff data.

    unit: the unit it belongs to.
    deputy: role that takes over when the holder is absent.
    external: outside the organisation: told, never logged in.
    """

    meaning: Text = ""
    label: Text = ""
    unit: Name | None = None
    deputy: Name | None = None
    external: bool = False
    clause: Clauses = None


class Group(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Units and roles that act together, such as a committee.

    members: units and roles.
    chair: the member that speaks for it.
    """

    members: list[Name]
    chair: Name | None = None
    meaning: Text = ""
    clause: Clauses = None


class Organisation(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Units, roles and standing groups; who holds a role is staff data, not policy.

    units: parts of the organisation, and bodies outside that it deals with.
    roles: parts that people play.
    groups: units and roles that act together.
    """

    units: dict[Name, str | Unit] = {}
    roles: dict[Name, str | Role] = {}
    groups: dict[Name, Group] = {}


class Channel(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A way in: where it is, when it is open, what is published about it.

    address: number, mailbox or web address.
    hours: when somebody is there, as it is published.
    place: where it is.
    """

    meaning: Text = ""
    label: Text = ""
    address: str = ""
    hours: str = ""
    place: str = ""
    clause: Clauses = None


class Acceptance(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One rule that accepts or declines; the first that holds wins.

    on: decides when this happens. Without it the rule is looked at after every entry until a person has decided, and a declining rule also
        refuses an `accepted` entry while it holds.
    accepted: `false` declines.
    reason: why it is declined, a name of `decline_reasons`.
    """

    on: Triggers | None = None
    when: Expression | None = None
    accepted: bool = True
    reason: Value = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Required(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What must be known before an entry is taken.

    fields: names of own fields, or `complaint.category` and the like.
    before: the entries that wait for them.
    reason: what the refusal says.
    """

    fields: list[Name]
    before: Triggers = "accepted"
    when: Expression | None = None
    reason: Name = "required_field_missing"
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Numbering(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How complaints are numbered.

    pattern: made of {YYYY} {YY} {MM} {DD} and the counter {N:04}, here with four digits.
    reset: when the counter starts anew.
    overflow: what happens when the digits do not suffice: more of them, or no number.
    """

    pattern: str = "{YYYY}{MM}{DD}-{N:04}"
    reset: Literal["day", "month", "year", "never"] = "day"
    overflow: Literal["widen", "refuse"] = "widen"
    clause: Clauses = None


class Duplicates(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A complaint of the same complainant that matches an open one is linked to it, not stored twice.

    window: how long after the first.
    match: what has to be the same, fields or parts of the class.
    """

    window: str = "7d"
    match: list[Name] = msgspec.field(default_factory=lambda: ["kind", "category"])


class Intake(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who may complain and how, what is asked for, when it is taken.

    channels: ways in; the name `any` allows every one.
    acceptance: accepted by being received, or by somebody's entry `accepted`.
    accept_when: with `at_receipt`: only where this holds, else an `accepted` entry is awaited.
    acceptance_rules: rules that accept or decline.
    decline_reasons: the words for not taking a complaint.
    required: what must be known before an entry is taken.
    numbering: how complaints are numbered.
    duplicates: when a second complaint is the first once more; without it none ever is.
    anonymous: whether nameless complaints are taken, refused, or noted as a lead.
    retention: how long after closing personal data are kept.
    """

    channels: dict[Name, str | Channel] = {}
    acceptance: Literal["at_receipt", "by_entry"] = "by_entry"
    accept_when: Expression | None = None
    acceptance_rules: list[Acceptance] = []
    decline_reasons: dict[Name, str | Term] = {}
    required: list[Required] = []
    numbering: Numbering = Numbering()
    duplicates: Duplicates | None = None
    anonymous: Literal["accept", "refuse", "lead"] = "accept"
    retention: str = "3y"
    clause: Clauses = None


class ClassRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Sets the class while the condition holds. For each part the first rule that holds decides; what was stated stays.

    set: what is set: part of the class → value.
    on: decides when this happens, and the class then stays; without it the rule is looked at after every entry.
    override: beats what was stated.
    """

    set: dict[Literal["kind", "category", "severity", "priority", "respondent"], Value]
    when: Expression | None = None
    on: Triggers | None = None
    override: bool = False
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class RouteRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Names who must act. Every rule that holds adds its line; the first of them owns the case until a person assigns it.

    unit: the unit that acts; a list adds a line for each.
    role: the role that acts.
    staff: the person who acts.
    members: those who act together.
    as: the part it plays, such as lead or joint.
    auto: the service also enters `assigned` by itself.
    """

    on: Triggers = "received"
    when: Expression | None = None
    unit: Value = None
    role: Value = None
    staff: Value = None
    members: Value = None
    as_: Value = msgspec.field(default=None, name="as")
    auto: bool = False
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class StateRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Enters a state when something happens; the last rule that holds at one instant wins.

    state: the state that is entered.
    """

    state: Name
    on: Triggers
    when: Expression | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Gate(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Refuses an entry. Everything is allowed that no gate refuses.

    on: the entries that are looked at.
    when: refused while this holds; with `by`, to everybody else.
    by: who is let through: roles, units, groups, or values.
    reason: what the refusal says, a stable word.
    """

    on: Triggers
    when: Expression | None = None
    by: list[Value] | None = None
    reason: Value = "forbidden"
    id: RuleId | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Workflow(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """States and gates.

    initial: the state of a new case.
    states: what leads to which state, beside the entries that enter the state of their name.
    gates: what is refused.
    closed: states in which nothing more is owed.
    """

    initial: Name = "received"
    states: list[StateRule] = []
    gates: list[Gate] = []
    closed: list[Name] = msgspec.field(
        default_factory=lambda: ["closed", "declined", "archived", "withdrawn", "handed_over"]
    )


class Do(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What the system does by itself.

    kind: what is done.
    to: one addressee or a list: one effect each.
    what: a task, or for `deemed` the outcome.
    by: in whose name it is done.
    data: further values, shown with the effect; for `created` the new complaint.
    """

    kind: Literal["escalated", "notified", "task", "deemed", "created", "published", "closed", "warned", "reported"]
    to: Value = None
    what: Value = None
    by: Value = None
    data: dict[str, Value] = {}


class Pause(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A stretch that the clock does not count.

    from: what begins it.
    to: what ends it.
    count: `auto` counts whole days on limits in days and exact time on limits in hours; `days` and `time` always the one.
    """

    from_: Triggers = msgspec.field(default="paused", name="from")
    to: Triggers = "resumed"
    count: Literal["auto", "days", "time"] = "auto"


class Case(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One of several values.

    is: the value.
    when: it applies if this holds; the first that does wins, one without a condition comes last.
    """

    is_: Value = msgspec.field(name="is")
    when: Expression | None = None


class Repeat(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A series.

    every: how far apart.
    count: how many, all running from the start; without it the next begins when one ends.
    after_closing: without a count: also in a state in which nothing more is owed.
    """

    every: str
    count: int | None = None
    after_closing: bool = False


class Step(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A rung: something done at a distance from the due instant.

    do: what is done.
    before: a warning this long before the due instant, counted backwards on the calendar.
    after: a rung this long after it; `0h` is the breach itself.
    when: it is done only if this holds then.
    """

    do: list[Do] = []
    before: str | None = None
    after: str | None = None
    id: RuleId | None = None
    clause: Clauses = None
    when: Expression | None = None


class CountingChange(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What one limit counts otherwise than the calendar's own way.

    count_first_day: the day of the start is day 1.
    cutoff: a start later than this time of day belongs to the next date.
    roll: what happens to a calendar limit that would end on a rest day.
    working_day_end: a working-day limit ends at close of office or at 23:59:59.
    hour_mode: whether hours run round the clock.
    """

    count_first_day: bool | None = None
    cutoff: ClockTime | None = None
    roll: Literal["none", "next_working_day"] | None = None
    working_day_end: Literal["close", "midnight"] | None = None
    hour_mode: Literal["round_the_clock", "office_hours"] | None = None


class Clock(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Time counted towards one deadline.

    start: what starts it.
    within: an amount (`3wd`), a value giving an amount or an instant, or a list of cases; without it the time is only measured.
    stop: what meets it.
    stop_needs: whether one of the stops is enough.
    cancel: what ends it without meeting or missing it.
    when: looked at when it would start.
    while: looked at whenever the class changes; while it does not hold, the clock is superseded.
    anchor: what the amount counts from: the start, `received`, or a value giving an instant.
    reanchor: when a change of class brings the clock in: whether it counts from its start event or from the change.
    again: what a start does while it runs: nothing, a further run, or it begins anew.
    supersedes: clocks whose place it takes; itself among them: its earlier runs.
    pauses: what it does not count.
    repeat: makes it a series.
    kind: a `limit` can be missed; a `timer` acts at its due instant and cannot.
    inside: an outer clock or several; when this one's due instant lies after theirs, `inside_do` is done.
    inside_do: see `inside`.
    steps: warnings before, rungs after.
    owner: who owes it: a name or value, or a list with fallbacks.
    calendar: a calendar other than the default one.
    counting: what it counts otherwise than the calendar.
    overdue_unit: whether days late are working (`wd`) or calendar (`cd`) dates; by default as the limit counts.
    name: tells several limits of one clause apart.
    data: further values, shown with it.
    """

    id: RuleId
    start: Triggers
    within: Value = None
    stop: Triggers = []
    stop_needs: Literal["any", "all"] = "any"
    cancel: Triggers = []
    when: Expression | None = None
    while_: Expression | None = msgspec.field(default=None, name="while")
    anchor: Value = None
    reanchor: Literal["start", "change"] = "start"
    again: Literal["ignore", "new", "restart"] = "ignore"
    supersedes: list[RuleId] = []
    pauses: list[Pause] = []
    repeat: Repeat | None = None
    kind: Literal["limit", "timer"] = "limit"
    inside: RuleId | list[RuleId] | None = None
    inside_do: list[Do] = []
    steps: list[Step] = []
    owner: Value = None
    calendar: Name | None = None
    counting: CountingChange | None = None
    overdue_unit: Literal["wd", "cd"] | None = None
    name: Name | None = None
    title: Text = ""
    data: dict[str, Value] = {}
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Action(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """When something happens and a condition holds, at once or later: do.

    do: what is done.
    after: how much later, or a value giving an instant; by default at once.
    unless: one of these before the later instant, and it is not done.
    once: once in the life of the case.
    state: a state to enter as well.
    """

    id: RuleId
    on: Triggers
    do: list[Do] = []
    when: Expression | None = None
    after: Value = None
    unless: Triggers = []
    once: bool = False
    state: Name | None = None
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Threshold(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """When a counter reports.

    more_than: at the first count above this.
    at_least: at the first count that reaches this.
    fire: once in a window, with each further one, or at every multiple.
    """

    more_than: int | None = None
    at_least: int | None = None
    fire: Literal["once_per_window", "every_time", "every_multiple"] = "once_per_window"


class Subject(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Counts or sums over the complaints, penalties or acts that concern one person, unit, customer, issue or vehicle.

    subject: whom it is counted for: a value, or a list with fallbacks; nothing is counted where none is known.
    on: what counts; `penalty:ID` counts penalties.
    add: a number, or a value; money counts in whole minor units.
    window: `ever`; calendar_month, quarter, half, year; 12mo or 30d for the time up to now.
    opened_by_first: the first item opens the window, which then lasts for `window`.
    history: which earlier complaints count, where that is not the same `when`.
    threshold: when it reports; without it `count:ID` comes every time.
    data: further values, shown with it.
    once_per_case: a case counts once.
    show: whether it is listed among the counters of the case.
    """

    id: RuleId
    subject: Value
    on: Triggers
    when: Expression | None = None
    add: Value = 1
    window: str = "ever"
    opened_by_first: bool = False
    history: Expression | None = None
    threshold: Threshold | None = None
    data: dict[str, Value] = {}
    once_per_case: bool = False
    show: bool = True
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Tier(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One slice of a sum.

    percent: the rate of this slice.
    to: its upper edge, included; the last slice has none.
    """

    percent: str
    to: str | None = None


class Accrual(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """An amount that grows with every overdue day of the clock that was missed.

    first: for the miss itself.
    per_day: for each further day.
    start: whether `first` covers the first day late, or is owed beside it.
    unit: working (`wd`) or calendar (`cd`) days; by default as the clock counts.
    cap: the most it comes to.
    """

    first: str
    per_day: str
    start: Literal["base_covers_first_day", "base_plus_every_day"] = "base_covers_first_day"
    unit: Literal["wd", "cd", "working_day", "calendar_day"] | None = None
    cap: str | None = None


class Multiply(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A factor that applies in some cases.

    by: the factor.
    """

    by: Value
    when: Expression | None = None
    clause: Clauses = None


class Instalments(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Equal monthly parts; what does not divide is in the last.

    count: how many.
    first: in which month they begin.
    """

    count: Value
    first: Literal["this_month", "next_month"] = "next_month"


class Imposed(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One thing that a penalty rule imposes. Exactly one way of fixing the amount, none for a sanction.

    kind: what it is.
    amount: a fixed sum, or a value giving money.
    at_least: decided by a person, not below.
    at_most: decided by a person, not above.
    decided: decided by a person, no figure in the policy.
    percent: a share of `of`.
    percent_range: decided by a person between these two shares of `of`.
    tiers: a share of each slice of `of`.
    used: how much of the slices earlier sums have used up, in whole minor units.
    of: what shares are taken of: money.
    accrual: grows with every overdue day.
    factor: pay is multiplied by it; `"0"`: all of `of` is lost.
    points: with the kind `points`: how many.
    sanction: with the kind `sanction`: a name of `vocabulary.sanctions`.
    number: which one it is in a row, shown with a sanction.
    multiply: factors on the amount, each with its condition.
    instalments: taken in monthly parts.
    cap: the most it comes to.
    data: further values, shown with it.
    """

    kind: Literal["fine", "deduction", "points", "compensation", "recovery", "pay_factor", "clawback", "sanction"] = (
        "fine"
    )
    amount: Value = None
    at_least: str | None = None
    at_most: str | None = None
    decided: bool = False
    percent: Value = None
    percent_range: list[str] | None = None
    tiers: list[Tier] = []
    used: Value = None
    of: Value = None
    accrual: Accrual | None = None
    factor: Value = None
    points: Value = None
    sanction: Value = None
    number: Value = None
    multiply: list[Multiply] = []
    instalments: Instalments | None = None
    cap: Value = None
    when: Expression | None = None
    data: dict[str, Value] = {}


class Appeal(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How a penalty is contested.

    decided_by: who hears it; a decision by anyone else is refused.
    within: how long after the decision, or after the penalty came about, an appeal is possible; later ones are refused as `too_late`.
    """

    clause: Clauses = None
    decided_by: list[Name] = []
    within: str | None = None


class Penalty(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What is imposed on whom, when; what a person must decide waits as `needs_decision`.

    A `penalty_decided` entry with this clause decides it. Where the rule lists `penalty_decided` among its triggers the
    decision alone is enough.

    on: what brings it about.
    party: who bears it: a name, a value, or a list with fallbacks: the first that is known.
    impose: what it consists of.
    while: looked at after every entry; where it does not hold, the penalty falls away.
    decided_by: a decision by anyone else is refused.
    once_per: at most one for these values, for example the form and the party.
    stack: group whose rules compete, see `penalties.stacks`.
    because: a word for the cause, shown with it.
    appeal: how it is contested.
    """

    id: RuleId
    on: Triggers
    party: Value
    impose: list[Imposed]
    when: Expression | None = None
    while_: Expression | None = msgspec.field(default=None, name="while")
    decided_by: list[Name] = []
    once_per: list[Value] = []
    stack: Name | None = None
    because: Name | None = None
    appeal: Appeal | None = None
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Exclusion(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """While it holds nothing is imposed, and what was imposed falls away.

    rules: the penalties meant; all of them by default.
    """

    when: Expression
    rules: list[RuleId] = []
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Stack(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Penalties that compete.

    mode: whether the highest alone counts, or their sum.
    """

    mode: Literal["highest", "sum"] = "highest"
    clause: Clauses = None


class Penalties(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What failures cost.

    rules: the penalties.
    excluded: when nothing is imposed.
    stacks: groups of penalties of which not all count.
    """

    rules: list[Penalty] = []
    excluded: list[Exclusion] = []
    stacks: dict[Name, Stack] = {}


class MessageRule(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who is told what, how.

    on: entry triggers, and effects of the system: `effect:escalated`, `effect:warned`, …
    to: complainant, respondent, handler, a role, a unit, or a value.
    channel: how.
    template: the text, in Liquid: `{{ number }}`, `{{ due_at }}`, … (docs/messages.md).
    subject: the subject line of an e-mail.
    quiet_hours: `"21:00-08:00"`: what would go out then is sent when they end.
    """

    id: RuleId
    on: Triggers
    to: list[Value]
    channel: list[Literal["sms", "email", "webhook"]]
    template: Text
    subject: Text = ""
    when: Expression | None = None
    quiet_hours: str | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Window(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A window within each year.

    window: from and to, `06-01/06-10`.
    covers: the span of the year that the work covers, `12-01/05-31`.
    """

    window: Annotated[str, Meta(pattern=r"^\d\d-\d\d/\d\d-\d\d$")]
    covers: Annotated[str, Meta(pattern=r"^(\d\d-\d\d/\d\d-\d\d)?$")] = ""


class Duty(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A recurring task without a complaint: one turn a period, a clock each.

    every: the period; `quarterly` and `3mo` mean the quarter, and so on.
    due: an amount from the start of the turn; by default close of office of a day, the end of the last day of anything longer.
    proof: what shows that it was done; an entry may name the `period` or `unit` it is for.
    owner: who owes it.
    do: done at the start of each turn, usually a task.
    missed: done when it is missed.
    per: one turn for each of these units.
    windows: explicit windows within each year instead of `every`.
    calendar: a calendar other than the default one.
    """

    id: RuleId
    every: Annotated[
        str,
        Meta(
            pattern=r"^(day|working_day|week|week:(mon|tue|wed|thu|fri|sat|sun)|month|quarter|half|year|unset|1d|1wd|1w|1mo|3mo|6mo|12mo|1y|"
            r"daily|weekly|monthly|quarterly|half_yearly|yearly|calendar_month)$"
        ),
    ] = "year"
    due: Value = None
    proof: Triggers = []
    owner: Value = None
    do: list[Do] = []
    missed: list[Do] = []
    per: list[Name] = []
    windows: list[Window] = []
    title: Text = ""
    calendar: Name | None = None
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Row(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One figure of a report, per period. Its expressions see one fact row at a time.

    row: its name.
    value: how many; a share; a sum; a mean; complaints per what entries say.
    where: which facts count.
    done: of a share: which of them are done; `=expression` with a number: how many.
    of: of a sum or mean: what is added up.
    entries: take the figures from entries with this trigger instead of complaints.
    period: how long a period is.
    period_of: which instant decides in which period a complaint falls.
    first_month: in which the year begins that quarters and halves divide; 12: halves from December.
    by: also split by these: parts of the class, channel, unit, own fields.
    subject: one figure for each of these.
    target: what it should reach, `95` or `<=3`.
    """

    row: Name
    value: Literal["count", "percent", "sum", "mean", "per"] = "count"
    where: Expression | None = None
    done: Expression | None = None
    of: Value = None
    entries: Triggers | None = None
    period: Literal["day", "month", "quarter", "half", "year"] = "month"
    period_of: Literal["received", "handled", "resolved", "entry", "due"] = "received"
    first_month: Annotated[int, Meta(ge=1, le=12)] = 1
    by: list[str] = []
    subject: Value = None
    target: str | None = None
    title: Text = ""
    clause: Clauses = None
    if_: Expression | None = msgspec.field(default=None, name="if")


class Guidance(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What handlers are shown: conduct, scripts, checklists. No machine depends on it.

    text: what is shown.
    checklist: points to tick off.
    stage: state or step at which it is shown.
    """

    clause: Clauses
    text: Text
    checklist: list[Text] = []
    stage: Name | None = None


class ByDesignNot(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A clause that is left out on purpose.

    reason: why.
    """

    clause: Clauses
    reason: Text


class Incomplete(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A clause whose figure is missing in the written text: kept, shown, never fires.

    problem: what is missing.
    text: what to tell whoever reads the policy.
    unless: over settings: complete once this holds.
    data: further values, shown with it.
    """

    clause: Clauses
    problem: Literal["no_amount", "no_channel", "no_limit"] = "no_amount"
    text: Text = ""
    unless: Expression | None = None
    data: dict[str, Value] = {}


class Policy(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A tenant's complaint regime.

    policy: the version of the language.
    title: what it is called.
    regime: the letter and two digits with which its clauses begin.
    description: for whoever reads it.
    currency: of every amount in it, ISO 4217.
    settings: choices that rules read.
    calendar: which days and hours count, and how.
    vocabulary: the words.
    organisation: units, roles, groups.
    intake: ways in and acceptance.
    classification: what makes a complaint what it is.
    routing: who must act.
    workflow: states and gates.
    clocks: deadlines.
    actions: what the system does by itself.
    subjects: counters.
    penalties: what failures cost.
    messages: who is told.
    duties: recurring work without a complaint.
    reports: figures.
    guidance: what handlers are shown.
    by_design_not: clauses left out on purpose.
    incomplete: clauses whose figure is missing.
    """

    policy: Literal[1]
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

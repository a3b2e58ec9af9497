"""The names that expressions of a policy may use, and their types.

What each holds is said in `MEANINGS`, for report rows in `FACT_MEANINGS`; docs/policy-reference.md shows both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from shared.policy.cel.types import (
    BOOL,
    DATE,
    DYN,
    INSTANT,
    INT,
    MONEY,
    STRING,
    EnumType,
    ListType,
    MapType,
    RecordType,
    Type,
)

if TYPE_CHECKING:
    from shared.policy.schema import Policy

MEANINGS: Final[Mapping[str, str]] = {
    "complaint": "the case as it stands",
    "fields": "the tenant's own fields, as last stated",
    "data": "what the entry that is being looked at says; for other triggers, the data of what was found out",
    "at": "when it happened",
    "local_time": "the time of day of `at` where the tenant is: `08:05`",
    "by": "who did it",
    "roles": "the roles in which he or she acts",
    "actor_unit": "the unit of whoever acts",
    "seen": 'how often each trigger has occurred: `seen["step:callback"]`, `"breach:reply" in seen`; for a gate without the present'
    " entry, for other rules with it",
    "last": 'the latest entry of each trigger: `last["proposed"].data.options`',
    "entries": "all entries, oldest first",
    "collected": "all values so far of each key that may hold a list: `collected.documents`",
    "clocks": "the latest run of each clock and duty: `clocks.reply.state`, `clocks.reply.due_at`",
    "clock": "of a trigger `breach:`, `fired:`, `met:`, `late:`, `started:`: that run",
    "counts": "what each counter said last: `counts.repeated.count`",
    "count": "of a trigger `count:`: what that counter says",
    "penalty": "of a trigger `penalty:` or `imposed:`: what was imposed",
    "settings": 'the tenant\'s choices: `settings["R03.27.base"]`, `settings.limit`',
}
"""What each name of `variables` holds."""

FACT_MEANINGS: Final[Mapping[str, str]] = {
    "kind": "kind", "category": "category", "severity": "severity", "priority": "priority", "outcome": "outcome",
    "channel": "way in", "state": "state in which it stands", "source": "system it came from",
    "at": "when it was received", "handled_at": "when it was first resolved or closed", "resolved_at": "when it was last resolved",
    "closed_at": "when it was closed; null while it is open", "assigned_at": "when it was assigned",
    "due_at": "the due time of the limit that ends first",
    "accepted": "whether it was taken; null while nobody has decided", "decline_reason": "why it was not",
    "anonymous": "whether the complainant has no name", "respondent": "whom it is about", "handler": "who handles it",
    "complainant_id": "who complained", "complainant_type": "what kind of complainant", "fields": "the tenant's own fields",
    "rating": "the answer of the last survey or follow-up",
    "clocks": "how each clock ended, by its id and by its clause: `clocks.reply == \"met\"`; of several runs the worst",
    "breached": "the clauses of the limits that were missed", "on_time": "a limit was met and none was missed",
    "late": "a limit was missed", "escalated": "how often it was escalated", "rounds": "how many times it went round",
    "good_reason": "an approved reason for lateness was recorded", "fines_minor": "the fines, in whole minor units",
    "facts": "the policy's derived figures, by name", "count": "how many complaints the row stands for",
    "data": "of a row with `entries`: the data of the entry", "trigger": "of a row with `entries`: its trigger",
    "by": "of a row with `entries`: who made it", "entry_at": "of a row with `entries`: when", "settings": "the tenant's choices",
}  # fmt: skip
"""What each name of `fact_variables` holds."""

OUTCOMES: Final = ("upheld", "partly_upheld", "not_upheld", "malicious", "withdrawn")

NAMES: Final = ListType(STRING)

# What the data of an entry may carry in any regime; a policy adds its own under vocabulary.data.
DATA: Final[Mapping[str, Type]] = {
    # what it is about
    "step": STRING, "outcome": STRING, "kind": STRING, "category": STRING, "severity": STRING, "reason": STRING,
    "reasons": NAMES, "grade": STRING, "grade_reason": STRING, "breach_grade": STRING, "level": DYN, "tier": INT, "round": DYN,
    "stage": STRING, "label": STRING, "finding": STRING, "cause": STRING, "fault": STRING, "what": STRING, "because": DYN,
    # who and where
    "unit": STRING, "staff": STRING, "to": DYN, "from": STRING, "units": NAMES, "members": NAMES, "party": STRING, "who": STRING,
    "place": STRING, "part": STRING, "channel": STRING, "complainant": STRING, "respondent": STRING, "store": STRING, "team": STRING,
    "person": STRING, "area": STRING, "by_role": STRING, "reported_to": STRING, "caused": STRING, "sold": STRING, "subject": STRING,
    # when
    "by": INSTANT, "due_at": INSTANT, "done_at": INSTANT, "within": STRING, "to_total": STRING, "period": STRING, "date": DATE,
    "next_dates": NAMES,
    # how much
    "amount_cny": MONEY, "loss_cny": MONEY, "total_cny": MONEY, "compensation_cny": MONEY, "cost_cny": MONEY, "price_cny": MONEY,
    "goodwill_cny": MONEY, "percent": STRING, "share_percent": STRING, "instalments": INT, "points": INT, "quantity": INT,
    "delegates": INT, "customers_asked": INT, "recorded": INT, "forms": INT, "late": INT, "attitude": INT, "communication": INT,
    "problem_solving": INT, "score": INT, "copy": INT,
    # lists
    "documents": NAMES, "evidence": DYN, "findings": NAMES, "carried": NAMES, "items": NAMES, "apply": NAMES, "options": NAMES,
    "parts": NAMES,
    # yes or no
    "solved": BOOL, "summary": BOOL, "told_complainant": BOOL, "direct": BOOL, "note": BOOL, "signature": BOOL, "signed": BOOL,
    "on_the_spot": BOOL, "adviser_consulted": BOOL, "written": BOOL, "final": BOOL, "delay_explained": BOOL, "written_material": BOOL,
    "gift": BOOL, "credentials": BOOL, "consent": BOOL, "explained": BOOL, "defect": BOOL, "order_exists": BOOL, "interim": BOOL,
    "personal_comment": BOOL, "complete": BOOL, "has_authority": BOOL, "cause_found": BOOL, "reasons_sufficient": BOOL,
    # words
    "mode": STRING, "rating": STRING, "clause": STRING, "sanction": STRING, "text": STRING, "plan": STRING, "purpose": STRING,
    "form": STRING, "action": STRING, "name": STRING, "topic": STRING, "report": STRING, "rule": STRING, "measure": STRING,
    "remedy": STRING, "prior": STRING, "goodwill_type": STRING, "text_id": STRING, "number": STRING,
    # of links, merges and transfers
    "case_id": STRING, "linked_to": STRING, "effect": STRING, "version": INT, "name_of_calendar": STRING, "fields": DYN,
}  # fmt: skip

FIELD_TYPES: Final[Mapping[str, Type]] = {
    "text": STRING,
    "name": STRING,
    "bool": BOOL,
    "int": INT,
    "money": MONEY,
    "date": DATE,
    "instant": INSTANT,
    "list": NAMES,
    "person": STRING,
    "unit": STRING,
    "any": DYN,
}

CLOCK: Final = RecordType(
    {
        "rule": STRING,
        "clause": STRING,
        "state": EnumType(("running", "paused", "met", "breached", "superseded", "cancelled", "fired"), "clock state"),
        "started_at": INSTANT,
        "anchor_at": INSTANT,
        "due_at": INSTANT,
        "stopped_at": INSTANT,
        "breached": BOOL,
        "breached_at": INSTANT,
        "overdue_days": INT,
        "owner": STRING,
        "round": INT,
    },
    "clock",
)
COUNT: Final = RecordType(
    {"rule": STRING, "subject": STRING, "count": INT, "before": INT, "fires": BOOL, "times": INT}, "count"
)
PENALTY: Final = RecordType(
    {
        "rule": STRING,
        "clause": STRING,
        "party": STRING,
        "kind": STRING,
        "amount": MONEY,
        "sanction": STRING,
        "points": INT,
        "state": STRING,
    },
    "penalty",
)


def entry_type(policy: Policy) -> RecordType:
    """The record of one entry as `last[…]` and `entries` show it."""
    return RecordType(
        {"trigger": STRING, "kind": STRING, "at": INSTANT, "by": STRING, "roles": NAMES, "data": data_type(policy)},
        "entry",
    )


def data_type(policy: Policy) -> RecordType:
    own = {name: FIELD_TYPES.get(kind, DYN) for name, kind in policy.vocabulary.data.items()}
    known: dict[str, Type] = {**DATA, **own}
    known["outcome"] = EnumType((*OUTCOMES, *policy.vocabulary.outcomes), "outcome")
    if policy.vocabulary.severities:
        known["severity"] = EnumType(tuple(policy.vocabulary.severities), "severity")
    if policy.vocabulary.ratings:
        known["rating"] = EnumType(tuple(policy.vocabulary.ratings), "rating")
    return RecordType(known, "data")


def _enum(values: Mapping[str, object], name: str) -> Type:
    return EnumType(tuple(values), name) if values else STRING


def variables(policy: Policy, triggers: EnumType | None = None) -> dict[str, Type]:
    """Every name and its type for the expressions of this policy; `triggers`: all that can ever have been seen."""
    words = policy.vocabulary
    entry = entry_type(policy)
    states = {
        policy.workflow.initial: 0,
        **words.states,
        **{rule.state: 0 for rule in policy.workflow.states},
        "closed": 0,
        "declined": 0,
    }
    complaint = RecordType(
        {
            "kind": _enum(words.kinds, "kind"),
            "category": _enum(words.categories, "category"),
            "severity": _enum(words.severities, "severity"),
            "priority": DYN,
            "channel": STRING if "any" in policy.intake.channels else _enum(policy.intake.channels, "channel"),
            "anonymous": BOOL,
            "received_at": INSTANT,
            "complainant": RecordType({"id": STRING, "type": STRING}, "complainant"),
            "respondent": RecordType({"staff": STRING, "unit": STRING, "supervisor": STRING}, "respondent"),
            "handler": RecordType({"staff": STRING, "unit": STRING, "head": STRING}, "handler"),
            "respondent_name": STRING,
            "outcome": EnumType((*OUTCOMES, *words.outcomes), "outcome"),
            "state": _enum(states, "state"),
            "number": STRING,
            "accepted": BOOL,
            "decline_reason": STRING,
        },
        "complaint",
        frozenset({"received_at", "state"}),
    )
    fields = RecordType({name: _field(spec) for name, spec in words.fields.items()}, "fields")
    clock_ids = [clock.id for clock in policy.clocks] + [duty.id for duty in policy.duties]
    return {
        "complaint": complaint,
        "fields": fields,
        "data": data_type(policy),
        "at": INSTANT,
        "local_time": STRING,
        "by": STRING,
        "roles": NAMES,
        "actor_unit": STRING,
        "seen": MapType(INT, key=triggers),
        "last": MapType(entry, key=triggers),
        "entries": ListType(entry),
        "collected": RecordType(
            {name: NAMES for name, kind in data_type(policy).fields.items() if kind in (NAMES, DYN)}, "collected"
        ),
        "clocks": RecordType(dict.fromkeys(clock_ids, CLOCK), "clocks"),
        "clock": CLOCK,
        "counts": RecordType({rule.id: COUNT for rule in policy.subjects}, "counts"),
        "count": COUNT,
        "penalty": PENALTY,
        "settings": MapType(DYN),
    }


def _field(spec: object) -> Type:
    kind: str = spec.type  # type: ignore[attr-defined]
    values: list[str] | None = spec.values  # type: ignore[attr-defined]
    if values and kind == "name":
        return EnumType(tuple(values), "value")
    return FIELD_TYPES[kind]


def fact_variables(policy: Policy) -> dict[str, Type]:
    """The names that report rows may use: the attributes of one fact row (shared/engine/fact_rows.py), and the entry where a row counts
    entries (`data`, `trigger`, `by`, `entry_at`)."""
    known = variables(policy)
    complaint = known["complaint"]
    assert isinstance(complaint, RecordType)
    shared = {
        name: complaint.fields[name]
        for name in ("kind", "category", "severity", "priority", "outcome", "channel", "state")
    }
    return {
        **shared,
        "at": INSTANT,
        "handled_at": INSTANT,
        "resolved_at": INSTANT,
        "closed_at": INSTANT,
        "assigned_at": INSTANT,
        "due_at": INSTANT,
        "source": STRING,
        "accepted": BOOL,
        "decline_reason": STRING,
        "anonymous": BOOL,
        "respondent": complaint.fields["respondent"],
        "handler": complaint.fields["handler"],
        "complainant_id": STRING,
        "complainant_type": STRING,
        "fields": known["fields"],
        "rating": STRING,
        "clocks": MapType(STRING),  # clause, and id of the rule → worst state
        "breached": NAMES,
        "on_time": BOOL,
        "late": BOOL,
        "escalated": INT,
        "rounds": INT,
        "good_reason": BOOL,
        "fines_minor": INT,
        "facts": MapType(DYN),
        "count": INT,
        "data": known["data"],
        "trigger": STRING,
        "by": STRING,
        "entry_at": INSTANT,
        "settings": known["settings"],
    }


FACT_OPTIONAL: Final = frozenset(
    [
        "kind",
        "category",
        "severity",
        "priority",
        "outcome",
        "channel",
        "state",
        "at",
        "handled_at",
        "resolved_at",
        "closed_at",
        "assigned_at",
        "due_at",
        "source",
        "accepted",
        "decline_reason",
        "complainant_id",
        "complainant_type",
        "rating",
        "trigger",
        "by",
        "entry_at",
    ]
)

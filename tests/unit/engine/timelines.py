"""Random but well-typed timelines of real templates: what a service that checks its input could have written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from shared.engine.calendar import CalendarBook
from shared.engine.case import Case, fold
from shared.engine.model import ENTRY_KINDS, Actor, Entry, Standing
from shared.engine.rules import CompiledPolicy
from shared.policy.compiling import compile_policy
from shared.policy.scope import variables
from shared.policy.template_files import document_of, text_of

REGIMES = ("R03", "R09", "R20")
START = datetime(2026, 3, 2, 1, tzinfo=UTC)
PEOPLE = ("s1", "s2", "h1", "m1")
PLAIN = ("accepted", "declined", "assigned", "responded", "replied", "resolved", "closed", "reopened", "withdrawn")
NOT_DRAWN = frozenset({"received", "policy_changed", "calendar_changed", "merged", "split", "counted", "uncounted"})

# Some gaps are short, so that entries meet in an instant or a minute; some are long, so that limits are missed.
gaps = st.one_of(
    st.sampled_from([timedelta(), timedelta(minutes=1), timedelta(hours=24)]),
    st.integers(1, 60 * 24 * 12).map(lambda minutes: timedelta(minutes=minutes)),
)


@cache
def policy_of(regime: str) -> CompiledPolicy:
    return compile_policy(document_of(regime))


@cache
def book_of(regime: str) -> CalendarBook:
    return CalendarBook.of(policy_of(regime).document.calendar)


def stand(regime: str, timeline: list[Entry], now: datetime) -> Standing:
    return fold({1: policy_of(regime)}, timeline, book_of(regime), now)


def live(regime: str) -> Case:
    return Case({1: policy_of(regime)}, book_of(regime))


def plain(standing: Standing) -> Any:
    """A standing as values that can be compared and shown."""
    return msgspec.to_builtins(standing)


def after(timeline: list[Entry], gap: timedelta) -> datetime:
    return timeline[-1].at + gap


def a_value(declared: Any, random: Random) -> Any:
    """A value of a declared type, in the form that entries have."""
    values = getattr(declared, "values", None)
    if values:
        return random.choice(list(values))
    match declared.kind:
        case "bool":
            return random.random() < 0.5
        case "int":
            return random.randrange(10)
        case "money":
            return f"{random.randrange(4000)}.{random.randrange(100):02}"
        case "instant":
            return (START + timedelta(minutes=random.randrange(1, 60 * 24 * 30))).isoformat()
        case "date":
            return (START.date() + timedelta(days=random.randrange(60))).isoformat()
        case "list":
            return random.sample(["report", "photo", "proof", "order"], random.randrange(4))
        case "record" | "map":
            return {}
    return random.choice(["report", *PEOPLE])


@cache
def known_types(regime: str) -> Mapping[str, Any]:
    """The names that expressions may use, and their types."""
    return variables(policy_of(regime).document)


@cache
def data_keys(regime: str) -> tuple[str, ...]:
    """The data keys that the template's expressions name."""
    known = known_types(regime)["data"].fields
    return tuple(sorted(name for name in set(re.findall(r"data\.([a-z_]+)", text_of(regime))) if name in known))


@cache
def drawn_kinds(regime: str) -> tuple[tuple[str, str | None], ...]:
    """Every kind of entry that the template waits for, with its step; and the usual ones."""
    heads = [key.partition(":") for key in policy_of(regime).on]
    found = [(head, step or None) for head, _, step in heads if head in ENTRY_KINDS - NOT_DRAWN]
    return tuple(dict.fromkeys([*found, *((kind, None) for kind in PLAIN)]))


def received_data(regime: str, random: Random) -> dict[str, Any]:
    known = known_types(regime)
    complaint, fields = known["complaint"].fields, known["fields"].fields
    units = list(policy_of(regime).document.organisation.units) or ["office"]

    def party(*roles: str) -> dict[str, str]:
        return {"unit": random.choice(units)} | {role: random.choice(PEOPLE) for role in roles}

    stated = [name for name in ("kind", "category", "severity") if random.random() < 0.5]
    return {
        "respondent": party("staff", "supervisor"),
        "handler": party("staff", "head"),
        "complainant": {"id": "c1", "type": "customer"},
        "fields": {name: a_value(kind, random) for name, kind in fields.items()},
        **{name: a_value(complaint[name], random) for name in ("channel", *stated)},
    }


def entry_data(regime: str, kind: str, step: str | None, random: Random) -> dict[str, Any]:
    known = known_types(regime)["data"].fields
    data = {name: a_value(known[name], random) for name in data_keys(regime) if name not in ("step", "fields")}
    data |= {name: random.choice(["2wd", "36h", "5d"]) for name in ("within", "to_total") if name in data}
    if kind.startswith("penalty_"):
        clauses = sorted({clause for rule in policy_of(regime).penalties for clause in rule.clauses}) or ["none"]
        data |= {"clause": random.choice(clauses), "party": random.choice(PEOPLE)}
        data["amount_cny"] = a_value(known["amount_cny"], random)
    elif kind == "assigned":
        data["staff"] = random.choice(PEOPLE)
    if step is not None:
        data["step"] = step
    return data


def actor(regime: str, random: Random) -> Actor:
    organisation = policy_of(regime).document.organisation
    name = random.choice([*organisation.units, *organisation.roles, *PEOPLE])
    return Actor(id=name, roles=(name,))


@st.composite
def timelines(draw: st.DrawFn, regime: str, longest: int = 12) -> list[Entry]:
    """A complaint's life: received, then whatever comes."""
    random = Random(draw(st.integers(0, 2**32)))  # what the entries say; hypothesis chooses which there are, and when
    first = Entry(seq=1, kind="received", at=START, by=actor(regime, random), data=received_data(regime, random))
    timeline = [first]
    events = st.tuples(st.sampled_from(drawn_kinds(regime)), gaps)
    for (kind, step), gap in draw(st.lists(events, max_size=longest)):
        at, data = timeline[-1].at + gap, entry_data(regime, kind, step, random)
        by = actor(regime, random)
        timeline.append(Entry(seq=len(timeline) + 1, kind=kind, at=at, by=by, data=data))
    return timeline


cases = st.sampled_from(REGIMES).flatmap(lambda regime: st.tuples(st.just(regime), timelines(regime)))

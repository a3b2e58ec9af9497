"""docs/policy-reference.md, made from the language itself: `python -m shared.policy.reference_doc > docs/policy-reference.md`."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from shared.engine.amounts import Unit
from shared.engine.calendar import CalendarSection, CalendarSpec, Counting, Season
from shared.engine.model import EFFECT_KINDS
from shared.policy import schema
from shared.policy.cel.functions import Function, standard_functions
from shared.policy.cel.types import EnumType, ListType, MapType, RecordType, Type
from shared.policy.compiling import ENGINE_TRIGGERS, compiled_states
from shared.policy.documents import LARGEST
from shared.policy.meanings import COMMON, meanings_of, summary_of
from shared.policy.naming import COMMON_NAMES
from shared.policy.scope import DATA, FACT_MEANINGS, MEANINGS, fact_variables, variables
from shared.policy.words import CLOCK_PARTS, EFFECTS, KINDS, PARTS, PATHS, PENALTIES

SECTIONS: Final[Mapping[str, tuple[type[Struct], ...]]] = {
    "The document": (schema.Policy,),
    "Settings": (schema.Setting,),
    "Calendar": (CalendarSection, CalendarSpec, Season, Counting),
    "Vocabulary": (schema.Vocabulary, schema.Term, schema.Field, schema.Fact),
    "Organisation": (schema.Organisation, schema.Unit, schema.Role, schema.Group),
    "Intake": (schema.Intake, schema.Channel, schema.Acceptance, schema.Required, schema.Numbering, schema.Duplicates),
    "Classification": (schema.ClassRule,),
    "Routing": (schema.RouteRule,),
    "Workflow": (schema.Workflow, schema.StateRule, schema.Gate),
    "Clocks": (schema.Clock, schema.Case, schema.Pause, schema.Repeat, schema.Step, schema.CountingChange),
    "Actions": (schema.Action, schema.Do, schema.Trigger),
    "Counters": (schema.Subject, schema.Threshold),
    "Penalties": (
        schema.Penalties,
        schema.Penalty,
        schema.Imposed,
        schema.Accrual,
        schema.Tier,
        schema.Multiply,
        schema.Instalments,
        schema.Appeal,
        schema.Exclusion,
        schema.Stack,
    ),
    "Messages": (schema.MessageRule,),
    "Duties": (schema.Duty, schema.Window),
    "Reports": (schema.Row,),
    "Guidance and what is left out": (schema.Guidance, schema.ByDesignNot, schema.Incomplete),
}
"""Every Struct of the language, by the heading under which it is explained."""

ALIASES: Final[Mapping[str, str]] = {
    "RuleId": "id",
    "Name": "name",
    "Expression": "condition",
    "Clauses": "clause or list of clauses",
    "Text": "text, or one per language",
    "Value": "value",
    "Any": "value",
    "Triggers": "trigger or list of triggers",
    "str": "text",
    "int": "whole number",
    "bool": "true or false",
    "date": "date",
    "ClockTime": '"HH:MM"',
}

AMOUNTS: Final[Mapping[str, str]] = {
    "min": "minutes",
    "h": "hours, round the clock",
    "bh": "working hours",
    "d": "calendar days",
    "wd": "working days",
    "w": "weeks",
    "mo": "months",
    "y": "years",
    "eom": "until the end of the month",
    "eoq": "until the end of the quarter",
    "eoy": "until the end of the year",
}

OPERATORS: Final = (
    ("a && b", "both hold"),
    ("a || b", "at least one holds"),
    ("!a", "it does not hold"),
    ("== !=", "equal, not equal; anything may be compared with `null`, which means: not known"),
    ("< <= > >=", "for numbers, money, instants, dates, lengths of time and texts"),
    ("x in [a, b]", 'one of these; also whether a key is in a map: `"replied" in seen`'),
    (
        "+ - * / %",
        "numbers; money with money, or times a number; instants and lengths of time; `+` also joins texts and lists",
    ),
    ("c ? a : b", "`a` if `c` holds, else `b`"),
    ('a.b  a["b"]  a[0]', "a part, a key, an item; of nothing, nothing"),
)
"""Written by hand: the grammar of conditions."""

MACROS: Final = (
    ("list.all(x, …)", "it holds for every item"),
    ("list.exists(x, …)", "it holds for at least one item"),
    ("list.exists_one(x, …)", "it holds for exactly one item"),
    ("list.filter(x, …)", "the items for which it holds"),
    ("list.map(x, …)", "what becomes of each item"),
    ("has(a.b)", "something is known there: `a.b != null`"),
    ("default(a, b)", "`a`, or `b` where `a` is not known"),
)

CONVERSIONS: Final[Mapping[str, str]] = {
    "names": "one name or several as a list; of nothing, an empty one",
    "int": "as a whole number; of an instant, the seconds since 1970",
    "string": "as text",
    "money": "read from a decimal text",
    "duration": "read from a text such as `36h` or `90m`; `3d` is 72 hours",
    "timestamp": "read from a text such as `2026-03-02T10:00:00+08:00`",
    "date": "read from a text such as `2026-03-02`",
}


def reference() -> str:
    """The page as Markdown: the prose of reference_page.md with its tables filled in."""
    page = (files("shared.policy") / "reference_page.md").read_text(encoding="utf-8")
    made = {
        "common": _table(("key", "meaning"), ((f"`{key}`", text) for key, text in COMMON.items())),
        "sections": _sections(),
        "triggers": _table(
            ("trigger", "with", "when"),
            ((f"`{head}:…`", _what(head), text) for head, text in ENGINE_TRIGGERS.items()),
        ),
        "effect_triggers": ", ".join(f"`effect:{kind}`" for kind in sorted(EFFECT_KINDS)),
        "amounts": _table(("written", "means"), (_amount(unit) for unit in get_args(Unit))),
        "operators": _table(("written", "means"), ((f"`{one}`".replace("|", "\\|"), text) for one, text in OPERATORS)),
        "functions": _functions(),
        "macros": _table(
            ("with lists and with what may be unknown", "means"), ((f"`{one}`", text) for one, text in MACROS)
        ),
        "names": _names(),
        "fact_names": _fact_names(),
        "entries": _words(KINDS, "when"),
        "data_keys": _data_keys(),
        "effects": _words(EFFECTS),
        "penalties": _words(PENALTIES),
        "parts": _words({name: words for name, words in PARTS.items() if name in COMMON_NAMES}),
        "states": ", ".join(f"`{name}`" for name in compiled_states()),
    }
    page = page.replace("MOST_KB", str(LARGEST // 1024))
    return re.sub(r"\[\[([a-z_]+)\]\]", lambda found: made.pop(found[1]), page)


# -- sections ------------------------------------------------------------------------------------------------------


def _sections() -> str:
    parts = []
    for heading, kinds in SECTIONS.items():
        parts.append(f"### {heading}\n")
        parts += [_struct(kind, heading) for kind in kinds]
    return "\n\n".join(part.strip("\n") for part in parts)


def _struct(kind: type[Struct], heading: str) -> str:
    meanings = meanings_of(kind)
    rows = []
    for field in msgspec.structs.fields(kind):
        type_ = _type(_annotation(kind, field.name))
        # What means the same everywhere is explained once, unless this section says more.
        meaning = "" if meanings[field.encode_name] == COMMON.get(field.encode_name) else meanings[field.encode_name]
        rows.append((f"`{field.encode_name}`", type_, _default(field), meaning))
    title = (
        ""
        if kind.__name__ == heading
        else f'\n<a id="{kind.__name__.lower()}"></a>**{_spoken(kind.__name__).capitalize()}.** '
    )
    return f"{title or chr(10)}{summary_of(kind)}\n\n" + _table(("key", "type", "default", "meaning"), rows)


def _annotation(kind: type[Struct], name: str) -> str:
    """The type of a key as its module writes it; modules of the language keep their annotations as text."""
    return str(inspect.get_annotations(kind)[name])


def _type(annotation: str) -> str:
    return _told(ast.parse(annotation, mode="eval").body)


def _told(node: ast.expr) -> str:
    """A type in words."""
    match node:
        case ast.BinOp(op=ast.BitOr()):
            sides = [one for one in (_told(node.left), _told(node.right)) if one]
            return " or ".join(sides)
        case ast.Constant(value=None):
            return ""
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return f"list of {_plural(_told(inner))}"
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return f"{_plural(_told(key))} → {_told(value)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            names = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return ", ".join(f"`{one.value!s}`" for one in names if isinstance(one, ast.Constant))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _told(first)
        case ast.Name(id=name) if name in ALIASES:
            return ALIASES[name]
        case ast.Name(id=name) if name in _LITERALS:
            return ", ".join(f"`{one}`" for one in _LITERALS[name])
        case ast.Name(id=name):
            return f"[{_spoken(name)}](#{name.lower()})"
    raise ValueError(ast.dump(node))


_LITERALS: Final[Mapping[str, tuple[str, ...]]] = {
    "Roll": ("none", "next_working_day"),
    "DayEnd": ("close", "midnight"),
    "HourMode": ("round_the_clock", "office_hours"),
}


def _plural(text: str) -> str:
    return f"{text}s" if text in ("name", "value", "id", "date") else "texts" if text == "text" else text


def _spoken(name: str) -> str:
    """A class name as words: ClassRule → class rule."""
    return "".join(f" {one.lower()}" if one.isupper() else one for one in name).strip()


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**needed**"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if value in (None, "", [], {}) or isinstance(value, Struct):
        return ""
    if isinstance(value, dict) and any(isinstance(one, Struct) for one in value.values()):
        return ""
    return f"`{msgspec.json.encode(value).decode().replace(',', ', ')}`" if not isinstance(value, str) else f"`{value}`"


# -- triggers, amounts, conditions ---------------------------------------------------------------------------------


def _what(head: str) -> str:
    known = {
        "count": "id of a counter",
        "penalty": "id of a penalty",
        "imposed": "id of a penalty",
        "state": "name of a state",
        "class": "part of the class",
        "decision": "`accepted` or `declined`",
        "action": "id of an action",
    }
    return known.get(head, "id of a clock" if head == "fired" else "id of a clock or duty")


def _amount(unit: str) -> tuple[str, str]:
    return f"`{unit}`" if unit.startswith("eo") else f"`3{unit}`", AMOUNTS[unit]


def _functions() -> str:
    rows = []
    for name, found in standard_functions("CNY").items():
        overloads = [found] if isinstance(found, Function) else list(found)
        phrase = next((one.phrases["en"] for one in overloads if one.phrases), "")
        means = CONVERSIONS.get(name) or phrase.format("the first", "the second", all="them")
        results = {_kind(one.result) for one in overloads}
        written = f"x.{name}(…)" if overloads[0].style == "method" else f"{name}(…)"
        rows.append((f"`{written}`", _arguments(overloads), results.pop() if len(results) == 1 else "the same", means))
    return _table(("function", "of", "gives", "what"), rows)


def _arguments(overloads: Iterable[Function]) -> str:
    told: dict[str, None] = {}
    for one in overloads:
        told.setdefault(", ".join(_kind(argument) for argument in one.arguments) + (", …" if one.is_variadic else ""))
    return "; ".join(told)


# -- names ---------------------------------------------------------------------------------------------------------


def _names() -> str:
    known = variables(schema.Policy(policy=1, title=""))
    rows = (row for name, kind in known.items() for row in _name_rows(name, kind, MEANINGS[name]))
    return _table(("name", "type", "what it holds"), rows)


def _name_rows(name: str, kind: Type, meaning: str) -> Iterator[tuple[str, str, str]]:
    each = {"clocks": "by id, each like `clock`", "counts": "by id, each like `count`"}
    own = CLOCK_PARTS.get(name.removeprefix("clock.")) if name.startswith("clock.") else PATHS.get(name)
    yield f"`{name}`", each.get(name) or _kind(kind), meaning or (own[0] if own else "")
    if name in ("data", "collected", "fields"):
        return
    if isinstance(kind, RecordType):
        for part, inner in kind.fields.items():
            yield from _name_rows(f"{name}.{part}", inner, "")


def _kind(kind: Type) -> str:
    match kind:
        case RecordType(name="data"):
            return "[data](#keys-of-data)"
        case RecordType(name="entry"):
            return "an entry: " + ", ".join(f"`{part}`" for part in kind.fields)
        case RecordType():
            return "parts" if kind.fields else "by name"
        case MapType(value=value):
            return f"by name: {_kind(value)}"
        case ListType(item=item):
            return f"list of {_kind(item)}"
        case EnumType(values=values):
            return ", ".join(f"`{one}`" for one in values)
    return {"string": "text", "dyn": "any", "int": "whole number", "bool": "true or false"}.get(str(kind), str(kind))


def _fact_names() -> str:
    rows = []
    for name, kind in fact_variables(schema.Policy(policy=1, title="")).items():
        shown = _kind(kind)
        if isinstance(kind, RecordType) and shown == "parts":
            shown = "parts: " + ", ".join(f"`{part}`" for part in kind.fields)
        rows.append((f"`{name}`", shown, FACT_MEANINGS[name]))
    return _table(("name", "type", "what it holds"), rows)


# -- words ------------------------------------------------------------------------------------------------------------


def _words(words: Mapping[str, tuple[str, str]], means: str = "means") -> str:
    return _table(("name", means, "中文"), ((f"`{name}`", *both) for name, both in words.items()))


def _data_keys() -> str:
    by_type: dict[str, list[str]] = {}
    for key, kind in DATA.items():
        by_type.setdefault(_kind(kind), []).append(key)
    return _table(
        ("type", "keys"), ((type_, ", ".join(f"`{key}`" for key in sorted(keys))) for type_, keys in by_type.items())
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _every_struct() -> set[type[Any]]:
    """All Structs of the language: each must be explained under some heading."""
    found = {
        one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, Struct) and one is not Struct
    }
    return {*found, CalendarSection, CalendarSpec, Season, Counting}


def unexplained() -> set[str]:
    """Names of Structs that stand under no heading."""
    told = {kind for kinds in SECTIONS.values() for kind in kinds}
    return {kind.__name__ for kind in _every_struct() - told}


if __name__ == "__main__":
    sys.stdout.write(reference())

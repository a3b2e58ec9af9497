"""Whether the data of an entry use only words that the policy declares, each with its type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any, Final

from shared.engine.model import ENTRY_KINDS
from shared.engine.rules import CompiledPolicy
from shared.errors import FieldError
from shared.policy.cel.types import EnumType, ListType, MapType, RecordType, Type
from shared.policy.schema import Policy
from shared.policy.scope import FIELD_TYPES, data_type

SYSTEM_KINDS: Final = frozenset({"received", "counted", "uncounted", "policy_changed", "calendar_changed"})
"""What only the system enters."""

COMMAND_KINDS: Final = ENTRY_KINDS - SYSTEM_KINDS

_MAX_TEXT: Final = 500
_MAX_ITEMS: Final = 200
_MAX_DEPTH: Final = 6
_YEARS: Final = range(1970, 2199)
_MONEY: Final = re.compile(r"-?\d{1,15}(\.\d{1,4})?")


def problems(policy: CompiledPolicy, kind: str, data: Mapping[str, Any]) -> list[FieldError]:
    """Return everything that is wrong with an entry before any gate looks at it; pointers are into the command `{kind, data}`."""
    if kind not in COMMAND_KINDS:
        if kind in SYSTEM_KINDS:
            return [FieldError("/kind", f"`{kind}` is entered by the system alone")]
        return [_unknown("/kind", "kind of entry", kind, COMMAND_KINDS)]
    document: Policy = policy.document
    found: list[FieldError] = []
    known = data_type(document).fields
    for name, value in data.items():
        pointer = f"/data/{_escaped(name)}"
        if name == "fields":
            found += _fields(document, value)
        elif name not in known:
            found.append(_unknown(pointer, "key", name, known))
        elif value is not None:
            found += _check(pointer, known[name], value, policy.exponent)
    return found + _steps(policy, kind, data)


def _steps(policy: CompiledPolicy, kind: str, data: Mapping[str, Any]) -> list[FieldError]:
    declared = set(policy.document.vocabulary.steps)
    step = data.get("step")
    if kind == "step" and step is None:
        return [FieldError("/data/step", "a `step` entry says which step of the policy it is")]
    if not isinstance(step, str):
        return []
    if kind != "step":
        declared |= {trigger.partition(":")[2] for trigger in policy.on if trigger.startswith(f"{kind}:")}
    return [] if step in declared else [_unknown("/data/step", "step", step, declared)]


def _fields(document: Policy, value: Any) -> list[FieldError]:
    if not isinstance(value, dict):
        return [FieldError("/data/fields", "an object is expected")]
    found: list[FieldError] = []
    for name, each in value.items():
        pointer = f"/data/fields/{_escaped(name)}"
        spec = document.vocabulary.fields.get(name)
        if spec is None:
            found.append(_unknown(pointer, "field", name, document.vocabulary.fields))
        elif spec.personal:
            found.append(FieldError(pointer, "personal data belong in the vault, not on the timeline"))
        elif each is not None:
            if spec.values and each not in spec.values:
                found.append(_unknown(pointer, "value", str(each), spec.values))
            else:
                found += _check(pointer, FIELD_TYPES[spec.type], each, 4)
    return found


def _check(pointer: str, kind: Type, value: Any, exponent: int) -> list[FieldError]:
    """Return what is wrong with one value; values are as JSON has them, so instants and money come as texts."""
    if isinstance(kind, EnumType):
        if not isinstance(value, str):
            return [FieldError(pointer, "a text is expected")]
        return [] if value in kind.values else [_unknown(pointer, kind.name, value, kind.values)]
    if isinstance(kind, ListType):
        if not isinstance(value, list):
            return [FieldError(pointer, "a list is expected")]
        if len(value) > _MAX_ITEMS:
            return [FieldError(pointer, f"at most {_MAX_ITEMS} items")]
        return [
            each for index, item in enumerate(value) for each in _check(f"{pointer}/{index}", kind.item, item, exponent)
        ]
    if isinstance(kind, MapType | RecordType):
        return [] if isinstance(value, dict) else [FieldError(pointer, "an object is expected")]
    problem = _scalar(kind.kind, value, exponent)
    return [FieldError(pointer, problem)] if problem else []


def _scalar(kind: str, value: Any, exponent: int) -> str | None:
    match kind:
        case "bool":
            return None if isinstance(value, bool) else "true or false is expected"
        case "int":
            fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
            return None if fits else "a whole number is expected"
        case "string":
            return _text(value)
        case "money":
            fits = isinstance(value, str) and _MONEY.fullmatch(value) is not None
            if not fits:
                return 'an amount is a text such as "480.00"'
            return (
                None
                if len(value.partition(".")[2].rstrip("0")) <= exponent
                else f"the currency has {exponent} decimals"
            )
        case "instant":
            at = instant(value)
            if at is None:
                return "an instant is RFC 3339 with its offset"
            return None if at.year in _YEARS else f"an instant lies between {_YEARS[0]} and {_YEARS[-1]}"
        case "date":
            return None if _is_date(value) else "a date is YYYY-MM-DD"
    return _bounded(value, 0)


def instant(value: Any) -> datetime | None:
    """Return the instant an entry's data name, None for what is none: aware datetimes, as text (RFC 3339) or as they are."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) == 10 and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return "a text is expected"
    if len(value) > _MAX_TEXT:
        return f"at most {_MAX_TEXT} characters; longer text goes into the command's `text`"
    return (
        "NUL and control characters are not taken"
        if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in value)
        else None
    )


def _bounded(value: Any, depth: int) -> str | None:
    """What may be anything is still bounded."""
    if depth > _MAX_DEPTH:
        return f"at most {_MAX_DEPTH} levels"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return "numbers are whole, amounts are texts"
    items = value if isinstance(value, list) else [*value.keys(), *value.values()] if isinstance(value, dict) else []
    if len(items) > _MAX_ITEMS:
        return f"at most {_MAX_ITEMS} items"
    return next((problem for item in items if (problem := _bounded(item, depth + 1))), None)


def _unknown(pointer: str, what: str, name: str, known: Iterable[str]) -> FieldError:
    near = get_close_matches(name, list(known), n=1)
    return FieldError(pointer, f"the policy knows no {what} `{name[:80]}`", near[0] if near else None)


def _escaped(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")

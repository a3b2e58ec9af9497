"""What is wrong with the shape of a document: the place, and words for people instead of the decoder's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import inspect

from shared.policy.cel import near_miss
from shared.policy.documents import escape
from shared.policy.problems import PolicyProblem
from shared.policy.schema import Policy

Decode = Callable[[Mapping[str, Any]], Any]
Steps = tuple[str | int, ...]

MOST_SHOWN: Final = 16
_STEP: Final = re.compile(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]")
_KINDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_FORMS: Final = {  # what a pattern of the schema asks for, in words
    r"^[a-z][a-z0-9_]*$": "an id is made of small letters, digits and _, and begins with a letter",
    r"^[^\s=][^\n]*$": "a name begins with neither a blank nor =",
    r"^[A-Z]\d\d$": "a regime is a capital letter and two digits, such as W01",
    r"^[A-Z]{3}$": "a currency is three capital letters, such as CNY",
    r"^\d\d-\d\d/\d\d-\d\d$": "a window is written 06-01/06-10",
    r"^(\d\d-\d\d/\d\d-\d\d)?$": "a span of the year is written 12-01/05-31",
    r"^([01]\d|2[0-3]):[0-5]\d$": "a time of day is written 17:30",
}


def shape_problem(error: msgspec.ValidationError, values: Mapping[str, Any], decode: Decode) -> PolicyProblem:
    """Return the decoder's complaint with a JSON pointer, and with the near-miss for a key or word that is not known.

    Args:
        error: what `decode` raised for `values`.
        values: the document.
        decode: tells whether a part of the document has the same fault; the decoder does not name keys of mappings.
    """
    message, _, where = str(error).partition(" - at ")
    path, here = _place(where, str(error), values, decode)
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", message):
        told, hint = f"there is no key {unknown[1]} here", near_miss(unknown[1], _keys_at(path))
        return PolicyProblem(path=_pointer((*path, unknown[1])), message=told, code="unknown-key", suggestion=hint)
    is_key = where.startswith("`key`")
    told, hint = _in_words(message, path[-1] if is_key and path else here, path, is_key=is_key)
    return PolicyProblem(path=_pointer(path), message=told, code="shape", suggestion=hint)


def _in_words(message: str, value: Any, path: Steps, *, is_key: bool) -> tuple[str, str | None]:
    if found := re.fullmatch(r"Expected `([^`]+)`, got `(\w+)`", message):
        wanted = [kind for kind in found[1].split(" | ") if kind != "null"] or ["null"]
        told = f"{' or '.join(_KINDS.get(kind, kind) for kind in wanted)} is needed here, not {_KINDS.get(found[2], found[2])}"
        return told, _as_wanted(wanted, value)
    if message.startswith("Invalid enum value"):
        known = _words_at(path[:-1] if is_key else path, of_keys=is_key)
        listed = ", ".join(known[:MOST_SHOWN]) + (", …" if len(known) > MOST_SHOWN else "")
        return f"{value!r} does not fit here" + (f"; what does: {listed}" if known else ""), near_miss(
            str(value), known
        )
    if found := re.fullmatch(r"Expected `str` matching regex '(.+)'", message):
        form = _FORMS.get(found[1].replace("\\\\", "\\"))
        if form is not None:
            return f"{value!r}: {form}", None
        known = re.findall(r"[\w:]+", found[1])
        return f"{value!r} is not of the form {found[1]}", near_miss(str(value), known)
    if found := re.fullmatch(r"Expected `(str|array)` of length (<=|>=) (\d+)", message):
        what = "characters" if found[1] == "str" else "items"
        return f"at {'most' if found[2] == '<=' else 'least'} {found[3]} {what} fit here", None
    if found := re.fullmatch(r"Expected `int` (<=|>=) (-?\d+)", message):
        return f"a whole number of at {'most' if found[1] == '<=' else 'least'} {found[2]} is needed here", None
    if found := re.fullmatch(r"Object missing required field `(.+)`", message):
        return f"the key {found[1]} is missing", None
    if message == "Invalid RFC3339 encoded date":
        return f"{value!r} is no date such as 2026-12-24", None
    return message[:1].lower() + message[1:], None


def _as_wanted(wanted: Sequence[str], value: Any) -> str | None:
    """The value as it would fit, where that is a matter of quotes or brackets."""
    if "str" in wanted and isinstance(value, bool | int):
        return msgspec.json.encode(str(value).lower() if isinstance(value, bool) else str(value)).decode()
    if isinstance(value, str) and len(value) <= 60:
        if "bool" in wanted:
            return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower())
        if "int" in wanted and re.fullmatch(r"-?\d+", value):
            return value
        if "array" in wanted:
            return f"[{value}]"
    return None


def _place(where: str, told: str, values: Mapping[str, Any], decode: Decode) -> tuple[Steps, Any]:
    """Follow the decoder's path into the document; where it only says "some key", find out which."""
    path: Steps = ()
    here: Any = values
    for name, index in _STEP.findall(where):
        step: str | int | None = name or None
        if index == "...":
            step = _culprit(path, here, told, values, decode)
        elif index:
            step = int(index)
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return path, here
        assert step is not None
        path = (*path, step)
    if where.startswith("`key`") and (step := _culprit(path, here, told, values, decode)) is not None:
        return (*path, step), here
    return path, here


def _culprit(path: Steps, mapping: Any, told: str, values: Mapping[str, Any], decode: Decode) -> str | None:
    """The first key of a mapping without which, and without those after it, the fault is gone."""
    if not isinstance(mapping, Mapping) or not mapping:
        return None
    keys = list(mapping)

    def is_faulty(kept: Iterable[str]) -> bool:
        try:
            decode(_with(values, path, {key: mapping[key] for key in kept}))
        except msgspec.ValidationError as error:
            return str(error) == told
        return False

    low, high = 0, len(keys) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_faulty(keys[: middle + 1]) else (middle + 1, high)
    return str(keys[low])


def _with(values: Any, path: Steps, new: Any) -> Any:
    """A copy of the document with something else at one place."""
    if not path:
        return new
    copied: Any = list(values) if isinstance(values, list) else dict(values)
    copied[path[0]] = _with(values[path[0]], path[1:], new)
    return copied


def _pointer(path: Steps) -> str:
    return "".join(f"/{escape(str(step))}" for step in path)


# What the schema knows at a place


def _types_at(path: Steps) -> list[inspect.Type]:
    """The types that the schema allows at a place of the document."""
    types = [inspect.type_info(Policy)]
    for step in path:
        types = [each for one in types for each in _alternatives(_inside(one, step))]
    return types


def _alternatives(one: inspect.Type | None) -> list[inspect.Type]:
    if one is None:
        return []
    if isinstance(one, inspect.UnionType):
        return [inner for each in one.types for inner in _alternatives(each)]
    if isinstance(one, inspect.Metadata):
        return _alternatives(one.type)
    return [one]


def _inside(one: inspect.Type, step: str | int) -> inspect.Type | None:
    match one:
        case inspect.StructType(fields=fields):
            return next((field.type for field in fields if field.encode_name == step), None)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return item
        case inspect.DictType(value_type=value):
            return value
    return None


def _keys_at(path: Steps) -> list[str]:
    return [field.encode_name for one in _types_at(path) if isinstance(one, inspect.StructType) for field in one.fields]


def _words_at(path: Steps, *, of_keys: bool) -> list[str]:
    types = _types_at(path)
    if of_keys:
        types = [key for one in types if isinstance(one, inspect.DictType) for key in _alternatives(one.key_type)]
    return [str(value) for one in types if isinstance(one, inspect.LiteralType) for value in one.values]


__all__ = ["shape_problem"]

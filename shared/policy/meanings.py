"""What each key of a policy means: read from the docstrings of the Structs, their one home.

The docstring of a Struct begins with what it is. Lines `key: meaning` follow, a longer meaning is indented on its next
lines. Keys that mean the same everywhere stand in `COMMON`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

COMMON: Final[Mapping[str, str]] = {
    "id": "stable name of the rule, in small letters with `_`; other rules, messages and reports refer to it.",
    "on": "what sets it off: one trigger or several.",
    "when": "it applies only if this condition holds then.",
    "if": "a condition over `settings`; where it is false the rule is left out.",
    "clause": "clause or clauses of the written regime that it carries out.",
    "title": "what people are shown, one text or one for each language.",
    "label": "what people are shown, one text or one for each language.",
    "meaning": "what it is, for whoever reads the policy.",
}

_KEY: Final = re.compile(r"([a-z_]+): (.*)")


def keys_of(kind: type[Struct]) -> list[str]:
    """The keys of a section as a policy writes them, in their order."""
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def summary_of(kind: type[Struct]) -> str:
    """What a section is: its docstring up to the keys."""
    return _read(kind)[0]


def meanings_of(kind: type[Struct]) -> dict[str, str]:
    """The meaning of every key of a section; KeyError for one that nobody has explained."""
    own = _read(kind)[1]
    return {key: own[key] if key in own else COMMON[key] for key in keys_of(kind)}


def _read(kind: type[Struct]) -> tuple[str, dict[str, str]]:
    known = set(keys_of(kind))
    summary: list[str] = []
    found: dict[str, str] = {}
    key = ""
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        begun = _KEY.fullmatch(line)
        if begun and begun[1] in known:
            key = begun[1]
            found[key] = begun[2]
        elif key and line.startswith(" "):
            found[key] += " " + line.strip()
        elif line:
            key = ""
            summary.append(line)
    return " ".join(summary), found

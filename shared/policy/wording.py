"""The texts of messages: Liquid with a small set of tags and filters, bounded in time and memory, over declared fields.

A tenant writes the templates, so nothing in one may run long, grow large or reach anything but the fields below. There
is no assignment, no inclusion and no arithmetic; what remains is checked when the policy is published (`problems`) and
bounded when it is rendered (`render`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from liquid import Environment
from liquid.builtin import (
    case_tag,
    comment_tag,
    content,
    for_tag,
    if_tag,
    illegal,
    inline_comment_tag,
    output,
    unless_tag,
)
from liquid.exceptions import LiquidError
from liquid.template import BoundTemplate
from msgspec import Struct

from shared.policy.schema import Field

MOST_CHARACTERS = 4000
MOST_OUTPUT_BYTES = 16_384
MOST_ITERATIONS = 1000

# Name → what it is. A value is a text, ready to be read; one that is not known is empty.
FIELDS: Mapping[str, str] = {
    "number": "the complaint's number",
    "organisation": "the tenant's name",
    "kind": "kind of the complaint",
    "category": "category",
    "severity": "severity",
    "outcome": "outcome",
    "state": "state",
    "channel": "how it arrived",
    "received_at": "when it was received",
    "due_at": "when the next step is due; of an effect of a clock: when that clock was due",
    "at": "when what the message tells of happened",
    "what": "of an effect: what is told or to be done",
    "title": "the title of the rule that had the effect",
    "unit": "the unit that must act",
    "amount": "of a penalty: the amount with its currency",
    "party": "of a penalty: who bears it",
    "clause": "the clause of the written regime",
    "name": "the complainant's name; empty for every other audience",
}
# Groups: `clocks.ID.due_at`, `clocks.ID.state`, `fields.NAME`, `data.NAME`. Free text is in none of them.
GROUPS: Mapping[str, str] = {
    "clocks": "the latest run of each clock: clocks.ID.due_at, clocks.ID.state",
    "fields": "the tenant's own fields, except free texts and restricted ones",
    "data": "what the entry or the effect says, except free texts",
}

TAGS = (
    content.Literal,
    output.Output,
    illegal.Illegal,
    if_tag.IfTag,
    unless_tag.UnlessTag,
    case_tag.CaseTag,
    for_tag.ForTag,
    for_tag.BreakTag,
    for_tag.ContinueTag,
    comment_tag.CommentTag,
    inline_comment_tag.InlineCommentTag,
)


HIDDEN = ("Cc", "Cf", "Cs")  # control characters, directions and other invisible ones, halves of pairs
KEPT = "\n\t\u200c\u200d"  # the joiners belong to the spelling of several scripts


FREE_TEXT = frozenset({"text", "text_id", "person", "complainant", "name", "plan", "remedy", "purpose", "report"})
"""Keys of an entry's data that people write at will, or that point to somebody."""
SHOWN_FIELDS = frozenset({"bool", "int", "money", "date", "instant", "unit"})


def shown_fields(fields: Mapping[str, Field]) -> list[str]:
    """The tenant's own fields that a message may show: no free text, nothing personal, nothing restricted."""
    return [
        name
        for name, field in fields.items()
        if not field.personal and not field.restricted and (field.type in SHOWN_FIELDS or field.values)
    ]


class WordingError(Exception):
    """The text cannot be rendered within its bounds, or is no template."""


class WordingProblem(Struct, frozen=True):
    """What is wrong with a template; `line` from 1, None when the whole is meant."""

    detail: str
    line: int | None = None


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _default(value: object, instead: object = "") -> object:
    return instead if value in (None, "", False) else value


def _join(value: object, between: object = ", ") -> str:
    if isinstance(value, list | tuple):
        return _text(between).join(_text(item) for item in value[:MOST_ITERATIONS])
    return value if isinstance(value, str) else ""  # a range could be as long as it likes


def _truncate(value: object, length: object = 50) -> str:
    text, most = _text(value), length if isinstance(length, int) else 50
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


FILTERS: Mapping[str, Callable[..., object]] = {
    "default": _default,
    "join": _join,
    "truncate": _truncate,
    "size": _size,
    "upcase": lambda value: _text(value).upper(),
    "downcase": lambda value: _text(value).lower(),
    "capitalize": lambda value: _text(value).capitalize(),
    "strip": lambda value: _text(value).strip(),
}


class _Bounded(Environment):
    output_stream_limit = MOST_OUTPUT_BYTES
    loop_iteration_limit = MOST_ITERATIONS
    local_namespace_limit = 4096
    context_depth_limit = 8
    block_nesting_limit = 8

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        for tag in TAGS:
            self.add_tag(tag)
        for name, function in FILTERS.items():
            self.add_filter(name, function)


_environment = _Bounded(strict_filters=True)


@lru_cache(maxsize=2048)
def _parsed(template: str) -> BoundTemplate:
    if len(template) > MOST_CHARACTERS:
        raise WordingError(f"a template has at most {MOST_CHARACTERS} characters")
    try:
        return _environment.from_string(template)
    except (LiquidError, RecursionError) as error:
        raise WordingError(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    return str(getattr(error, "message", "") or "the template cannot be read").split("\n")[0]


def render(template: str, fields: Mapping[str, Any]) -> str:
    """Return the text. Raises WordingError for what is no template and for what exceeds its bounds."""
    try:
        return _parsed(template).render(clean(fields))
    except (LiquidError, RecursionError) as error:
        raise WordingError(_sentence(error)) from None


def one_line(text: str) -> str:
    """The text on one line, for a subject or an SMS of one paragraph: no line break survives."""
    return " ".join(text.split())


def clean(value: Any) -> Any:
    """Values without control characters and without characters that turn the direction of the text around them."""
    if isinstance(value, str):
        return "".join(char for char in value if unicodedata.category(char) not in HIDDEN or char in KEPT)
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value[:MOST_ITERATIONS]]
    return value


def problems(template: str, *, fields: Sequence[str] = (), clocks: Sequence[str] = ()) -> list[WordingProblem]:
    """Return what is wrong with a template, for the publisher: form, unknown names, and what exceeds bounds.

    Args:
        fields: the tenant's own fields that may be shown.
        clocks: ids of the policy's clocks.
    """
    try:
        parsed = _parsed(template)
    except WordingError as error:
        return [WordingProblem(str(error))]
    found = []
    groups = {"fields": fields, "clocks": clocks}
    for name, uses in parsed.analyze(include_partials=False).globals.items():
        for use in uses:
            path = [str(segment) for segment in use.segments]
            line = use.span.line_col(template)[0] if hasattr(use.span, "line_col") else None
            if name == "data":  # what an entry may carry is the policy's own business
                known = len(path) > 1 and path[1] not in FREE_TEXT
            elif name in groups:
                known = len(path) > 1 and path[1] in groups[name]
            else:
                known = name in FIELDS and len(path) == 1
            if not known:
                found.append(WordingProblem(f"{'.'.join(path)} is nothing that a message can say", line))
    try:
        render(template, {})
    except WordingError as error:
        found.append(WordingProblem(str(error)))
    return found

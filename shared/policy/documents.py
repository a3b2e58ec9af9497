"""From the text of a policy to plain values, with the place of each for error messages.

YAML as administrators expect it: `on`, `yes` and `no` are words, times and dates are text, a key may stand once, and there are no anchors
(they can make a small text enormous). JSON is YAML too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from msgspec import Struct

LARGEST = 512 * 1024
"""Bytes; a policy is at most this long."""

DEEPEST = 24


class Mark(Struct, frozen=True):
    """Line and column, both from 1."""

    line: int
    column: int


class DocumentError(ValueError):
    """The text is no document: what is wrong and where."""

    def __init__(self, message: str, mark: Mark | None = None, pointer: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark
        self.pointer = pointer


class Document(Struct, frozen=True):
    """A parsed document: its values, and the mark of each by JSON pointer."""

    values: dict[str, Any]
    marks: dict[str, Mark]


_Base: Any = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml's parser is several times faster; same grammar, same marks


class _Loader(_Base):  # type: ignore[misc]
    """Only the scalars of JSON are recognised; everything else is text."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]{0,17})$"), list("-0123456789"))


def parse(text: str | bytes) -> Document:
    """Return the document.

    Raises:
        DocumentError: too long, not UTF-8, no YAML, a key that stands twice, an anchor, too deep, or no mapping at the top.
    """
    data = text.encode() if isinstance(text, str) else text
    if len(data) > LARGEST:
        raise DocumentError(f"a policy has at most {LARGEST // 1024} KB, this one has {len(data) // 1024 + 1}")
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DocumentError("the text is UTF-16: save it as UTF-8", Mark(1, 1)) from None
        line = data[: error.start].rpartition(b"\n")[2]
        start = Mark(data.count(b"\n", 0, error.start) + 1, len(line.decode("utf-8", "replace")) + 1)
        raise DocumentError(f"the text is not UTF-8 at byte {error.start}: save it as UTF-8", start) from None
    loader = _Loader(decoded)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark
        mark = None if place is None else Mark(place.line + 1, place.column + 1)
        raise DocumentError(f"not YAML: {_in_words(error, decoded)}", mark) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"not YAML: {error}") from None
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    finally:
        loader.dispose()
    if not isinstance(node, yaml.MappingNode):
        raise DocumentError("a policy is a mapping: it begins with a line such as `policy: 1`", Mark(1, 1))
    marks: dict[str, Mark] = {}
    return Document(_value(node, "", marks, set(), 0), marks)


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    """What the parser did not like, as somebody who writes a policy would say it."""
    told, mark = str(error.problem or error.context), error.problem_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "the line begins with a tab: indent with spaces"
    for problem, words in _YAML:
        if problem in told:
            return f"{words} ({told})"
    return told


_YAML = (
    ("mapping values are not allowed", "a text that contains `: ` stands in quotes, or the line is indented too far"),
    ("another document", "a policy is one document: take out the line `---`"),
    ("',' or", "a bracket is not closed, or a text inside it needs quotes around it"),
    ("expected key", "the line is not indented like those it belongs to, or a quote before it is not closed"),
    ("'-' indicator", "the line is not indented like the items above it"),
    ("expected <block end>", "the line is not indented like those it belongs to"),
    ("unexpected end of stream", "a quote is opened and not closed"),
    ("unknown escape", "in \"…\" a \\ begins an escape: use '…' instead"),
    ("could not find expected ':'", "a `:` is missing after the key"),
    ("cannot start any token", "a text that begins with such a character stands in quotes"),
)
"""Part of what the parser says, and what it mostly means."""


def _value(node: yaml.Node, pointer: str, marks: dict[str, Mark], seen: set[int], depth: int) -> Any:
    mark = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
    marks[pointer] = mark
    if depth > DEEPEST:
        raise DocumentError(f"nested more than {DEEPEST} levels", mark, pointer)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, mark, pointer)
    if id(node) in seen:
        raise DocumentError("anchors and aliases are not allowed: write it out", mark, pointer)
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, f"{pointer}/{place}", marks, seen, depth + 1) for place, item in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key_mark = Mark(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if not isinstance(key_node, yaml.ScalarNode):
            raise DocumentError("a key is a word", key_mark, pointer)
        key = str(key_node.value)
        if key == "<<":
            raise DocumentError("anchors and aliases are not allowed: write it out", key_mark, pointer)
        inner = f"{pointer}/{escape(key)}"
        if key in found:
            raise DocumentError(f"the key {key} stands twice", key_mark, inner)
        found[key] = _value(value_node, inner, marks, seen, depth + 1)
        marks[inner] = key_mark
    return found


def _scalar(node: yaml.ScalarNode, mark: Mark, pointer: str) -> Any:
    text = node.value
    if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
        raise DocumentError("a text holds a character that cannot be stored", mark, pointer)
    if node.tag == "tag:yaml.org,2002:bool":
        return text == "true"
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if node.tag == "tag:yaml.org,2002:int":
        return int(text)
    return str(text)


def escape(key: str) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")

"""The syntax tree. The parser builds it untyped; the checker returns the same tree with every `type` filled in.

`at` is the offset in the source that a message about the node should point to.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from shared.policy.cel.types import DYN, Type


class Node(Struct, frozen=True):
    at: int


class Literal(Node, frozen=True):
    """A constant as written: bool, int, string or null."""

    value: bool | int | str | None
    type: Type = DYN


class Name(Node, frozen=True):
    """A variable of the environment, or, if `is_local`, the variable of a macro."""

    name: str
    type: Type = DYN
    is_local: bool = False


class Select(Node, frozen=True):
    """`operand.field`, also written `operand["field"]`."""

    operand: "Expression"
    field: str
    type: Type = DYN


class Index(Node, frozen=True):
    """`operand[key]`: a place in a list, counted from 0, or a computed key of a map."""

    operand: "Expression"
    key: "Expression"
    type: Type = DYN


class ListOf(Node, frozen=True):
    items: "tuple[Expression, ...]"
    type: Type = DYN


class Not(Node, frozen=True):
    operand: "Expression"
    type: Type = DYN


class Negate(Node, frozen=True):
    operand: "Expression"
    type: Type = DYN


class And(Node, frozen=True):
    terms: "tuple[Expression, ...]"
    type: Type = DYN


class Or(Node, frozen=True):
    terms: "tuple[Expression, ...]"
    type: Type = DYN


class Compare(Node, frozen=True):
    """`== != < <= > >= in`."""

    op: str
    left: "Expression"
    right: "Expression"
    type: Type = DYN


class Arithmetic(Node, frozen=True):
    """`+ - * / %`; which one of each is meant follows from the types of the operands."""

    op: str
    left: "Expression"
    right: "Expression"
    type: Type = DYN


class Choose(Node, frozen=True):
    """`condition ? yes : no`."""

    condition: "Expression"
    yes: "Expression"
    no: "Expression"
    type: Type = DYN


class Has(Node, frozen=True):
    """`has(a.b)`: the field has a value."""

    operand: "Expression"
    type: Type = DYN


class Macro(Node, frozen=True):
    """`target.kind(variable, body)` with kind all, exists, exists_one, filter or map."""

    kind: str
    target: "Expression"
    variable: str
    body: "Expression"
    type: Type = DYN


class Call(Node, frozen=True):
    """A function; a receiver (`x.f(y)`) is the first argument. `overload` is what the checker chose."""

    function: str
    arguments: "tuple[Expression, ...]"
    is_method: bool = False
    type: Type = DYN
    overload: Any = None


class Convert(Node, frozen=True):
    """A value of unknown type (dyn) that has to be a `type`, because of what it meets; put in by the checker."""

    operand: "Expression"
    type: Type = DYN


Expression = (
    Literal
    | Name
    | Select
    | Index
    | ListOf
    | Not
    | Negate
    | And
    | Or
    | Compare
    | Arithmetic
    | Choose
    | Has
    | Macro
    | Call
    | Convert
)


# The fields of each node that hold parts of it; a field named "*x" holds several.
_PARTS: Final[Mapping[type, tuple[str, ...]]] = {
    Select: ("operand",),
    Index: ("operand", "key"),
    ListOf: ("*items",),
    Not: ("operand",),
    Negate: ("operand",),
    And: ("*terms",),
    Or: ("*terms",),
    Compare: ("left", "right"),
    Arithmetic: ("left", "right"),
    Choose: ("condition", "yes", "no"),
    Has: ("operand",),
    Macro: ("target", "body"),
    Call: ("*arguments",),
    Convert: ("operand",),
}


def children(node: Expression) -> tuple[Expression, ...]:
    """Return the parts of a node in the order of the text."""
    parts = _PARTS.get(node.__class__, ())
    if parts and parts[0].startswith("*"):
        return getattr(node, parts[0][1:])  # type: ignore[no-any-return]
    return tuple([getattr(node, part) for part in parts])


def walk(node: Expression) -> Iterator[Expression]:
    """Yield the node and everything below it; a linter's way through a condition."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(reversed(children(current)))


def path_of(node: Expression) -> str | None:
    """Return the dotted path that a node reads (`complaint.severity`), or None if it is not a plain access."""
    match node:
        case Name(name=name):
            return name
        case Select(operand=operand, field=field):
            before = path_of(operand)
            return None if before is None else f"{before}.{field}"
        case Index(operand=operand, key=Literal(value=int(place))):
            before = path_of(operand)
            return None if before is None else f"{before}[{place}]"
        case Convert(operand=operand):
            return path_of(operand)
    return None


def written(node: Expression) -> str | None:
    """Return the path that a node reads as one would write it: `last["step:callback"].at`."""
    match node:
        case Select(operand=operand, field=field):
            before = written(operand)
            return None if before is None else f"{before}.{field}" if field.isidentifier() else f'{before}["{field}"]'
        case Index(operand=operand, key=Literal(value=int(place))):
            before = written(operand)
            return None if before is None else f"{before}[{place}]"
        case Convert(operand=operand):
            return written(operand)
    return path_of(node)

"""The meaning of a checked expression, node by node: the reference, exact about errors and their absorption.

Generated code (`generator`) is what runs; whenever it fails, the expression is evaluated again here, which either
finds the value that CEL gives in spite of the error (`error || true` is true) or raises EvaluationError with the path.
Values of subexpressions are as `values` describes them, so `generator` must agree with this module and nothing else.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from shared.policy.cel.environment import Environment
from shared.policy.cel.functions import OPERATORS, Function, in_range
from shared.policy.cel.nodes import (
    And,
    Arithmetic,
    Call,
    Choose,
    Compare,
    Convert,
    Expression,
    Has,
    Index,
    ListOf,
    Literal,
    Macro,
    Name,
    Negate,
    Not,
    Or,
    Select,
    path_of,
)
from shared.policy.cel.problems import EvaluationError
from shared.policy.cel.types import DYN, ListType, MapType
from shared.policy.cel.values import CHECKED_ON_USE, Converter, to_bool

Locals = Mapping[str, Any]
_NO_LOCALS: Final[Locals] = {}


def same(left: Any, right: Any) -> bool:
    """Return whether two values of unknown type are equal; true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def holds(items: Any, value: Any) -> bool:
    """Return whether a list of unknown type has the value, or a map the key."""
    if value.__class__ is str and (items.__class__ is dict or items.__class__ is list):
        return value in items
    if isinstance(items, list | tuple):
        return any(same(item, value) for item in items)
    if isinstance(items, Mapping):
        return isinstance(value, str) and value in items
    raise EvaluationError("in needs a list or a map on its right")


def item_at(items: Any, place: Any) -> Any:
    """Return the item at a place of a list, counted from 0; no place is counted from the end."""
    if not isinstance(items, list | tuple) or not isinstance(place, int) or isinstance(place, bool):
        raise EvaluationError("only a list has places, numbered from 0")
    if not 0 <= place < len(items):
        raise EvaluationError(f"the list has no place {place}; it has {len(items)} items")
    return items[place]


def item_or_value(owner: Any, key: Any) -> Any:
    """Return `owner[key]` of an owner of unknown type."""
    if owner.__class__ is dict or isinstance(owner, Mapping):
        return owner.get(key) if isinstance(key, str) else None
    return item_at(owner, key)


def in_order(op: str, left: Any, right: Any) -> bool:
    """Compare two values of unknown type: two whole numbers or two texts."""
    are_numbers = left.__class__ is int and right.__class__ is int
    if not are_numbers and not (isinstance(left, str) and isinstance(right, str)):
        raise EvaluationError(f"{op} needs two numbers or two texts")
    return bool(ORDERINGS[op](left, right))


ORDERINGS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def access_converter(environment: Environment, node: Name | Select | Index) -> Converter | None:
    """Return what a value read from data goes through; what comes out of a list has been converted with it."""
    is_from_list = isinstance(node, Name) and node.is_local
    is_from_list = is_from_list or (isinstance(node, Index) and isinstance(node.operand.type, ListType))
    if is_from_list and node.type.kind not in CHECKED_ON_USE:
        return None
    return environment.converter_of(node.type)


class TooLongError(EvaluationError):
    """The evaluation was broken off; unlike other errors it is not absorbed."""


class Evaluator:
    """Evaluates a checked expression once."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.steps = environment.limits.steps

    def evaluate(self, node: Expression, scope: Any, variables: Locals = _NO_LOCALS) -> Any:
        """Return the value; raise EvaluationError where there is none."""
        self.steps -= 1
        if self.steps < 0:
            raise TooLongError(f"more than {self.environment.limits.steps} steps after an error")
        return _EVALUATIONS[node.__class__](self, node, scope, variables)

    def literal(self, node: Literal, scope: Any, variables: Locals) -> Any:
        return node.value

    def access(self, node: Name | Select | Index, scope: Any, variables: Locals) -> Any:
        value = self.raw(node, scope, variables)
        convert = access_converter(self.environment, node)
        return value if convert is None else convert(value, path_of(node) or "the value")

    def convert(self, node: Convert, scope: Any, variables: Locals) -> Any:
        convert = self.environment.converter_of(node.type)
        value = self.raw(node.operand, scope, variables)
        return value if convert is None else convert(value, path_of(node) or "the value")

    def conjunction(self, node: And, scope: Any, variables: Locals) -> bool:
        return settle((partial(self.condition, term, scope, variables) for term in node.terms), False)

    def disjunction(self, node: Or, scope: Any, variables: Locals) -> bool:
        return settle((partial(self.condition, term, scope, variables) for term in node.terms), True)

    def negation(self, node: Not, scope: Any, variables: Locals) -> bool:
        return not self.condition(node.operand, scope, variables)

    def presence(self, node: Has, scope: Any, variables: Locals) -> bool:
        return self.raw(node.operand, scope, variables) is not None

    def arithmetic(self, node: Arithmetic, scope: Any, variables: Locals) -> Any:
        key = (node.op, node.left.type.kind, node.right.type.kind)
        operator = OPERATORS.get(key)
        call = operator.call if operator is not None else self.environment.joined[key]
        return attempt(call, self.need(node.left, scope, variables), self.need(node.right, scope, variables))

    def opposite(self, node: Negate, scope: Any, variables: Locals) -> Any:
        value = -self.need(node.operand, scope, variables)
        return in_range(value) if isinstance(value, int) else value

    def choice(self, node: Choose, scope: Any, variables: Locals) -> Any:
        chosen = node.yes if self.condition(node.condition, scope, variables) else node.no
        return self.evaluate(chosen, scope, variables)

    def list_of(self, node: ListOf, scope: Any, variables: Locals) -> list[Any]:
        return [self.evaluate(item, scope, variables) for item in node.items]

    def need(self, node: Expression, scope: Any, variables: Locals) -> Any:
        """Return the value of a node that must not be null."""
        value = self.evaluate(node, scope, variables)
        if value is None:
            raise EvaluationError(f"{path_of(node) or 'an operand'} has no value")
        return value

    def condition(self, node: Expression, scope: Any, variables: Locals) -> bool:
        """Return a truth value; null is none."""
        value = self.need(node, scope, variables)
        return bool(to_bool(value, path_of(node) or "the condition"))

    def raw(self, node: Expression, scope: Any, variables: Locals) -> Any:
        """Return what data hold at an access, unconverted; null where something on the way is missing."""
        match node:
            case Name(name=name, is_local=is_local):
                return variables[name] if is_local else getattr(scope, name)
            case Select(operand=operand, field=field):
                owner = self.raw(operand, scope, variables)
                if owner is None:
                    return None
                if not isinstance(owner, Mapping):
                    raise EvaluationError(f"{path_of(operand) or 'the value'} has no fields")
                return owner.get(field)
            case Index(operand=operand, key=key):
                if isinstance(operand.type, ListType):
                    items = self.need(operand, scope, variables)
                    return item_at(items, self.need(key, scope, variables))
                owner = self.raw(operand, scope, variables)
                found = self.need(key, scope, variables)
                return None if owner is None else item_or_value(owner, found)
        return self.evaluate(node, scope, variables)

    def compare(self, node: Compare, scope: Any, variables: Locals) -> bool:
        op, left, right = node.op, node.left, node.right
        if op in ("==", "!="):
            is_loose = left.type is DYN or right.type is DYN
            first = self.plain(left, scope, variables)
            second = self.plain(right, scope, variables)
            equal = same(first, second) if is_loose else first == second
            return bool(equal) is (op == "==")
        if op == "in":
            value = self.plain(left, scope, variables)
            items = self.need(right, scope, variables)
            if isinstance(right.type, ListType) and right.type.item is not DYN and left.type is not DYN:
                return bool(value in items)
            return holds(items, value)
        first, second = self.need(left, scope, variables), self.need(right, scope, variables)
        if left.type is DYN:
            return in_order(op, first, second)
        return bool(ORDERINGS[op](first, second))

    def plain(self, node: Expression, scope: Any, variables: Locals) -> Any:
        """Return a value to be compared for equality, for which a text needs no look at it."""
        return self.raw(node, scope, variables) if node.type.kind == "string" else self.evaluate(node, scope, variables)

    def macro(self, node: Macro, scope: Any, variables: Locals) -> Any:
        items = self.elements(node, scope, variables)
        inner = [{**variables, node.variable: item} for item in items]
        body = node.body
        match node.kind:
            case "all" | "exists":
                return settle((partial(self.condition, body, scope, one) for one in inner), node.kind == "exists")
            case "exists_one":
                return sum(self.condition(body, scope, one) for one in inner) == 1
            case "filter":
                return [item for item, one in zip(items, inner, strict=True) if self.condition(body, scope, one)]
        return [self.evaluate(body, scope, one) for one in inner]

    def elements(self, node: Macro, scope: Any, variables: Locals) -> list[Any]:
        value = self.need(node.target, scope, variables)
        if node.target.type is DYN:
            return elements(value, self.environment)
        return list(value)

    def call(self, node: Call, scope: Any, variables: Locals) -> Any:
        if node.function == "default":
            value = self.evaluate(node.arguments[0], scope, variables)
            return self.evaluate(node.arguments[1], scope, variables) if value is None else value
        overload: Function = node.overload
        get = self.evaluate if overload.accepts_null else self.need
        values = [get(argument, scope, variables) for argument in node.arguments]
        if overload.takes_scope:
            values.insert(0, scope)
        return attempt(overload.call, *values)


_EVALUATIONS: Final[Mapping[type, Callable[[Evaluator, Any, Any, Locals], Any]]] = {
    Literal: Evaluator.literal,
    Name: Evaluator.access,
    Select: Evaluator.access,
    Index: Evaluator.access,
    Convert: Evaluator.convert,
    ListOf: Evaluator.list_of,
    Not: Evaluator.negation,
    Negate: Evaluator.opposite,
    And: Evaluator.conjunction,
    Or: Evaluator.disjunction,
    Compare: Evaluator.compare,
    Arithmetic: Evaluator.arithmetic,
    Choose: Evaluator.choice,
    Has: Evaluator.presence,
    Macro: Evaluator.macro,
    Call: Evaluator.call,
}


def settle(tests: Iterable[Callable[[], bool]], decisive: bool) -> bool:
    """Return `decisive` if one test gives it, even when others fail; the first failure counts if none does."""
    failure: EvaluationError | None = None
    for test in tests:
        try:
            if test() is decisive:
                return decisive
        except TooLongError:
            raise
        except EvaluationError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return not decisive


def elements(value: Any, environment: Environment) -> list[Any]:
    """Return what a macro goes through in a value of unknown type."""
    wanted = MapType(DYN) if isinstance(value, Mapping) else ListType(DYN)
    convert = environment.converter_of(wanted)
    if convert is None:
        raise AssertionError(wanted)
    return list(convert(value, "the value"))


def attempt(call: Callable[..., Any], *values: Any) -> Any:
    """Call a function; that it cannot answer is a failure of the evaluation, a bug in it stays a bug."""
    try:
        return call(*values)
    except EvaluationError:
        raise
    except (ValueError, OverflowError) as error:
        raise EvaluationError(str(error)) from None

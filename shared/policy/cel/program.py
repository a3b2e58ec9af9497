"""From a condition's text to a function: the way in for policies."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

from msgspec import UNSET

from shared.policy.cel.checker import Checker, join, start_of, unknown_value
from shared.policy.cel.cost import worst_case
from shared.policy.cel.environment import Environment
from shared.policy.cel.evaluator import Evaluator
from shared.policy.cel.generator import Run, generate, is_constant
from shared.policy.cel.nodes import Choose, Expression
from shared.policy.cel.parser import parse
from shared.policy.cel.problems import EvaluationError, ExpressionError, Problem
from shared.policy.cel.types import BOOL, DYN, FAULTY, EnumType, ListType, Type
from shared.policy.cel.values import parse_date, parse_duration, parse_instant, parse_money


class Program:
    """A checked expression, ready to run; the same for everybody, so it can be shared and kept.

    Attributes:
        source: the text as written.
        type: what it gives.
        ast: the typed tree.
        paths: what it reads of the scope, as dotted paths; of a list or computed key, up to that.
        warnings: what is doubtful, such as an operand that may have no value.
        constant: its value if it depends on nothing, else `msgspec.UNSET`.
        run: the compiled function; calling the program is the same with one more step.
    """

    def __init__(
        self,
        source: str,
        environment: Environment,
        ast: Expression,
        want: Type,
        paths: Iterable[str],
        warnings: Iterable[Problem],
        constant: Any,
    ) -> None:
        self.source = source
        self.environment = environment
        self.ast = ast
        self.want = want
        self.type = ast.type
        self.paths = frozenset(paths)
        self.warnings = tuple(warnings)
        self.constant = constant

    @cached_property
    def run(self) -> Run:
        """Return the compiled function. Made at the first use, for a policy is linted more often than it is run."""
        return generate(self.ast, self.environment, self.want)

    def __call__(self, scope: Any) -> Any:
        """Return the value for a scope, an object with one attribute per variable; raise EvaluationError.

        Money comes as minor units, instants as aware datetimes, durations as timedeltas. Null is possible for
        anything but a condition.
        """
        return self.run(scope)

    @property
    def is_constant(self) -> bool:
        """Return whether the value depends on nothing."""
        return self.constant is not UNSET

    def __repr__(self) -> str:
        return f"Program({self.source!r})"


def compile_expression(source: str, env: Environment, want: Type) -> Program:
    """Return the program of an expression that gives a `want` (DYN: anything).

    Raises ExpressionError with everything wrong: of the characters, else of the grammar (the first), else of names,
    types and known values (all).
    """
    tree = parse(source, env.limits)
    checker = Checker(source, env)
    node = checker.check(tree) if want is not BOOL else checker.condition(tree, "this place")
    if not checker.problems and want is not BOOL:
        node = _as_wanted(checker, node, want)
    if not checker.problems and (cost := worst_case(node, env.limits)) > env.limits.cost:
        factor = -(-cost // env.limits.cost)
        checker.problem(f"could take too long: about {factor} times what is allowed with long lists", start_of(node))
    constant: Any = UNSET
    if not checker.problems and is_constant(node):
        evaluator = Evaluator(env)
        try:
            constant = evaluator.condition(node, None, {}) if want is BOOL else evaluator.evaluate(node, None)
        except EvaluationError as error:
            checker.problem(f"this always fails: {error}", start_of(node))
    if checker.problems:
        raise ExpressionError(checker.problems)
    return Program(source, env, node, want, checker.paths, checker.warnings, constant)


def _as_wanted(checker: Checker, node: Expression, want: Type) -> Expression:
    if isinstance(node, Choose):
        yes, no = _as_wanted(checker, node.yes, want), _as_wanted(checker, node.no, want)
        return Choose(node.at, node.condition, yes, no, join(yes.type, no.type) or FAULTY)
    fitted = checker.fits(node, want, "this place")
    if isinstance(want, EnumType) and node.type.kind == "string" and not isinstance(node.type, EnumType):
        checker.unverified(node, want)
    return fitted


_SCALARS: Final[dict[str, type]] = {"bool": bool, "int": int, "string": str}
_TEXTS: Final[dict[str, Callable[[str], Any]]] = {
    "instant": parse_instant,
    "duration": parse_duration,
    "date": parse_date,
}


def compile_value(value: Any, env: Environment, want: Type) -> Any:
    """Return the constant or the program that a value of a policy stands for.

    A text that begins with `=` is an expression; anything else is taken literally, in the form of the wanted type:
    amounts as "500.00" (or a whole number of currency units), instants, dates and lengths as text. Money becomes minor
    units, and so on, as in the result of a program. Raises ExpressionError.
    """
    if isinstance(value, str) and value.startswith("="):
        return _shifted(value, env, want)
    try:
        return _literal(value, env, want)
    except ValueError as error:
        raise ExpressionError([Problem(str(error), 1, 1)]) from None


def _shifted(value: str, env: Environment, want: Type) -> Program:
    try:
        return compile_expression(value[1:], env, want)
    except ExpressionError as error:
        moved = [Problem(one.message, one.line, one.column + (one.line == 1), one.suggestion) for one in error.problems]
        raise ExpressionError(moved) from None


def _literal(value: Any, env: Environment, want: Type) -> Any:
    if value is None or want is DYN:
        return value
    if isinstance(want, ListType):
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, not {value!r}")
        return [_literal(item, env, want.item) for item in value]
    if isinstance(want, EnumType):
        return _known(value, want)
    if want.kind == "money":
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return parse_money(str(value), env.currency)
        raise ValueError(f'an amount is written as text: "{value}"')
    if (
        parse_text := {"instant": parse_instant, "duration": parse_duration, "date": parse_date}.get(want.kind)
    ) is not None:
        if not isinstance(value, str):
            raise ValueError(f"{want} is written as text")
        return parse_text(value)
    wanted = _SCALARS.get(want.kind)
    if wanted is None or value.__class__ is not wanted:
        raise ValueError(f"{want} is expected; a text that begins with = is an expression")
    return value


def _known(value: Any, want: EnumType) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{want} is expected")
    if value not in want.values:
        message, hint = unknown_value(value, want)
        raise ExpressionError([Problem(message, 1, 1, hint)])
    return value

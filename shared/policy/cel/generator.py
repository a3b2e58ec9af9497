"""Checked expressions to Python functions, the form that runs in the fold's inner loop.

The source is generated from our own tree: every constant and name of a field is bound as a global of the function and
never written into the text, so no character of an expression reaches `compile()`. Names of variables are attributes of
the scope; the environment has made sure that they are plain identifiers.

The code is optimistic: it takes values to be there and of their types, and relies on Python to raise (None < 3) where
they are not. Any exception sends the same call to the evaluator, which decides. What Python would let pass silently
(a truth test of None, 1 == True) is therefore checked here.
"""

from collections.abc import Callable
from typing import Any

from shared.policy.cel.environment import Environment
from shared.policy.cel.evaluator import (
    Evaluator,
    access_converter,
    elements,
    holds,
    in_order,
    item_at,
    item_or_value,
    same,
)
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
    walk,
)
from shared.policy.cel.problems import EvaluationError
from shared.policy.cel.types import BOOL, DYN, ListType, Type

Run = Callable[[Any], Any]

_TEMPLATE = """\
def run(s):
    try:
        return {code}
    except Exception:
        return slow(s)
"""


def generate(node: Expression, environment: Environment, want: Type) -> Run:
    """Return a function from a scope to the value of the expression."""

    def slow(scope: Any) -> Any:
        evaluator = Evaluator(environment)
        try:
            return evaluator.condition(node, scope, {}) if want is BOOL else evaluator.evaluate(node, scope)
        except RecursionError:
            raise EvaluationError("the data are nested too deeply") from None

    generator = _Generator(environment)
    code = generator.condition(node) if want is BOOL else generator.value(node)
    names: dict[str, Any] = {**generator.bound, **_BUILT_IN, "slow": slow}
    try:
        exec(compile(_TEMPLATE.format(code=code), "<condition>", "exec"), names)  # noqa: S102 - see the module's docstring
    except (SyntaxError, RecursionError, MemoryError):  # nested deeper than Python's own compiler goes
        return slow
    run: Run = names["run"]
    return run


def _need(value: Any) -> Any:
    if value is None:
        raise EvaluationError
    return value


def _need_bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise EvaluationError


def _is_one(tests: Any) -> bool:
    return bool(sum(tests) == 1)


_BUILT_IN: dict[str, Any] = {
    "__builtins__": {"Exception": Exception},
    "every": all,
    "some": any,
    "each": map,
    "sift": filter,
    "items": list,
    "is_one": _is_one,
    "is_bool": bool,
    "is_int": int,
    "need": _need,
    "need_bool": _need_bool,
    "same": same,
    "holds": holds,
    "item_at": item_at,
    "item_or_value": item_or_value,
    "in_order": in_order,
    "in_range": in_range,
}


def is_constant(node: Expression) -> bool:
    """Return whether a node depends on nothing but what is written in it."""
    for part in walk(node):
        match part:
            case Name() | Macro():
                return False
            case Call(overload=Function(is_pure=False)) | Call(overload=Function(takes_scope=True)):
                return False
    return True


def _is_certain(node: Expression) -> bool:
    """Return whether the generated code for a node never gives null."""
    match node:
        case Literal(value=value):
            return value is not None
        case Call(overload=Function(may_be_null=may_be_null)):
            return not may_be_null
        case Compare() | And() | Or() | Not() | Has() | Macro() | Arithmetic() | Negate() | ListOf():
            return True
    return False


class _Generator:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.bound: dict[str, Any] = {}
        self.locals: dict[str, str] = {}
        self.temporaries = 0

    def bind(self, value: Any) -> str:
        """Return the name under which the code finds a value."""
        name = f"k{len(self.bound)}"
        self.bound[name] = value
        return name

    def temporary(self) -> str:
        self.temporaries += 1
        return f"t{self.temporaries}"

    def constant(self, node: Expression) -> str | None:
        if not isinstance(node, Call | ListOf | Negate) or not is_constant(node):
            return None
        try:
            return self.bind(Evaluator(self.environment).evaluate(node, None))
        except EvaluationError:
            return None

    # Each of these returns the text of a Python expression.

    def value(self, node: Expression) -> str:
        """The value, which may be None; data converted."""
        if (constant := self.constant(node)) is not None:
            return constant
        match node:
            case Literal(value=value):
                return repr(value) if value is None or isinstance(value, bool) else self.bind(value)
            case Name() | Select() | Index():
                return self.converted(self.raw(node), access_converter(self.environment, node), node.type)
            case Convert(operand=operand, type=wanted):
                return self.converted(self.raw(operand), self.environment.converter_of(wanted), wanted)
            case And(terms=terms):
                return "(" + " and ".join(self.condition(term) for term in terms) + ")"
            case Or(terms=terms):
                return "(" + " or ".join(self.condition(term) for term in terms) + ")"
            case Not(operand=operand):
                return f"(not {self.condition(operand)})"
            case Has(operand=operand):
                return f"({self.raw(operand)} is not None)"
            case Compare():
                return self.compare(node)
            case Arithmetic(op=op, left=left, right=right):
                key = (op, left.type.kind, right.type.kind)
                operator = OPERATORS.get(key)
                call = operator.call if operator is not None else self.environment.joined[key]
                return f"{self.bind(call)}({self.value(left)}, {self.value(right)})"
            case Negate(operand=operand):
                is_time = operand.type.kind == "duration"
                return f"(-{self.value(operand)})" if is_time else f"in_range(-{self.value(operand)})"
            case Choose(condition=condition, yes=yes, no=no):
                return f"({self.value(yes)} if {self.condition(condition)} else {self.value(no)})"
            case ListOf(items=items):
                return "[" + ", ".join(self.value(item) for item in items) + "]"
            case Macro():
                return self.macro(node)
            case Call():
                return self.call(node)
        raise AssertionError(node)

    def condition(self, node: Expression) -> str:
        """The value, which is True or False."""
        if _is_certain(node) and not isinstance(node, Literal | Call):
            return self.value(node)
        if isinstance(node, Literal) and isinstance(node.value, bool):
            return repr(node.value)
        if isinstance(node, Name | Select | Index | Convert):
            inner = node.operand if isinstance(node, Convert) else node
            found = self.temporary()
            return f"({found} if ({found} := {self.raw(inner)}).__class__ is is_bool else need_bool({found}))"
        return f"need_bool({self.value(node)})"

    def raw(self, node: Expression) -> str:
        """What data hold; None where something on the way is missing."""
        match node:
            case Name(name=name, is_local=is_local):
                return self.locals[name] if is_local else f"s.{name}"
            case Select(operand=operand, field=field):
                return self.through(operand, lambda owner: f"{owner}.get({self.bind(field)})")
            case Index(operand=operand, key=key):
                if isinstance(operand.type, ListType):
                    return f"item_at({self.value(operand)}, {self.value(key)})"
                place = self.value(key) if _is_certain(key) else f"need({self.value(key)})"
                return self.through(operand, lambda owner: f"item_or_value({owner}, {place})")
        return self.value(node)

    def through(self, owner: Expression, take: Callable[[str], str]) -> str:
        if isinstance(owner, Name) and owner.name not in self.environment.optional:
            return take(self.raw(owner))
        found = self.temporary()
        return f"(None if ({found} := {self.raw(owner)}) is None else {take(found)})"

    def converted(self, code: str, convert: Callable[[Any, str], Any] | None, to: Type) -> str:
        if convert is None:
            return code
        if to.kind in ("int", "bool"):
            found = self.temporary()
            call = f"{self.bind(convert)}({found}, '')"
            return f"({found} if ({found} := {code}).__class__ is is_{to.kind} else {call})"
        return f"{self.bind(convert)}({code}, '')"

    def plain(self, node: Expression) -> str:
        is_access = isinstance(node, Name | Select | Index | Convert)
        return self.raw(node) if is_access and node.type.kind == "string" else self.value(node)

    def compare(self, node: Compare) -> str:
        op, left, right = node.op, node.left, node.right
        if op in ("==", "!="):
            if DYN in (left.type, right.type):
                for side, other in ((left, right), (right, left)):  # a text equals nothing but a text
                    if isinstance(side, Literal) and (side.value is None or isinstance(side.value, str)):
                        test = "is" if side.value is None else "=="
                        code = f"({self.value(other)} {test} {self.value(side)})"
                        return code if op == "==" else f"(not {code})"
                call = f"same({self.value(left)}, {self.value(right)})"
                return call if op == "==" else f"(not {call})"
            return f"({self.plain(left)} {op} {self.plain(right)})"
        if op == "in":
            known = isinstance(right.type, ListType) and right.type.item is not DYN and left.type is not DYN
            if known and isinstance(right, ListOf) and is_constant(right):
                values = tuple(Evaluator(self.environment).evaluate(right, None))
                return f"({self.plain(left)} in {self.bind(values)})"
            if known:
                return f"({self.plain(left)} in {self.value(right)})"
            return f"holds({self.value(right)}, {self.plain(left)})"
        if left.type is DYN:
            return f"in_order({self.bind(op)}, {self.value(left)}, {self.value(right)})"
        return f"({self.value(left)} {op} {self.value(right)})"

    def macro(self, node: Macro) -> str:
        target = self.value(node.target)
        if node.target.type is DYN:
            environment = self.environment
            target = f"{self.bind(lambda value: elements(value, environment))}({target})"
        before = self.locals
        variable = f"v{len(before)}"
        self.locals = {**before, node.variable: variable}
        body = self.value(node.body) if node.kind == "map" else self.condition(node.body)
        self.locals = before
        lookup = "sift" if node.kind == "filter" else "each"
        stream = f"{lookup}(lambda {variable}: {body}, {target})"
        collect = {"all": "every", "exists": "some", "exists_one": "is_one"}.get(node.kind, "items")
        return f"{collect}({stream})"

    def call(self, node: Call) -> str:
        if node.function == "default":
            found = self.temporary()
            first, second = map(self.value, node.arguments)
            return f"({second} if ({found} := {first}) is None else {found})"
        overload: Function = node.overload
        values = [
            self.value(argument)
            if overload.accepts_null or _is_certain(argument) or self.is_folded(argument)
            else f"need({self.value(argument)})"
            for argument in node.arguments
        ]
        if overload.takes_scope:
            values.insert(0, "s")
        return f"{self.bind(overload.call)}({', '.join(values)})"

    def is_folded(self, node: Expression) -> bool:
        return isinstance(node, Call) and is_constant(node)

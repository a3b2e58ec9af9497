"""Types, names and known values: everything that can be found wrong before any data is seen."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import structs

from shared.policy.cel.environment import Environment
from shared.policy.cel.functions import OPERATORS, Function
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
    written,
)
from shared.policy.cel.parser import MACROS
from shared.policy.cel.problems import EvaluationError, Problem, near_miss, position
from shared.policy.cel.types import (
    BOOL,
    DURATION,
    DYN,
    FAULTY,
    INT,
    MONEY,
    NULL,
    ORDERED,
    STRING,
    EnumType,
    ListType,
    MapType,
    RecordType,
    Type,
)

_SAME_WORDS = {"matches": "startsWith, endsWith or contains", "double": "money", "bytes": "string", "uint": "int"}


class Checker:
    """Checks one expression; `problems`, `warnings` and `paths` fill up as `check` goes through it."""

    def __init__(self, source: str, environment: Environment) -> None:
        self.source = source
        self.environment = environment
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.paths: set[str] = set()
        self.locals: dict[str, Type] = {}
        self.present: frozenset[str] = frozenset()  # paths that a guard has shown to have a value
        self.warned: set[str] = set()

    # Telling

    def problem(self, message: str, at: int, suggestion: str | None = None) -> Type:
        """Record a problem; returns the type that keeps it from being told again further up."""
        self.problems.append(Problem(message, *position(self.source, at), suggestion))
        return FAULTY

    def needs_value(self, node: Expression, what: str) -> None:
        """Warn where null would make the evaluation fail."""
        if not self.is_nullable(node):
            return
        path = written(node)
        shown = path or "this"
        if shown in self.warned:
            return
        self.warned.add(shown)
        guard = f"{path} != null && …" if path else None
        message = f"{shown} may have no value, and then {what} fails"
        self.warnings.append(Problem(message, *position(self.source, start_of(node)), guard))

    def is_nullable(self, node: Expression) -> bool:
        """Return whether a node can be null, as far as types and the guards around it tell."""
        match node:
            case Literal(value=value):
                return value is None
            case Name(name=name, is_local=is_local):
                return not is_local and name in self.environment.optional and name not in self.present
            case Select(operand=operand, field=field):
                if path_of(node) in self.present:
                    return False
                is_required = isinstance(operand.type, RecordType) and field in operand.type.required
                is_required = is_required or (isinstance(operand.type, MapType) and operand.type.is_total)
                return not is_required or self.is_nullable(operand)
            case Index(operand=operand):
                is_total = isinstance(operand.type, MapType) and operand.type.is_total
                return not is_total and not isinstance(operand.type, ListType) and path_of(node) not in self.present
            case Choose(yes=yes, no=no):
                return self.is_nullable(yes) or self.is_nullable(no)
            case Convert(operand=operand):
                return self.is_nullable(operand)
            case Call(overload=Function(may_be_null=may_be_null)):
                return may_be_null
            case Call(function="default", arguments=(_, fallback)):
                return self.is_nullable(fallback)
        return False

    @contextmanager
    def assuming(self, present: Iterable[str]) -> Iterator[None]:
        before = self.present
        self.present = before | frozenset(present)
        yield
        self.present = before

    # Going through the tree

    def check(self, node: Expression) -> Expression:
        """Return the node with types, or with FAULTY where a problem was recorded."""
        match node:
            case Literal(value=value):
                return structs.replace(node, type=_literal_type(value))
            case Name() | Select() | Index():
                return self.access(node)
            case ListOf(items=items):
                return self.list_of(node, [self.check(item) for item in items])
            case Not(operand=operand):
                return structs.replace(node, operand=self.condition(operand, "!"), type=BOOL)
            case Negate(operand=operand):
                return self.negate(node, self.check(operand))
            case And(terms=terms):
                return structs.replace(node, terms=self.junction(terms, "&&", guard_if=True), type=BOOL)
            case Or(terms=terms):
                return structs.replace(node, terms=self.junction(terms, "||", guard_if=False), type=BOOL)
            case Compare(op="in"):
                return self.membership(node, self.check(node.left), self.check(node.right))
            case Compare(op="==" | "!="):
                return self.equality(node, self.check(node.left), self.check(node.right))
            case Compare():
                return self.ordering(node, self.check(node.left), self.check(node.right))
            case Arithmetic():
                return self.arithmetic(node, self.check(node.left), self.check(node.right))
            case Choose():
                return self.choose(node)
            case Has(operand=operand):
                return structs.replace(node, operand=self.check(operand), type=BOOL)
            case Macro():
                return self.macro(node)
            case Call():
                return self.call(node)
        raise AssertionError(node)

    def condition(self, node: Expression, user: str) -> Expression:
        """Check a node that has to be true or false."""
        found = self.check(node)
        if found.type is DYN:
            found = Convert(start_of(found), found, BOOL)
        elif found.type is not BOOL and found.type is not FAULTY:
            hint = None
            if (path := path_of(found)) is not None:
                hint = f"{path} != null"
            self.problem(f"{user} needs a condition, not {_a(found.type)}", start_of(found), hint)
        self.needs_value(found, user)
        return found

    def junction(self, terms: Sequence[Expression], user: str, *, guard_if: bool) -> tuple[Expression, ...]:
        """Check the terms of && (or ||); each is looked at knowing that all the others are true (or false).

        That holds in both directions, for the operators absorb an error on either side.
        """
        guards = [guarded(term, guard_if) for term in terms]
        checked: list[Expression] = []
        for place, term in enumerate(terms):
            with self.assuming(path for other, paths in enumerate(guards) if other != place for path in paths):
                checked.append(self.condition(term, user))
        return tuple(checked)

    # Names and fields

    def access(self, node: Name | Select | Index, *, is_outermost: bool = True) -> Expression:
        found: Expression
        match node:
            case Name():
                found = self.name(node)
            case Select():
                found = self.select(node)
            case Index():
                found = self.index(node)
        if is_outermost and found.type is not FAULTY:
            self.read(found)
        return found

    def owner(self, node: Expression) -> Expression:
        """Check what a field is taken from; of a dotted path only the whole counts as read."""
        if isinstance(node, Name | Select | Index):
            return self.access(node, is_outermost=False)
        return self.check(node)

    def read(self, node: Expression) -> None:
        """Record the path a node reads, cut where it stops being a plain one."""
        plain = node
        while isinstance(node, Select | Index):
            if isinstance(node, Index):
                plain = node.operand
            node = node.operand
        if isinstance(node, Name) and not node.is_local and (path := path_of(plain)) is not None:
            self.paths.add(path)

    def name(self, node: Name) -> Name:
        if (local := self.locals.get(node.name)) is not None:
            return structs.replace(node, type=local, is_local=True)
        found = self.environment.variables.get(node.name)
        if found is None:
            if node.name in self.environment.functions:
                found = self.problem(f"{node.name} is a function", node.at, f"{node.name}(…)")
            else:
                known = [*self.locals, *self.environment.variables]
                hint = near_miss(node.name, known)
                found = self.problem(f"unknown name {node.name}", node.at, hint or self.owner_of(node.name))
        return structs.replace(node, type=found)

    def owner_of(self, field: str) -> str | None:
        """Return `record.field` if just one record has such a field: the prefix was forgotten."""
        owners = [
            f"{name}.{field}"
            for name, declared in self.environment.variables.items()
            if isinstance(declared, RecordType) and field in declared.fields
        ]
        return owners[0] if len(owners) == 1 else None

    def select(self, node: Select) -> Select:
        operand = self.owner(node.operand)
        found: Type = DYN
        match operand.type:
            case RecordType(fields=fields):
                declared = fields.get(node.field)
                if declared is None:
                    message = f"{written(operand) or operand.type} has no field {node.field}"
                    declared = self.problem(message, node.at, near_miss(node.field, fields))
                found = declared
            case MapType(value=value, key=keys):
                found = value
                if keys is not None and node.field not in keys.values:
                    message = f'"{node.field}" is not a known {keys.name}'
                    hint = near_miss(node.field, keys.values)
                    found = self.problem(message, node.at, None if hint is None else f'"{hint}"')
            case other if other is FAULTY:
                found = FAULTY
            case other if other is not DYN:
                message = f"{written(operand) or 'this'} is {_a(other)} and has no fields"
                hint = f'in [..] or exists(item, item == "{node.field}")' if isinstance(other, ListType) else None
                found = self.problem(message, node.at, hint)
        return structs.replace(node, operand=operand, type=found)

    def index(self, node: Index) -> Index:
        operand = self.check(node.operand)
        key = self.check(node.key)
        found: Type = DYN
        match operand.type:
            case ListType(item=item):
                found = item
                key = self.fits(key, INT, "the place in a list")
            case MapType(value=value, key=keys):
                found = value
                key = self.fits(key, keys or STRING, "the key of a map")
            case RecordType():
                found = self.problem("the field of a record is named, not computed", node.at)
            case other if other is FAULTY or key.type is FAULTY:
                found = FAULTY
            case other if other is not DYN:
                found = self.problem(f"{_a(other)} cannot be indexed", node.at)
        self.needs_value(key, "[ ]")
        return structs.replace(node, operand=operand, key=key, type=found)

    def fits(self, node: Expression, wanted: Type, what: str) -> Expression:
        """Return the node as `wanted`, converted if its type is unknown; record a problem if it is another."""
        found = node.type
        if found is FAULTY or wanted is DYN:
            return node
        if found is DYN or (isinstance(found, ListType) and found.item is DYN and found != wanted):
            return Convert(start_of(node), node, wanted)
        if not _same(found, wanted):
            self.problem(f"{what} is {_a(wanted)}, not {_a(found)}", start_of(node), conversion(node, wanted))
        elif isinstance(wanted, EnumType):
            self.known_value(node, wanted)
        return node

    def known_value(self, node: Expression, wanted: EnumType) -> None:
        """Record a problem if a text, or every text of a list, is none of the declared values."""
        match node:
            case Literal(value=str(value)) if value not in wanted.values:
                message, hint = unknown_value(value, wanted)
                self.problem(message, node.at, hint)
            case ListOf(items=items):
                for item in items:
                    self.known_value(item, wanted)
            case Choose(yes=yes, no=no):
                self.known_value(yes, wanted)
                self.known_value(no, wanted)
            case _:
                if isinstance(node.type, EnumType) and not set(node.type.values) & set(wanted.values):
                    self.problem(f"{_a(node.type)} is never {_a(wanted)}", start_of(node))

    def unverified(self, node: Expression, wanted: EnumType) -> None:
        """Warn that a computed text is used where only known values make sense."""
        message = f"this text is computed; whether it is a known {wanted.name} cannot be told beforehand"
        self.warnings.append(Problem(message, *position(self.source, start_of(node))))

    # Operators

    def list_of(self, node: ListOf, items: list[Expression]) -> ListOf:
        item_type: Type = NULL
        for item in items:
            joint = join(item_type, item.type)
            if joint is None:
                message = f"a list holds one type, here {item_type} and {item.type}"
                joint = self.problem(message, start_of(item), conversion(item, item_type))
            item_type = joint
        return structs.replace(node, items=tuple(items), type=ListType(DYN if item_type is NULL else item_type))

    def negate(self, node: Negate, operand: Expression) -> Negate:
        found = operand.type
        if found is DYN:
            operand, found = Convert(start_of(operand), operand, INT), INT
        if found not in (INT, MONEY, DURATION, FAULTY):
            hint = "!" if found is BOOL else None
            found = self.problem(f"- needs a number, not {_a(found)}", node.at, hint)
        self.needs_value(operand, "-")
        return structs.replace(node, operand=operand, type=found)

    def meet(self, left: Expression, right: Expression) -> tuple[Expression, Expression]:
        """Let a value of unknown type become what it is compared or computed with."""
        if left.type is DYN and right.type.kind in ("money", "instant", "duration", "date"):
            left = Convert(start_of(left), left, right.type)
        if right.type is DYN and left.type.kind in ("money", "instant", "duration", "date"):
            right = Convert(start_of(right), right, left.type)
        return left, right

    def equality(self, node: Compare, left: Expression, right: Expression) -> Compare:
        left, right = self.meet(left, right)
        if isinstance(left.type, RecordType) and isinstance(right.type, RecordType):
            self.problem("records cannot be compared; compare their fields", node.at)
        elif not self.comparable(left.type, right.type):
            self.mismatch(node, left, right)
        elif isinstance(left.type, EnumType):
            self.known_value(right, left.type)
        elif isinstance(right.type, EnumType):
            self.known_value(left, right.type)
        return structs.replace(node, left=left, right=right, type=BOOL)

    def comparable(self, left: Type, right: Type) -> bool:
        loose = (DYN, NULL, FAULTY)
        return left in loose or right in loose or join(left, right) is not None

    def mismatch(self, node: Compare | Arithmetic, left: Expression, right: Expression) -> Type:
        hint = conversion(right, left.type) or conversion(left, right.type)
        verb = "be used with" if isinstance(node, Arithmetic) else "be compared with"
        return self.problem(f"{node.op}: {_a(left.type)} cannot {verb} {_a(right.type)}", node.at, hint)

    def ordering(self, node: Compare, left: Expression, right: Expression) -> Compare:
        for one, other in ((left, right), (right, left)):
            if one.type is DYN and other.type.kind in ORDERED:
                converted = Convert(start_of(one), one, STRING if other.type.kind == "string" else other.type)
                left, right = (converted, right) if one is left else (left, converted)
        if FAULTY in (left.type, right.type):
            return structs.replace(node, left=left, right=right, type=BOOL)
        for side in (left, right):
            if side.type is NULL:
                self.problem(f"{node.op} has no meaning for null", start_of(side), "!= null")
                return structs.replace(node, left=left, right=right, type=BOOL)
        if not _same(left.type, right.type):
            self.mismatch(node, left, right)
        elif isinstance(left.type, EnumType) or isinstance(right.type, EnumType):
            values = left.type.values if isinstance(left.type, EnumType) else ()
            hint = f'in ["{values[-1]}", …]' if values else None
            self.problem(f"{node.op} would compare letters; name the values that are meant", node.at, hint)
        elif left.type.kind not in ORDERED and left.type is not DYN:
            self.problem(f"{node.op} has no meaning for {_a(left.type)}", node.at)
        self.needs_value(left, node.op)
        self.needs_value(right, node.op)
        return structs.replace(node, left=left, right=right, type=BOOL)

    def membership(self, node: Compare, left: Expression, right: Expression) -> Compare:
        match right.type:
            case ListType(item=item):
                if left.type is DYN and item.kind in ("money", "instant", "duration", "date"):
                    left = Convert(start_of(left), left, item)
                if not self.comparable(left.type, item):
                    self.problem(f"in: {_a(left.type)} is never in {_a(right.type)}", node.at, conversion(left, item))
                elif isinstance(left.type, EnumType):
                    self.known_value(right, left.type)
                elif isinstance(item, EnumType):
                    self.known_value(left, item)
            case MapType(key=keys):
                left = self.fits(left, keys or STRING, "the key of a map")
            case found if found is not DYN and found is not FAULTY:
                hint = None
                if found.kind == "string":
                    hint = "text.contains(part)" if left.type.kind == "string" else None
                    if isinstance(right, Literal) and written(left):
                        hint = f'{written(left)} in ["{right.value}"]'
                elif isinstance(found, RecordType):
                    hint = "has(record.field)"
                self.problem(f"in needs a list or a map on its right, not {_a(found)}", node.at, hint)
        self.needs_value(right, "in")
        return structs.replace(node, left=left, right=right, type=BOOL)

    def arithmetic(self, node: Arithmetic, left: Expression, right: Expression) -> Arithmetic:
        found: Type = FAULTY
        if left.type is DYN and right.type is DYN:
            if node.op == "+":
                message = "+: neither side has a known type; say int(…) of the values that are numbers"
            else:
                message = f"{node.op}: neither side has a known type"
            self.problem(message, node.at, "int(…)")
        elif FAULTY not in (left.type, right.type):
            if left.type is DYN:
                left = self.partner(node.op, left, right.type, on_left=True)
            elif right.type is DYN:
                right = self.partner(node.op, right, left.type, on_left=False)
            key = (node.op, left.type.kind, right.type.kind)
            if (operator := OPERATORS.get(key)) is not None:
                found = operator.result
            elif key in self.environment.joined:
                joint = join(left.type, right.type)
                found = self.mismatch(node, left, right) if joint is None else joint
                found = STRING if isinstance(found, EnumType) else found
            elif node.op == "/" and left.type is MONEY:
                self.problem("money is not divided here, for the rounding would be hidden", node.at)
            else:
                found = self.mismatch(node, left, right)
        self.needs_value(left, node.op)
        self.needs_value(right, node.op)
        return structs.replace(node, left=left, right=right, type=found)

    def partner(self, op: str, node: Expression, other: Type, *, on_left: bool) -> Expression:
        """Return a value of unknown type as the one type that the operator takes together with `other`.

        Where there are several, it is the same type as the other side's.
        """
        kinds = {"int": INT, "money": MONEY, "duration": DURATION, "string": STRING}
        same = kinds.get(other.kind)
        for candidate in (same, *kinds.values()):
            if candidate is None:
                continue
            key = (op, candidate.kind, other.kind) if on_left else (op, other.kind, candidate.kind)
            if key in OPERATORS or key in self.environment.joined:
                return Convert(start_of(node), node, candidate)
        return node

    def choose(self, node: Choose) -> Choose:
        condition = self.condition(node.condition, "?:")
        with self.assuming(guarded(node.condition, True)):
            yes = self.check(node.yes)
        with self.assuming(guarded(node.condition, False)):
            no = self.check(node.no)
        found = join(yes.type, no.type)
        if found is None:
            message = f"?: gives {_a(yes.type)} or {_a(no.type)}; both have to be of one type"
            found = self.problem(message, node.at, conversion(no, yes.type) or conversion(yes, no.type))
        return structs.replace(node, condition=condition, yes=yes, no=no, type=found)

    def macro(self, node: Macro) -> Macro:
        target = self.check(node.target)
        item: Type = FAULTY
        match target.type:
            case ListType(item=of):
                item = of
            case MapType():
                item = STRING
            case other if other is DYN:
                item = DYN
            case other if other is not FAULTY:
                self.problem(f"{node.kind} goes through a list or a map, not {_a(other)}", node.at)
        if node.variable in self.locals or node.variable in self.environment.variables:
            self.problem(f"{node.variable} is already a name here", node.at, f"another name than {node.variable}")
        self.needs_value(target, node.kind)
        before, self.locals = self.locals, {**self.locals, node.variable: item}
        if node.kind == "map":
            body = self.check(node.body)
            found: Type = ListType(body.type if body.type is not NULL else DYN)
        else:
            body = self.condition(node.body, node.kind)
            found = ListType(item) if node.kind == "filter" else BOOL
        self.locals = before
        return structs.replace(node, target=target, body=body, type=found)

    # Functions

    def call(self, node: Call) -> Call:
        arguments = [self.check(argument) for argument in node.arguments]
        found = structs.replace(node, arguments=tuple(arguments), type=FAULTY)
        if node.function == "default":
            return self.default(found, arguments)
        overloads = self.environment.functions.get(node.function)
        if overloads is None:
            self.unknown_function(node)
            return found
        style = overloads[0].style
        if style not in ("both", "method" if node.is_method else "function"):
            usage = f"x.{node.function}(…)" if style == "method" else f"{node.function}(…)"
            self.problem(f"{node.function} is written {usage}", node.at, usage)
            return found
        if any(argument.type is FAULTY for argument in arguments):
            return structs.replace(found, type=overloads[0].result if len(overloads) == 1 else FAULTY)
        chosen = next((one for one in overloads if self.accepts(one, arguments)), None)
        if chosen is None:
            self.no_overload(node, overloads, arguments)
            return structs.replace(found, type=overloads[0].result if len(overloads) == 1 else FAULTY)
        fitted: list[Expression] = []
        for argument, wanted in zip(arguments, parameters(chosen, len(arguments)), strict=True):
            fitted.append(self.fits(argument, wanted, node.function))
            if not chosen.accepts_null:
                self.needs_value(argument, node.function)
        result = structs.replace(node, arguments=tuple(fitted), type=chosen.result, overload=chosen)
        self.try_out(result, chosen)
        return result

    def default(self, node: Call, arguments: list[Expression]) -> Call:
        if len(arguments) != 2 or node.is_method:
            self.problem("default takes a value and what stands in for it", node.at, 'default(x, "none")')
            return node
        found = join(arguments[0].type, arguments[1].type)
        if found is None:
            message = f"default: {_a(arguments[1].type)} cannot stand in for {_a(arguments[0].type)}"
            found = self.problem(message, start_of(arguments[1]), conversion(arguments[1], arguments[0].type))
        elif isinstance(arguments[0].type, EnumType):
            self.known_value(arguments[1], arguments[0].type)
        first = arguments[0]
        if first.type is DYN and found is not DYN:
            first = Convert(start_of(first), first, found)
        return structs.replace(node, arguments=(first, arguments[1]), type=found)

    def accepts(self, function: Function, arguments: list[Expression]) -> bool:
        wanted = parameters(function, len(arguments))
        if len(wanted) != len(arguments):
            return False
        # A call with nothing but unknown types takes the first overload made for that, or the first of all.
        return all(
            argument.type is DYN or _same(argument.type, want) or (argument.type is NULL and function.accepts_null)
            for argument, want in zip(arguments, wanted, strict=True)
        )

    def unknown_function(self, node: Call) -> None:
        if node.function in MACROS:
            hint: str | None = f"list.{node.function}(item, …)"
        else:
            known = [*self.environment.functions, "default", "has", *MACROS]
            hint = _SAME_WORDS.get(node.function) or near_miss(node.function, known)
        self.problem(f"unknown function {node.function}", node.at, hint)

    def no_overload(self, node: Call, overloads: Sequence[Function], arguments: list[Expression]) -> None:
        fitting = [one for one in overloads if len(parameters(one, len(arguments))) == len(arguments)]
        if not fitting:
            shape = f"{node.function}({', '.join(str(one) for one in overloads[0].arguments)})"
            given = len(arguments)
            self.problem(f"{node.function} is not called with {given} argument{'s' * (given != 1)}", node.at, shape)
            return
        if len(fitting) == 1:
            for argument, wanted in zip(arguments, parameters(fitting[0], len(arguments)), strict=True):
                if argument.type is NULL:
                    self.problem(f"{node.function} needs a value, not null", start_of(argument))
                else:
                    self.fits(argument, wanted, f"this argument of {node.function}")
            return
        given_types = ", ".join(str(argument.type) for argument in arguments)
        self.problem(f"{node.function} does not take ({given_types})", node.at)

    def try_out(self, node: Call, function: Function) -> None:
        """Compute a function of literals at once, so that a badly written duration is found at publish."""
        if not function.is_pure or function.takes_scope:
            return
        values: list[Any] = []
        for argument in node.arguments:
            if not isinstance(argument, Literal):
                return
            values.append(argument.value)
        try:
            function.call(*values)
        except (EvaluationError, ValueError) as error:
            at = start_of(node.arguments[-1]) if node.arguments else node.at
            self.problem(f"{node.function}: {error}", at)


def unknown_value(value: str, wanted: EnumType) -> tuple[str, str | None]:
    """Return the message for a text that is none of the declared values, and which of them was probably meant."""
    hint = near_miss(value, wanted.values)
    known = "" if hint else f"; it is one of {', '.join(wanted.values[:12])}"
    return f'"{value}" is not a known {wanted.name}{known}', f'"{hint}"' if hint else None


def guarded(node: Expression, outcome: bool) -> frozenset[str]:
    """Return the paths that certainly have a value when the condition turns out to be `outcome`.

    Only of tests that null itself passes through (==, !=, in, has): a test that fails on null guards nothing.
    """
    match node:
        case Compare(op="==" | "!=" as op, left=left, right=right):
            for side, other in ((left, right), (right, left)):
                is_null = isinstance(other, Literal) and other.value is None
                if (is_null and (op == "!=") == outcome) or (_is_value(other) and (op == "==") == outcome):
                    return _with_owners(path_of(side))
        case Compare(op="in", left=left, right=ListOf(items=items)) if outcome:
            return _with_owners(path_of(left) if all(_is_value(item) for item in items) else None)
        case Has(operand=operand) if outcome:
            return _with_owners(path_of(operand))
        case Not(operand=operand):
            return guarded(operand, not outcome)
        case And(terms=terms) if outcome:
            return frozenset().union(*(guarded(term, True) for term in terms))
        case Or(terms=terms) if not outcome:
            return frozenset().union(*(guarded(term, False) for term in terms))
    return frozenset()


def _is_value(node: Expression) -> bool:
    return isinstance(node, Literal) and node.value is not None


def _with_owners(path: str | None) -> frozenset[str]:
    found: set[str] = set()
    while path:
        found.add(path)
        path = path.rpartition(".")[0]
    return frozenset(found)


def parameters(function: Function, count: int) -> tuple[Type, ...]:
    """Return the declared types for `count` arguments; of another length if that many cannot be given."""
    declared = function.arguments
    if function.is_variadic and count > len(declared):
        return declared + declared[-1:] * (count - len(declared))
    return declared


def join(left: Type, right: Type) -> Type | None:
    """Return the type that holds both, or None; null fits all, dyn spreads, enums add up, texts swallow them."""
    if left is right or right is NULL or left is FAULTY:
        return left
    if left is NULL or right is FAULTY:
        return right
    if left is DYN or right is DYN:
        return DYN
    if isinstance(left, EnumType) and isinstance(right, EnumType):
        return left if left == right else EnumType(tuple(dict.fromkeys(left.values + right.values)), left.name)
    if left.kind != right.kind:
        return None
    if isinstance(left, ListType) and isinstance(right, ListType):
        item = join(left.item, right.item)
        return None if item is None else ListType(item)
    if isinstance(left, MapType) and isinstance(right, MapType):
        value = join(left.value, right.value)
        return None if value is None else MapType(value)
    if isinstance(left, RecordType) and isinstance(right, RecordType):
        return left if left == right else None
    return STRING if left.kind == "string" else left


def conversion(node: Expression, wanted: Type) -> str | None:
    """Return what the author probably meant to write to get a `wanted` from this node."""
    if not isinstance(node, Literal) or node.value is None:
        return None
    value = node.value
    text = str(value)
    if wanted.kind == "money" and not isinstance(value, bool):
        return f'money("{text}")'
    if wanted.kind == "duration" and not isinstance(value, bool):
        return f'duration("{text}h")' if isinstance(value, int) else f'duration("{text}")'
    if wanted.kind == "instant" and isinstance(value, str):
        return f'timestamp("{text}")'
    if wanted.kind == "date" and isinstance(value, str):
        return f'date("{text}")'
    if wanted.kind == "string" and not isinstance(value, str):
        return f'"{text.lower() if isinstance(value, bool) else text}"'
    if wanted.kind == "int" and isinstance(value, str) and text.lstrip("-").isdigit():
        return text
    if wanted.kind == "bool" and isinstance(value, str) and text.lower() in ("true", "false", "yes", "no"):
        return "true" if text.lower() in ("true", "yes") else "false"
    return None


def start_of(node: Expression) -> int:
    """Return the offset where the text of a node begins."""
    match node:
        case Select(operand=operand) | Index(operand=operand) | Macro(target=operand):
            return start_of(operand)
        case And(terms=(first, *_)) | Or(terms=(first, *_)):
            return start_of(first)
        case Compare(left=first) | Arithmetic(left=first) | Choose(condition=first):
            return start_of(first)
        case Call(is_method=True, arguments=(first, *_)):
            return start_of(first)
    return node.at


def _literal_type(value: object) -> Type:
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOL
    return INT if isinstance(value, int) else STRING


def _same(found: Type, wanted: Type) -> bool:
    """Return whether a value of type `found` can be used where `wanted` is declared."""
    if wanted is DYN or found is DYN or found is FAULTY:
        return True
    if isinstance(wanted, ListType) and isinstance(found, ListType):
        return _same(found.item, wanted.item)
    if isinstance(wanted, MapType) and isinstance(found, MapType):
        return _same(found.value, wanted.value)
    if isinstance(wanted, RecordType) and isinstance(found, RecordType):
        return found == wanted
    return found.kind == wanted.kind


def _a(of: Type) -> str:
    """Return a type with its article, as messages use it."""
    words = {"bool": "a condition", "int": "a number", "string": "text", "money": "money", "null": "null"}
    words |= {"instant": "an instant", "duration": "a length of time", "date": "a date", "dyn": "a value"}
    if isinstance(of, ListType):
        return f"a list of {of.item}"
    if isinstance(of, MapType):
        return "a map"
    if isinstance(of, RecordType):
        return "a record"
    return f"{of.name} (text)" if isinstance(of, EnumType) else words.get(of.kind, of.kind)

"""Tokens to a syntax tree, by operator precedence; nothing is looked up or typed here."""

from typing import Final, NoReturn

from shared.policy.cel.lexer import Token, tokens
from shared.policy.cel.limits import GREATEST_INT, LEAST_INT, Limits
from shared.policy.cel.nodes import (
    And,
    Arithmetic,
    Call,
    Choose,
    Compare,
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
    children,
)
from shared.policy.cel.problems import ExpressionError, Problem, position

MACROS: Final = ("all", "exists", "exists_one", "filter", "map")
_OR, _AND, _RELATION, _SUM, _PRODUCT = 1, 2, 3, 4, 5
_BINDING: Final = {
    "||": _OR,
    "&&": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), _RELATION),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "%"), _PRODUCT),
}
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_RESERVED: Final = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "var", "void", "while"}
)
_MEANT: Final = {"and": "&&", "or": "||", "not": "!", "is": "==", "True": "true", "False": "false", "None": "null"}


def parse(source: str, limits: Limits) -> Expression:
    """Return the tree of an expression that keeps to the limits; raise ExpressionError otherwise."""
    if len(source) > limits.length:
        message = f"the expression has {len(source)} characters; at most {limits.length} are allowed"
        raise ExpressionError([Problem(message, *position(source, limits.length))])
    return _Parser(source, tokens(source), limits).whole()


class _Parser:
    def __init__(self, source: str, found: list[Token], limits: Limits) -> None:
        self.source = source
        self.tokens = found
        self.place = 0
        self.limits = limits
        self.nesting = -1  # the expression itself is no nesting
        self.macros = 0
        self.open_macros = 0

    # Reading tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    def advance(self) -> Token:
        token = self.tokens[self.place]
        self.place += 1
        return token

    def fail(self, message: str, at: int, suggestion: str | None = None) -> NoReturn:
        raise ExpressionError([Problem(message, *position(self.source, at), suggestion)])

    def expect(self, kind: str, after: str) -> Token:
        if self.token.kind != kind:
            self.unexpected(f"expected {kind!r} {after}")
        return self.advance()

    def unexpected(self, wanted: str) -> NoReturn:
        kind, value, at = self.token
        if kind == "end":
            self.fail(f"{wanted}, but the expression ends", at)
        shown = f'"{value}"' if kind == "string" else str(value)
        self.fail(f"{wanted}, found {shown}", at, _MEANT.get(shown))

    def enter(self, at: int) -> None:
        self.nesting += 1
        if self.nesting > self.limits.nesting:
            self.fail(f"nested more than {self.limits.nesting} levels deep", at)

    def leave(self) -> None:
        self.nesting -= 1

    # Grammar

    def whole(self) -> Expression:
        if self.token.kind == "end":
            self.fail("the expression is empty", 0)
        node = self.expression()
        if self.token.kind != "end":
            self.unexpected("expected an operator or the end")
        self.check_depth(node)
        return node

    def check_depth(self, root: Expression) -> None:
        """Refuse a chain that would exhaust the stack of whatever walks the tree after this."""
        level, depth = [root], 0
        while level:
            depth += 1
            if depth > self.limits.depth:
                self.fail(f"more than {self.limits.depth} operations in one chain", level[0].at)
            level = [child for node in level for child in children(node)]

    def expression(self) -> Expression:
        self.enter(self.token.at)
        condition = self.binary(_OR)
        if self.token.kind == "?":
            at = self.advance().at
            yes = self.expression()
            self.expect(":", "and what holds otherwise")
            condition = Choose(at, condition, yes, self.expression())
        self.leave()
        return condition

    def operator(self) -> str | None:
        kind, value, _ = self.token
        operator = "in" if kind == "word" and value == "in" else kind
        return operator if operator in _BINDING else None

    def binary(self, least: int) -> Expression:
        left = self.unary()
        while (operator := self.operator()) is not None and (binding := _BINDING[operator]) >= least:
            at = self.advance().at
            if binding <= _AND:
                terms = [left, self.binary(binding + 1)]
                while self.token.kind == operator:
                    self.advance()
                    terms.append(self.binary(binding + 1))
                left = And(at, tuple(terms)) if binding == _AND else Or(at, tuple(terms))
                continue
            right = self.binary(binding + 1)
            left = (Compare if binding == _RELATION else Arithmetic)(at, operator, left, right)
        return left

    def unary(self) -> Expression:
        kind, value, at = self.token
        if kind not in ("!", "-"):
            if kind == "word" and value == "not":
                self.fail("expected a value, found not", at, "!")
            return self.postfix()
        self.advance()
        if kind == "-" and self.token.kind == "int":
            number = self.advance()
            self.tokens[self.place - 1] = Token("int", -number.value, at)
            self.place -= 1
            return self.postfix()
        self.enter(at)
        operand = self.unary()
        self.leave()
        return Not(at, operand) if kind == "!" else Negate(at, operand)

    def postfix(self) -> Expression:
        node = self.primary()
        while True:
            kind, _, at = self.token
            if kind == ".":
                self.advance()
                if self.token.kind != "word":
                    self.unexpected("expected the name of a field after '.'")
                field = self.advance()
                if self.token.kind == "(":
                    node = self.method(node, field)
                elif field.value in _CONSTANTS or field.value == "in":
                    self.fail(f"{field.value} cannot name a field here", field.at, f'["{field.value}"]')
                else:
                    node = Select(field.at, node, field.value)
            elif kind == "[":
                self.advance()
                key = self.expression()
                self.expect("]", "after the index")
                match key:
                    case Literal(value=str(field_name)):
                        node = Select(key.at, node, field_name)
                    case _:
                        node = Index(at, node, key)
            else:
                return node

    def method(self, receiver: Expression, name: Token) -> Expression:
        if name.value in MACROS:
            return self.macro(receiver, name)
        return Call(name.at, name.value, (receiver, *self.arguments()), is_method=True)

    def macro(self, target: Expression, name: Token) -> Expression:
        self.macros += 1
        self.open_macros += 1
        if self.macros > self.limits.macros:
            self.fail(f"more than {self.limits.macros} of {', '.join(MACROS)} in one expression", name.at)
        if self.open_macros > self.limits.nested_macros:
            self.fail(f"{name.value} is nested more than {self.limits.nested_macros} levels deep", name.at)
        self.advance()
        variable = self.token
        usage = f"{name.value} is written {name.value}(item, condition on item)"
        if variable.kind != "word" or variable.value in _CONSTANTS or variable.value == "in":
            self.fail(f"expected a name for the item; {usage}", variable.at)
        self.advance()
        if self.token.kind != ",":
            self.fail(usage, self.token.at)
        self.advance()
        body = self.expression()
        if self.token.kind == ",":
            self.fail(usage, self.token.at)
        self.expect(")", f"to close {name.value}(")
        self.open_macros -= 1
        return Macro(name.at, name.value, target, variable.value, body)

    def arguments(self) -> tuple[Expression, ...]:
        self.advance()
        found: list[Expression] = []
        while self.token.kind != ")":
            found.append(self.expression())
            if self.token.kind != ",":
                break
            self.advance()
            if self.token.kind == ")":
                self.unexpected("expected another argument")
        self.expect(")", "after the arguments")
        return tuple(found)

    def primary(self) -> Expression:
        kind, value, at = self.token
        if kind == "int":
            if not LEAST_INT <= value <= GREATEST_INT:
                self.fail("the number is out of the range of 64 bits", at)
            self.advance()
            return Literal(at, value)
        if kind == "string":
            self.advance()
            return Literal(at, value)
        if kind == "word":
            return self.word()
        if kind == "(":
            self.advance()
            node = self.expression()
            self.expect(")", "to close the bracket")
            return node
        if kind == "[":
            return self.list_of()
        return self.unexpected("expected a value")

    def word(self) -> Expression:
        _, value, at = self.token
        if value in _CONSTANTS:
            self.advance()
            return Literal(at, _CONSTANTS[value])
        if value in _RESERVED or value == "in":
            self.fail(f"{value} is a reserved word", at)
        self.advance()
        if self.token.kind != "(":
            return Name(at, value)
        if value == "has":
            arguments = self.arguments()
            if len(arguments) != 1 or not isinstance(arguments[0], Select):
                self.fail("has takes one field, as in has(data.reason)", at)
            return Has(at, arguments[0])
        return Call(at, value, self.arguments())

    def list_of(self) -> Expression:
        at = self.advance().at
        items: list[Expression] = []
        while self.token.kind != "]":
            items.append(self.expression())
            if len(items) > self.limits.list_items:
                self.fail(f"a list holds at most {self.limits.list_items} items", items[-1].at)
            if self.token.kind != ",":
                break
            self.advance()
        self.expect("]", "to close the list")
        return ListOf(at, tuple(items))

"""Conditions in plain words, English and Chinese, for the people who have to live by them."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from shared.money import format_minor
from shared.policy.cel.environment import Environment
from shared.policy.cel.evaluator import Evaluator
from shared.policy.cel.functions import Function
from shared.policy.cel.generator import is_constant
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
    Macro,
    Name,
    Negate,
    Not,
    Or,
    Select,
    path_of,
)
from shared.policy.cel.nodes import Literal as LiteralNode
from shared.policy.cel.problems import EvaluationError
from shared.policy.cel.program import Program
from shared.policy.cel.types import BOOL, EnumType

Language = Literal["en", "zh"]
Label = Callable[[str], str | None]

_TIMES: Final = frozenset({"instant", "date"})


class _Words(Struct, frozen=True):
    """One language's patterns; {0}, {1}, … are the parts in the order of the expression."""

    conjunction: str
    disjunction: str
    brackets: str
    last_of_many: str
    comma: str
    quotes: str
    relations: Mapping[str, str]
    time_relations: Mapping[str, str]
    among: str
    not_among: str
    one_of: str
    none_of: str
    given: str
    not_given: str
    yes: str
    no: str
    negation: str
    arithmetic: Mapping[str, str]
    minus: str
    choice: str
    macros: Mapping[str, str]
    fallback: str
    place: str
    nothing: str
    truth: str
    falsehood: str


_WORDS: Final[Mapping[Language, _Words]] = {
    "en": _Words(
        conjunction=" and ",
        disjunction=" or ",
        brackets="({0})",
        last_of_many=" or ",
        comma=", ",
        quotes="“{0}”",
        relations={
            "==": "{0} is {1}",
            "!=": "{0} is not {1}",
            "<": "{0} is less than {1}",
            "<=": "{0} is at most {1}",
            ">": "{0} is more than {1}",
            ">=": "{0} is at least {1}",
        },
        time_relations={
            "<": "{0} is before {1}",
            "<=": "{0} is not after {1}",
            ">": "{0} is after {1}",
            ">=": "{0} is not before {1}",
        },
        among="{0} is among {1}",
        not_among="{0} is not among {1}",
        one_of="{0} is one of {1}",
        none_of="{0} is none of {1}",
        given="{0} is given",
        not_given="{0} is not given",
        yes="{0} is true",
        no="{0} is not true",
        negation="it is not so that {0}",
        arithmetic={
            "+": "{0} plus {1}",
            "-": "{0} minus {1}",
            "*": "{0} times {1}",
            "/": "{0} divided by {1}",
            "%": "the remainder of {0} divided by {1}",
        },
        minus="minus {0}",
        choice="{1} if {0}, otherwise {2}",
        macros={
            "all": "for every {1} of {0}, {2}",
            "exists": "for at least one {1} of {0}, {2}",
            "exists_one": "for exactly one {1} of {0}, {2}",
            "filter": "each {1} of {0} for which {2}",
            "map": "{2} for each {1} of {0}",
        },
        fallback="{0} (or {1}, if not given)",
        place="number {1} of {0}",
        nothing="nothing",
        truth="true",
        falsehood="not true",
    ),
    "zh": _Words(
        conjunction="，并且",
        disjunction="，或者",
        brackets="（{0}）",
        last_of_many="或",
        comma="、",
        quotes="“{0}”",
        relations={
            "==": "{0}为{1}",
            "!=": "{0}不为{1}",
            "<": "{0}小于{1}",
            "<=": "{0}不超过{1}",
            ">": "{0}大于{1}",
            ">=": "{0}不少于{1}",
        },
        time_relations={"<": "{0}早于{1}", "<=": "{0}不晚于{1}", ">": "{0}晚于{1}", ">=": "{0}不早于{1}"},
        among="{1}中有{0}",
        not_among="{1}中没有{0}",
        one_of="{0}为{1}之一",
        none_of="{0}不是{1}中的任何一个",
        given="已填写{0}",
        not_given="未填写{0}",
        yes="{0}为是",
        no="{0}不为是",
        negation="并非{0}",
        arithmetic={
            "+": "{0}加{1}",
            "-": "{0}减{1}",
            "*": "{0}乘以{1}",
            "/": "{0}除以{1}",
            "%": "{0}除以{1}的余数",
        },
        minus="负{0}",
        choice="若{0}则为{1}，否则为{2}",
        macros={
            "all": "{0}中的每个{1}都满足：{2}",
            "exists": "{0}中至少有一个{1}满足：{2}",
            "exists_one": "{0}中恰有一个{1}满足：{2}",
            "filter": "{0}中满足“{2}”的各个{1}",
            "map": "{0}中各个{1}的{2}",
        },
        fallback="{0}（未填写时为{1}）",
        place="{0}的第{1}项",
        nothing="无",
        truth="是",
        falsehood="否",
    ),
}


def describe(program: Program, lang: Language, label: Label = lambda _: None) -> str:
    """Return a program as a phrase that continues "if …" or "当…", without a full stop.

    Args:
        program: what to describe.
        lang: the language of the phrase.
        label: gives the words for a dotted path (`complaint.severity`) and, for a known value of one, for the path
            and the value (`complaint.severity=simple`); None leaves them as they are, with spaces for underscores.
    """
    return describe_part(program.ast, program.environment, lang, label)


def describe_part(node: Expression, environment: Environment, lang: Language, label: Label = lambda _: None) -> str:
    """Return a part of a checked expression as a phrase, as `describe` does for the whole."""
    describer = _Describer(environment, lang, label)
    return describer.condition(node) if node.type is BOOL else describer.phrase(node)


class _Describer:
    def __init__(self, environment: Environment, lang: Language, label: Label) -> None:
        self.environment = environment
        self.lang: Language = lang
        self.words = _WORDS[lang]
        self.label = label

    # Conditions

    def condition(self, node: Expression) -> str:
        """Return a phrase that can be true or false."""
        words = self.words
        match node:
            case And(terms=terms):
                return words.conjunction.join(self.bracketed(term, And) for term in terms)
            case Or(terms=terms):
                return words.disjunction.join(self.bracketed(term, Or) for term in terms)
            case Not(operand=operand):
                return self.negated(operand)
            case Compare():
                return self.compare(node)
            case Has(operand=operand):
                return words.given.format(self.phrase(operand))
            case Name() | Select() | Index() | Convert():
                return words.yes.format(self.phrase(node))
        return self.phrase(node)

    def bracketed(self, node: Expression, within: type[And] | type[Or]) -> str:
        text = self.condition(node)
        needs_brackets = isinstance(node, And | Or | Macro | Choose) and not isinstance(node, within)
        return self.words.brackets.format(text) if needs_brackets else text

    def negated(self, node: Expression) -> str:
        words = self.words
        opposite = {"==": "!=", "!=": "=="}
        match node:
            case Compare(op="==" | "!=" as op):
                return self.compare(Compare(node.at, opposite[op], node.left, node.right, node.type))
            case Compare(op="in", left=left, right=right):
                return self.membership(left, right, is_in=False)
            case Has(operand=operand):
                return words.not_given.format(self.phrase(operand))
            case Not(operand=operand):
                return self.condition(operand)
            case Name() | Select() | Index() | Convert():
                return words.no.format(self.phrase(node))
        return words.negation.format(words.brackets.format(self.condition(node)))

    def compare(self, node: Compare) -> str:
        op, left, right = node.op, node.left, node.right
        words = self.words
        if op == "in":
            return self.membership(left, right, is_in=True)
        if op in ("==", "!="):
            if isinstance(left, LiteralNode) and not isinstance(right, LiteralNode):
                left, right = right, left
            if isinstance(right, LiteralNode) and right.value is None:
                return (words.not_given if op == "==" else words.given).format(self.phrase(left))
            if isinstance(right, LiteralNode) and isinstance(right.value, bool):
                holds = right.value is (op == "==")
                return self.condition(left) if holds else self.negated(left)
        pattern = words.relations[op]
        if op not in ("==", "!=") and (left.type.kind in _TIMES or right.type.kind in _TIMES):
            pattern = words.time_relations[op]
        return pattern.format(self.phrase(left, beside=right), self.phrase(right, beside=left))

    def membership(self, left: Expression, right: Expression, *, is_in: bool) -> str:
        words = self.words
        if isinstance(right, ListOf):
            values = [self.phrase(item, beside=left) for item in right.items]
            if len(values) == 1:
                return words.relations["==" if is_in else "!="].format(self.phrase(left), values[0])
            return (words.one_of if is_in else words.none_of).format(self.phrase(left), self.choices(values))
        pattern = words.among if is_in else words.not_among
        return pattern.format(self.phrase(left, beside=right), self.phrase(right))

    def choices(self, values: list[str]) -> str:
        if len(values) < 2:
            return values[0] if values else self.words.nothing
        return self.words.comma.join(values[:-1]) + self.words.last_of_many + values[-1]

    # Values

    def phrase(self, node: Expression, beside: Expression | None = None) -> str:
        """Return the words for a value; `beside` is what it is compared with, whose labels its values have."""
        words = self.words
        match node:
            case LiteralNode(value=str(value)):
                return self.known(value, beside)
            case LiteralNode(value=value):
                return self.constant(value)
            case Name() | Select():
                return self.access(node)
            case Index(operand=operand, key=key):
                return words.place.format(self.phrase(operand), self.phrase(key))
            case Convert(operand=operand):
                return self.phrase(operand)
            case ListOf(items=items):
                return self.choices([self.phrase(item, beside) for item in items])
            case Arithmetic(op=op, left=left, right=right):
                return words.arithmetic[op].format(self.operand(left), self.operand(right))
            case Negate(operand=operand):
                return words.minus.format(self.operand(operand))
            case Choose(condition=condition, yes=yes, no=no):
                parts = (self.phrase(yes, beside), self.phrase(no, beside))
                return words.choice.format(self.condition(condition), *parts)
            case Macro(kind=kind, target=target, variable=variable, body=body):
                inner = self.condition(body) if body.type is BOOL else self.phrase(body)
                return words.macros[kind].format(self.phrase(target), variable, inner)
            case Call():
                return self.call(node)
        return self.condition(node)

    def operand(self, node: Expression) -> str:
        text = self.phrase(node)
        return self.words.brackets.format(text) if isinstance(node, Arithmetic | Choose) else text

    def access(self, node: Name | Select) -> str:
        path = path_of(node)
        if path is None:
            owner = self.phrase(node.operand) if isinstance(node, Select) else ""
            return f"{owner} {self.plain(node.field)}" if isinstance(node, Select) else owner
        return self.label(path) or self.plain(node.field if isinstance(node, Select) else node.name)

    def plain(self, name: str) -> str:
        return name.replace("_", " ")

    def known(self, value: str, beside: Expression | None) -> str:
        """Return the words for a text: its label if it is a known value of a field, else the text in quotes."""
        path = None if beside is None else path_of(beside)
        if path is not None and (text := self.label(f"{path}={value}")):
            return text
        if beside is not None and isinstance(beside.type, EnumType):
            return self.plain(value)
        return self.words.quotes.format(value)

    def call(self, node: Call) -> str:
        words = self.words
        if node.function == "default":
            first, second = node.arguments
            return words.fallback.format(self.phrase(first), self.phrase(second, beside=first))
        if is_constant(node):
            try:
                return self.constant(Evaluator(self.environment).evaluate(node, None), node.type.kind)
            except EvaluationError:
                pass
        arguments = [self.phrase(argument) for argument in node.arguments]
        overload = node.overload
        pattern = overload.phrases.get(self.lang) if isinstance(overload, Function) else None
        if pattern is None:
            return f"{node.function}({words.comma.join(arguments)})"
        return pattern.format(*arguments, all=words.comma.join(arguments))

    def constant(self, value: Any, kind: str = "") -> str:
        words = self.words
        if value is None:
            return words.nothing
        if isinstance(value, bool):
            return words.truth if value else words.falsehood
        if kind == "money":
            return self.money(value)
        if isinstance(value, timedelta):
            return self.length(value)
        if isinstance(value, datetime):
            return f"{value:%Y-%m-%d %H:%M} UTC"
        if isinstance(value, date):
            return f"{value.year}年{value.month}月{value.day}日" if self.lang == "zh" else value.isoformat()
        return words.quotes.format(value) if isinstance(value, str) else str(value)

    def money(self, minor: int) -> str:
        currency = self.environment.currency
        amount = format_minor(minor, currency)
        if self.lang == "zh":
            return f"{amount}元" if currency == "CNY" else f"{amount} {currency}"
        return f"{currency} {amount}"

    def length(self, length: timedelta) -> str:
        """Return a length in the largest unit that divides it; days only from two on, for 24 hours are not a date."""
        units = (("day", "天", 86_400), ("hour", "小时", 3_600), ("minute", "分钟", 60), ("second", "秒", 1))
        seconds = length.total_seconds()
        for en, zh, size in units:
            if seconds and seconds % size == 0 and (size < 86_400 or abs(seconds) >= 2 * size):
                count = int(seconds // size)
                return f"{count}{zh}" if self.lang == "zh" else f"{count} {en}{'s' * (abs(count) != 1)}"
        return f"{seconds:g}秒" if self.lang == "zh" else f"{seconds:g} seconds"

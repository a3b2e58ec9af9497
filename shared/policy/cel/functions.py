"""What can be called: the shape of a function, the ones every environment has, and arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from shared.money import format_minor
from shared.policy.cel.limits import GREATEST_INT, LEAST_INT, Limits
from shared.policy.cel.problems import EvaluationError
from shared.policy.cel.types import (
    BOOL,
    DATE,
    DURATION,
    DYN,
    INSTANT,
    INT,
    MONEY,
    STRING,
    ListType,
    MapType,
    Type,
)
from shared.policy.cel.values import (
    format_duration,
    format_instant,
    parse_date,
    parse_duration,
    parse_instant,
    parse_money,
)


class Function(Struct, frozen=True, kw_only=True):
    """One way to call a function; several with the same name are told apart by the types of the arguments.

    `call` gets values as they are inside an expression (money in minor units, aware datetimes, timedeltas), never null
    unless `accepts_null`, and says that it cannot answer with EvaluationError or ValueError. It must be quick, bounded
    and free of side effects, for it may be called twice.
    """

    arguments: tuple[Type, ...]
    result: Type
    call: Callable[..., Any]
    style: Literal["function", "method", "both"] = "function"  # f(x), x.f(), or either
    is_variadic: bool = False  # the last argument may come again
    accepts_null: bool = False
    may_be_null: bool = False  # the result
    is_pure: bool = True  # the same arguments give the same result, so that literals are computed once
    takes_scope: bool = False  # the scope comes before the arguments
    cost: int = 2  # in steps of about 50 ns, in the worst case
    phrases: Mapping[str, str] = {}  # language -> words with {0}, {1}, … or {all} for the arguments, for descriptions


Functions = Mapping[str, Function | Sequence[Function]]


def in_range(number: int) -> int:
    """Return the number if it has 64 bits, as CEL's integers do."""
    if LEAST_INT <= number <= GREATEST_INT:
        return number
    raise EvaluationError("the result is out of the range of 64 bits")


def add(left: int, right: int) -> int:
    """Return the sum, within 64 bits."""
    return in_range(left + right)


def subtract(left: int, right: int) -> int:
    """Return the difference, within 64 bits."""
    return in_range(left - right)


def multiply(left: int, right: int) -> int:
    """Return the product, within 64 bits."""
    return in_range(left * right)


def divide(left: int, right: int) -> int:
    """Return the quotient, cut off towards zero as CEL does: -7 / 2 is -3."""
    if right == 0:
        raise EvaluationError("division by zero")
    quotient = abs(left) // abs(right)
    return in_range(quotient if (left < 0) == (right < 0) else -quotient)


def remainder(left: int, right: int) -> int:
    """Return what division leaves, with the sign of the left side as CEL has it: -7 % 2 is -1."""
    if right == 0:
        raise EvaluationError("division by zero")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def add_days(day: date, length: timedelta) -> date:
    """Return the date some whole days later; part of a day has no meaning for a date."""
    if length % timedelta(days=1):
        raise EvaluationError("only whole days can be added to a date")
    return day + length


def _plus(left: Any, right: Any) -> Any:
    return left + right


def _minus(left: Any, right: Any) -> Any:
    return left - right


def _times(left: Any, right: Any) -> Any:
    return left * right


class Operator(Struct, frozen=True):
    """One meaning of an arithmetic operator."""

    result: Type
    call: Callable[[Any, Any], Any]


# (operator, kind on the left, kind on the right); text and lists are added by `joined`, which knows the limits.
OPERATORS: Final[Mapping[tuple[str, str, str], Operator]] = {
    ("+", "int", "int"): Operator(INT, add),
    ("-", "int", "int"): Operator(INT, subtract),
    ("*", "int", "int"): Operator(INT, multiply),
    ("/", "int", "int"): Operator(INT, divide),
    ("%", "int", "int"): Operator(INT, remainder),
    ("+", "money", "money"): Operator(MONEY, add),
    ("-", "money", "money"): Operator(MONEY, subtract),
    ("*", "money", "int"): Operator(MONEY, multiply),
    ("*", "int", "money"): Operator(MONEY, multiply),
    ("+", "duration", "duration"): Operator(DURATION, _plus),
    ("-", "duration", "duration"): Operator(DURATION, _minus),
    ("*", "duration", "int"): Operator(DURATION, _times),
    ("*", "int", "duration"): Operator(DURATION, _times),
    ("+", "instant", "duration"): Operator(INSTANT, _plus),
    ("+", "duration", "instant"): Operator(INSTANT, _plus),
    ("-", "instant", "duration"): Operator(INSTANT, _minus),
    ("-", "instant", "instant"): Operator(DURATION, _minus),
    ("+", "date", "duration"): Operator(DATE, add_days),
    ("-", "date", "duration"): Operator(DATE, lambda day, length: add_days(day, -length)),
    ("-", "date", "date"): Operator(DURATION, _minus),
}


def joined(limits: Limits) -> dict[tuple[str, str, str], Callable[[Any, Any], Any]]:
    """Return `+` for texts and for lists, bounded."""

    def join_texts(left: str, right: str) -> str:
        if len(left) + len(right) > limits.string_length:
            raise EvaluationError(f"the text would be longer than {limits.string_length} characters")
        return left + right

    def join_lists(left: list[Any], right: list[Any]) -> list[Any]:
        if len(left) + len(right) > limits.list_items:
            raise EvaluationError(f"the list would have more than {limits.list_items} items")
        return left + right

    return {("+", "string", "string"): join_texts, ("+", "list", "list"): join_lists}


def _to_number(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise EvaluationError("the text is not a whole number")
    return in_range(int(text))


def _unknown_to_number(value: Any) -> int:
    if value.__class__ is int:
        return in_range(value)
    if isinstance(value, str):
        return _to_number(value)
    raise EvaluationError("the value is not a whole number")


def _to_text(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, date):
        return value.isoformat()
    raise EvaluationError("the value cannot be written as text")


def _size(value: Any) -> int:
    if not isinstance(value, str | list | dict | tuple):
        raise EvaluationError("the value has no size")
    return len(value)


def _extreme(choose: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    def of_list(items: list[Any]) -> Any:
        present = [item for item in items if item is not None]
        if not present:
            raise EvaluationError("an empty list has neither a least nor a greatest item")
        return choose(present)

    return of_list


def _total(start: Any) -> Callable[[list[Any]], Any]:
    def of_list(items: list[Any]) -> Any:
        total = sum((item for item in items if item is not None), start=start)
        return in_range(total) if isinstance(total, int) else total

    return of_list


def _names(value: Any) -> list[str]:
    """Return one name or a list of names as a list; of nothing, an empty one."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    raise EvaluationError("names are a text or a list of texts")


def _before(text: str, part: str) -> str:
    """Return what comes before the first occurrence of the part, all of the text where there is none."""
    return text.partition(part)[0] if part else text


_UNKNOWN_LIST: Final = ListType(DYN)
_UNKNOWN_MAP: Final = MapType(DYN)


def standard_functions(currency: str) -> dict[str, tuple[Function, ...]]:
    """Return the functions every environment has; its amounts are in one currency."""

    def text_test(call: Callable[[str, str], bool], en: str, zh: str) -> tuple[Function, ...]:
        phrases = {"en": en, "zh": zh}
        return (
            Function(arguments=(STRING, STRING), result=BOOL, call=call, style="method", cost=200, phrases=phrases),
        )

    def extremes(name: str, en: str, zh: str) -> tuple[Function, ...]:
        choose: Any = min if name == "min" else max
        found: list[Function] = []
        for one in (INT, MONEY, INSTANT, DURATION, DATE):
            phrases = {"en": en, "zh": zh}
            found.append(
                Function(arguments=(one, one), is_variadic=True, result=one, call=choose, cost=4, phrases=phrases)
            )
            found.append(
                Function(arguments=(ListType(one),), result=one, call=_extreme(choose), cost=200, phrases=phrases)
            )
        return tuple(found)

    def sizes() -> tuple[Function, ...]:
        phrases = {"en": "the number of {0}", "zh": "{0}的数量"}
        return tuple(
            Function(arguments=(of,), result=INT, call=_size, style="both", phrases=phrases)
            for of in (STRING, _UNKNOWN_LIST, _UNKNOWN_MAP)
        )

    def texts() -> tuple[Function, ...]:
        phrases = {"en": "{0}", "zh": "{0}"}
        plain = tuple(
            Function(arguments=(of,), result=STRING, call=_to_text, cost=20, phrases=phrases)
            for of in (STRING, INT, BOOL, INSTANT, DURATION, DATE)
        )
        money = Function(
            arguments=(MONEY,), result=STRING, call=lambda minor: format_minor(minor, currency), phrases=phrases
        )
        return (*plain, money)

    def from_text(result: Type, call: Callable[[str], Any]) -> tuple[Function, ...]:
        return (Function(arguments=(STRING,), result=result, call=call, cost=10, phrases={"en": "{0}", "zh": "{0}"}),)

    def totals() -> tuple[Function, ...]:
        starts: tuple[tuple[Type, Any], ...] = ((INT, 0), (MONEY, 0), (DURATION, timedelta()))
        return tuple(
            Function(
                arguments=(ListType(of),),
                result=of,
                call=_total(start),
                cost=200,
                phrases={"en": "the sum of {0}", "zh": "{0}之和"},
            )
            for of, start in starts
        )

    return {
        "size": sizes(),
        "startsWith": text_test(str.startswith, "{0} starts with {1}", "{0}以{1}开头"),
        "endsWith": text_test(str.endswith, "{0} ends with {1}", "{0}以{1}结尾"),
        "contains": text_test(lambda text, part: part in text, "{0} contains {1}", "{0}包含{1}"),
        "before": (
            Function(
                arguments=(STRING, STRING),
                result=STRING,
                call=_before,
                style="method",
                cost=200,
                phrases={"en": "{0} up to {1}", "zh": "{0}中{1}之前的部分"},
            ),
        ),
        "names": (
            Function(
                arguments=(DYN,),
                result=ListType(STRING),
                call=_names,
                accepts_null=True,
                cost=200,
                phrases={"en": "{0}", "zh": "{0}"},
            ),
        ),
        "int": (
            Function(arguments=(INT,), result=INT, call=lambda number: number, phrases={"en": "{0}", "zh": "{0}"}),
            Function(arguments=(STRING,), result=INT, call=_to_number, phrases={"en": "{0}", "zh": "{0}"}),
            Function(
                arguments=(INSTANT,),
                result=INT,
                call=lambda instant: (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1),
            ),
            Function(arguments=(DYN,), result=INT, call=_unknown_to_number, phrases={"en": "{0}", "zh": "{0}"}),
        ),
        "string": texts(),
        "money": from_text(MONEY, lambda text: parse_money(text, currency)),
        "duration": from_text(DURATION, parse_duration),
        "timestamp": from_text(INSTANT, parse_instant),
        "date": from_text(DATE, parse_date),
        "min": extremes("min", "the least of {all}", "{all}中的最小值"),
        "max": extremes("max", "the greatest of {all}", "{all}中的最大值"),
        "sum": totals(),
    }

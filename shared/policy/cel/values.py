"""From what data hold (JSON-like values) to what expressions work with, by declared type.

| type     | in data                          | inside an expression            |
| -------- | -------------------------------- | ------------------------------- |
| money    | decimal string "480.00", Money   | int, minor units                |
| instant  | RFC 3339 string, aware datetime  | aware datetime                  |
| duration | "1h30m", timedelta               | timedelta                       |
| date     | "2026-03-01", date               | date                            |

Every converter lets null through, for null may be compared; whoever needs a value checks for it. What does not fit
raises EvaluationError with the path that was read, and never the value, which may be personal.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar

from shared.money import Money, format_minor, parse_minor
from shared.policy.cel.limits import Limits
from shared.policy.cel.problems import EvaluationError
from shared.policy.cel.types import ListType, Type

Converter = Callable[[Any, str], Any]
Parsed = TypeVar("Parsed")

_DURATION_PART: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?(ms|us|ns|w|d|h|m|s)", re.ASCII)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[-+]\d\d:\d\d)", re.ASCII)
# Their converters only check, so they may run again on a value that has been through a list's converter.
CHECKED_ON_USE: Final = frozenset({"string", "bool", "map"})
EARLIEST_YEAR: Final = 1902
LATEST_YEAR: Final = 2198
_NANOSECONDS: Final = {
    "w": 604_800_000_000_000,
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}


@lru_cache(maxsize=4096)
def parse_money(text: str, currency: str) -> int:
    """Return the minor units of a decimal text; raise ValueError if it has another form or too many decimals."""
    try:
        return parse_minor(text, currency)
    except ValueError:
        raise ValueError(
            f"not an amount of {currency}: a text like {format_minor(48_000, currency)} is expected"
        ) from None


@lru_cache(maxsize=4096)
def parse_instant(text: str) -> datetime:
    """Return an RFC 3339 instant as aware datetime in UTC; raise ValueError otherwise."""
    if not _INSTANT.fullmatch(text):
        raise ValueError("not an instant: a text like 2026-03-01T09:00:00Z or …+08:00 is expected")
    try:
        at = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"not an instant: {error}") from None
    if not EARLIEST_YEAR <= at.year <= LATEST_YEAR:
        raise ValueError(f"not an instant between {EARLIEST_YEAR} and {LATEST_YEAR}, where calendars reach")
    return at


@lru_cache(maxsize=4096)
def parse_date(text: str) -> date:
    """Return a calendar date written as 2026-03-01; raise ValueError otherwise."""
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        raise ValueError("not a date: a text like 2026-03-01 is expected")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"not a date: {error}") from None


@lru_cache(maxsize=4096)
def parse_duration(text: str) -> timedelta:
    """Return a length such as 24h, 1h30m, 1.5s or -10m; raise ValueError if it has another form.

    Beyond CEL also 3d and 2w, a day being 24 hours: working days are a matter of calendars, not of lengths.
    """
    rest, sign = (text[1:], -1) if text.startswith("-") else (text, 1)
    at = total = 0
    while at < len(rest) or not at:
        part = _DURATION_PART.match(rest, at)
        if part is None:
            if rest == "0":
                return timedelta()
            raise ValueError("not a length of time: a text like 24h, 1h30m or 3d is expected")
        fraction = part[2] or ""
        unit = _NANOSECONDS[part[3]]
        total += int(part[1]) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        at = part.end()
    if total % 1_000:
        raise ValueError("not a length of time: less than a microsecond is not kept")
    try:
        return timedelta(microseconds=sign * (total // 1_000))
    except OverflowError:
        raise ValueError("not a length of time: too long") from None


def format_duration(length: timedelta) -> str:
    """Return a length as CEL writes it, in seconds: 86400s, 1.5s."""
    microseconds = length // timedelta(microseconds=1)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if microseconds < 0 else ''}{seconds}{fraction}s"


def format_instant(instant: datetime) -> str:
    """Return an instant as RFC 3339 text in UTC."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def to_bool(value: Any, path: str) -> bool | None:
    """Return a bool as it is; nothing else counts as true or false."""
    if value is True or value is False or value is None:
        return value
    raise EvaluationError(f"{path} is neither true nor false")


def to_int(value: Any, path: str) -> int | None:
    """Return a whole number; true is not 1 and 1.0 is not 1."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise EvaluationError(f"{path} is not a whole number")


def to_instant(value: Any, path: str) -> datetime | None:
    """Return an instant from RFC 3339 text or an aware datetime."""
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value
    elif value is None:
        return None
    elif isinstance(value, str):
        return _parsed(parse_instant, value, path)
    raise EvaluationError(f"{path} is not an instant")


def to_date(value: Any, path: str) -> date | None:
    """Return a calendar date from text or a date; an instant is none, for its date depends on the time zone."""
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, str):
        return _parsed(parse_date, value, path)
    raise EvaluationError(f"{path} is not a date")


def to_duration(value: Any, path: str) -> timedelta | None:
    """Return a length of time from text or a timedelta."""
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return _parsed(parse_duration, value, path)
    raise EvaluationError(f"{path} is not a length of time")


def _parsed(parse: Callable[[str], Parsed], text: str, path: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise EvaluationError(f"{path} is {error}") from None


def converters(currency: str, limits: Limits) -> Callable[[Type], Converter | None]:
    """Return a function from a type to its converter, None for a type that is read as it is."""

    def to_money(value: Any, path: str) -> int | None:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                return parse_money(value, currency)
            except ValueError as error:
                raise EvaluationError(f"{path} is {error}") from None
        if isinstance(value, Money) and value.currency == currency:
            return value.minor
        raise EvaluationError(f"{path} is not an amount of {currency}: a text is expected, not a number")

    def to_string(value: Any, path: str) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str):
            raise EvaluationError(f"{path} is not a text")
        if len(value) > limits.string_length:
            raise EvaluationError(f"{path} is longer than {limits.string_length} characters")
        return value

    def to_map(value: Any, path: str) -> Any:
        if value is None:
            return None
        if value.__class__ is not dict and not isinstance(value, Mapping):  # to ask an abstract class takes long
            raise EvaluationError(f"{path} is not a map")
        if len(value) > limits.list_items:
            raise EvaluationError(f"{path} has more than {limits.list_items} entries")
        return value

    def list_of(item: Converter | None) -> Converter:
        def to_list(value: Any, path: str) -> list[Any] | None:
            if value is None:
                return None
            if not isinstance(value, list | tuple):
                raise EvaluationError(f"{path} is not a list")
            if len(value) > limits.list_items:
                raise EvaluationError(f"{path} has more than {limits.list_items} items")
            if item is not None:
                return [item(one, f"{path}[]") for one in value]
            return value if isinstance(value, list) else list(value)

        return to_list

    simple: dict[str, Converter] = {
        "bool": to_bool,
        "int": to_int,
        "string": to_string,
        "money": to_money,
        "instant": to_instant,
        "duration": to_duration,
        "date": to_date,
        "map": to_map,
    }
    lists: dict[str, Converter] = {}

    def converter_of(wanted: Type) -> Converter | None:
        if not isinstance(wanted, ListType):
            return simple.get(wanted.kind)
        item = wanted.item
        key = _kinds(item)
        if (found := lists.get(key)) is None:
            # Texts and booleans are checked where they are used; looking at each beforehand would cost more.
            found = lists[key] = list_of(None if item.kind in CHECKED_ON_USE else converter_of(item))
        return found

    return converter_of


def _kinds(of: Type) -> str:
    return f"list<{_kinds(of.item)}>" if isinstance(of, ListType) else of.kind

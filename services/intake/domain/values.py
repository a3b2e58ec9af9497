"""Values of a tenant's own fields: from what a channel hands over to what may stand on a timeline, by the type that the
policy gives the field.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from services.intake.domain.complaint import FIELD_TEXT_LIMIT, LIST_LIMIT, NAME_LIMIT
from services.intake.domain.texts import is_clean_line
from services.intake.domain.vocabulary import near
from shared.policy.schema import Field

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MONEY = re.compile(r"-?\d{1,15}(\.\d{1,3})?", re.ASCII)
_TRUE: Final = frozenset({"true", "yes", "y", "1", "是", "有", "对"})
_FALSE: Final = frozenset({"false", "no", "n", "0", "否", "无", "没有"})


class ValueFault(Exception):  # noqa: N818 - a fault of the sender's, reported with others, not an error of ours
    """The value does not fit; the text says what would, without repeating the value."""

    def __init__(self, detail: str, at: str | None = None, suggestion: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.at = at  # the place within a list
        self.suggestion = suggestion


def field_value(field: Field, value: Any, *, from_text: bool) -> Any:
    """Return the value as the timeline bears it. Money and instants stay text: JSON has no exact type for them.

    Args:
        field: what the policy declares.
        value: as decoded from JSON; with `from_text`, a text of a table or a foreign payload, read as its type asks.
        from_text: whether "yes", "1,200.00" and "a; b" may stand for a bool, an amount and a list.

    Raises:
        ValueFault: with what would fit.
    """
    if from_text and isinstance(value, str):
        value = _read(field, value.strip())
    match field.type:
        case "bool":
            return _checked(value, bool, "true or false")
        case "int":
            number = _checked(value, int, "a whole number")
            if abs(number) > 2**53:
                raise ValueFault("a whole number of at most 16 digits is needed")
            return number
        case "money":
            return _money(value)
        case "date":
            return _date(value)
        case "instant":
            return instant(value).isoformat()
        case "list":
            return _list(field, value)
        case _:
            return _text(field, value)


def instant(value: Any) -> datetime:
    """Return the aware instant of an RFC 3339 text. Raises ValueFault."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if at.tzinfo is not None and 1970 <= at.year <= 2200:
                return at
    raise ValueFault("an instant with its offset is needed, as 2026-03-02T10:00:00+08:00")


def _checked(value: Any, kind: type, needed: str) -> Any:
    if type(value) is not kind:  # a bool is an int to Python, not to us
        raise ValueFault(f"{needed} is needed")
    return value


def _money(value: Any) -> str:
    if isinstance(value, str) and _MONEY.fullmatch(value):
        return str(Decimal(value))
    raise ValueFault('an amount as decimal text is needed, as "480.00"')


def _date(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise ValueFault("a date is needed, as 2026-03-02")


def _list(field: Field, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > LIST_LIMIT:
        raise ValueFault(f"a list of at most {LIST_LIMIT} names is needed")
    read: list[str] = []
    for place, item in enumerate(value):
        try:
            read.append(_text(field, item))
        except ValueFault as fault:
            raise ValueFault(fault.detail, str(place), fault.suggestion) from None
    return read


def _text(field: Field, value: Any) -> str:
    limit = FIELD_TEXT_LIMIT if field.type == "text" else NAME_LIMIT
    if not isinstance(value, str):
        raise ValueFault("text is needed")
    text = value.strip()
    if not text or len(text) > limit or not is_clean_line(text):
        longer = "; longer text belongs into `text`" if field.type == "text" else ""
        raise ValueFault(f"one line of 1 to {limit} characters is needed{longer}")
    if field.values is not None and text not in field.values:
        raise ValueFault("the policy does not list this value", suggestion=near(text, field.values))
    if field.type == "name" and field.values is None and not _NAME.fullmatch(text):
        raise ValueFault("a name in lower case with underscores is needed, as data_leak")
    return text


def _read(field: Field, text: str) -> Any:
    """Read a text as its field's type asks; what cannot be read is left for the check of the type."""
    match field.type:
        case "bool":
            lowered = text.lower()
            return True if lowered in _TRUE else False if lowered in _FALSE else text
        case "int":
            plain = text.replace(",", "")
            return int(plain) if re.fullmatch(r"[+-]?\d{1,16}", plain, re.ASCII) else text
        case "money":
            return re.sub(r"^[¥￥]|[,，]|元$", "", text)
        case "date":
            found = re.fullmatch(r"(\d{4})[-/.年](\d{1,2})[-/.月](\d{1,2})日?", text, re.ASCII)
            return f"{found[1]}-{int(found[2]):02d}-{int(found[3]):02d}" if found else text
        case "list":
            return [part.strip() for part in re.split(r"[;；、|]", text) if part.strip()]
        case _:
            return text

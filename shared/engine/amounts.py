"""Amounts of time as a policy writes them: `3wd`, `24h`, `1wd@08:00`, `eom`, `{day: 10, after: quarter}`.

An amount is only text made precise; what instant it leads to is asked of a calendar (`shared.engine.calendar`), because
"three working days" means nothing without one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

Unit = Literal["min", "h", "bh", "d", "wd", "w", "mo", "y", "eom", "eoq", "eoy"]
After = Literal["month", "quarter", "half", "year"]
Language = Literal["en", "zh"]

TIME_UNITS: Final = frozenset({"min", "h", "bh"})
DAY_UNITS: Final = frozenset({"d", "wd", "w", "mo", "y"})
ANCHORS: Final = frozenset({"eom", "eoq", "eoy"})

# Ten years in each unit. A limit beyond that is a slip of the pen, and the calendar has a horizon.
MOST: Final[dict[str, int]] = {
    "min": 5_260_000, "h": 87_700, "bh": 87_700, "d": 3_653, "wd": 3_653, "w": 522, "mo": 120, "y": 10,
}  # fmt: skip


class Amount(msgspec.Struct, frozen=True):
    """A limit's length, or the date it is anchored to.

    unit: `min`, `h` round the clock unless the counting says office hours; `bh` office hours; `d` calendar days; `wd`
        working days; `w`, `mo`, `y`; `eom`, `eoq`, `eoy` the end of the month, quarter, year (n is 0).
    at: the time on the resulting day: "HH:MM", "close" of office, "end" of the day; None: as the counting says.
    day, after: set together: that day of the first month after the current month, quarter, half or year; unit is then
        "eom" where `after` is the month, and so on, and n is 0.
    first_month: the month in which the year begins that `after` divides; 12 gives halves from December and from June.
    """

    n: int
    unit: Unit
    at: str | None = None
    day: int | None = None
    after: After | None = None
    first_month: int = 1


_TEXT = re.compile(r"(?P<n>\d+)(?P<unit>min|h|bh|d|wd|w|mo|y)(?:@(?P<at>\S+))?", re.ASCII)
_ANCHOR = re.compile(r"(?P<unit>eom|eoq|eoy)(?:@(?P<at>\S+))?", re.ASCII)
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_LOOSE = re.compile(r"(?P<n>[\d.,]+)?\s*(?P<word>[a-z一-鿿]+(?:\s+(?!at\s)[a-z]+)*)\s*(?:(?:@|at\s)\s*(?P<at>.+))?")
_AFTER_UNIT: Final[dict[str, Unit]] = {"month": "eom", "quarter": "eoq", "half": "eoy", "year": "eoy"}

_WORDS: Final[dict[str, str]] = {
    "m": "min", "mins": "min", "minute": "min", "minutes": "min", "分钟": "min",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "小时": "h",
    "wh": "bh", "working hour": "bh", "working hours": "bh", "business hours": "bh", "business hour": "bh",
    "office hours": "bh", "工作小时": "bh",
    "day": "d", "days": "d", "calendar days": "d", "calendar day": "d", "天": "d", "日": "d", "自然日": "d",
    "bd": "wd", "wds": "wd", "working day": "wd", "working days": "wd", "business days": "wd", "business day": "wd",
    "工作日": "wd", "个工作日": "wd",
    "wk": "w", "wks": "w", "week": "w", "weeks": "w", "周": "w",
    "mon": "mo", "mos": "mo", "month": "mo", "months": "mo", "个月": "mo", "月": "mo",
    "yr": "y", "yrs": "y", "year": "y", "years": "y", "年": "y",
    "end of month": "eom", "eoms": "eom", "month end": "eom", "月末": "eom", "季末": "eoq", "年末": "eoy",
}  # fmt: skip


def parse_amount(text: str | Mapping[str, Any]) -> Amount:
    """Return the amount that a policy's value stands for.

    Text: a number and a unit without a space, `30min 24h 8bh 3d 3wd 2w 3mo 1y 0d 0wd`, or `eom eoq eoy`; with days and
    anchors an optional `@08:00`, `@close`, `@end`. Mapping: `{day: 10, after: quarter}`, optionally with
    `at` and `first_month`.

    Raises:
        ValueError: a message for the policy's author, with the nearest right form where there is one.
    """
    if isinstance(text, Mapping):
        return _from_mapping(text)
    if not isinstance(text, str):
        raise ValueError(f"an amount is text like 3wd or a mapping like {{day: 10, after: month}}, not {text!r}")
    if anchor := _ANCHOR.fullmatch(text):
        return Amount(0, cast(Unit, anchor["unit"]), _checked_at(text, anchor["at"]))
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(_not_an_amount(text))
    n, unit, at = int(found["n"]), found["unit"], found["at"]
    if at is not None and unit in TIME_UNITS:
        raise ValueError(f"{text!r}: a time of day goes with days, weeks, months or an end, not with {unit}")
    if n > MOST[unit]:
        raise ValueError(f"{text!r} is longer than ten years, the most is {MOST[unit]}{unit}")
    return Amount(n, cast(Unit, unit), _checked_at(text, at))


def _from_mapping(value: Mapping[str, Any]) -> Amount:
    known = ("day", "after", "at", "first_month")
    for key in value:
        if key not in known:
            raise ValueError(f"an amount has no key {key!r}; it has {', '.join(known)}")
    day, after, first_month = value.get("day"), value.get("after"), value.get("first_month", 1)
    if type(day) is not int or not 1 <= day <= 31:
        raise ValueError(f"day is a day of the month from 1 to 31, not {day!r}")
    if after not in _AFTER_UNIT:
        raise ValueError(f"after is one of month, quarter, half, year, not {after!r}")
    if type(first_month) is not int or not 1 <= first_month <= 12:
        raise ValueError(f"first_month is a month from 1 to 12, not {first_month!r}")
    at = value.get("at")
    if at is not None and not isinstance(at, str):
        raise ValueError(f'at is "HH:MM", close or end, not {at!r}')
    return Amount(0, _AFTER_UNIT[after], _checked_at(str(at), at), day, cast(After, after), first_month)


def _checked_at(text: str, at: str | None) -> str | None:
    if at is None or at in ("close", "end") or _CLOCK.fullmatch(at):
        return at
    loose = re.fullmatch(r"(\d{1,2})(?:[:.h](\d{2}))?", at)
    if loose and int(loose[1]) < 24 and int(loose[2] or 0) < 60:
        near = f"@{int(loose[1]):02d}:{loose[2] or '00'}"
        raise ValueError(f"{text!r}: a time of day is written {near}")
    if at in ("24:00", "24"):
        raise ValueError(f"{text!r}: the end of the day is written @end")
    raise ValueError(f"{text!r}: after @ comes a time like 08:00, close or end")


def _not_an_amount(text: str) -> str:
    """Say what is wrong with the text and, where it can be guessed, what was probably meant."""
    near = _near_miss(text)
    if near is not None:
        return f"{text!r} is not an amount; did you mean {near!r}?"
    return f"{text!r} is not an amount; write a number and min, h, bh, d, wd, w, mo or y, as in 3wd, or eom, eoq, eoy"


def _near_miss(text: str) -> str | None:
    found = _LOOSE.fullmatch(text.strip().lower())
    if found is None:
        return None
    word = " ".join(found["word"].split())
    unit = word if word in MOST or word in ANCHORS else _WORDS.get(word)
    if unit is None:
        return None
    at = found["at"]
    suffix = "" if at is None else f"@{at.strip()}"
    if unit in ANCHORS:
        near = f"{unit}{suffix}"
    elif found["n"] is None:
        return None
    elif found["n"].isdecimal():
        near = f"{int(found['n'])}{unit}{suffix}"
    else:
        return _whole(found["n"], unit)
    try:
        parse_amount(near)
    except ValueError:
        return None
    return near if near != text else None


def _whole(number: str, unit: str) -> str | None:
    """Return a fraction of an hour, day or week in whole smaller units; None where there is no such unit."""
    smaller = {"h": ("min", 60), "d": ("h", 24), "w": ("d", 7), "y": ("mo", 12)}
    if unit not in smaller or not re.fullmatch(r"\d+[.,]\d+", number):
        return None
    below, factor = smaller[unit]
    whole, part = re.split("[.,]", number)
    total, rest = divmod(int(whole + part) * factor, 10 ** len(part))
    return f"{total}{below}" if rest == 0 else None


def format_amount(amount: Amount) -> str | dict[str, int | str]:
    """Return the amount as a policy writes it; `parse_amount` reads it back to the same."""
    if amount.day is not None and amount.after is not None:
        written: dict[str, int | str] = {"day": amount.day, "after": amount.after}
        if amount.at is not None:
            written["at"] = amount.at
        if amount.first_month != 1:
            written["first_month"] = amount.first_month
        return written
    number = "" if amount.unit in ANCHORS else str(amount.n)
    return f"{number}{amount.unit}" + ("" if amount.at is None else f"@{amount.at}")


_EN: Final[dict[str, tuple[str, str]]] = {
    "min": ("minute", "minutes"), "h": ("hour", "hours"), "bh": ("working hour", "working hours"),
    "d": ("calendar day", "calendar days"), "wd": ("working day", "working days"), "w": ("week", "weeks"),
    "mo": ("month", "months"), "y": ("year", "years"),
}  # fmt: skip
_ZH: Final[dict[str, str]] = {
    "min": "分钟", "h": "小时", "bh": "个工作小时",
    "d": "个自然日", "wd": "个工作日", "w": "周", "mo": "个月", "y": "年",
}  # fmt: skip
_ENDS: Final[dict[str, tuple[str, str]]] = {
    "eom": ("the end of the month", "月末"), "eoq": ("the end of the quarter", "季末"),
    "eoy": ("the end of the year", "年末"),
}  # fmt: skip
_AFTER_ZH: Final[dict[str, str]] = {"month": "次月", "quarter": "季后首月", "half": "半年后首月", "year": "次年首月"}


def describe(amount: Amount, lang: Language = "en") -> str:
    """Return the amount in words, as in "3 working days" or "3个工作日"."""
    if lang == "zh":
        return _describe_zh(amount)
    at = {None: "", "close": ", at close of office", "end": ", at the end of the day"}.get(
        amount.at, f", at {amount.at}"
    )
    if amount.day is not None and amount.after is not None:
        month = "the next month" if amount.after == "month" else f"the month after the {amount.after}"
        return f"day {amount.day} of {month}{at}"
    if amount.unit in ANCHORS:
        return _ENDS[amount.unit][0] + at
    if amount.n == 0 and amount.unit in DAY_UNITS:
        return ("the same working day" if amount.unit == "wd" else "the same day") + at
    return f"{amount.n} {_EN[amount.unit][amount.n != 1]}{at}"


def _describe_zh(amount: Amount) -> str:
    at = {None: "", "close": "下班前", "end": "24时前"}.get(amount.at, f"{amount.at}前")
    if amount.day is not None and amount.after is not None:
        return f"{_AFTER_ZH[amount.after]}{amount.day}日{at}"
    if amount.unit in ANCHORS:
        return _ENDS[amount.unit][1] + at
    if amount.n == 0 and amount.unit in DAY_UNITS:
        return ("当个工作日" if amount.unit == "wd" else "当日") + at
    return f"{amount.n}{_ZH[amount.unit]}" + (f"（{at}）" if at else "")

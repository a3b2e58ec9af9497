"""How a complaint gets its number: the pattern of the policy, the period its counter belongs to."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from msgspec import Struct

from shared.policy.schema import Numbering

_TOKEN = re.compile(r"\{(YYYY|YY|MM|DD|N(?::0?(\d{1,2}))?)\}")
_WIDEST: Final = 12


class NumberForm(Struct, frozen=True):
    """The number of one period with a hole for the counter.

    width: digits that the counter has at least.
    last: the highest counter that fits; None: the number grows.
    """

    period: str
    before: str
    after: str
    width: int
    last: int | None

    def number(self, count: int) -> str:
        """Return the number for a count from 1 on."""
        return f"{self.before}{count:0{self.width}d}{self.after}"


@lru_cache(maxsize=1024)  # one a policy and day: every complaint of the day asks for it
def number_form(rule: Numbering, on: date) -> NumberForm:
    """Return the form of the numbers given on a date, in the tenant's zone.

    A pattern without {N} gets the counter at its end, since two complaints never share a number within a period.
    """
    before, after, width, counted = "", "", 0, False
    position = 0
    for token in _TOKEN.finditer(rule.pattern):
        literal = rule.pattern[position : token.start()]
        position = token.end()
        name = token[1]
        if name.startswith("N") and not counted:
            before, after, counted = after + literal, "", True
            width = min(int(token[2] or 1), _WIDEST)
            continue
        after += literal + _date_part(name, on)
    after += rule.pattern[position:]
    if not counted:
        before, after, width = f"{after}-" if after else "", "", 1
    last = 10**width - 1 if rule.overflow == "refuse" else None
    return NumberForm(period=_period(rule.reset, on), before=before, after=after, width=width, last=last)


def _date_part(name: str, on: date) -> str:
    parts = {"YYYY": f"{on.year:04d}", "YY": f"{on.year % 100:02d}", "MM": f"{on.month:02d}", "DD": f"{on.day:02d}"}
    return parts.get(name, "")


def _period(reset: str, on: date) -> str:
    match reset:
        case "day":
            return on.isoformat()
        case "month":
            return on.isoformat()[:7]
        case "year":
            return on.isoformat()[:4]
        case _:
            return ""

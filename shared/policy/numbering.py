"""Numbers of complaints, as the policy writes them."""

from __future__ import annotations

import re
from datetime import datetime

from shared.engine.calendar import Calendar
from shared.policy.schema import Numbering

_PART = re.compile(r"\{(YYYY|YY|MM|DD|N)(?::0(\d))?\}")


def number(numbering: Numbering, calendar: Calendar, at: datetime, earlier: int) -> str:
    """The number of the complaint received at `at` after `earlier` ones of the same period; a counter that overflows its width widens."""
    local = calendar.local(at)
    values = {
        "YYYY": f"{local.year:04}",
        "YY": f"{local.year % 100:02}",
        "MM": f"{local.month:02}",
        "DD": f"{local.day:02}",
    }

    def part(match: re.Match[str]) -> str:
        if match[1] != "N":
            return values[match[1]]
        return str(earlier + 1).rjust(int(match[2] or 1), "0")

    return _PART.sub(part, numbering.pattern)


def period_key(numbering: Numbering, calendar: Calendar, at: datetime) -> str:
    """The period within which numbers run: a date, a month, a year, or `ever`."""
    return "ever" if numbering.reset == "never" else calendar.period(at, numbering.reset)

"""Business calendars: from a start and an amount to the instant it is due.

`CalendarSection` is what a policy says, `Calendar` computes with one edition of it, `CalendarBook` keeps the dated
editions, `explain` shows a computation step by step so that it re-adds.
"""

from shared.engine.calendar.arithmetic import (
    NO_PAUSE,
    USUAL_COUNTING,
    BeyondHorizonError,
    Calendar,
    OverdueUnit,
    Paused,
    Period,
)
from shared.engine.calendar.book import CalendarBook, Revision
from shared.engine.calendar.days import Cause, Day, DayRules, rules_of
from shared.engine.calendar.section import (
    CalendarProblem,
    CalendarSection,
    CalendarSpec,
    Counting,
    Season,
    problems,
)
from shared.engine.calendar.steps import Pauses, Step, StepCause, Sum, explain, readd, render

__all__ = [
    "NO_PAUSE",
    "USUAL_COUNTING",
    "BeyondHorizonError",
    "Calendar",
    "CalendarBook",
    "CalendarProblem",
    "CalendarSection",
    "CalendarSpec",
    "Cause",
    "Counting",
    "Day",
    "DayRules",
    "OverdueUnit",
    "Paused",
    "Pauses",
    "Period",
    "Revision",
    "Season",
    "Step",
    "StepCause",
    "Sum",
    "explain",
    "problems",
    "readd",
    "render",
    "rules_of",
]

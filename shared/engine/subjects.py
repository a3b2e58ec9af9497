"""Counting across cases: what a subject's earlier items mean for the next one.

A complaint's own fold never looks at other cases. Whoever writes an entry (routing, the simulator) asks the subject's earlier items, works
out the stamp and puts it into the entry; from then on the count is part of the timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from shared.engine.calendar import Calendar, CalendarBook
from shared.engine.case import Case, replay
from shared.engine.model import CountStamp, Entry
from shared.engine.rules import CompiledPolicy, SubjectRule


class Item(Struct, frozen=True, kw_only=True):
    """Something counted earlier for one rule and one subject."""

    at: datetime
    added: int
    fired: bool = False


class Wanted(Struct, frozen=True, kw_only=True):
    """A count that an entry needs."""

    rule: str
    subject: str
    added: int
    at: datetime
    window: str


def stamp(
    rule: SubjectRule, subject: str, added: int, at: datetime, items: Iterable[Item], calendar: Calendar
) -> CountStamp:
    """What the counter says with the new item.

    Args:
        items: the subject's earlier items under this rule, those of the same instant included, in any order.
        calendar: the tenant's, for months and rolling windows.
    """
    earlier = sorted((item for item in items if item.at <= at), key=lambda item: item.at)
    opened: datetime | None = None
    if rule.window.startswith("opened:"):
        opened, within = _opened(earlier, at, rule.window.removeprefix("opened:"), calendar)
    elif rule.window == "ever":
        within = earlier
    else:
        start = calendar.window_start(at, rule.window)
        within = [item for item in earlier if item.at >= start]
    before = sum(item.added for item in within)
    times = sum(1 for item in within if item.fired)
    fires = _fires(rule, before, added)
    return CountStamp(subject=subject, before=before, added=added, opened_at=opened, fires=fires, times=times + fires)


def _fires(rule: SubjectRule, before: int, added: int) -> bool:
    if rule.more_than is None and rule.at_least is None:
        return False
    least = rule.at_least if rule.at_least is not None else (rule.more_than or 0) + 1
    after = before + added
    if after < least:
        return False
    if rule.fire == "every_time":
        return True
    if rule.fire == "every_multiple":
        return least > 0 and after // least > before // least
    return before < least


def _opened(earlier: Sequence[Item], at: datetime, length: str, calendar: Calendar) -> tuple[datetime, list[Item]]:
    """The window that is open at `at`: it opens with the first item and lasts for its length; the next item after it opens the next."""
    opened: datetime | None = None
    within: list[Item] = []
    for item in earlier:
        if opened is None or calendar.window_start(item.at, length) > opened:
            opened, within = item.at, []
        within.append(item)
    if opened is None or calendar.window_start(at, length) > opened:
        return at, []
    return opened, within


Items = Callable[[Wanted], Sequence[Item]]


def wanted(
    policies: Mapping[int, CompiledPolicy],
    timeline: Sequence[Entry],
    calendars: CalendarBook,
    entry: Entry,
    known: Mapping[tuple[str, str], CountStamp],
    *,
    policy_version: int = 1,
    case_kind: str = "complaint",
) -> tuple[list[Wanted], dict[str, CountStamp]]:
    """What `entry` counts after this timeline.

    `known` holds the stamps found so far, by (rule, subject). A stamp may fire a rule that counts further: call again with the new stamps
    until nothing more is wanted.

    Returns:
        What is still wanted, and the stamps of those rules that are known: the `counts` of the entry.
    """
    missing: list[Wanted] = []
    found: dict[str, CountStamp] = {}
    live = False

    def ask(rule: SubjectRule, subject: str, added: int, at: datetime) -> CountStamp | None:
        if not live:
            return None
        have = known.get((rule.id, subject))
        if have is None:
            missing.append(Wanted(rule=rule.id, subject=subject, added=added, at=at, window=rule.window))
        else:
            found[rule.id] = have
        return have

    case: Case = replay(policies, timeline, calendars, policy_version=policy_version, case_kind=case_kind, counter=ask)
    case.advance(entry.at, inclusive=False)
    live = True
    case.apply(entry)
    return missing, found

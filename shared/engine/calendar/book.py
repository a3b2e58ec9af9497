"""Dated editions of a tenant's calendars, and which of them a clock counts on.

A clock keeps the edition that was in force at its start for the days that were announced then. A day that was not comes
from the first later edition that announces it. An edition that is published to move running clocks takes over for all
of them, from its own date on, so that no day that has passed changes.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from shared.engine.calendar.arithmetic import Calendar, shared_calendar
from shared.engine.calendar.days import DayRules, rules_of
from shared.engine.calendar.localtime import zone_of
from shared.engine.calendar.section import CalendarSection, CalendarSpec, Counting
from shared.engine.holidays import CountryDays

FROM_THE_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One edition of one calendar.

    published_at: when it was published; it is in force from then on.
    spec: the calendar.
    days: its country's days as they were then, so that later data change nothing; None: as the data have them now.
    moves_running: whether clocks that started before it count on it too.
    """

    published_at: datetime
    spec: CalendarSpec
    days: CountryDays | None = None
    moves_running: bool = False


class CalendarBook:
    """All editions of a tenant's calendars. Immutable; the same questions always get the same answers."""

    __slots__ = ("_known", "_only", "_published", "_revisions", "_rules", "counting", "default", "zone")

    def __init__(
        self,
        zone: str,
        revisions: Mapping[str, Sequence[Revision]],
        *,
        default: str = "default",
        counting: Counting | None = None,
    ) -> None:
        """Make a book.

        Args:
            zone: IANA name, of all calendars.
            revisions: by calendar, at least one each; of two published at one instant the later in the list counts.
            default: the calendar meant where none is named.
            counting: the way of counting that clocks start from.

        Raises:
            ValueError: a calendar without editions, an unknown zone, a malformed calendar.
        """
        zone_of(zone)
        if any(not editions for editions in revisions.values()):
            raise ValueError("a calendar needs at least one edition")
        self.zone = zone
        self.default = default
        self.counting = Counting() if counting is None else counting
        self._revisions = {
            name: tuple(sorted(editions, key=lambda edition: edition.published_at))
            for name, editions in revisions.items()
        }
        self._published = {
            name: [edition.published_at for edition in editions] for name, editions in self._revisions.items()
        }
        self._rules: dict[tuple[str, int], DayRules] = {}
        self._known: dict[tuple[str, int, int], Calendar] = {}
        self._only: dict[str | None, Calendar] = {}  # calendars with one edition, whenever asked

    @classmethod
    def of(cls, section: CalendarSection, days: Mapping[str, CountryDays] | None = None) -> "CalendarBook":
        """Return the book of a section that has been in force from the beginning.

        Args:
            section: of a policy.
            days: by calendar, those of its country; a calendar that is missing is taken from the data as they are now.
        """
        kept = days or {}
        revisions = {
            name: [Revision(published_at=FROM_THE_BEGINNING, spec=spec, days=kept.get(name))]
            for name, spec in section.calendars.items()
        }
        return cls(section.zone, revisions, default=section.default, counting=section.counting)

    def with_revision(self, name: str, revision: Revision) -> "CalendarBook":
        """Return a book with one edition more."""
        revisions = {**self._revisions, name: (*self._revisions.get(name, ()), revision)}
        return CalendarBook(self.zone, revisions, default=self.default, counting=self.counting)

    def names(self) -> tuple[str, ...]:
        """Return the names of the calendars."""
        return tuple(self._revisions)

    def at(self, name: str | None, started_at: datetime, known_at: datetime) -> Calendar:
        """Return the calendar on which a clock counts.

        Args:
            name: of the calendar; None: the default one.
            started_at: of the clock.
            known_at: the instant of the question: editions published later are not known.

        Raises:
            KeyError: there is no calendar of that name.
        """
        only = self._only.get(name)
        if only is not None:
            return only
        chosen = self.default if name is None else name
        base, known = self._editions(chosen, started_at, known_at)
        key = (chosen, base, known)
        found = self._known.get(key)
        if found is None:
            parts, certain = self._parts(chosen, base, known)
            rules = tuple((first, self._rules_of(chosen, index)) for first, index in parts)
            found = self._known[key] = shared_calendar(self.zone, rules, chosen, certain)
        if len(self._revisions[chosen]) == 1:
            self._only[name] = found
        return found

    def moves(self, name: str | None, started_at: datetime, known_before: datetime, known_at: datetime) -> bool:
        """Whether what was published in `(known_before, known_at]` may change a clock of that start."""
        chosen = self.default if name is None else name
        before, after = (
            self._parts(chosen, *self._editions(chosen, started_at, known)) for known in (known_before, known_at)
        )
        return before != after

    def _editions(self, name: str, started_at: datetime, known_at: datetime) -> tuple[int, int]:
        """Return the edition in force at the start and the last one known; before all editions, the first is in force."""
        published = self._published[name]
        base = max(bisect_right(published, started_at) - 1, 0)
        return base, base if len(published) == 1 else max(bisect_right(published, known_at) - 1, base)

    def _parts(self, name: str, base: int, known: int) -> tuple[tuple[tuple[date, int], ...], date | None]:
        """Return which edition speaks from which date on, and the last certain date."""
        editions = self._revisions[name]
        parts: list[tuple[date, int]] = [(date.min, base)]
        certain = self._rules_of(name, base).announced_through
        for index in range(base + 1, known + 1):
            announced = self._rules_of(name, index).announced_through
            if editions[index].moves_running:
                first = editions[index].published_at.astimezone(zone_of(self.zone)).date()
                parts = [part for part in parts if part[0] < first] + [(first, index)]
                certain = announced
            elif certain is not None and (announced is None or announced > certain):
                parts = [part for part in parts if part[0] <= certain] + [(certain + _DAY, index)]
                certain = announced
        return tuple(parts), certain

    def _rules_of(self, name: str, index: int) -> DayRules:
        rules = self._rules.get((name, index))
        if rules is None:
            edition = self._revisions[name][index]
            rules = self._rules[name, index] = rules_of(edition.spec, edition.days)
        return rules

"""Figures of reports, made from fact rows.

The rows of one tenant and the compiled section `reports` of its policy give the figures: counts, shares, sums, means
and rates, by period, by subject and by dimension. They follow from the rows alone: no I/O, no clock, and the order in
which rows come never matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from operator import ge, gt, le, lt
from typing import Any, Final

import msgspec
from msgspec import Struct

from shared.engine.fact_rows import FactClock, FactEntry, FactPenalty, FactRow, fact, fact_entry, worst_states
from shared.engine.periods import Period, parse_period, period_at, period_on
from shared.engine.rules import Clause, ReportRule, value_of
from shared.policy.cel.problems import EvaluationError

__all__ = [
    "FactClock",
    "FactEntry",
    "FactPenalty",
    "FactRow",
    "FactScope",
    "Figure",
    "Period",
    "Tally",
    "fact",
    "fact_entry",
    "parse_period",
    "period_at",
    "period_on",
    "report_rows",
    "target_met",
    "worst_states",
]


class Figure(Struct, frozen=True, kw_only=True):
    """One figure of a report.

    `data` holds, as far as they apply: `cases`, `done` (of a share), `target_met`, `parts` (the same figure for each
    value of each dimension in `by`) and `failed` (rows on which an expression could not be evaluated).
    """

    clause: Clause
    row: str
    value: str
    period: str
    by: tuple[str, ...] = ()
    subject: str | None = None
    data: dict[str, Any] = {}


class FactScope:
    """What an expression of a report row may read: the attributes of one fact row; over entries also of the entry.

    These are `data`, `trigger`, `by` and `entry_at`; `settings` are the tenant's choices.
    """

    __slots__ = ("by", "data", "entry_at", "fact", "settings", "trigger")

    def __init__(self, row: FactRow, entry: FactEntry | None = None, settings: Mapping[str, Any] | None = None) -> None:
        self.fact = row
        self.settings: Mapping[str, Any] = settings or {}
        self.data: dict[str, Any] = entry.data if entry else {}
        self.trigger = entry.trigger if entry else None
        self.by = entry.by if entry else None
        self.entry_at = entry.at if entry else None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.fact, name)


def report_rows(
    rules: Sequence[ReportRule],
    facts: Iterable[FactRow],
    zone: tzinfo,
    until: datetime,
    *,
    settings: Mapping[str, Any] | None = None,
) -> list[Figure]:
    """Return the figures of every rule for each period in which there is something to count, and for that of `until`.

    A period with complaints of which the condition leaves none has the figure 0; a share or a mean of nothing is no
    figure. What lies after `until` is left out.
    """
    tallies = [Tally(rule, zone, until, settings=settings) for rule in rules]
    for row in facts:
        for tally in tallies:
            tally.add(row)
    return [figure for tally in tallies for figure in tally.figures()]


class Tally:
    """One report row being counted. Rows may come in any order and in as many portions as there are."""

    def __init__(
        self,
        rule: ReportRule,
        zone: tzinfo,
        until: datetime,
        *,
        only: Period | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin to count.

        Args:
            until: what lies after it is left out.
            only: count for this period alone, whatever length the rule has.
            settings: the tenant's choices, for the rule's expressions.
        """
        self._rule, self._zone, self._until, self._only, self._settings = rule, zone, until, only, settings
        self._cells: dict[tuple[Period, str | None, str | None, str | None], _Cell] = {}
        if rule.subject is None:
            current = self._period(until)
            if current is not None:
                self._cell(current, None)

    def add(self, row: FactRow) -> None:
        if self._rule.entries:
            for entry in row.entries:
                self._add_entry(row, entry)
            if self._rule.value != "per":
                return
        if not row.count or row.case_kind != "complaint":
            return
        scope = FactScope(row, settings=self._settings)
        self._count(row, scope, _instant(row, self._rule.period_of), numerator_only=bool(self._rule.entries))

    def _add_entry(self, row: FactRow, entry: FactEntry) -> None:
        scope = FactScope(row, entry, self._settings)
        for trigger, condition in zip(self._rule.entries, self._rule.entries_when, strict=True):
            if entry.happens(trigger) and (condition is None or self._holds(condition, scope, entry.at)):
                break
        else:
            return
        if self._rule.value == "per":  # complaints per what the entries say: the entries give the divisor alone
            period = self._period(entry.at)
            if period is not None:
                self._cell(period, None).add_divisor(self._rule.of, scope)
            return
        self._count(row, scope, entry.at)

    def _count(self, row: FactRow, scope: FactScope, at: datetime | None, *, numerator_only: bool = False) -> None:
        rule = self._rule
        period = self._period(at)
        if period is None:
            return
        try:
            subject = None if rule.subject is None else value_of(rule.subject, scope)
        except EvaluationError:
            self._cell(period, None).failed += 1
            return
        if rule.subject is not None and subject in (None, ""):
            return
        name = None if subject is None else str(subject)
        whole = self._cell(period, name)
        try:
            if rule.where is not None and rule.where(scope) is not True:
                return
            measured = _measure(rule, scope, row.count, numerator_only)
        except EvaluationError:
            whole.failed += 1
            return
        whole.take(measured)
        for dimension in rule.by:
            part = part_of(row, scope.data, dimension)
            if part is not None:
                self._cell(period, name, dimension, part).take(measured)

    def _holds(self, condition: Any, scope: FactScope, at: datetime) -> bool:
        try:
            return condition(scope) is True
        except EvaluationError:
            period = self._period(at)
            if period is not None:
                self._cell(period, None).failed += 1
            return False

    def _period(self, at: datetime | None) -> Period | None:
        if at is None or at > self._until:
            return None
        if self._only is None:
            return period_at(at, self._rule.period, self._zone, self._rule.first_month)
        return self._only if self._only.start_on <= at.astimezone(self._zone).date() < self._only.end_on else None

    def _cell(self, period: Period, *place: str | None) -> _Cell:
        """Return the sums of (subject, dimension, part); a whole has neither dimension nor part."""
        subject, dimension, part = (*place, None, None)[:3]
        return self._cells.setdefault((period, subject, dimension, part), _Cell())

    def figures(self) -> list[Figure]:
        """Return what has been counted, by period and subject; with several dimensions also once for each of them."""
        made: list[Figure] = []
        wholes = [(period, subject) for period, subject, dimension, _ in self._cells if dimension is None]
        for period, subject in sorted(wholes, key=lambda place: (place[0].start_on, place[1] or "")):
            figure = self._figure(period, subject)
            if figure is None:
                continue
            made.append(figure)
            if len(self._rule.by) > 1:
                made.extend(self._only_by(figure, dimension) for dimension in self._rule.by)
        return made

    def _figure(self, period: Period, subject: str | None) -> Figure | None:
        rule, cell = self._rule, self._cells[period, subject, None, None]
        value = self._value(cell)
        if value is None:
            return None
        data: dict[str, Any] = {}
        if rule.value in ("percent", "per", "mean"):
            data["cases"] = cell.cases
        if rule.value == "percent":
            data["done"] = _plain(cell.done)
        if rule.target is not None:
            data["target_met"] = target_met(self._exact(cell), rule.target)
        if rule.by:
            data["parts"] = {dimension: dict(self._parts(period, subject, dimension)) for dimension in rule.by}
        if cell.failed:
            data["failed"] = cell.failed
        return Figure(
            clause=rule.clause, row=rule.row, value=value, period=period.name, by=rule.by, subject=subject, data=data
        )

    def _parts(self, period: Period, subject: str | None, dimension: str) -> Iterator[tuple[str, str]]:
        place = (period, subject, dimension)
        found = {
            part: cell for (*whose, part), cell in self._cells.items() if tuple(whose) == place and part is not None
        }
        for part in sorted(found):
            value = self._value(found[part])
            if value is not None:
                yield part, value

    @staticmethod
    def _only_by(figure: Figure, dimension: str) -> Figure:
        data = {**figure.data, "parts": {dimension: figure.data["parts"][dimension]}}
        return msgspec.structs.replace(figure, by=(dimension,), data=data)

    def _exact(self, cell: _Cell) -> Decimal:
        match self._rule.value:
            case "percent":
                return cell.done * 100 / cell.divisor
            case "mean":
                return cell.total / cell.divisor
            case "per":
                return cell.total / self._per(cell)
        return cell.total

    def _per(self, cell: _Cell) -> Decimal:
        """Return by what a rate is divided: the sum of an expression, or a constant; 0 where it is unset."""
        of = self._rule.of
        return cell.divisor if callable(of) else sum(numbers(of), Decimal())

    def _value(self, cell: _Cell) -> str | None:
        match self._rule.value:
            case "percent":
                return _fixed(self._exact(cell), 2) if cell.divisor else None
            case "mean":
                return self._shown(cell, 2) if cell.divisor else None
            case "per":
                return _trimmed(self._exact(cell), 4) if self._per(cell) else None
        return self._shown(cell, 4)

    def _shown(self, cell: _Cell, places: int) -> str:
        """Return the figure: with the decimals in which amounts of money were given, other numbers without idle zeros."""
        value = self._exact(cell)
        return _fixed(value, cell.decimals) if cell.decimals else _trimmed(value, places)


class _Measure(Struct, frozen=True):
    weight: int
    total: Decimal
    done: Decimal
    divisor: Decimal
    decimals: int = 0


def _measure(rule: ReportRule, scope: FactScope, weight: int, numerator_only: bool) -> _Measure:
    """Return what one row or entry adds: a total; a divisor for shares, means and rates; what is done for shares."""
    one = Decimal(weight)
    if rule.value == "count":
        return _Measure(weight, one, Decimal(), Decimal())
    if rule.value == "percent":
        divisor = one if rule.of is None else sum(numbers(value_of(rule.of, scope)), Decimal()) * weight
        done = rule.done(scope) if rule.done is not None else True
        if isinstance(done, bool) or done is None:
            return _Measure(weight, Decimal(), divisor if done else Decimal(), divisor)
        return _Measure(weight, Decimal(), sum(numbers(done), Decimal()) * weight, divisor)
    if rule.value == "per":
        counts_divisor = callable(rule.of) and not numerator_only
        divisor = sum(numbers(rule.of(scope)), Decimal()) * weight if counts_divisor else Decimal()
        return _Measure(weight, one, Decimal(), divisor)
    value = 1 if rule.of is None else value_of(rule.of, scope)
    values = numbers(value)
    divisor = Decimal(len(values) * weight)
    return _Measure(weight, sum(values, Decimal()) * weight, Decimal(), divisor, _decimals(value))


class _Cell:
    """The running sums of one figure. Sums of exact numbers: the order in which they come does not show."""

    __slots__ = ("cases", "decimals", "divisor", "done", "failed", "total")

    def __init__(self) -> None:
        self.cases = self.decimals = self.failed = 0
        self.total = self.done = self.divisor = Decimal()

    def take(self, measured: _Measure) -> None:
        self.cases += measured.weight
        self.total += measured.total
        self.done += measured.done
        self.divisor += measured.divisor
        self.decimals = max(self.decimals, measured.decimals)

    def add_divisor(self, of: Any, scope: FactScope) -> None:
        try:
            self.divisor += sum(numbers(value_of(of, scope)), Decimal())
        except EvaluationError:
            self.failed += 1


def numbers(value: Any) -> list[Decimal]:
    """Return what a report adds up: whole numbers, decimal texts, lengths of time in hours, lists of them."""
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    if isinstance(value, timedelta):
        return [Decimal(value // timedelta(microseconds=1)) / 3_600_000_000]
    if isinstance(value, str):
        try:
            return [Decimal(value)]
        except ArithmeticError:
            raise EvaluationError("a text that is no number cannot be added up") from None
    if isinstance(value, bool | int | Decimal):
        return [Decimal(value)]
    raise EvaluationError("this cannot be added up")


def _decimals(value: Any) -> int:
    """Return how many decimals amounts of money have, which expressions give as text ("480.00"); 0 for other numbers."""
    if isinstance(value, list | tuple):
        return max(map(_decimals, value), default=0)
    return len(value.partition(".")[2]) if isinstance(value, str) else 0


_ATTRIBUTES: Final = frozenset(
    ("channel", "category", "severity", "kind", "outcome", "source", "state", "priority", "decline_reason", "rating")
)


def part_of(row: FactRow, data: Mapping[str, Any], dimension: str) -> str | None:
    """Return the part of a dimension to which a row belongs, None for none.

    A dimension is an attribute of the row (`channel`, `category`, …), `satisfaction`, a unit or person (`unit` and
    `staff` who handle it, `respondent_unit`, `respondent_staff`), a field of the tenant's own, a key of the entry's
    data, or a category, whose only part is itself.
    """
    match dimension:
        case "satisfaction":
            value: Any = row.rating
        case "unit" | "staff":
            value = row.handler.get(dimension)
        case "respondent_unit" | "respondent_staff" | "respondent_supervisor":
            value = row.respondent.get(dimension.removeprefix("respondent_"))
        case _ if dimension in _ATTRIBUTES:
            value = getattr(row, dimension)
        case _:
            value = row.fields.get(dimension, data.get(dimension))
            if value is None and row.category == dimension:
                value = dimension
    if value is None or value == "" or isinstance(value, dict | list):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _instant(row: FactRow, period_of: str) -> datetime | None:
    match period_of:
        case "handled":
            return row.handled_at
        case "resolved":
            return row.resolved_at or row.handled_at
        case "due":
            return row.due_at or row.at
    return row.at


_COMPARISONS: Final = ((">=", ge), ("<=", le), (">", gt), ("<", lt))


def target_met(value: Decimal, target: str) -> bool:
    """Return whether an unrounded figure is at least the target, or as `<=`, `<`, `>`, `>=` before the number say."""
    text = target.strip().removesuffix("%")
    for sign, compare in _COMPARISONS:
        if text.startswith(sign):
            return bool(compare(value, Decimal(text[len(sign) :].strip())))
    return value >= Decimal(text)


def _fixed(value: Decimal, places: int) -> str:
    return f"{value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"


def _trimmed(value: Decimal, places: int) -> str:
    """Return the number rounded half up, without idle zeros: 85, 85.5, 0.0125."""
    text = _fixed(value, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Decimal) -> int | str:
    return int(value) if value == value.to_integral_value() else _trimmed(value, 4)

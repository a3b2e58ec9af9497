"""What is imposed: amounts worked out from the rule, the case and people's decisions, always anew, always with their arithmetic."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from shared.engine.model import PenaltyView, Step
from shared.engine.rules import CompiledPolicy, Imposed, PenaltyRule, clauses_of, value_of
from shared.engine.scope import Context, penalty_record
from shared.money import format_minor, parse_minor

if TYPE_CHECKING:
    from shared.engine.runs import Run
    from shared.engine.state import CaseState

MOST_INSTALMENTS = 120


class Decision(Struct, eq=False, gc=False):
    """What a person decided on the ledger."""

    amount_minor: int | None
    percent: Decimal | None
    by: str
    at: datetime
    data: dict[str, Any]


class Liability(Struct, eq=False, gc=False):
    """One penalty rule that came about for one party, with what was known then; amounts are computed when it is looked at."""

    rule: PenaltyRule
    party: str
    at: datetime
    seq: int
    serial: int  # tells several of one rule for one party from the same entry apart
    data: Any = {}
    clock_run: Run | None = None
    count: Any = None
    source: Liability | None = None  # of a share: what it is a share of
    decision: Decision | None = None
    correction: Decision | None = None  # an appeal that changed the amount
    appealed_at: datetime | None = None
    waived: Decision | None = None
    void: bool = False

    def views(self, case: CaseState, now: datetime) -> list[PenaltyView]:
        """Everything this rule imposes on the party as of `now`."""
        worked_out = case.worked_out
        if worked_out is not None and self.serial in worked_out:
            return worked_out[self.serial]
        found: list[PenaltyView] = []
        if self.rule.literal:  # nothing looks at the scope
            for index, item in enumerate(self.rule.impose):
                found += self._imposed(case, item, index, now)
        else:
            self._look_closely(case, now, found)
        if worked_out is not None:
            worked_out[self.serial] = found
        return found

    def _look_closely(self, case: CaseState, now: datetime, found: list[PenaltyView]) -> None:
        """Add what is imposed by a rule that looks at the case, as it was when the rule came about."""
        rule, scope = self.rule, case.scope
        before = scope.context
        context = Context(self.at, self.data, "", None, before.actor, self.clock_run, self.count, before.penalty)
        if self.source is not None:
            first = self.source.first_view(case, now)
            context.penalty = None if first is None else penalty_record(first)
        scope.context = context
        try:
            for index, item in enumerate(rule.impose):
                if item.when is None or case.holds(item.when, rule):
                    found += self._imposed(case, item, index, now)
        finally:
            scope.context = before

    def first_view(self, case: CaseState, now: datetime) -> PenaltyView | None:
        """What shares of this penalty are taken of: the first imposed thing, as an appeal left it."""
        views = self.views(case, now)
        if not views:
            return None
        if self.correction is None:
            return views[0]
        total = [view for view in views if view.state == "correction"]
        if total and views[0].amount_minor is not None:
            changed = sum(view.amount_minor or 0 for view in total)
            return replace(views[0], amount_minor=views[0].amount_minor + changed)
        return views[0]

    def _imposed(self, case: CaseState, item: Imposed, index: int, now: datetime) -> list[PenaltyView]:
        """What comes of one item of the rule."""
        data: dict[str, Any] = {}
        if item.data:
            data = {name: case.value(value, self.rule) for name, value in item.data}
            month = data.get("month")
            if month == "trigger" or isinstance(month, datetime):
                data["month"] = case.calendar.month(self.at if month == "trigger" else month)
        if item.kind == "sanction":
            return self._sanction(case, item, index, data)
        if item.kind == "points":
            return self._points(case, item, index, data)
        if item.plain and self.waived is None and self.correction is None and self.appealed_at is None:
            if item.fixed is not None:
                return [self._view(case.policy, index, item, data, item.fixed.minor, item.fixed.steps)]
            steps: list[Step] = []
            amount, _ = self._amount(case, item, steps, data, now)
            return [] if amount is None else [self._view(case.policy, index, item, data, amount, tuple(steps))]
        return self._money(case, item, index, data, now)

    def _sanction(self, case: CaseState, item: Imposed, index: int, data: dict[str, Any]) -> list[PenaltyView]:
        sanction, number = item.sanction, item.number
        if not item.literal:
            sanction, number = case.value(sanction, self.rule), case.value(number, self.rule)
        if sanction is None:
            return []
        state = None if self.waived is None else "waived"
        return [self._view(case.policy, index, item, data, sanction=str(sanction), number=number, state=state)]

    def _points(self, case: CaseState, item: Imposed, index: int, data: dict[str, Any]) -> list[PenaltyView]:
        points = case.value(item.points, self.rule)
        if points is None:
            return []
        steps: list[Step] = []
        clause: str | None = None
        for by, product, clause in self._factors(case, item):
            points = int(Decimal(points) * by)
            data["multiplier"] = str(product)
            steps.append(Step(label="multiplied", value=str(points), detail={"by": str(by), "clause": clause}))
        return [
            self._view(case.policy, index, item, data, points=int(points), multiplier_clause=clause, steps=tuple(steps))
        ]

    def _money(
        self, case: CaseState, item: Imposed, index: int, data: dict[str, Any], now: datetime
    ) -> list[PenaltyView]:
        policy = case.policy
        steps: list[Step] = []
        state: str | None = None
        amount, limits = self._amount(case, item, steps, data, now)
        if item.by_person:
            if self.decision is None:
                state, amount = "needs_decision", None
            else:
                amount = self._decided(case, item, steps)
                data["decided_by"] = self.decision.by
        if amount is None and state is None and "factor" not in data:
            return []  # nothing is known to impose: no base, no figure
        clause: str | None = None
        if amount is not None:
            if item.multiply:
                amount, clause = self._multiplied(case, item, amount, steps, data)
            if item.cap is not None:
                amount = self._capped(case, item, amount, steps)
            if item.instalments is not None:
                return self._instalments(case, item, index, amount, data, steps)
        if self.waived is not None:
            state = "waived"
        view = self._view(
            policy,
            index,
            item,
            data,
            amount,
            tuple(steps),
            limits=limits,
            state=state,
            multiplier_clause=clause,
        )
        if self.correction is not None and amount is not None and self.correction.amount_minor is not None:
            correction = self._corrected(policy, view, amount, self.correction.amount_minor, self.correction)
            return [replace(view, state="replaced"), correction]
        if self.appealed_at is not None and state is None and self.rule.appeal_by:
            return [replace(view, state="appealed")]
        return [view]

    def _capped(self, case: CaseState, item: Imposed, amount: int, steps: list[Step]) -> int:
        cap = case.value(item.cap, self.rule)
        limit = amount if cap is None else _minor(cap, case.policy)
        if amount <= limit:
            return amount
        steps.append(Step(label="capped", value=format_minor(limit, case.policy.currency)))
        return limit

    def _corrected(
        self, policy: CompiledPolicy, view: PenaltyView, before: int, after: int, correction: Decision
    ) -> PenaltyView:
        """The difference that a decided appeal makes."""
        rule, show = self.rule, policy.currency
        difference = after - before
        return PenaltyView(
            key=f"{view.key}:correction",
            rule=rule.id,
            clause=rule.appeal_clause or rule.clause,
            party=self.party,
            kind=view.kind,
            at=correction.at,
            amount_minor=difference,
            currency=show,
            state="correction",
            data={"net_cny": format_minor(after, show), "decided_by": correction.by},
            steps=(
                Step(label="decided_on_appeal", value=format_minor(after, show)),
                Step(label="before", value=format_minor(before, show)),
                Step(label="difference", value=format_minor(difference, show)),
            ),
            policy_version=policy.version,
        )

    def _view(
        self,
        policy: CompiledPolicy,
        index: int,
        item: Imposed,
        data: dict[str, Any],
        amount_minor: int | None = None,
        steps: tuple[Step, ...] = (),
        limits: tuple[int | None, int | None] | None = None,
        points: int | None = None,
        sanction: str | None = None,
        state: str | None = None,
        number: int | None = None,
        multiplier_clause: str | None = None,
    ) -> PenaltyView:
        rule = self.rule
        return PenaltyView(  # in the order of its fields: so many keywords would cost more than the rest of the view
            f"{rule.id}:{self.seq}:{self.serial}:{self.party}:{index}",
            rule.id,
            rule.clause,
            self.party,
            item.kind,
            self.at,
            amount_minor,
            policy.currency,
            limits,
            points,
            sanction,
            state,
            number,
            rule.because,
            multiplier_clause,
            data,
            steps,
            policy.version,
        )

    def _amount(
        self, case: CaseState, item: Imposed, steps: list[Step], data: dict[str, Any], now: datetime
    ) -> tuple[int | None, tuple[int | None, int | None] | None]:
        """The figure the policy fixes, and the range inside which a person decides."""
        policy, rule = case.policy, self.rule
        show = policy.currency
        if item.at_least is not None or item.at_most is not None:
            return None, (item.at_least, item.at_most)
        base: int | None = None
        if item.of is not None:
            value = case.value(item.of, rule)
            if value is None and item.factor is not None:  # the pay is not known, that it is lost is
                data["factor"] = str(case.value(item.factor, rule))
            if value is None:
                return None, None
            base = _minor(value, policy)
            steps.append(Step(label="base", value=format_minor(base, show)))
        if item.percent_range is not None and base is not None:
            low, high = (_share(base, percent) for percent in item.percent_range)
            steps.append(
                Step(
                    label="range",
                    value=f"{format_minor(low, show)} – {format_minor(high, show)}",
                    detail={"percent": list(item.percent_range)},
                )
            )
            return None, (low, high)
        if item.amount is not None:
            value = case.value(item.amount, rule)
            if value is None:
                return None, None
            amount = _minor(value, policy)
            steps.append(Step(label="fixed", value=format_minor(amount, show)))
            return amount, None
        if item.accrual is not None:
            return self._accrued(item, steps, data, now, show), None
        if base is None:
            return None, None
        if item.tiers:
            used = case.value(item.used, rule)
            return _tiered(base, item.tiers, steps, show, used if isinstance(used, int) else 0), None
        if item.factor is not None:
            factor = Decimal(str(case.value(item.factor, rule)))
            lost = base - _rounded(Decimal(base) * factor)
            data["factor"] = str(factor)
            steps.append(Step(label="factor", value=format_minor(lost, show), detail={"factor": str(factor)}))
            return lost, None
        if item.percent is not None:
            percent = str(case.value(item.percent, rule))
            amount = _share(base, percent)
            steps.append(Step(label="percent", value=format_minor(amount, show), detail={"percent": percent}))
            return amount, None
        return base, None

    def _accrued(self, item: Imposed, steps: list[Step], data: dict[str, Any], now: datetime, show: str) -> int | None:
        """An amount for the breach and one for each further overdue day."""
        run = self.clock_run
        assert item.accrual is not None
        if run is None or run.due_at is None:
            return None
        accrual = item.accrual
        per_day, cap = accrual.per_day, accrual.cap
        until = now if run.stopped_at is None else run.stopped_at
        kind = accrual.unit or run.overdue_unit()
        days = run.calendar.overdue_days(run.due_at, until, "wd" if kind == "wd" else "cd")
        if days <= 0:
            days = 1
        further = days - 1 if accrual.start == "base_covers_first_day" else days
        amount = accrual.first + per_day * further
        data["overdue_days"], data["overdue_unit"] = days, kind
        steps.append(Step(label="overdue_days", value=str(days), detail={"unit": kind}))
        steps.append(accrual.first_step)
        steps.append(
            Step(
                label="further_days",
                value=format_minor(per_day * further, show),
                detail={"days": further, "per_day": accrual.per_day_text},
            )
        )
        if cap is not None and amount > cap:
            amount = cap
            steps.append(Step(label="capped", value=format_minor(cap, show)))
        return amount

    def next_growth(self, now: datetime) -> datetime | None:
        """The next instant at which an accruing amount grows; None once its clock has stopped."""
        run = self.clock_run
        if run is None or run.stopped_at is not None or run.due_at is None or self.waived is not None:
            return None
        for item in self.rule.impose:
            if item.accrual is not None:
                kind = item.accrual.unit or run.overdue_unit()
                return run.calendar.next_overdue_instant(run.due_at, now, "wd" if kind == "wd" else "cd")
        return None

    def _decided(self, case: CaseState, item: Imposed, steps: list[Step]) -> int | None:
        decision, policy = self.decision, case.policy
        assert decision is not None
        if decision.amount_minor is None and decision.percent is not None and item.of is not None:
            value = case.value(item.of, self.rule)
            if value is not None:
                amount = _share(_minor(value, policy), str(decision.percent))
                steps.append(
                    Step(
                        label="decided",
                        value=format_minor(amount, policy.currency),
                        detail={"by": decision.by, "percent": str(decision.percent)},
                    )
                )
                return amount
        if decision.amount_minor is not None:
            steps.append(
                Step(
                    label="decided",
                    value=format_minor(decision.amount_minor, policy.currency),
                    detail={"by": decision.by},
                )
            )
        return decision.amount_minor

    def _factors(self, case: CaseState, item: Imposed) -> list[tuple[Decimal, Decimal, str | None]]:
        """Each factor that applies, with the product of the factors of its clause so far, and that clause.

        Factors of one clause are shown as one; those of another clause take their place.
        """
        found: list[tuple[Decimal, Decimal, str | None]] = []
        product, clause_of = Decimal(1), None
        for condition, by, clause in item.multiply:
            value = case.value(by, self.rule) if condition is None or case.holds(condition, self.rule) else None
            if value is None:
                continue
            factor = Decimal(str(value))
            named = clauses_of(clause)
            product = product * factor if not named or named[0] == clause_of else factor
            clause_of = named[0] if named else clause_of
            found.append((factor, product, clause_of))
        return found

    def _multiplied(
        self, case: CaseState, item: Imposed, amount: int, steps: list[Step], data: dict[str, Any]
    ) -> tuple[int, str | None]:
        clause_of: str | None = None
        for factor, product, named in self._factors(case, item):
            amount = _rounded(Decimal(amount) * factor)
            clause_of = named
            data["multiplier"] = str(product)
            steps.append(
                Step(
                    label="multiplied",
                    value=format_minor(amount, case.policy.currency),
                    detail={"by": str(factor), "clause": clause_of},
                )
            )
        return amount, clause_of

    def _instalments(
        self, case: CaseState, item: Imposed, index: int, amount: int, data: dict[str, Any], steps: list[Step]
    ) -> list[PenaltyView]:
        """The whole in equal monthly parts; what does not divide is in the last."""
        assert item.instalments is not None
        count = int(case.value(item.instalments[0], self.rule) or 1)
        if not 1 <= count <= MOST_INSTALMENTS:
            case.problem(self.rule, f"there are between 1 and {MOST_INSTALMENTS} instalments, not {count}")
            count = 1
        part = amount // count
        month = case.calendar.month(self.at)
        year, number = int(month[:4]), int(month[5:7]) + (1 if item.instalments[1] == "next_month" else 0)
        found = []
        for place in range(count):
            years, months = divmod(number - 1 + place, 12)
            view = self._view(
                case.policy,
                index,
                item,
                {**data, "month": f"{year + years}-{months + 1:02}"},
                amount_minor=part if place < count - 1 else amount - part * (count - 1),
                steps=(*steps, Step(label="instalment", value=f"{place + 1}/{count}")),
            )
            found.append(replace(view, key=f"{view.key}:{place}"))
        return found


def decision_limits(
    case: CaseState, liability: Liability | None, rule: PenaltyRule, now: datetime
) -> tuple[int | None, int | None] | None:
    """The range inside which a person may decide under this rule now."""
    probe = liability or Liability(rule, "", now, 0, 0)
    if liability is None:
        probe.data = case.scope.data
    for view in probe.views(case, now):
        if view.range_minor is not None:
            return view.range_minor
    return None


def _minor(value: Any, policy: CompiledPolicy) -> int:
    """An expression gives minor units, a document a decimal text."""
    return value if isinstance(value, int) else parse_minor(str(value), policy.currency)


def _rounded(value: Decimal) -> int:
    """Half a minor unit is rounded up, away from zero."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _share(base: int, percent: str) -> int:
    part, whole = _ratio(percent)
    share = base * part
    rounded = (2 * abs(share) + whole) // (2 * whole)  # half a minor unit is rounded up, away from zero
    return rounded if share >= 0 else -rounded


@lru_cache(maxsize=256)
def _ratio(percent: str) -> tuple[int, int]:
    """A percentage as a fraction of whole numbers."""
    part, whole = Decimal(percent).as_integer_ratio()
    return part, whole * 100


def _tiered(base: int, tiers: tuple[tuple[int | None, str], ...], steps: list[Step], show: str, used: int = 0) -> int:
    """Each slice at its own rate; an upper edge belongs to its slice. What earlier sums have used up of the slices is passed over."""
    total, lower, base = 0, 0, base + used
    for upper, percent in tiers:
        top = base if upper is None else min(base, upper)
        if top > max(lower, used):
            part = _share(top - max(lower, used), percent)
            total += part
            steps.append(
                Step(
                    label="slice",
                    value=format_minor(part, show),
                    detail={"of": format_minor(top - max(lower, used), show), "percent": percent},
                )
            )
        lower = upper if upper is not None else base
        if base <= lower:
            break
    steps.append(Step(label="sum", value=format_minor(total, show)))
    return total


__all__ = ["Decision", "Liability", "decision_limits", "value_of"]

"""Penalties of a case: how they come about, what people decide about them, and which of them stand."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation

from msgspec.structs import replace

from shared.engine.model import Entry, PenaltyView
from shared.engine.penalties import Decision, Liability
from shared.engine.rules import Clause, CompiledPolicy, PenaltyRule
from shared.engine.scope import penalty_record
from shared.engine.state import CaseState, Context
from shared.money import parse_minor


def impose(case: CaseState, rule: PenaltyRule, keys: tuple[str, ...], context: Context) -> None:
    decision = "penalty_decided" in keys
    party = None
    if decision:
        if context.data.get("clause") not in rule.clauses or _decided_now(case, rule):
            return
        party = context.data.get("party")
    if party is None:
        party = case.first(rule.party, rule)
    if party is None:
        return
    if context.liability is not None and any(
        one.rule.id == rule.id and one.source is context.liability and one.party == party for one in case.liabilities
    ):
        return  # it follows the amount that an appeal has changed, and is not owed a second time
    if rule.once_per:
        once = (rule.id, party, *(str(case.value(one, rule)) for one in rule.once_per))
        if once in case.once:
            return
        case.once.add(once)
    liability = Liability(
        rule,
        party,
        context.at,
        case.seq,
        len(case.liabilities),
        context.data,
        context.clock_run,
        context.count,
        context.liability,
    )
    case.liabilities.append(liability)
    if decision and rule.open_item is not None and context.entry is not None:
        liability.decision = decision_of(context.entry, case.policy)
    on = case.policy.on
    if rule.imposed_key in on:
        _penalty_event(case, rule.imposed_key, liability, context)
    if rule.penalty_key in on and (rule.open_item is None or liability.decision is not None):
        _penalty_event(case, rule.penalty_key, liability, context)


def _decided_now(case: CaseState, rule: PenaltyRule) -> bool:
    """Whether this very entry has just decided a waiting penalty of the rule, or brought one about."""
    return any(
        (one.seq == case.seq and one.rule.id == rule.id)
        or (
            one.rule is rule
            and one.decision is not None
            and one.decision.at == case.at
            and one.decision.data is case.scope.data
        )
        for one in case.liabilities
    )


def _penalty_event(case: CaseState, key: str, liability: Liability, context: Context) -> None:
    handlers = case.policy.on.get(key)
    if handlers is not None:
        # An amount that nobody asks for need not be worked out yet.
        view = liability.first_view(case, context.at) if handlers.reads_penalty else None
        case.queue.append((key, _penalty_context(view, liability, context)))


def _penalty_context(view: PenaltyView | None, liability: Liability, context: Context) -> Context:
    record = None if view is None else penalty_record(view)
    return Context(
        context.at,
        context.data,
        context.ref,
        context.entry,
        context.actor,
        clock_run=context.clock_run,
        penalty=record,
        liability=liability,
    )


def decide(case: CaseState, entry: Entry, context: Context) -> None:
    """A decision, waiver, appeal or appeal decision reaches the penalties of its clause and party."""
    clause, party = entry.data.get("clause"), entry.data.get("party")
    mine = [
        one
        for one in case.liabilities
        if clause in one.rule.clauses and not one.void and (party is None or one.party == party)
    ]
    if entry.kind == "penalty_decided":
        waiting = [one for one in mine if one.rule.open_item is not None]
        has_figure = any(entry.data.get(name) is not None for name in ("amount_cny", "percent", "share_percent"))
        undecided = [one for one in waiting if one.decision is None] or (waiting[-1:] if has_figure else [])
        for one in undecided[:1] if party is None else undecided:
            one.decision = decision_of(entry, case.policy)
            _penalty_event(case, one.rule.penalty_key, one, context)
    elif entry.kind == "penalty_waived":
        for one in mine:
            one.waived = decision_of(entry, case.policy)
    elif entry.kind == "penalty_appealed":
        for one in mine:
            one.appealed_at = entry.at
    elif entry.kind == "penalty_appeal_decided":
        for one in mine:
            one.correction = decision_of(entry, case.policy)
            _penalty_event(case, one.rule.penalty_key, one, context)


def penalties(case: CaseState, now: datetime) -> list[PenaltyView]:
    """What is imposed as of `now`: exclusions first, then competing rules."""
    case.worked_out = {}
    try:
        views = [(one, one.views(case, now)) for one in case.liabilities if not one.void and _stands(case, one)]
    finally:
        case.worked_out = None
    found: list[PenaltyView] = []
    for one, shown in views:
        if one.rule.stack is not None:
            return _without_competitors(case, views)
        found += shown
    return found


def _without_competitors(case: CaseState, views: list[tuple[Liability, list[PenaltyView]]]) -> list[PenaltyView]:
    """Of the penalties of one stack for one party, the highest or all as the stack says, and each sanction once."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, (one, _) in enumerate(views):
        if one.rule.stack is not None:
            groups.setdefault((one.rule.stack, one.party), []).append(place)
    dropped: set[int] = set()
    for (stack, _), places in groups.items():
        if case.policy.stacks.get(stack, "highest") == "highest" and len(places) > 1:
            best = max(places, key=lambda place: (sum(view.amount_minor or 0 for view in views[place][1]), -place))
            dropped.update(place for place in places if place != best)
    found: list[PenaltyView] = []
    sanctions: set[tuple[str, str, str]] = set()
    for place, (one, shown) in enumerate(views):
        if place in dropped:
            continue
        for view in shown:
            if one.rule.stack is not None and view.sanction is not None:
                mark = (one.rule.stack, one.party, view.sanction)
                if mark in sanctions:
                    continue
                sanctions.add(mark)
            found.append(view)
    return found


def _stands(case: CaseState, one: Liability) -> bool:
    rule, scope, source = one.rule, case.scope, one.source
    if source is not None and (source.void or not _stands(case, source)):
        return False  # a share of nothing
    if rule.while_ is None and not case.policy.exclusions:
        return True
    before = scope.context
    scope.context = replace(before, data=one.data, at=one.at, clock_run=one.clock_run, count=one.count)
    try:
        return case.holds(rule.while_, rule) and excluded(case, rule) is None
    finally:
        scope.context = before


def excluded(case: CaseState, rule: PenaltyRule) -> tuple[Clause] | None:
    """The clause under which this penalty is not imposed now."""
    for condition, rules, clause in case.policy.exclusions:
        if (not rules or rule.id in rules) and case.holds(condition, rule):
            return (clause,)
    return None


def decision_of(entry: Entry, policy: CompiledPolicy) -> Decision:
    """What a person decided by an entry on the ledger."""
    amount = entry.data.get("amount_cny")
    percent: Decimal | None = None
    for name in ("percent", "share_percent"):
        if entry.data.get(name) is not None:
            try:
                percent = Decimal(str(entry.data[name]))
            except InvalidOperation:
                percent = None
    minor = None if amount is None else parse_minor(str(amount), policy.currency)
    return Decision(minor, percent, entry.by.id, entry.at, entry.data)

"""Which entries a case does not take, by which rule and why."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from shared.engine.imposing import decision_of, excluded
from shared.engine.model import Actor, Entry, Refusal
from shared.engine.penalties import Liability, decision_limits
from shared.engine.rules import GateRule, PenaltyRule
from shared.engine.state import CaseState


def refusal(case: CaseState, entry: Entry) -> Refusal | None:
    """Which rule refuses this entry, if one does. The case has gone on to the entry's instant; the entry changes nothing."""
    case.look_at(entry)
    for condition, gate in case.policy.set_off_by(entry).gates:
        if (condition is None or case.holds(condition, gate)) and _refuses(case, gate, entry.by):
            reason = case.value(gate.reason, gate)
            return Refusal(rule=gate.id, clause=gate.clause, reason=str(reason or "forbidden"))
    if entry.kind == "accepted":
        for rule in case.policy.acceptance:
            if not rule.accepted and rule.when is not None and case.holds(rule.when, rule):
                return Refusal(rule=rule.id, clause=rule.clause, reason=str(case.value(rule.reason, rule)))
    if entry.kind == "penalty_decided":
        return _refuses_decision(case, entry)
    if entry.kind in ("penalty_appealed", "penalty_appeal_decided", "penalty_waived"):
        return _refuses_appeal(case, entry)
    return None


def _refuses(case: CaseState, gate: GateRule, actor: Actor) -> bool:
    if gate.by is not None:
        names = {actor.id, actor.unit, *actor.roles}
        allowed: set[Any] = set()
        for value in gate.by:
            found = case.value(value, gate)
            if isinstance(found, list | tuple):
                allowed.update(found)
            else:
                allowed.add(found)
        if names & allowed - {None}:
            return False
    return case.holds(gate.when, gate)


def _refuses_decision(case: CaseState, entry: Entry) -> Refusal | None:
    clause, party = entry.data.get("clause"), entry.data.get("party")
    rules = [rule for rule in case.policy.penalties if clause in rule.clauses]
    if not rules:
        return Refusal(
            rule="penalties",
            clause=None,
            reason="no_such_penalty",
            detail=f"no penalty rule carries the clause {clause}",
        )
    for rule in rules:
        found = excluded(case, rule)
        if found is not None:
            return Refusal(rule=rule.id, clause=found[0], reason="forbidden")
    waiting = [
        one
        for one in case.liabilities
        if one.rule in rules and one.rule.open_item is not None and (party is None or one.party == party)
    ]
    by_decision = [rule for rule in rules if rule.by_decision and any(item.by_person for item in rule.impose)]
    chosen: tuple[PenaltyRule, Liability | None] | None = None
    undecided = [one for one in waiting if one.decision is None] or waiting
    if undecided:
        chosen = (undecided[0].rule, undecided[0])
    elif by_decision:
        fitting = [rule for rule in by_decision if case.holds(rule.when, rule)] or by_decision
        chosen = (fitting[0], None)
    actor = {entry.by.id, entry.by.unit, *entry.by.roles}
    if chosen is None:  # a sanction: there is no figure to decide, but not everybody may
        sanctioning = [rule for rule in rules if rule.by_decision and rule.decided_by]
        if sanctioning and not any(actor & set(rule.decided_by) for rule in sanctioning):
            return Refusal(rule=sanctioning[0].id, clause=sanctioning[0].clause, reason="beyond_authority")
        return None
    rule, liability = chosen
    if rule.decided_by and not actor & set(rule.decided_by):
        return Refusal(rule=rule.id, clause=rule.clause, reason="beyond_authority")
    limits = decision_limits(case, liability, rule, entry.at)
    case.look_at(entry)
    if limits is None:
        return None
    decision = decision_of(entry, case.policy)
    amount = decision.amount_minor
    if decision.percent is not None:
        item = next(item for item in rule.impose if item.by_person)
        if item.percent_range is not None:
            low, high = (Decimal(one) for one in item.percent_range)
            if decision.percent < low:
                return Refusal(rule=rule.id, clause=rule.clause, reason="below_minimum")
            if decision.percent > high:
                return Refusal(rule=rule.id, clause=rule.clause, reason="above_maximum")
    if amount is not None and limits[0] is not None and amount < limits[0]:
        return Refusal(rule=rule.id, clause=rule.clause, reason="below_minimum")
    if amount is not None and limits[1] is not None and amount > limits[1]:
        return Refusal(rule=rule.id, clause=rule.clause, reason="above_maximum")
    return None


def _refuses_appeal(case: CaseState, entry: Entry) -> Refusal | None:
    clause, party = entry.data.get("clause"), entry.data.get("party")
    mine = [one for one in case.liabilities if clause in one.rule.clauses and (party is None or one.party == party)]
    if not mine:
        return Refusal(
            rule="penalties", clause=None, reason="no_such_penalty", detail="nothing is imposed under this clause"
        )
    if entry.kind == "penalty_appealed" and all(_too_late_to_appeal(case, one, entry.at) for one in mine):
        return Refusal(rule=mine[0].rule.id, clause=mine[0].rule.appeal_clause, reason="too_late")
    actor = {entry.by.id, entry.by.unit, *entry.by.roles}
    if entry.kind == "penalty_appeal_decided":
        for one in mine:
            if one.rule.appeal_by and not actor & set(one.rule.appeal_by):
                return Refusal(rule=one.rule.id, clause=one.rule.appeal_clause, reason="beyond_authority")
    return None


def _too_late_to_appeal(case: CaseState, liability: Liability, at: datetime) -> bool:
    """Whether the time for an appeal has passed: it runs from the decision, or from when the penalty came about."""
    within = liability.rule.appeal_within
    if within is None:
        return False
    since = liability.at if liability.decision is None else liability.decision.at
    calendar = case.calendars.at(case.policy.calendar_name, since, since)
    return at > calendar.due(since, within, case.policy.counting)

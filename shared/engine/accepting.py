"""Whether a complaint is taken up: by rule, at receipt, or as a person decided."""

from __future__ import annotations

from datetime import datetime

from shared.engine.model import AcceptanceView, Entry
from shared.engine.rules import ACCEPTANCE, AcceptanceRule, Handlers
from shared.engine.state import CaseState, Context


def accept_at_receipt(case: CaseState, entry: Entry) -> None:
    """A complaint that counts as accepted as soon as it is received."""
    if entry.kind != "received" or not case.policy.accept_at_receipt or case.case_kind != "complaint":
        return
    condition = case.policy.accept_when
    if condition is None or condition(case.scope) is True:
        case.acceptance = AcceptanceView(accepted=True, at=entry.at)
        case.write("accepted", True)


def accept(case: CaseState, entry: Entry, handlers: Handlers, context: Context) -> None:
    """What the entry decides, else what the rules say now."""
    before = case.acceptance
    if entry.kind == "accepted":
        case.acceptance, case.decided_by_person = AcceptanceView(accepted=True, at=entry.at), True
    elif entry.kind == "declined":
        reason = entry.data.get("reason")
        clause = case.policy.decline_clauses.get(str(reason))
        case.acceptance = AcceptanceView(accepted=False, at=entry.at, reason=reason, clause=clause)
        case.decided_by_person = True
    for condition, rule in handlers.acceptance:
        if case.applies(condition, rule):
            _accept_by(case, rule, entry.at)
            case.decided_by_person = True
            break
    if not case.decided_by_person and (case.policy.acceptance or case.acceptance is not None):
        _judge(case, entry.at)
    now = case.acceptance
    case.is_declined = now is not None and not now.accepted
    if now is before and entry.kind != "received":
        return
    if now is not before:
        case.write("accepted", None if now is None else now.accepted)
        case.write("decline_reason", None if now is None else now.reason)
    if now is not None:
        case.trigger("decision:accepted" if now.accepted else "decision:declined", context)


def _judge(case: CaseState, at: datetime) -> None:
    """What the rules without a trigger say, until somebody decides."""
    if case.sees_change(ACCEPTANCE):
        case.judged = next((rule for rule in case.policy.acceptance if case.holds(rule.when, rule)), None)
    rule, known = case.judged, case.acceptance
    if rule is not None:
        if known is None or known.accepted != rule.accepted or known.clause != rule.clause:
            _accept_by(case, rule, at)
    elif known is not None and not known.accepted:
        case.acceptance = AcceptanceView(accepted=True, at=at) if case.policy.accept_at_receipt else None


def _accept_by(case: CaseState, rule: AcceptanceRule, at: datetime) -> None:
    reason = None if rule.accepted else case.value(rule.reason, rule)
    clause = rule.clause if rule.clause is not None or rule.accepted else case.policy.decline_clauses.get(str(reason))
    case.acceptance = AcceptanceView(accepted=rule.accepted, at=at, reason=reason, clause=clause)

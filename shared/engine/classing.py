"""The class of a case: what was stated, and what the rules make of it."""

from __future__ import annotations

from typing import Any, Final

from shared.engine.model import ClassView
from shared.engine.rules import CLASS_NAMES, CLASS_PARTS, CLASSES, Clause, Handlers
from shared.engine.state import CaseState, Context

PARTS: Final = tuple(zip(CLASS_PARTS, CLASS_NAMES, strict=True))


def classify(case: CaseState, handlers: Handlers | None, context: Context) -> None:
    """Set the class anew: rules with `override` before what was stated, what was stated before the other rules."""
    triggered = () if handlers is None else handlers.classes
    if not (case.sees_change(CLASSES) or triggered):
        return
    case.alerts |= case.policy.class_readers
    complaint, former = case.scope.complaint, case.shown_class
    chosen = _chosen(case)
    for condition, rule in triggered:
        if case.applies(condition, rule):
            for part, value in rule.set:
                found = case.value(value, rule)
                chosen[part] = (found, rule.clause)
                case.stated[part] = found
                case.class_clauses[part] = rule.clause
                case.expect_change(CLASSES)
    stated, clauses = case.stated, case.class_clauses
    for part, name in PARTS:
        if part in chosen:
            complaint[name], clauses[part] = chosen[part]
        elif part in stated:
            complaint[name] = stated[part]
        else:
            complaint[name] = None
            clauses.pop(part, None)
    shown = case.shown_class = case.class_now()
    entry = context.entry
    kind = None if entry is None else entry.kind
    for place, part, key in case.policy.awaited_class:
        if (
            shown[place] != former[place]
            or (kind == "received" and shown[place])
            or (kind == "classified" and context.data.get(part) is not None)
        ):
            case.queue.append((key, context))


def _chosen(case: CaseState) -> dict[str, tuple[Any, Clause]]:
    """What the rules without a trigger set, and by which clause."""
    chosen: dict[str, tuple[Any, Clause]] = {}
    forced: set[str] = set()
    for rule in case.policy.classes:
        holds = None  # looked at only if the rule has something to set
        for part, value in rule.set:
            if part in forced if rule.override else (part in chosen or part in case.stated):
                continue
            if holds is None:
                holds = case.holds(rule.when, rule)
            if not holds:
                break
            chosen[part] = (case.value(value, rule), rule.clause)
            if rule.override:
                forced.add(part)
    return chosen


def class_of(case: CaseState) -> ClassView:
    """The class, and for each part the clause of the rule that set it, else that of the word itself."""
    kind, category, severity, priority, respondent = case.class_now()
    clauses: dict[str, Clause] = {}
    if case.policy.word_clauses:
        for part, word in (("kind", kind), ("category", category), ("severity", severity)):
            clause = case.policy.word_clauses.get((part, word))
            if clause is not None:
                clauses[part] = clause
    clauses.update(case.class_clauses)
    return ClassView(
        kind=kind, category=category, severity=severity, priority=priority, respondent=respondent, clauses=clauses
    )

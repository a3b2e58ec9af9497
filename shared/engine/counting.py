"""Counts across cases, as far as they are stamped on this case's entries."""

from __future__ import annotations

from msgspec.structs import replace

from shared.engine.classing import classify
from shared.engine.model import CounterView, CountStamp, Entry
from shared.engine.rules import SubjectRule
from shared.engine.scope import count_record
from shared.engine.state import CaseState, Context


def count(case: CaseState, rule: SubjectRule, context: Context) -> None:
    subject = case.first(rule.subject, rule)
    if subject is None:
        return
    added = case.value(rule.add, rule)
    if not isinstance(added, int) or added == 0:
        return
    if rule.once_per_case and (rule.id, subject) in case.counted_here:
        return
    case.counted_here.add((rule.id, subject))
    stamp = case.current.counts.get(rule.id) if case.current is not None else None
    if stamp is None and case.counter is not None:
        stamp = case.counter(rule, subject, added, context.at)
    if stamp is None:
        return
    _counted(case, rule, stamp, context)


def take_counts(case: CaseState, entry: Entry, context: Context) -> None:
    """A count that no entry caused (a breach) reaches the case as an entry of its own."""
    if entry.kind != "counted":
        return
    for name, stamp in entry.counts.items():
        rule = case.policy.subjects.get(name)
        if rule is not None:
            _counted(case, rule, stamp, context)


def _counted(case: CaseState, rule: SubjectRule, stamp: CountStamp, context: Context) -> None:
    record = count_record(rule.id, stamp)
    case.scope.counts[rule.id] = record
    if case.policy.classes:  # a rule may classify by the count
        classify(case, None, Context(context.at, context.data, context.ref))
    before = case.scope.context
    case.scope.context = replace(before, count=record)
    data = {name: case.value(value, rule) for name, value in rule.data}
    case.scope.context = before
    if data.get("period") in ("day", "month", "quarter", "half", "year"):
        data["period"] = case.calendar.period(context.at, data["period"])
    if rule.show:
        case.counters[rule.id, stamp.subject] = CounterView(
            rule=rule.id,
            clause=rule.clause,
            subject=stamp.subject,
            count=stamp.before + stamp.added,
            at=context.at,
            data=data,
        )
    if stamp.fires or (rule.more_than is None and rule.at_least is None):
        moved = replace(context, count=record, penalty=None, liability=None)
        case.trigger(f"count:{rule.id}", moved)

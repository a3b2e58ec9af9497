"""What the system does by itself: effects, states that they enter, and where a case is routed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from shared.engine.amounts import Amount, parse_amount
from shared.engine.model import EffectView, RouteView
from shared.engine.rules import LISTS, ActionRule, Do, Handlers, RouteRule, Rule, targets
from shared.engine.state import CaseState, Context, Later

OWNERS: Final = frozenset({None, "lead", "handling_owner", "first_responsible"})
"""The parts in which a route makes its addressee the owner of the case."""


def change_state(case: CaseState, handlers: Handlers, context: Context) -> None:
    """Enter the state that the rules name for the trigger, else the usual one of the kind of entry."""
    entered = handlers.usual_state
    if handlers.states:
        entered = None
        for condition, rule in handlers.states:
            if case.applies(condition, rule):
                entered = rule.state
    elif entered == "merged" and not context.data.get("into"):
        return
    if entered is not None:
        case.enter_state(entered, context)


def plan(case: CaseState, rule: ActionRule, context: Context) -> None:
    if rule.once:
        if (rule.id,) in case.once:
            return
        case.once.add((rule.id,))
    if rule.after is None:
        act(case, rule, context)
        return
    at = case.value(rule.after, rule)
    if isinstance(at, str):
        try:
            at = parse_amount(at)
        except ValueError as error:
            case.problem(rule, str(error))
            return
    if isinstance(at, Amount):
        at = case.calendar.due(context.at, at, case.policy.counting)
    if not isinstance(at, datetime):
        return  # nothing set: measured only
    moved = Context(
        at,
        context.data,
        context.ref,
        context.entry,
        context.actor,
        clock_run=context.clock_run,
        count=context.count,
        penalty=context.penalty,
    )
    later = Later(rule, moved)
    case.waiting.append(later)
    case.push(at, "later", later)


def drop_waiting(case: CaseState, rule: ActionRule) -> None:
    """What the action waits for is no longer wanted."""
    for later in [later for later in case.waiting if later.rule is rule]:
        later.dropped = True
        case.waiting.remove(later)


def act(case: CaseState, rule: ActionRule, context: Context) -> None:
    do(case, rule, rule.do, context.at, context.ref)
    state = rule.state
    if state is None and any(one.kind == "closed" and one.what is None for one in rule.do):
        state = "closed"
    if state is not None:
        case.enter_state(state, context)
    case.trigger(f"action:{rule.id}", context)


def do(case: CaseState, rule: Rule, todo: tuple[Do, ...], at: datetime, ref: str | int) -> None:
    """Record what is done, once per addressee for each `ref`."""
    for place, one in enumerate(todo):
        to, what, by = one.to, one.what, one.by
        data: dict[str, Any] = {}
        if not one.literal:
            to, what, by = case.value(to, rule), case.value(what, rule), case.value(by, rule)
            data = {name: case.value(value, rule) for name, value in one.data}
        for addressee in to if isinstance(to, LISTS) else (to,):
            key = f"{rule.id}:{ref}:{place}:{addressee or ''}"
            if key in case.effect_keys:
                continue
            case.effect_keys.add(key)
            case.effects.append(
                EffectView(
                    key=key,
                    rule=rule.id,
                    clause=rule.clause,
                    kind=one.kind,
                    at=at,
                    to=addressee,
                    what=what,
                    by=by,
                    data=data,
                    policy_version=case.policy.version,
                    silent=case.silent_until is not None and at <= case.silent_until,
                )
            )


def route(case: CaseState, rule: RouteRule, context: Context) -> None:
    as_, named = rule.as_, rule.targets
    members: tuple[str, ...] = ()
    if named is None:
        unit, role, staff = rule.unit, rule.role, rule.staff
        unit = case.value(unit, rule) if callable(unit) else unit
        role = case.value(role, rule) if callable(role) else role
        staff = case.value(staff, rule) if callable(staff) else staff
        named = targets(unit, role, staff)
        as_ = case.value(as_, rule) if callable(as_) else as_
        found = case.value(rule.members, rule) or ()
        members = tuple(found) if isinstance(found, LISTS) else (str(found),)
    for name, head, who in named:
        key = (name, head, who, as_, rule.id, context.ref)
        if key in case.route_keys:
            continue
        case.route_keys.add(key)
        found = RouteView(
            rule=rule.id,
            clause=rule.clause,
            unit=name,
            role=head,
            staff=who,
            as_=as_,
            members=members,
            at=context.at,
            seq=case.seq,
            auto=rule.auto,
        )
        case.routes.append(found)
        if as_ in OWNERS and (case.owner is None or (context.entry is not None and context.entry.kind != "received")):
            case.owner = found

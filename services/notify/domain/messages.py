"""Who is told what, and how: the policy's message rules, looked at for one moment of one case."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from services.notify.domain.moments import Moment
from shared.engine.case import Case
from shared.engine.model import Standing
from shared.engine.rules import CompiledPolicy, MessageRule
from shared.engine.scope import Context
from shared.policy.schema import Unit

Channel = Literal["sms", "email", "webhook"]

COMPLAINANT = "complainant"
RESPONDENT = "respondent"
HANDLER = "handler"
RESPONDENT_SUPERVISOR = "respondent_supervisor"
HANDLER_HEAD = "handler_head"
SUBSCRIBERS = "subscribers"
"""The audience of whatever goes to the tenant's webhook endpoints."""


class Wanted(Struct, frozen=True, kw_only=True):
    """One message to be sent.

    Args:
        audience: as the rule says it: complainant, respondent, handler, a role or a unit.
        addressee: whom that means on this case: the complainant's id, a staff id, a role or a unit; empty for webhooks.
    """

    rule: str
    audience: str
    addressee: str
    channel: Channel
    quiet_hours: str | None = None


def is_told(policy: CompiledPolicy, moment: Moment) -> bool:
    """Whether any rule looks at this moment: else the case need not be folded."""
    return any(trigger in moment.triggers for rule in policy.messages for trigger, _ in rule.triggers)


def messages(case: Case, moment: Moment, standing: Standing) -> list[Wanted]:
    """Return the messages that the case's policy wants for this moment, each audience and channel once per rule.

    Args:
        case: folded up to the moment, so that conditions see the case as it was then.
        standing: of the same case at the same instant.
    """
    _look(case, moment)
    found: dict[tuple[str, str, str], Wanted] = {}
    for rule in case.policy.messages:
        if not _applies(case, rule, moment):
            continue
        channels: tuple[Channel, ...] = tuple(each for each in ("sms", "email") if each in rule.channel)
        for audience, addressee in _addressees(case, rule, standing) if channels else ():
            for channel in channels:
                wanted = Wanted(
                    rule=rule.id,
                    audience=audience,
                    addressee=addressee,
                    channel=channel,
                    quiet_hours=rule.quiet_hours,
                )
                found.setdefault((rule.id, addressee, channel), wanted)
        if "webhook" in rule.channel:  # the tenant's own systems are told once, whoever the rule names, at any hour
            told = Wanted(rule=rule.id, audience=SUBSCRIBERS, addressee="", channel="webhook")
            found[(rule.id, "", "webhook")] = told
    return list(found.values())


def _look(case: Case, moment: Moment) -> None:
    """Put the moment before the eyes of conditions: folding may have gone on to what the entry itself set off."""
    runs = case.runs.get(clock_of(case.policy, moment.rule) or "")
    case.scope.context = Context(moment.at, moment.data, "", None, moment.by, runs[-1] if runs else None)


def _applies(case: Case, rule: MessageRule, moment: Moment) -> bool:
    return any(
        trigger in moment.triggers and case.holds(condition, rule) and case.holds(rule.when, rule)
        for trigger, condition in rule.triggers
    )


def _addressees(case: Case, rule: MessageRule, standing: Standing) -> Iterator[tuple[str, str]]:
    for value in rule.to:
        known = case.value(value, rule)
        for name in known if isinstance(known, list | tuple) else [known]:
            if name is None or name == "":
                continue
            audience = str(name)
            group = case.policy.document.organisation.groups.get(audience)
            for member in group.members if group is not None else [audience]:
                addressee = _person(case, member, standing)
                if addressee:
                    yield audience, addressee


def _person(case: Case, audience: str, standing: Standing) -> str | None:
    """Whom the words of a rule mean on this case; a role, a unit or a staff id means itself."""
    complaint = case.scope.complaint
    if audience == COMPLAINANT:
        return _first(complaint.get("complainant"), "id") or COMPLAINANT
    if audience == RESPONDENT:
        return _first(complaint.get("respondent"), "staff", "unit")
    if audience == HANDLER:
        owner = standing.owner
        return _first(complaint.get("handler"), "staff", "unit") or (
            None if owner is None else owner.staff or owner.role or owner.unit
        )
    if audience == HANDLER_HEAD:
        unit = _first(complaint.get("handler"), "unit") or (None if standing.owner is None else standing.owner.unit)
        return _first(complaint.get("handler"), "head") or _head(case, unit)
    if audience == RESPONDENT_SUPERVISOR:
        superior = _first(complaint.get("respondent"), "supervisor")
        return superior or _head(case, _first(complaint.get("respondent"), "unit"))
    return audience


def _head(case: Case, unit: str | None) -> str | None:
    """The role that answers for a unit, as the policy says."""
    known = case.policy.document.organisation.units.get(unit or "")
    return known.head if isinstance(known, Unit) else None


def _first(record: Any, *keys: str) -> str | None:
    known = record if isinstance(record, dict) else {}
    return next((str(known[key]) for key in keys if known.get(key)), None)


def clock_of(policy: CompiledPolicy, rule: str | None) -> str | None:
    """The clock or duty that has the id, or one of whose rungs has it; else the id as it is."""
    if rule is None:  # an entry's
        return None
    for clock in (*policy.clocks.values(), *(duty.clock for duty in policy.duties)):
        if any(rung.id == rule for rung in clock.rungs):
            return clock.id
    return rule


def due_at(policy: CompiledPolicy, standing: Standing, moment: Moment) -> datetime | None:
    """The instant that `due_at` means: of an effect its clock's, else the next one owed on the case."""
    clock = clock_of(policy, moment.rule)
    if clock is not None:
        of_clock = [view.due_at for view in standing.clocks if view.rule == clock and view.due_at is not None]
        if of_clock:
            return of_clock[-1]
    running = [view.due_at for view in standing.clocks if view.state == "running" and view.due_at is not None]
    return min(running, default=None)

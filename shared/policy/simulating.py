"""Try a policy on a scenario: the same pure functions that run live, on a case written down in a file.

The form of a scenario, and what `expect` compares, is described in docs/scenarios.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec, Counting, Season
from shared.engine.case import Case
from shared.engine.facts import FactPenalty, FactRow, fact, report_rows
from shared.engine.model import Actor, CountStamp, Entry, Refusal, Standing
from shared.engine.rules import CompiledPolicy, SubjectRule, clauses_of, first_of, value_of
from shared.engine.scope import Context, Scope
from shared.engine.subjects import Item, stamp
from shared.money import format_minor, parse_minor
from shared.policy.cel import EvaluationError
from shared.policy.compiling import compile_policy
from shared.policy.documents import parse
from shared.policy.numbering import number

ZONE: Final = "Asia/Shanghai"
"""Where scenarios take place."""


class ScenarioCalendar(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a scenario's days are like; without it Monday to Friday 09:00-18:00 in Asia/Shanghai and no public holidays."""

    holidays: list[str] = []
    workdays: list[str] = []
    count_first_day: bool = False
    roll: str = "none"
    cutoff: str | None = None
    hours: dict[str, list[str]] | str | None = None
    seasons: list[Season] = []


class Scenario(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    id: str
    regime: str
    clauses: list[str]
    title: str
    events: list[dict[str, Any]]
    until: datetime
    expect: dict[str, Any]
    calendar: ScenarioCalendar = msgspec.field(default_factory=ScenarioCalendar)
    settings: dict[str, Any] = {}
    complaint: dict[str, Any] | None = None
    from_: datetime | None = msgspec.field(default=None, name="from")
    history: list[dict[str, Any]] = []

    def started_at(self) -> datetime:
        """When it begins, aware UTC. ValueError where neither complaint nor `from` says so."""
        given = self.from_ if self.complaint is None else self.complaint.get("received_at")
        if given is None:
            raise ValueError(f"{self.id}: either complaint with received_at or from must be there")
        return _instant(given)


class Refused(Struct, frozen=True, kw_only=True):
    """An event that the policy did not take."""

    at: datetime
    kind: str
    data: dict[str, Any]
    refusal: Refusal


class Outcome(Struct, frozen=True, kw_only=True):
    """Everything that a simulation found."""

    standing: Standing
    timeline: list[Entry]
    refused: list[Refused]
    allowed: list[tuple[dict[str, Any], Refusal | None]]
    facts: list[tuple[str, Any, Any]]
    report: list[Any]
    policy_warnings: list[tuple[Any, str, Mapping[str, Any]]]
    case: Case  # as it stands at `until`, for explanations


def load_scenario(path: Path) -> Scenario:
    """Raises DocumentError or msgspec.ValidationError with the path to the mistake."""
    document = parse(path.read_bytes())
    return msgspec.convert(document.values, Scenario)


def calendar_section(given: ScenarioCalendar) -> CalendarSection:
    hours = given.hours
    if isinstance(hours, str):
        hours = {"mon-fri": [hours]}
    spec = CalendarSpec(holidays=given.holidays, workdays=given.workdays, seasons=given.seasons)
    if hours:
        spec = msgspec.structs.replace(spec, hours=hours)
    counting = Counting(
        count_first_day=given.count_first_day,
        roll="next_working_day" if given.roll == "next_working_day" else "none",
        cutoff=given.cutoff,
    )
    return CalendarSection(zone=ZONE, default="default", calendars={"default": spec}, counting=counting)


def compile_for(scenario: Scenario, document: Any) -> tuple[CompiledPolicy, CalendarBook]:
    """The policy with the scenario's settings and calendar. Raises PolicyError."""
    section = calendar_section(scenario.calendar)
    return compile_policy(document, scenario.settings, calendar=section), CalendarBook.of(section)


class History:
    """Earlier complaints and penalties as the counters see them."""

    def __init__(
        self, policy: CompiledPolicy, calendars: CalendarBook, items: list[dict[str, Any]], start: datetime
    ) -> None:
        self.policy = policy
        self.calendars = calendars
        self.start = start
        self.items = items
        self.own: dict[tuple[str, str], list[Item]] = {}

    def counter(self, rule: SubjectRule, subject: str, added: int, at: datetime) -> CountStamp:
        calendar = self.calendars.at(self.policy.calendar_name, at, at)
        items = [*self._earlier(rule, subject), *self.own.get((rule.id, subject), [])]
        found = stamp(rule, subject, added, at, items, calendar)
        self.own.setdefault((rule.id, subject), []).append(Item(at=at, added=added, fired=found.fires))
        return found

    def _earlier(self, rule: SubjectRule, subject: str) -> list[Item]:
        case = Case({self.policy.version: self.policy}, self.calendars, policy_version=self.policy.version)
        case.at = self.start
        found = []
        for item in self.items:
            at = _instant(item["at"])
            scope = case.scope
            _fill(scope, item, at, self.policy)
            if not self._fits(rule, scope, item):
                continue
            try:
                named = first_of(rule.subject, scope)
                added = value_of(rule.add, scope)
            except EvaluationError:
                continue
            if named == subject and isinstance(added, int):
                found.append(Item(at=at, added=added * int(item.get("count", 1))))
        return found

    def _fits(self, rule: SubjectRule, scope: Scope, item: dict[str, Any]) -> bool:
        penalty = "clause" in item
        for key, condition in rule.triggers:
            head, _, rest = key.partition(":")
            if (head in ("penalty", "imposed")) != penalty:
                continue
            if penalty:
                wanted = next((one for one in self.policy.penalties if one.id == rest), None)
                if wanted is None or item["clause"] not in wanted.clauses:
                    continue
            try:
                if condition is not None and condition(scope) is not True:
                    continue
                chosen = rule.history or rule.when
                if chosen is None or chosen(scope) is True:
                    return True
            except EvaluationError:
                continue
        return False


def _fill(scope: Scope, item: dict[str, Any], at: datetime, policy: CompiledPolicy) -> None:
    """Put one line of the history where the rules look."""
    data: dict[str, Any] = {name: item[name] for name in ("outcome", "category", "severity") if name in item}
    scope.complaint = {
        "kind": item.get("kind") if "clause" not in item else None,
        "category": item.get("category"),
        "severity": item.get("severity"),
        "outcome": item.get("outcome"),
        "received_at": at,
        "respondent": item.get("respondent") or {},
        "handler": {},
        "complainant": {},
        "state": "closed",
        "accepted": True,
    }
    scope.fields = dict(item.get("fields") or {})
    penalty: dict[str, Any] | None = None
    if "clause" in item:
        penalty = {
            "clause": item["clause"],
            "party": item.get("party"),
            "kind": item.get("kind"),
            "amount": item.get("amount_cny"),
            "sanction": item.get("sanction"),
            "points": int(item["points"]) if "points" in item else None,
            "state": None,
            "rule": None,
        }
    scope.context = Context(at, data, "", actor=None, penalty=penalty)


def simulate(scenario: Scenario, policy: CompiledPolicy, calendars: CalendarBook) -> Outcome:
    """Run the scenario up to `until`."""
    start = scenario.started_at()
    history = History(policy, calendars, scenario.history, start)
    case = Case(
        {policy.version: policy},
        calendars,
        policy_version=policy.version,
        case_kind="complaint" if scenario.complaint is not None else "duty",
        counter=history.counter,
    )
    timeline: list[Entry] = []
    if scenario.complaint is not None:
        given = scenario.complaint
        data: dict[str, Any] = {name: value for name, value in given.items() if name != "received_at"}
        data["number"] = number(
            policy.document.intake.numbering,
            calendars.at(None, start, start),
            start,
            _earlier_in_period(scenario, policy, calendars, start),
        )
        received = Entry(seq=1, kind="received", at=start, by=Actor(id="intake"), data=data)
        case.apply(received)
        timeline.append(received)
    else:
        case.begin_duties(start, scenario.until)
    questions = sorted(
        ((_instant(one["at"]), place, one) for place, one in enumerate(scenario.expect.get("allowed") or [])),
        key=lambda one: one[:2],
    )
    refused: list[Refused] = []
    allowed: list[tuple[dict[str, Any], Refusal | None]] = []

    def answer(before: datetime | None) -> None:
        while questions and (before is None or questions[0][0] < before):
            at, _, one = questions.pop(0)
            case.advance(at, inclusive=False)
            allowed.append((one, case.refusal(_entry(one, at, len(timeline) + 1, scenario, policy))))

    for event in scenario.events:
        at = _instant(event["at"])
        answer(at)
        entry = _entry(event, at, len(timeline) + 1, scenario, policy)
        refusal = case.refusal(entry)
        if refusal is not None:
            refused.append(Refused(at=at, kind=entry.kind, data=entry.data, refusal=refusal))
            continue
        case.apply(entry)
        timeline.append(entry)
    answer(None)
    standing = case.standing(scenario.until)
    facts = case.facts()
    return Outcome(
        standing=standing,
        timeline=timeline,
        refused=refused,
        allowed=allowed,
        facts=facts,
        report=_report(scenario, policy, calendars, timeline, standing, facts),
        policy_warnings=list(policy.incomplete),
        case=case,
    )


def _instant(value: Any) -> datetime:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise ValueError(f"{value!r} is no instant with its offset, such as 2026-03-02T10:00:00+08:00")
    return found.astimezone(UTC)


def _entry(event: dict[str, Any], at: datetime, seq: int, scenario: Scenario, policy: CompiledPolicy) -> Entry:
    return Entry(
        seq=seq,
        kind=event["kind"],
        at=at,
        by=actor(event.get("by") or "system", scenario, policy),
        data=dict(event.get("data") or {}),
    )


def actor(name: str, scenario: Scenario, policy: CompiledPolicy) -> Actor:
    """A scenario names roles, units and persons of its own; a person acts in the part it has in the complaint."""
    complaint = scenario.complaint or {}
    roles = [name]
    parts = {
        "handler": complaint.get("handler", {}).get("staff"),
        "handler_head": complaint.get("handler", {}).get("head"),
        "respondent": complaint.get("respondent", {}).get("staff"),
        "respondent_supervisor": complaint.get("respondent", {}).get("supervisor"),
        "complainant": complaint.get("complainant", {}).get("id"),
    }
    roles += [part for part, who in parts.items() if who == name]
    if parts["handler_head"] == name:
        roles.append("head")
    if parts["respondent_supervisor"] == name:
        roles.append("supervisor")
    units = policy.document.organisation.units
    return Actor(id=name, roles=tuple(dict.fromkeys(roles)), unit=name if name in units else None)


def _earlier_in_period(scenario: Scenario, policy: CompiledPolicy, calendars: CalendarBook, start: datetime) -> int:
    """How many complaints of the history bear a number of the same period."""
    reset = policy.document.intake.numbering.reset
    calendar = calendars.at(None, start, start)
    complaints = [item for item in scenario.history if "clause" not in item]
    if reset == "never":
        return sum(int(item.get("count", 1)) for item in complaints)
    period = calendar.period(start, reset)
    return sum(
        int(item.get("count", 1)) for item in complaints if calendar.period(_instant(item["at"]), reset) == period
    )


def _report(
    scenario: Scenario,
    policy: CompiledPolicy,
    calendars: CalendarBook,
    timeline: list[Entry],
    standing: Standing,
    facts: Any,
) -> list[Any]:
    rows = [_fact_of(item, policy) for item in scenario.history]
    kind = "complaint" if scenario.complaint is not None else "duty"
    rows.append(fact(timeline, standing, case_kind=kind, derived={name: value for name, _, value in facts}))
    calendar = calendars.at(None, scenario.until, scenario.until)
    return report_rows(policy.reports, rows, calendar.zone, scenario.until, settings=policy.settings)


def _fact_of(item: dict[str, Any], policy: CompiledPolicy) -> FactRow:
    at = _instant(item["at"])
    if "clause" in item:
        penalty = FactPenalty(
            clause=item["clause"],
            party=item["party"],
            kind=item["kind"],
            at=at,
            amount_minor=parse_minor(item["amount_cny"], policy.currency) if "amount_cny" in item else None,
            currency=policy.currency,
            sanction=item.get("sanction"),
            points=int(item["points"]) if "points" in item else None,
        )
        return FactRow(at=at, count=0, penalties=(penalty,))
    clocks = {one["clause"]: one["state"] for one in item.get("clocks") or []}
    breached = tuple(clause for clause, state in clocks.items() if state == "breached")
    handled = _instant(item["handled_at"]) if "handled_at" in item else None
    return FactRow(
        at=at,
        handled_at=handled,
        resolved_at=handled,
        kind=item.get("kind"),
        category=item.get("category"),
        severity=item.get("severity"),
        outcome=item.get("outcome"),
        respondent=item.get("respondent") or {},
        fields=item.get("fields") or {},
        clocks=clocks,
        breached=breached,
        late=bool(breached),
        on_time=bool(clocks) and not breached,
        count=int(item.get("count", 1)),
    )


# -- comparing ---------------------------------------------------------------------------------------------------------------------------


class Difference(Struct, frozen=True, kw_only=True):
    """One expectation that does not hold."""

    path: str
    expected: Any
    got: Any
    note: str = ""


def compare(scenario: Scenario, outcome: Outcome) -> list[Difference]:
    """Everything in `expect` that differs from what the simulation found."""
    found: list[Difference] = []
    expect = scenario.expect
    only = expect.get("only") or []
    only = only if isinstance(only, list) else [only]
    got = observed(outcome)
    for name in ("acceptance", "classified"):
        if name in expect:
            have = got[name]
            if have is None or not _matches(expect[name], have):
                found.append(Difference(path=name, expected=expect[name], got=have))
    if "state" in expect and expect["state"] != got["state"]:
        found.append(Difference(path="state", expected=expect["state"], got=got["state"]))
    for name in (
        "routing",
        "clocks",
        "effects",
        "refused",
        "penalties",
        "counters",
        "report",
        "facts",
        "policy_warnings",
    ):
        if name not in expect:
            continue
        have = list(got[name])
        unmatched = list(have)
        for place, item in enumerate(expect[name] or []):
            hit = next((one for one in unmatched if _matches(item, one)), None)
            if hit is None and name not in only:
                hit = (
                    next((one for one in have if _matches(item, one)), None)
                    if name in ("facts", "report", "routing")
                    else None
                )
            if hit is None:
                near = [one for one in have if _clause_fits(item.get("clause"), one.get("clause"))]
                found.append(Difference(path=f"{name}/{place}", expected=item, got=near or have))
            elif hit in unmatched:
                unmatched.remove(hit)
        if name in only and unmatched:
            found.append(Difference(path=name, expected="nothing more", got=unmatched))
    for item, refusal in outcome.allowed:
        if refusal is not None:
            found.append(Difference(path="allowed", expected=item, got=msgspec.to_builtins(refusal)))
    return found


def observed(outcome: Outcome) -> dict[str, Any]:
    """What the simulation found, in the words of `expect`."""
    standing = outcome.standing
    accepted = standing.acceptance
    classified = standing.classified
    return {
        "acceptance": None
        if accepted is None
        else {"accepted": accepted.accepted, "at": accepted.at, "reason": accepted.reason, "clause": accepted.clause},
        "classified": {
            "kind": classified.kind,
            "category": classified.category,
            "severity": classified.severity,
            "priority": classified.priority,
            "respondent": classified.respondent,
            "clause": [one for clause in classified.clauses.values() for one in clauses_of(clause)],
        },
        "state": standing.state,
        "routing": [
            {
                "unit": one.unit,
                "role": one.role,
                "staff": one.staff,
                "as": one.as_,
                "members": list(one.members),
                "clause": one.clause,
            }
            for one in standing.routing
        ],
        "clocks": [
            {
                "clause": one.clause,
                "name": one.name,
                "due_at": one.due_at,
                "state": one.state,
                "stopped_at": one.stopped_at,
                "data": one.data,
                "rule": one.rule,
            }
            for one in standing.clocks
        ],
        "effects": [
            {
                "clause": one.clause,
                "kind": one.kind,
                "at": one.at,
                "to": one.to,
                "by": one.by,
                "what": one.what,
                "data": one.data,
            }
            for one in standing.effects
        ],
        "refused": [
            {
                "at": one.at,
                "kind": one.kind,
                "clause": one.refusal.clause,
                "reason": one.refusal.reason,
                "data": one.data,
            }
            for one in outcome.refused
        ],
        "penalties": [_penalty(one) for one in standing.penalties],
        "counters": [
            {"clause": one.clause, "subject": one.subject, "count": one.count, "data": one.data, "rule": one.rule}
            for one in standing.counters
        ],
        "report": [
            {
                "clause": one.clause,
                "row": one.row,
                "value": one.value,
                "period": one.period,
                "subject": one.subject,
                "by": list(one.by),
                "data": one.data,
            }
            for one in outcome.report
        ],
        "facts": [
            {"clause": clause, "name": name, "value": value, "data": {}} for name, clause, value in outcome.facts
        ],
        "policy_warnings": [
            {"clause": clause, "problem": problem, "data": dict(data)}
            for clause, problem, data in outcome.policy_warnings
        ],
    }


def _penalty(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "clause": one.clause,
        "party": one.party,
        "kind": one.kind,
        "state": one.state,
        "at": one.at,
        "data": one.data,
    }
    if one.amount_minor is not None:
        found["amount_cny"] = format_minor(one.amount_minor, one.currency)
    if one.range_minor is not None:
        found["range_cny"] = [None if limit is None else format_minor(limit, one.currency) for limit in one.range_minor]
    if one.points is not None:
        found["points"] = str(one.points)
    for name in ("sanction", "number", "because", "multiplier_clause"):
        value = getattr(one, name)
        if value is not None:
            found[name] = value
    return found


def _matches(expected: Any, got: Any) -> bool:
    if not isinstance(expected, Mapping):
        return _equal(expected, got)
    if not isinstance(got, Mapping):
        return False
    for key, value in expected.items():
        have = got.get(key)
        if key in ("clause", "multiplier_clause"):
            if not _clause_fits(value, have):
                return False
        elif key == "data":
            if not isinstance(have, Mapping) or not all(_equal(inner, have.get(name)) for name, inner in value.items()):
                return False
        elif key in ("members", "by") and isinstance(have, list):
            if not set(value if isinstance(value, list) else [value]) <= set(have):
                return False
        elif (key == "period" and have is None) or not _equal(value, have):
            return False
    return True


def _clause_fits(expected: Any, got: Any) -> bool:
    return expected is None or expected in clauses_of(got)


def _equal(expected: Any, got: Any) -> bool:
    """Instants within one second, figures by value, lists of names in any order where both hold the same."""
    if isinstance(expected, str) and isinstance(got, datetime):
        return abs((_instant(expected) - got).total_seconds()) <= 1
    if isinstance(expected, str) and isinstance(got, str) and "T" in expected and "T" in got:
        try:
            return abs((_instant(expected) - _instant(got)).total_seconds()) <= 1
        except ValueError:
            return expected == got
    if isinstance(expected, list) and isinstance(got, list | tuple):
        if len(expected) != len(got):
            return False
        if all(isinstance(one, str) for one in (*expected, *got)):
            return sorted(expected) == sorted(got)
        return all(_equal(one, other) for one, other in zip(expected, got, strict=True))
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        return all(_equal(value, got.get(key)) for key, value in expected.items())
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, str) and isinstance(got, int | Decimal):
        return expected == str(got)
    if isinstance(expected, int) and isinstance(got, str):
        return str(expected) == got
    return bool(expected == got)

"""The hour of the day in conditions, limits inside others, and decisions without a figure."""

from datetime import UTC, datetime, timedelta, timezone

from shared.engine.calendar import CalendarBook, CalendarSection
from shared.engine.case import Case, replay
from shared.engine.model import Actor, Entry
from shared.policy.compiling import compile_policy

CHINA = timezone(timedelta(hours=8))
POLICY = """
policy: 1
title: A shop
vocabulary: {fields: {quick: {type: bool}}, severities: {light: l, grave: g}}
organisation: {units: {day: d, night: n, desk: k}}
intake: {acceptance: at_receipt}
routing:
  - {unit: day, when: 'local_time >= "08:00" && local_time < "17:00"'}
  - {unit: night, when: 'local_time < "08:00" || local_time >= "17:00"'}
clocks:
  - {id: whole, start: received, within: 10d}
  - {id: short, start: received, when: fields.quick == true, within: 1d}
  - {id: grave, start: assigned, while: 'complaint.severity == "grave"', anchor: start, within: 2d}
  - {id: told, start: closed, when: '"chief" in collected.to', within: 1d}
  - {id: papers, start: assigned, within: 48h, inside: [whole, short], inside_do: [{kind: warned, to: desk}]}
penalties:
  rules:
    - {id: loss, clause: R01.1, on: {on: penalty_decided, when: data.amount_cny != null}, party: desk,
       impose: [{kind: recovery, decided: true}]}
    - {id: measure, clause: R01.1, on: {on: penalty_decided, when: data.sanction != null}, party: desk,
       impose: [{kind: sanction, sanction: =data.sanction}]}
"""


def case_of(*entries: tuple[str, datetime, dict[str, object]]) -> Case:
    policy = compile_policy(POLICY)
    timeline = [
        Entry(seq=place, kind=kind, at=at.astimezone(UTC), by=Actor(id="a"), data=data)
        for place, (kind, at, data) in enumerate(entries, 1)
    ]
    return replay({policy.version: policy}, timeline, CalendarBook.of(CalendarSection()))


def at(hour: int, minute: int = 0, day: int = 10) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=CHINA)


def test_hour_of_day_is_the_tenants() -> None:
    for hour, minute, unit in ((7, 59, "night"), (8, 0, "day"), (16, 59, "day"), (17, 0, "night")):
        assert [one.unit for one in case_of(("received", at(hour, minute), {})).routes] == [unit]


def test_limit_is_held_against_the_strictest_outer_one() -> None:
    for fields, warnings in (({}, 0), ({"quick": True}, 1)):
        case = case_of(("received", at(9), {"fields": fields}), ("assigned", at(10), {}))
        assert [one.kind for one in case.effects] == ["warned"] * warnings


def test_decision_without_a_figure_leaves_a_decided_amount_alone() -> None:
    case = case_of(
        ("received", at(9), {}),
        ("penalty_decided", at(10), {"clause": "R01.1", "party": "s1", "amount_cny": "120.00"}),
        ("penalty_decided", at(11), {"clause": "R01.1", "party": "s1", "sanction": "warning"}),
    )
    penalties = case.standing(at(12)).penalties
    assert [(one.kind, one.amount_minor) for one in penalties] == [("recovery", 12000), ("sanction", None)]


def test_single_name_is_collected_like_a_list() -> None:
    case = case_of(
        ("received", at(9), {}),
        ("reported", at(10), {"to": "chief"}),
        ("reported", at(11), {"to": ["office", "chief"], "unit": "desk"}),
    )
    assert case.scope.collected["to"] == ["chief", "office"]
    assert "unit" not in case.scope.collected


def test_only_what_some_expression_reads_is_kept() -> None:
    case = case_of(("received", at(9), {}), ("reported", at(10), {"to": "chief", "documents": ["report"]}))
    assert set(case.scope.collected) == {"to"}
    assert case.scope.last == {}
    assert case.scope.entries == []


def test_limit_of_a_later_class_counts_from_its_start() -> None:
    case = case_of(
        ("received", at(9), {}),
        ("assigned", at(9, day=11), {}),
        ("classified", at(9, day=12), {"severity": "grave"}),
    )
    (run,) = case.runs["grave"]
    assert run.due_at == datetime(2026, 3, 13, 23, 59, 59, tzinfo=CHINA)


BOARD = """
policy: 1
title: A bank
organisation: {roles: {board: b, desk: d}}
penalties:
  rules:
    - {id: pursued, clause: R01.1, on: penalty_decided, party: desk, decided_by: [board], impose: [{kind: sanction, sanction: pursued}]}
vocabulary: {sanctions: {pursued: p}, steps: {report: r}}
duties:
  - {id: report, every: EVERY, proof: "step:report"}
"""


def test_a_sanction_without_a_figure_is_decided_by_those_who_may() -> None:
    policy = compile_policy(BOARD.replace("EVERY", "year"))
    start = Entry(seq=1, kind="received", at=at(9).astimezone(UTC), by=Actor(id="a"), data={})
    case = replay({policy.version: policy}, [start], CalendarBook.of(CalendarSection()))
    for who, reason in (("desk", "beyond_authority"), ("board", None)):
        refusal = case.refusal(
            Entry(seq=2, kind="penalty_decided", at=at(10).astimezone(UTC), by=Actor(id=who), data={"clause": "R01.1"})
        )
        assert (refusal.reason if refusal else None) == reason


def test_the_turns_of_a_duty_go_by_several_words() -> None:
    for written, meant in (("3mo", "quarter"), ("quarterly", "quarter"), ("1w", "week"), ("yearly", "year")):
        assert compile_policy(BOARD.replace("EVERY", written)).duties[0].every == meant

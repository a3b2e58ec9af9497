"""Fact rows and figures of reports: what comes out of a timeline and a standing, and how rows are counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.facts import (
    FactClock,
    FactEntry,
    FactRow,
    Period,
    Tally,
    fact,
    parse_period,
    period_at,
    period_on,
    report_rows,
    target_met,
    worst_states,
)
from shared.engine.model import (
    AcceptanceView,
    Actor,
    ClassView,
    ClockView,
    EffectView,
    Entry,
    PenaltyView,
    RouteView,
    Standing,
)
from shared.engine.rules import ReportRule
from shared.policy.cel.problems import EvaluationError
from shared.policy.compiling import compile_policy

SHANGHAI = ZoneInfo("Asia/Shanghai")
NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
UNTIL = datetime(2026, 3, 31, 15, 59, 59, tzinfo=UTC)


def an_entry(seq: int, kind: str, data: dict[str, Any]) -> Entry:
    at = NINE if seq == 1 else NINE + timedelta(hours=seq)
    return Entry(seq=seq, kind=kind, at=at, by=Actor(id="clerk"), data=data)


def a_timeline(*entries: tuple[str, dict[str, Any]], **received: Any) -> list[Entry]:
    first = an_entry(1, "received", {"channel": "phone", "kind": "external", **received})
    return [first, *(an_entry(seq, kind, data) for seq, (kind, data) in enumerate(entries, start=2))]


def a_clock(rule: str, state: Any, clause: str | list[str] | None = None, days: int = 3) -> ClockView:
    return ClockView(
        rule=rule,
        run=0,
        part=0,
        clause=clause,
        name=None,
        state=state,
        started_at=NINE,
        anchor_at=NINE,
        due_at=NINE + timedelta(days=days),
    )


def a_penalty(minor: int | None, kind: str = "fine", state: str | None = None) -> PenaltyView:
    return PenaltyView(
        key="k", rule="late", clause="R06.13", party="s1", kind=kind, at=NINE, amount_minor=minor, state=state
    )


def an_effect(kind: str, what: str | None = None, hours: float = 5) -> EffectView:
    return EffectView(
        key=f"{kind}{hours}", rule="r", clause=None, kind=kind, what=what, at=NINE + timedelta(hours=hours)
    )


def a_standing(**changes: Any) -> Standing:
    values: dict[str, Any] = {
        "seq": 1,
        "now": UNTIL,
        "policy_version": 1,
        "state": "open",
        "closed": False,
        "acceptance": AcceptanceView(accepted=True, at=NINE),
        "classified": ClassView(kind="external", category="billing", severity="light"),
        "outcome": None,
        "routing": (),
        "clocks": (),
        "effects": (),
        "penalties": (),
        "counters": (),
        "problems": (),
        "next_at": None,
    }
    return Standing(**{**values, **changes})


def a_rule(row: str = "total", value: str = "count", **changes: Any) -> ReportRule:
    values: dict[str, Any] = {
        "id": row,
        "clause": "R09.34",
        "path": "/reports/0",
        "when": None,
        "row": row,
        "value": value,
        "where": None,
        "done": None,
        "of": None,
        "entries": (),
        "entries_when": (),
        "period": "month",
        "period_of": "received",
        "by": (),
        "subject": None,
        "target": None,
    }
    return ReportRule(**{**values, **changes})


def figures_of(rule: ReportRule, rows: Sequence[FactRow], until: datetime = UNTIL) -> dict[tuple[str, Any], str]:
    return {(figure.period, figure.subject): figure.value for figure in report_rows([rule], rows, SHANGHAI, until)}


# --- fact rows


def test_a_row_tells_what_was_received() -> None:
    row = fact(
        a_timeline(
            respondent={"staff": "s1", "unit": "u1", "supervisor": None},
            complainant={"id": "c1", "type": "customer"},
            handler={"staff": "h1", "unit": "u2", "head": "h9"},
            fields={"loss_cny": "600.00"},
            anonymous=True,
        ),
        None,
        source="email",
    )

    assert (row.at, row.channel, row.source, row.kind, row.anonymous) == (NINE, "phone", "email", "external", True)
    assert row.respondent == {"staff": "s1", "unit": "u1"}
    assert row.handler == {"staff": "h1", "unit": "u2", "head": "h9"}
    assert (row.complainant_id, row.complainant_type) == ("c1", "customer")
    assert row.fields == {"loss_cny": "600.00"}
    assert row.accepted is None
    assert row.count == 1


def test_the_standing_says_class_state_and_acceptance() -> None:
    standing = a_standing(state="resolved", outcome="upheld", classified=ClassView(severity="invalid", priority=2))

    row = fact(a_timeline(severity="light"), standing)

    assert (row.severity, row.priority, row.state, row.outcome) == ("invalid", 2, "resolved", "upheld")
    assert (row.kind, row.accepted) == ("external", True)


def test_a_later_entry_changes_fields_and_rating() -> None:
    timeline = a_timeline(
        ("supplemented", {"fields": {"loss_cny": "700.00", "visits": 2}}),
        ("surveyed", {"rating": "dissatisfied"}),
        ("followed_up", {"rating": "satisfied"}),
        fields={"loss_cny": "600.00", "place": "branch"},
    )

    row = fact(timeline, None)

    assert row.fields == {"loss_cny": "700.00", "visits": 2, "place": "branch"}
    assert row.rating == "satisfied"


def test_handled_is_the_first_answer_and_resolved_the_last() -> None:
    timeline = a_timeline(("resolved", {"outcome": "upheld"}), ("reopened", {}), ("resolved", {}), ("closed", {}))

    row = fact(timeline, a_standing(closed=True, state="closed"))

    assert row.handled_at == NINE + timedelta(hours=2)
    assert row.resolved_at == NINE + timedelta(hours=4)
    assert row.closed_at == NINE + timedelta(hours=5)
    assert row.rounds == 2


def test_a_reopened_complaint_is_not_closed() -> None:
    row = fact(a_timeline(("closed", {}), ("reopened", {})), a_standing(state="reopened"))

    assert row.closed_at is None


def test_the_system_closes_and_a_list_that_is_closed_does_not() -> None:
    effects = (an_effect("closed", None, 7), an_effect("closed", "key_attention", 9))

    row = fact(a_timeline(("commented", {})), a_standing(closed=True, effects=effects))

    assert row.closed_at == NINE + timedelta(hours=7)


def test_a_declined_complaint_ended_when_it_was_declined() -> None:
    timeline = a_timeline(("declined", {"reason": "in_litigation"}), ("commented", {}))
    standing = a_standing(
        closed=True, acceptance=AcceptanceView(accepted=False, at=timeline[1].at, reason="in_litigation")
    )

    row = fact(timeline, standing)

    assert (row.closed_at, row.accepted, row.decline_reason) == (timeline[1].at, False, "in_litigation")


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (["met"], "met"),
        (["met", "breached"], "breached"),
        (["breached", "running", "met"], "breached"),
        (["running", "met"], "met"),
        (["running", "paused"], "running"),
    ],
)
def test_a_clause_stands_as_its_worst_run(states: list[str], worst: str) -> None:
    runs = [FactClock(rule="reply", clause="R09.21", state=state) for state in states]

    assert worst_states(runs) == {"R09.21": worst, "reply": worst}


def test_breaches_are_told_per_run_and_superseded_runs_do_not_count() -> None:
    clocks = (
        a_clock("reply", "breached", "R04.7", 5),
        a_clock("reply", "breached", "R04.7"),
        a_clock("visit", "breached", None),
        a_clock("early", "met", ["R04.8", "R04.9"]),
        a_clock("old", "superseded", "R04.1", 1),
    )

    row = fact(a_timeline(), a_standing(clocks=clocks))

    assert row.breached == ("R04.7", "R04.7", "visit")
    assert row.clocks == {
        "R04.7": "breached",
        "reply": "breached",
        "visit": "breached",
        "R04.8": "met",
        "R04.9": "met",
        "early": "met",
    }
    assert (row.on_time, row.late) == (False, True)
    assert row.due_at == NINE + timedelta(days=3)


@pytest.mark.parametrize(
    ("states", "on_time", "late"),
    [
        ([], False, False),
        (["running"], False, False),
        (["met"], True, False),
        (["met", "running"], True, False),
        (["met", "breached"], False, True),
        (["fired"], False, False),
    ],
)
def test_on_time_needs_a_met_limit_and_no_broken_one(states: list[Any], on_time: bool, late: bool) -> None:
    clocks = tuple(a_clock(f"r{place}", state) for place, state in enumerate(states))

    row = fact(a_timeline(), a_standing(clocks=clocks))

    assert (row.on_time, row.late) == (on_time, late)


def test_escalations_by_people_and_by_the_system_add_up() -> None:
    effects = (an_effect("escalated", hours=1), an_effect("escalated", hours=2), an_effect("notified"))

    assert fact(a_timeline(("escalated", {})), a_standing(effects=effects)).escalated == 3


def test_fines_are_what_is_owed() -> None:
    penalties = (
        a_penalty(10_000),
        a_penalty(-2_500, state="correction"),
        a_penalty(50_000, state="waived"),
        a_penalty(None, state="needs_decision"),
        a_penalty(9_900, kind="compensation"),
    )

    row = fact(a_timeline(), a_standing(penalties=penalties))

    assert row.fines_minor == 7_500
    assert len(row.penalties) == 5


def test_an_approved_good_reason_shows() -> None:
    assert fact(a_timeline(("approved", {"step": "good_reason"})), None).good_reason
    assert not fact(a_timeline(("approved", {"step": "solution"})), None).good_reason


def test_the_handler_is_the_last_assignment_else_the_owner() -> None:
    owner = RouteView(rule="r", clause=None, unit="management", at=NINE)
    routed = fact(a_timeline(), a_standing(owner=owner))
    assigned = fact(a_timeline(("assigned", {"unit": "u7", "staff": "s7"})), a_standing(owner=owner))

    assert (routed.handler, routed.assigned_at) == ({"unit": "management"}, NINE)
    assert (assigned.handler, assigned.assigned_at) == ({"unit": "u7", "staff": "s7"}, NINE + timedelta(hours=2))


def test_entries_bear_their_trigger() -> None:
    row = fact(a_timeline(("step", {"step": "staff_scored"}), ("approved", {"step": "decision"})), None)

    assert [entry.trigger for entry in row.entries] == ["received", "step:staff_scored", "approved:decision"]
    assert row.entries[2].happens("approved")
    assert row.entries[2].happens("approved:decision")
    assert not row.entries[2].happens("approved:solution")
    assert not row.entries[1].happens("staff_scored")


# --- periods


@pytest.mark.parametrize(
    ("day", "length", "first_month", "name", "start_on", "end_on"),
    [
        (date(2026, 3, 31), "day", 1, "2026-03-31", date(2026, 3, 31), date(2026, 4, 1)),
        (date(2026, 2, 28), "month", 1, "2026-02", date(2026, 2, 1), date(2026, 3, 1)),
        (date(2026, 12, 31), "month", 1, "2026-12", date(2026, 12, 1), date(2027, 1, 1)),
        (date(2026, 3, 31), "quarter", 1, "2026-Q1", date(2026, 1, 1), date(2026, 4, 1)),
        (date(2026, 10, 1), "quarter", 1, "2026-Q4", date(2026, 10, 1), date(2027, 1, 1)),
        (date(2026, 7, 1), "half", 1, "2026-H2", date(2026, 7, 1), date(2027, 1, 1)),
        (date(2026, 1, 15), "half", 12, "2025-12-01/2026-05-31", date(2025, 12, 1), date(2026, 6, 1)),
        (date(2026, 6, 1), "half", 12, "2026-06-01/2026-11-30", date(2026, 6, 1), date(2026, 12, 1)),
        (date(2026, 7, 4), "year", 1, "2026", date(2026, 1, 1), date(2027, 1, 1)),
        (date(2026, 3, 31), "year", 4, "2025-04-01/2026-03-31", date(2025, 4, 1), date(2026, 4, 1)),
    ],
)
def test_periods_have_their_names_and_ends(
    day: date, length: str, first_month: int, name: str, start_on: date, end_on: date
) -> None:
    assert period_on(day, length, first_month) == Period(name, start_on, end_on)
    assert parse_period(name) == Period(name, start_on, end_on)


@given(st.dates(date(1990, 1, 1), date(2090, 1, 1)), st.sampled_from(["day", "month", "quarter", "half", "year"]))
def test_a_period_holds_its_day_and_its_name_reads_back(day: date, length: str) -> None:
    found = period_on(day, length)

    assert found.start_on <= day < found.end_on
    assert parse_period(found.name) == found


def test_a_period_is_of_the_tenants_zone() -> None:
    late_evening = datetime(2026, 3, 31, 16, 30, tzinfo=UTC)  # 00:30 on 1 April in Shanghai

    assert period_at(late_evening, "month", SHANGHAI).name == "2026-04"
    assert period_on(date(2026, 3, 1), "month").bounds(SHANGHAI) == (
        datetime(2026, 2, 28, 16, tzinfo=UTC),
        datetime(2026, 3, 31, 16, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "text", ["", "2026-13", "2026-Q5", "2026-H3", "26-03", "2026-3", "２０２６", "2026-03-02/2026-03-01", "march"]
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a period"):
        parse_period(text)


# --- figures


def test_a_count_weighs_rows_and_says_zero() -> None:
    rows = [FactRow(at=NINE, severity="invalid", count=2), FactRow(at=NINE, severity="light")]
    rule = a_rule(where=lambda scope: scope.severity == "invalid")

    assert figures_of(rule, rows) == {("2026-03", None): "2"}
    assert figures_of(rule, rows[1:]) == {("2026-03", None): "0"}


def test_earlier_penalties_and_other_cases_are_no_complaints() -> None:
    rows = [FactRow(at=NINE), FactRow(at=NINE, count=0), FactRow(at=NINE, case_kind="duty")]

    assert figures_of(a_rule(), rows) == {("2026-03", None): "1"}


def test_a_share_has_two_decimals_and_misses_its_target_unrounded() -> None:
    rows = [
        FactRow(at=NINE, clocks={"R09.21": "met"}, count=50),
        FactRow(at=NINE, clocks={"R09.19": "met"}),
        FactRow(at=NINE, clocks={"R09.21": "breached"}, breached=("R09.21",)),
    ]
    rule = a_rule("fed_back", "percent", done=lambda scope: not scope.breached, target="100")

    [figure] = report_rows([rule], rows, SHANGHAI, UNTIL)

    assert (figure.value, figure.period, figure.row) == ("98.08", "2026-03", "fed_back")
    assert figure.data == {"cases": 52, "done": 51, "target_met": False}


def test_a_share_of_nothing_is_no_figure() -> None:
    assert figures_of(a_rule(value="percent", done=lambda _: True), []) == {}


def test_a_share_can_weigh_what_the_entries_say() -> None:
    checks = [
        FactEntry(trigger="step:spot_check_done", at=NINE, by="director", data={"forms": 10, "late": 2}),
        FactEntry(trigger="step:spot_check_done", at=NINE, by="director", data={"forms": 20, "late": 0}),
        FactEntry(trigger="step:other", at=NINE, by="director", data={"forms": 1000}),
    ]
    rule = a_rule(
        "forms_on_time_percent",
        "percent",
        entries=("step:spot_check_done",),
        entries_when=(None,),
        of=lambda scope: scope.data["forms"],
        done=lambda scope: scope.data["forms"] - scope.data["late"],
    )

    [figure] = report_rows([rule], [FactRow(at=NINE, entries=tuple(checks))], SHANGHAI, UNTIL)

    assert figure.value == "93.33"
    assert figure.data["done"] == 28


def test_a_mean_by_subject_over_entries_is_trimmed() -> None:
    def scored(staff: str, *scores: int) -> FactEntry:
        return FactEntry(trigger="step:staff_scored", at=NINE, by="boss", data={"staff": staff, "scores": list(scores)})

    entries = (scored("clerk-1", 85, 90, 80), scored("clerk-2", 70, 71, 70), scored("clerk-2", 71))
    rule = a_rule(
        "average_score",
        "mean",
        entries=("step:staff_scored",),
        entries_when=(None,),
        of=lambda scope: scope.data["scores"],
        subject=lambda scope: scope.data["staff"],
    )

    assert figures_of(rule, [FactRow(at=NINE, entries=entries)]) == {
        ("2026-03", "clerk-1"): "85",
        ("2026-03", "clerk-2"): "70.5",
    }


def test_lengths_of_time_are_told_in_hours() -> None:
    rows = [FactRow(at=NINE, resolved_at=NINE + timedelta(hours=hours)) for hours in (1, 2, 2)]
    rule = a_rule("mean_duration_hours", "mean", of=lambda scope: scope.resolved_at - scope.at)

    assert figures_of(rule, rows) == {("2026-03", None): "1.67"}


def test_sums_of_money_are_told_in_its_decimals() -> None:
    def amount(scope: Any) -> str:  # as expressions give money
        return f"{scope.fines_minor / 100:.2f}"

    rows = [FactRow(at=NINE, fines_minor=48_050), FactRow(at=NINE, fines_minor=1_000, count=2)]

    assert figures_of(a_rule(value="sum", of=amount), rows) == {("2026-03", None): "500.50"}
    assert figures_of(a_rule(value="mean", of=amount), rows) == {("2026-03", None): "166.83"}


def test_a_rate_divides_complaints_by_what_entries_say() -> None:
    tests = FactEntry(trigger="step:closing_review", at=NINE, by="quality", data={"tests": 400})
    rule = a_rule(
        "complaint_rate",
        "per",
        entries=("step:closing_review",),
        entries_when=(None,),
        of=lambda scope: scope.data["tests"],
        target="<= 0.01",
    )
    rows = [FactRow(at=NINE, entries=(tests,)), FactRow(at=NINE), FactRow(at=NINE, count=3)]

    [figure] = report_rows([rule], rows, SHANGHAI, UNTIL)

    assert (figure.value, figure.data["target_met"]) == ("0.0125", False)


def test_a_rate_per_an_unset_number_is_no_figure() -> None:
    assert figures_of(a_rule(value="per", of=None), [FactRow(at=NINE)]) == {}
    assert figures_of(a_rule(value="per", of="200"), [FactRow(at=NINE)]) == {("2026-03", None): "0.005"}


@pytest.mark.parametrize(
    ("period_of", "period"),
    [("received", "2026-02"), ("handled", "2026-03"), ("resolved", "2026-04"), ("due", "2026-05")],
)
def test_the_period_is_that_of_the_named_instant(period_of: str, period: str) -> None:
    months = {month: datetime(2026, month, 10, tzinfo=UTC) for month in (2, 3, 4, 5)}
    row = FactRow(at=months[2], handled_at=months[3], resolved_at=months[4], due_at=months[5])
    rule = a_rule(period_of=period_of, where=lambda _: True)

    figures = figures_of(rule, [row], datetime(2026, 6, 1, tzinfo=UTC))

    assert {key for key, value in figures.items() if value == "1"} == {(period, None)}
    assert figures["2026-06", None] == "0"


def test_what_comes_after_until_is_left_out() -> None:
    rows = [FactRow(at=UNTIL), FactRow(at=UNTIL + timedelta(microseconds=1))]

    assert figures_of(a_rule(), rows) == {("2026-03", None): "1"}


def test_dimensions_break_a_figure_down_and_each_stands_alone_too() -> None:
    rows = [
        FactRow(at=NINE, category="product", channel="phone", rating="satisfied", fields={"product": "loan"}),
        FactRow(at=NINE, category="staff_conduct", channel="branch", rating="satisfied"),
        FactRow(at=NINE, category="product", channel="phone", fields={"product": "card"}),
    ]
    rule = a_rule(by=("product", "channel", "staff_conduct", "satisfaction"))

    figures = report_rows([rule], rows, SHANGHAI, UNTIL)

    assert [figure.by for figure in figures] == [
        ("product", "channel", "staff_conduct", "satisfaction"),
        ("product",),
        ("channel",),
        ("staff_conduct",),
        ("satisfaction",),
    ]
    assert {figure.value for figure in figures} == {"3"}
    assert figures[0].data["parts"] == {
        "product": {"card": "1", "loan": "1"},
        "channel": {"branch": "1", "phone": "2"},
        "staff_conduct": {"staff_conduct": "1"},
        "satisfaction": {"satisfied": "2"},
    }
    assert figures[2].data["parts"] == {"channel": {"branch": "1", "phone": "2"}}


def test_a_row_that_cannot_be_evaluated_is_shown_not_swallowed() -> None:
    def fails(scope: Any) -> bool:
        if scope.severity is None:
            raise EvaluationError("severity is missing")
        return True

    rows = [FactRow(at=NINE), FactRow(at=NINE, severity="light")]

    [figure] = report_rows([a_rule(where=fails)], rows, SHANGHAI, UNTIL)

    assert (figure.value, figure.data) == ("1", {"failed": 1})


def test_expressions_may_read_the_tenants_choices() -> None:
    rule = a_rule(where=lambda scope: scope.escalated >= scope.settings["R38.33.most"])
    rows = [FactRow(at=NINE, escalated=2), FactRow(at=NINE, escalated=3)]

    [figure] = report_rows([rule], rows, SHANGHAI, UNTIL, settings={"R38.33.most": 3})

    assert figure.value == "1"


def test_a_condition_on_the_trigger_selects_entries() -> None:
    entries = tuple(
        FactEntry(trigger="replied", at=NINE, by="clerk", data={"final": final}) for final in (True, False, True)
    )
    rule = a_rule(entries=("replied",), entries_when=(lambda scope: scope.data["final"],))

    assert figures_of(rule, [FactRow(at=NINE, entries=entries)]) == {("2026-03", None): "2"}


def test_one_period_can_be_asked_for() -> None:
    tally = Tally(a_rule(), SHANGHAI, UNTIL, only=parse_period("2026-Q1"))
    for month in (1, 2, 4):
        tally.add(FactRow(at=datetime(2026, month, 10, tzinfo=UTC)))

    assert [(figure.period, figure.value) for figure in tally.figures()] == [("2026-Q1", "2")]


def test_halves_may_begin_in_december() -> None:
    rows = [FactRow(at=datetime(2026, 5, 31, 15, tzinfo=UTC)), FactRow(at=datetime(2025, 12, 1, tzinfo=UTC))]
    rule = a_rule(period="half", first_month=12)

    figures = figures_of(rule, rows, datetime(2026, 5, 31, 15, 59, tzinfo=UTC))

    assert figures == {("2025-12-01/2026-05-31", None): "2"}


REPORTS = [
    {
        "row": "fed_back",
        "clause": "R09.34",
        "value": "percent",
        "done": '!("R09.21" in breached)',
        "target": {"setting": "R09.34.target"},
    },
    {"row": "breaches", "clause": "R06.13", "value": "sum", "of": "=size(breached)", "period_of": "due"},
    {"row": "with_good_reason", "clause": "R06.13", "where": "late && good_reason"},
    {"row": "invalid", "clause": "R09.33", "where": 'severity == "invalid"', "period": "quarter"},
    {
        "row": "average_score",
        "clause": "R28.1",
        "value": "mean",
        "entries": "step:staff_scored",
        "of": "=[data.attitude, data.communication, data.problem_solving]",
        "subject": "=data.staff",
    },
    {"row": "losses", "value": "sum", "of": "=fields.loss_cny"},
    {"row": "hours", "value": "mean", "where": "resolved_at != null", "of": "=resolved_at - at"},
]


def test_rows_written_in_a_policy_are_counted() -> None:
    """From the document of a policy to the figures, through the real compiler."""
    policy = compile_policy(
        {
            "policy": 1,
            "title": "A hospital",
            "settings": {"R09.34.target": {"type": "text", "default": "100"}},
            "vocabulary": {
                "severities": {"invalid": ""},
                "fields": {"loss_cny": {"type": "money"}},
                "steps": {"staff_scored": ""},
            },
            "reports": REPORTS,
        }
    )
    scored = FactEntry(
        trigger="step:staff_scored",
        at=NINE,
        by="supervisor",
        data={"staff": "clerk-1", "attitude": 85, "communication": 90, "problem_solving": 80},
    )
    rows = [
        FactRow(at=NINE, clocks={"R09.21": "met"}, on_time=True, count=50, severity="invalid"),
        FactRow(at=NINE, clocks={"R09.19": "met"}, on_time=True, resolved_at=NINE + timedelta(hours=3)),
        FactRow(
            at=NINE,
            due_at=NINE + timedelta(days=7),
            breached=("R09.21",),
            late=True,
            good_reason=True,
            fields={"loss_cny": "4.50"},
            entries=(scored,),
        ),
    ]

    figures = report_rows(policy.reports, rows, SHANGHAI, UNTIL, settings=policy.settings)

    assert {(figure.row, figure.period, figure.subject): figure.value for figure in figures} == {
        ("fed_back", "2026-03", None): "98.08",
        ("breaches", "2026-03", None): "1",
        ("with_good_reason", "2026-03", None): "1",
        ("invalid", "2026-Q1", None): "50",
        ("average_score", "2026-03", "clerk-1"): "85",
        ("losses", "2026-03", None): "4.50",
        ("hours", "2026-03", None): "3",
    }
    assert figures[0].data == {"cases": 52, "done": 51, "target_met": False}


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [
        ("100", "100", True),
        ("99.999", "100", False),
        ("99.999", "100%", False),
        ("5", "<=5", True),
        ("5", "< 5", False),
        ("5", ">5", False),
        ("5.01", ">= 5", True),
    ],
)
def test_targets(value: str, target: str, met: bool) -> None:
    assert target_met(Decimal(value), target) is met


_rows = st.lists(
    st.builds(
        FactRow,
        at=st.integers(0, 88 * 24).map(lambda hours: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)),
        severity=st.sampled_from(["light", "medium", None]),
        channel=st.sampled_from(["phone", "web", None]),
        fines_minor=st.integers(0, 10_000),
        late=st.booleans(),
        count=st.integers(0, 5),
    ),
    max_size=20,
)


@given(_rows, st.randoms())
def test_the_order_of_rows_never_matters(rows: list[FactRow], random: Any) -> None:
    rules = [
        a_rule("total", by=("channel", "severity")),
        a_rule("share", "percent", done=lambda scope: not scope.late, target="90"),
        a_rule("mean", "mean", of=lambda scope: [scope.fines_minor, 7], subject=lambda scope: scope.severity),
    ]
    shuffled = list(rows)
    random.shuffle(shuffled)

    assert report_rows(rules, shuffled, SHANGHAI, UNTIL) == report_rows(rules, rows, SHANGHAI, UNTIL)


@given(_rows)
def test_parts_and_what_has_none_add_up_to_the_whole(rows: list[FactRow]) -> None:
    for figure in report_rows([a_rule(by=("channel",))], rows, SHANGHAI, UNTIL):
        without = sum(row.count for row in rows if row.channel is None and row.at and _month(row.at) == figure.period)
        assert int(figure.value) == without + sum(map(int, figure.data["parts"]["channel"].values()))


def _month(at: datetime) -> str:
    return f"{at.astimezone(SHANGHAI):%Y-%m}"

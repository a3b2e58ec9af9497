"""Turns of duties, changes of the class, and pay that is lost."""

from datetime import UTC, datetime
from typing import Any

from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec
from shared.engine.case import Case
from shared.engine.model import Actor, CountStamp, Entry, Standing
from shared.policy.compiling import compile_policy

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
SECTION = CalendarSection(zone="Asia/Shanghai", default="default", calendars={"default": CalendarSpec()})
BY = Actor(id="clerk", roles=("clerk",))


def a_case(document: str, case_kind: str = "complaint") -> Case:
    policy = compile_policy("policy: 1\ntitle: a policy\n" + document, calendar=SECTION)
    return Case({1: policy}, CalendarBook.of(SECTION), case_kind=case_kind)


def after(case: Case, *entries: tuple[str, datetime, dict[str, Any]]) -> Standing:
    at = NINE
    for place, (kind, at, data) in enumerate(entries):
        case.apply(Entry(seq=place + 1, kind=kind, at=at, by=BY, data=data))
    return case.standing(at)


REPORTS = """
duties:
  - {id: report, every: month, due: {day: 10, after: month}, proof: reported}
"""


def test_proof_that_names_its_month_leaves_the_next_month_open() -> None:
    case = a_case(REPORTS, "duty")
    case.begin_duties(NINE, datetime(2026, 5, 1, tzinfo=UTC))
    case.apply(Entry(seq=1, kind="reported", at=datetime(2026, 4, 8, 2, tzinfo=UTC), by=BY, data={"period": "2026-03"}))
    states = {clock.data["period"]: clock.state for clock in case.standing(datetime(2026, 4, 9, tzinfo=UTC)).clocks}
    assert states["2026-03"] == "met"
    assert states["2026-04"] == "running"


CLASSES = """
vocabulary: {severities: {ordinary: "", major: ""}}
organisation: {roles: {gm: {}}}
actions:
  - {id: tell, on: "class:severity", when: 'complaint.severity == "major"', do: [{kind: escalated, to: gm}]}
"""


def test_a_severity_stated_with_another_entry_is_a_change_of_class() -> None:
    standing = after(
        a_case(CLASSES), ("received", NINE, {"severity": "ordinary"}), ("accepted", NINE, {"severity": "major"})
    )
    assert [effect.to for effect in standing.effects] == ["gm"]


PAY = """
vocabulary: {fields: {pay_cny: {type: money}}}
penalties:
  rules:
    - id: pay
      on: resolved
      party: respondent
      impose: [{kind: pay_factor, factor: "0", of: =fields.pay_cny, data: {month: =complaint.received_at}}]
"""


def test_pay_of_an_unknown_amount_is_lost_all_the_same() -> None:
    standing = after(a_case(PAY), ("received", NINE, {}), ("resolved", datetime(2026, 4, 1, 2, tzinfo=UTC), {}))
    (lost,) = standing.penalties
    assert (lost.kind, lost.amount_minor, lost.data) == ("pay_factor", None, {"month": "2026-03", "factor": "0"})


SHARES = """
vocabulary: {fields: {base_cny: {type: money}}}
penalties:
  rules:
    - id: share
      on: penalty_decided
      clause: C.1
      party: respondent
      impose: [{kind: fine, percent_range: ["0", "100"], of: =fields.base_cny}]
"""


def test_an_amount_given_beside_its_percentage_is_taken_as_it_is() -> None:
    decision = {"clause": "C.1", "party": "respondent", "share_percent": "33", "amount_cny": "33.00"}
    received = {"fields": {"base_cny": "99.99"}}
    standing = after(a_case(SHARES), ("received", NINE, received), ("penalty_decided", NINE, decision))
    assert [one.amount_minor for one in standing.penalties] == [3300]


ROWS = """
vocabulary: {steps: {checked: ""}, data: {forms: int, late: int}}
reports:
  - {row: on_time, value: percent, entries: "step:checked", of: =data.forms, done: "=data.forms - data.late"}
"""


def test_a_share_may_be_told_by_numbers() -> None:
    assert compile_policy("policy: 1\ntitle: a policy\n" + ROWS, calendar=SECTION).reports[0].done is not None


SLICES = """
vocabulary: {steps: {loss_fixed: ""}}
subjects:
  - {id: losses, subject: seller, on: "step:loss_fixed", add: =data.loss_cny, window: year}
penalties:
  rules:
    - id: repaid
      on: "count:losses"
      party: seller
      impose:
        - kind: compensation
          of: =data.loss_cny
          tiers: [{to: "10000.00", percent: "20"}, {percent: "10"}]
          used: =count.before
"""


def test_slices_that_earlier_losses_used_up_are_passed_over() -> None:
    policy = compile_policy("policy: 1\ntitle: a policy\n" + SLICES, calendar=SECTION)
    earlier = CountStamp(subject="seller", before=800_000, added=500_000)
    case = Case({1: policy}, CalendarBook.of(SECTION), counter=lambda *_: earlier)
    standing = after(case, ("received", NINE, {}), ("step", NINE, {"step": "loss_fixed", "loss_cny": "5000.00"}))
    assert [one.amount_minor for one in standing.penalties] == [200_000 * 20 // 100 + 300_000 * 10 // 100]


VISITS = """
vocabulary: {steps: {visit: ""}}
clocks:
  - {id: visits, start: implemented, stop: "step:visit", within: 7d, repeat: {every: 7d, after_closing: true}}
  - {id: chases, start: implemented, stop: "step:visit", within: 7d, repeat: {every: 7d}}
"""


def test_a_series_goes_on_after_closing_only_where_the_policy_says_so() -> None:
    visit = ("step", NINE, {"step": "visit"})
    standing = after(a_case(VISITS), ("received", NINE, {}), ("implemented", NINE, {}), ("closed", NINE, {}), visit)
    assert [(clock.rule, clock.state) for clock in standing.clocks if clock.state == "running"] == [
        ("visits", "running")
    ]


def test_a_turn_that_begins_on_the_last_day_looked_at_is_owed() -> None:
    case = a_case(
        """
duties:
  - {id: statistics, every: month, proof: reported}
""",
        "duty",
    )
    case.begin_duties(NINE, datetime(2026, 4, 1, 2, tzinfo=UTC))
    periods = [clock.data["period"] for clock in case.standing(datetime(2026, 4, 1, 2, tzinfo=UTC)).clocks]
    assert periods == ["2026-03", "2026-04"]

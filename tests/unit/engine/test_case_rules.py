"""What rules see of a case: clauses of the class, breaches that were, counts that classify, shares of a penalty."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.engine.calendar import CalendarBook, CalendarSection
from shared.engine.case import Case
from shared.engine.model import Actor, CountStamp, Entry, Standing
from shared.policy.compiling import compile_policy

START = datetime(2026, 3, 9, 2, tzinfo=UTC)
CLERK = Actor(id="a-clerk")
BOOK = CalendarBook.of(CalendarSection())


def a_case(sections: Mapping[str, Any], *, before: int = 0, case_kind: str = "complaint") -> Case:
    policy = compile_policy({"policy": 1, "title": "A policy", **sections})

    def counter(rule: Any, subject: str, added: int, at: datetime) -> CountStamp:
        return CountStamp(subject=subject, before=before, added=added)

    return Case({policy.version: policy}, BOOK, policy_version=policy.version, case_kind=case_kind, counter=counter)


def enter(case: Case, seq: int, kind: str, hours: int = 0, by: Actor = CLERK, **data: Any) -> None:
    case.apply(Entry(seq=seq, kind=kind, at=START + timedelta(hours=hours), by=by, data=data))


def standing(case: Case, hours: int) -> Standing:
    return case.standing(START + timedelta(hours=hours))


def test_a_stated_class_bears_the_clause_of_its_word() -> None:
    case = a_case({"vocabulary": {"severities": {"complex": {"clause": "R04.8"}, "simple": "clear"}}})
    enter(case, 1, "received", severity="complex")
    assert case.classified().clauses == {"severity": "R04.8"}


def test_a_person_who_states_the_class_ends_the_rule_that_set_it() -> None:
    case = a_case(
        {
            "vocabulary": {"severities": {"light": "", "severe": {"clause": "R03.24"}}},
            "classification": [{"set": {"severity": "severe"}, "when": "complaint.anonymous", "clause": "R03.25"}],
        }
    )
    enter(case, 1, "received", anonymous=True)
    assert case.classified().clauses == {"severity": "R03.25"}
    enter(case, 2, "classified", severity="light")
    assert (case.classified().severity, case.classified().clauses) == ("light", {})


def test_a_gate_knows_a_breach_after_the_clock_has_run_again() -> None:
    case = a_case(
        {
            "vocabulary": {"steps": {"promised": "", "contacted": "", "taken_over": ""}},
            "clocks": [{"id": "promise", "start": "step:promised", "within": "1h", "stop": "step:contacted"}],
            "workflow": {"gates": [{"on": "step:taken_over", "when": '!("breach:promise" in seen)'}]},
        }
    )
    enter(case, 1, "received")
    enter(case, 2, "step", step="promised")
    taken_over = Entry(
        seq=5, kind="step", at=START + timedelta(hours=1), by=Actor(id="sales"), data={"step": "taken_over"}
    )
    assert case.refusal(taken_over) is not None  # at the due instant itself nothing is missed yet
    enter(case, 3, "step", hours=2, step="contacted")
    enter(case, 4, "step", hours=2, step="promised")
    later = Entry(seq=5, kind="step", at=START + timedelta(hours=3), by=Actor(id="sales"), data={"step": "taken_over"})
    assert case.refusal(later) is None


def test_a_gate_asks_in_which_role_an_earlier_entry_was_made() -> None:
    case = a_case(
        {
            "organisation": {"units": {"customer_service": ""}},
            "workflow": {
                "gates": [
                    {
                        "on": "assigned",
                        "when": '!entries.exists(e, e.kind == "investigated" && "customer_service" in e.roles)',
                    }
                ]
            },
        }
    )
    enter(case, 1, "received")
    enter(case, 2, "investigated", by=Actor(id="17", roles=("head",)))
    assigned = Entry(seq=4, kind="assigned", at=START, by=Actor(id="18"), data={})
    assert case.refusal(assigned) is not None
    enter(case, 3, "investigated", by=Actor(id="19", roles=("clerk",), unit="customer_service"))
    assert case.refusal(assigned) is None


def test_the_third_of_its_kind_is_classified_at_receipt() -> None:
    sections = {
        "vocabulary": {"severities": {"light": "", "medium": {"clause": "R03.25"}}},
        "subjects": [{"id": "same", "subject": "the issue", "on": "received"}],
        "classification": [
            {
                "set": {"severity": "medium"},
                "override": True,
                "when": "counts.same.count != null && counts.same.count >= 3",
                "clause": "R03.25",
            }
        ],
        "actions": [{"id": "told", "on": "class:severity", "do": [{"kind": "notified", "to": "complainant"}]}],
    }
    for before, severity in ((1, "light"), (2, "medium")):
        case = a_case(sections, before=before)
        enter(case, 1, "received", severity="light")
        assert case.classified().severity == severity
        told = [effect for effect in standing(case, 1).effects if effect.rule == "told"]
        assert len(told) == 1  # once, although the class was looked at twice


def test_a_share_falls_with_the_penalty_it_is_taken_of() -> None:
    case = a_case(
        {
            "vocabulary": {"severities": {"light": "", "medium": ""}},
            "penalties": {
                "rules": [
                    {
                        "id": "fine",
                        "on": "resolved",
                        "party": "clerk",
                        "while": 'complaint.severity == "light"',
                        "impose": [{"amount": "50.00"}],
                    },
                    {
                        "id": "share",
                        "on": "penalty:fine",
                        "party": "supervisor",
                        "impose": [{"percent": "20", "of": "=penalty.amount"}],
                    },
                ]
            },
        }
    )
    enter(case, 1, "received", severity="light")
    enter(case, 2, "resolved", outcome="upheld")
    assert [(one.party, one.amount_minor) for one in standing(case, 0).penalties] == [
        ("clerk", 5000),
        ("supervisor", 1000),
    ]
    enter(case, 3, "classified", severity="medium")
    assert standing(case, 0).penalties == ()


def test_a_turn_of_a_duty_says_who_owes_it() -> None:
    case = a_case(
        {
            "organisation": {"units": {"school_office": ""}},
            "duties": [{"id": "look", "every": "working_day", "owner": "school_office"}],
        },
        case_kind="duty",
    )
    case.begin_duties(START, START + timedelta(hours=1))
    (clock,) = standing(case, 1).clocks
    assert clock.data["owner"] == "school_office"
    assert clock.data["period"] == "2026-03-09"


def test_factors_of_one_clause_are_shown_as_one() -> None:
    multiply = [
        {"by": "0.8", "clause": "R03.27"},
        {"by": "2", "clause": "R03.22"},
        {"by": "2", "clause": "R03.22", "when": "complaint.anonymous"},
    ]
    for anonymous, amount, lost, multiplier in ((False, 16000, -20, "2"), (True, 32000, -40, "4")):
        case = a_case(
            {
                "penalties": {
                    "rules": [
                        {
                            "id": "fine",
                            "on": "resolved",
                            "party": "clerk",
                            "impose": [
                                {"amount": "100.00", "multiply": multiply},
                                {"kind": "points", "points": -10, "multiply": multiply[1:]},
                            ],
                        }
                    ]
                }
            }
        )
        enter(case, 1, "received", anonymous=anonymous)
        enter(case, 2, "resolved")
        fine, points = standing(case, 1).penalties
        assert (fine.amount_minor, fine.data["multiplier"], fine.multiplier_clause) == (amount, multiplier, "R03.22")
        assert (points.points, points.data["multiplier"], points.multiplier_clause) == (lost, multiplier, "R03.22")


def test_a_routing_by_what_an_entry_says_reaches_each_whom_it_names_whatever_it_says() -> None:
    case = a_case({"routing": [{"on": "assigned", "staff": "=data.to"}, {"on": "transferred", "unit": "=data.unit"}]})
    enter(case, 1, "received")
    enter(case, 2, "assigned", to=["s1", "s2"])
    enter(case, 3, "assigned", to="s3")
    enter(case, 4, "assigned", to=[])
    enter(case, 6, "transferred", unit=[["north"], {"name": "south"}])
    found = standing(case, 1)
    named = [(one.seq, one.unit or one.staff) for one in found.routing]
    assert named == [(2, "s1"), (2, "s2"), (3, "s3")]
    assert [(one.seq, one.detail) for one in found.problems] == [(6, "data.unit is not a text")]


@pytest.mark.parametrize(("asked", "parts"), [(3, 3), (120, 120), (121, 1), (10**15, 1), (-4, 1), (0, 1)])
def test_instalments_are_no_more_than_anybody_pays(asked: int, parts: int) -> None:
    paid = {"amount": "300.00", "kind": "compensation", "instalments": {"count": "=data.instalments"}}
    case = a_case({"penalties": {"rules": [{"id": "paid", "on": "compensated", "party": "shop", "impose": [paid]}]}})
    enter(case, 1, "received")
    enter(case, 2, "compensated", instalments=asked)
    found = standing(case, 1)
    assert len(found.penalties) == parts
    assert sum(one.amount_minor or 0 for one in found.penalties) == 30000
    assert bool(found.problems) == (asked not in (0, 3, 120))


def test_a_share_of_a_penalty_follows_the_appeal_and_is_owed_once() -> None:
    case = a_case(
        {
            "penalties": {
                "rules": [
                    {
                        "id": "fine",
                        "on": "resolved",
                        "party": "depot",
                        "impose": [{"amount": "400.00"}],
                        "appeal": {"within": "15d"},
                        "clause": "P01.8",
                    },
                    {
                        "id": "joint",
                        "on": "penalty:fine",
                        "party": "manager",
                        "impose": [{"percent": "30", "of": "=penalty.amount"}],
                    },
                ]
            }
        }
    )
    enter(case, 1, "received")
    enter(case, 2, "resolved", hours=1)
    assert [(one.party, one.amount_minor) for one in standing(case, 2).penalties] == [
        ("depot", 40000),
        ("manager", 12000),
    ]
    enter(case, 3, "penalty_appealed", hours=3, clause="P01.8", party="depot")
    enter(case, 4, "penalty_appeal_decided", hours=4, clause="P01.8", party="depot", amount_cny="200.00")
    owed: dict[str, int] = {}
    for one in standing(case, 5).penalties:
        owed[one.party] = owed.get(one.party, 0) + (one.amount_minor or 0)
    assert owed == {"depot": 20000, "manager": 6000}

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services.intake.domain.complaint import NormalisedComplaint
from services.intake.domain.created import created_draft
from services.intake.domain.normalising import normalise
from shared.engine.model import EffectView
from tests.unit.intake.test_normalising import NOW, a_policy

CASE = UUID(int=7)


def created(what: str | None = None, to: str | None = None, **data: Any) -> NormalisedComplaint:
    at = datetime(2026, 3, 2, tzinfo=UTC)
    effect = EffectView(key="k", rule="R1", clause="R03.9", kind="created", at=at, what=what, to=to, data=data)
    policy = a_policy(organisation={"units": {"ward_3": ""}})
    result = normalise(created_draft(effect, policy, CASE), policy, NOW)
    assert isinstance(result, NormalisedComplaint), result
    return result


def test_what_an_effect_says_becomes_the_complaint() -> None:
    complaint = created(
        kind="external",
        category="charges",
        severity="light",
        channel="web",
        respondent={"staff": "s1"},
        loss_cny="5.00",
    )
    assert (complaint.kind, complaint.category, complaint.severity, complaint.channel) == (
        "external",
        "charges",
        "light",
        "web",
    )
    assert complaint.respondent == {"staff": "s1"}
    assert complaint.fields["loss_cny"] == "5.00"
    assert complaint.reference == f"case:{CASE}"


def test_what_is_a_word_of_the_policy_is_meant_as_such() -> None:
    assert created("external").kind == "external"
    assert created("charges").category == "charges"
    assert created("something_else").category is None


def test_a_respondent_is_a_unit_where_the_policy_has_one_of_that_name() -> None:
    assert created(respondent="ward_3").respondent == {"unit": "ward_3"}
    assert created(to="s1").respondent == {"staff": "s1"}


def test_data_that_the_policy_does_not_know_stay_out() -> None:
    assert created(overdue_days=3, nothing={"x": 1}).fields == {"has_contact": False, "has_name": False}

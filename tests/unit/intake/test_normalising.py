from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain.complaint import TEXT_LIMIT, Draft, NormalisedComplaint
from services.intake.domain.normalising import normalise
from shared.policy.schema import Policy

NOW = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)


def a_policy(**sections: Any) -> Policy:
    base: dict[str, Any] = {
        "policy": 1,
        "title": "A hospital",
        "vocabulary": {
            "kinds": {"external": ""},
            "categories": {"service_attitude": {"label": {"zh": "服务态度", "en": "Attitude"}}, "charges": ""},
            "severities": {"light": "", "complex": ""},
            "fields": {
                "loss_cny": {"type": "money"},
                "rounds": {"type": "int"},
                "signed": {"type": "bool"},
                "since": {"type": "date"},
                "court_since": {"type": "instant"},
                "materials": {"type": "list"},
                "place": {"type": "text"},
                "standing": {"type": "name", "values": ["agent", "directly_harmed"]},
                "misconduct": {"type": "name"},
                "complainant_name": {"type": "text", "personal": True},
                "has_name": {"type": "bool"},
                "has_contact": {"type": "bool"},
            },
        },
        "intake": {"channels": {"phone": "", "web": "", "email": ""}},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return msgspec.convert(base, Policy)


def taken(policy: Policy | None = None, **draft: Any) -> NormalisedComplaint:
    result = normalise(msgspec.convert({"channel": "phone", **draft}, Draft), policy or a_policy(), NOW)
    assert isinstance(result, NormalisedComplaint), result
    return result


def refused(policy: Policy | None = None, **draft: Any) -> list[str]:
    result = normalise(msgspec.convert({"channel": "phone", **draft}, Draft), policy or a_policy(), NOW)
    assert not isinstance(result, NormalisedComplaint)
    return [fault.pointer for fault in result]


def test_a_complaint_in_the_policys_words_is_taken() -> None:
    complaint = taken(
        kind="external",
        category="service_attitude",
        severity="light",
        text="等了三个小时",
        complainant={"name": "张三", "phone": "138 1234 1111", "type": "patient"},
        respondent={"staff": "nurse-1", "unit": "ward_3"},
        fields={"loss_cny": "480.00", "rounds": 2, "signed": True, "materials": ["bill"]},
    )
    assert complaint.contact.phone == "+8613812341111"
    assert complaint.contact.name == "张三"
    assert complaint.complainant_type == "patient"
    assert complaint.respondent == {"staff": "nurse-1", "unit": "ward_3"}
    assert complaint.fields == {
        "loss_cny": "480.00",
        "rounds": 2,
        "signed": True,
        "materials": ["bill"],
        "has_name": True,
        "has_contact": True,
    }


@pytest.mark.parametrize(
    ("draft", "pointer", "suggestion"),
    [
        ({"channel": "phnoe"}, "/channel", "phone"),
        ({"kind": "extrenal"}, "/kind", "external"),
        ({"category": "service_atitude"}, "/category", "service_attitude"),
        ({"severity": "Complex"}, "/severity", "complex"),
        ({"fields": {"los_cny": "1.00"}}, "/fields/los_cny", "loss_cny"),
        ({"fields": {"standing": "agnet"}}, "/fields/standing", "agent"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest_known_one(
    draft: dict[str, Any], pointer: str, suggestion: str
) -> None:
    result = normalise(msgspec.convert({"channel": "phone", **draft}, Draft), a_policy(), NOW)
    assert not isinstance(result, NormalisedComplaint)
    assert [(fault.pointer, fault.suggestion) for fault in result] == [(pointer, suggestion)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_cny", 480),
        ("loss_cny", "480,00"),
        ("loss_cny", "NaN"),
        ("loss_cny", "١٢"),
        ("rounds", True),
        ("rounds", 1.5),
        ("rounds", 2**60),
        ("signed", 1),
        ("since", "2026-02-30"),
        ("since", "2026-3-2"),
        ("court_since", "2026-01-15T09:00:00"),
        ("materials", "bill"),
        ("materials", ["x"] * 101),
        ("place", "two\nlines"),
        ("place", "x" * 201),
        ("place", "abc\u202egpj"),
        ("misconduct", "Not A Name"),
        ("complainant_name", 7),
    ],
)
def test_a_value_of_another_type_is_refused_at_its_field(name: str, value: Any) -> None:
    assert refused(fields={name: value}) == [f"/fields/{name}"]


def test_all_faults_are_told_at_once_and_none_repeats_what_was_written() -> None:
    draft = {
        "kind": "secret-kind",
        "complainant": {"phone": "secret-phone", "email": "secret@@mail"},
        "fields": {"rounds": "secret-number"},
    }
    result = normalise(msgspec.convert({"channel": "phone", **draft}, Draft), a_policy(), NOW)
    assert not isinstance(result, NormalisedComplaint)
    assert [fault.pointer for fault in result] == [
        "/kind",
        "/complainant/phone",
        "/complainant/email",
        "/fields/rounds",
    ]
    assert not any("secret" in f"{fault.detail}{fault.suggestion}" for fault in result)


def test_a_personal_field_goes_to_the_vault_and_not_onto_the_timeline() -> None:
    complaint = taken(fields={"complainant_name": "李四"})
    assert complaint.personal_fields == {"complainant_name": "李四"}
    assert "complainant_name" not in complaint.fields


def test_an_anonymous_complaint_carries_no_contact() -> None:
    assert refused(anonymous=True, complainant={"phone": "13812341111"}) == ["/anonymous"]
    assert taken(anonymous=True, text="x").anonymous


def test_a_policy_that_refuses_anonymous_complaints_is_obeyed() -> None:
    assert refused(a_policy(intake={"anonymous": "refuse"}), anonymous=True) == ["/anonymous"]


def test_a_text_is_stored_as_it_was_written_but_for_its_normal_form() -> None:
    assert taken(text="e\u0301\r\nﷺ＝").text == "é\nﷺ＝"


@pytest.mark.parametrize("text", ["a\x00b", "a\x1b[31m", "\ufffe", "\x9b"])
def test_a_text_with_control_characters_is_refused(text: str) -> None:
    assert refused(text=text) == ["/text"]


def test_the_limit_of_a_text_counts_after_normalisation() -> None:
    assert taken(text="e\u0301" * TEXT_LIMIT).text == "é" * TEXT_LIMIT
    assert refused(text="é" * (TEXT_LIMIT + 1)) == ["/text"]


def test_nothing_was_received_later_than_now() -> None:
    assert taken(received_at=(NOW - timedelta(days=3)).isoformat()).received_at == NOW - timedelta(days=3)
    assert taken(received_at=(NOW + timedelta(minutes=5)).isoformat()).received_at == NOW
    late = (NOW + timedelta(minutes=5, microseconds=1)).isoformat()
    assert refused(received_at=late) == ["/received_at"]


def test_labels_and_texts_are_read_where_a_channel_carries_what_people_write() -> None:
    draft = msgspec.convert(
        {
            "category": "服务态度",
            "fields": {"signed": "是", "loss_cny": "¥1,200.50", "materials": "票据；录音", "since": "2026/3/2"},
        },
        Draft,
    )
    complaint = normalise(draft, a_policy(), NOW, channel="phone", from_text=True)
    assert isinstance(complaint, NormalisedComplaint)
    assert complaint.category == "service_attitude"
    assert complaint.fields["signed"] is True
    assert complaint.fields["loss_cny"] == "1200.50"
    assert complaint.fields["materials"] == ["票据", "录音"]
    assert complaint.fields["since"] == "2026-03-02"


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=50) | st.integers() | st.booleans() | st.none(), max_size=8)
)
def test_whatever_the_own_fields_hold_a_complaint_is_taken_or_its_faults_point_at_them(fields: dict[str, Any]) -> None:
    result = normalise(Draft(channel="phone", fields=fields), a_policy(), NOW)
    if isinstance(result, NormalisedComplaint):
        assert set(fields) <= {name for name, value in fields.items() if value is None} | set(result.fields) | set(
            result.personal_fields
        )
    else:
        assert all(fault.path[0] == "fields" for fault in result)


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_makes_normalising_fail(text: str, name: str) -> None:
    result = normalise(Draft(channel="phone", text=text, kind=name[:100], reference=name[:100]), a_policy(), NOW)
    if isinstance(result, NormalisedComplaint):
        assert "\x00" not in (result.text or "")

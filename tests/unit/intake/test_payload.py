from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.domain.complaint import Draft, Fault
from services.intake.domain.payload import Mapped, draft_of, mapped_draft, mapping_faults, origin

CALL_CENTRE = msgspec.convert(
    {
        "map": {
            "channel": {"value": "phone"},
            "text": {"at": "/call/summary"},
            "complainant.phone": {"at": "/call/from"},
            "complainant.name": {"at": "/customer/0/name"},
            "category": {"at": "/type", "values": {"1": "service_attitude", "2": "charges", "*": "other"}},
            "fields.loss_cny": {"at": "/loss"},
            "received_at": {"at": "/time", "time": "%Y%m%d%H%M%S", "zone": "Asia/Shanghai"},
            "anonymous": {"at": "/hidden"},
        }
    },
    Mapped,
)


def test_a_call_centres_own_form_becomes_a_draft() -> None:
    payload = {
        "call": {"summary": "等了很久", "from": 13812341111},
        "customer": [{"name": "张三"}],
        "type": 2,
        "loss": "12.00",
        "time": "20260302101500",
        "hidden": "0",
        "unknown": {"deep": [1]},
    }
    draft = mapped_draft(CALL_CENTRE, payload)
    assert isinstance(draft, Draft)
    assert (draft.channel, draft.category, draft.text, draft.fields) == (
        "phone",
        "charges",
        "等了很久",
        {"loss_cny": "12.00"},
    )
    assert draft.complainant is not None
    assert (draft.complainant.phone, draft.complainant.name) == ("13812341111", "张三")
    assert draft.received_at is not None
    assert draft.received_at.isoformat() == "2026-03-02T02:15:00+00:00"
    assert draft.anonymous is False


@pytest.mark.parametrize(
    ("time", "value", "expected"),
    [
        ("rfc3339", "2026-03-02T10:00:00+08:00", "2026-03-02T10:00:00+08:00"),
        ("epoch_seconds", 1772416800, "2026-03-02T02:00:00+00:00"),
        ("epoch_milliseconds", "1772416800000", "2026-03-02T02:00:00+00:00"),
    ],
)
def test_instants_are_read_as_the_sender_writes_them(time: str, value: Any, expected: str) -> None:
    mapped = msgspec.convert({"map": {"received_at": {"at": "/t", "time": time}}}, Mapped)
    draft = mapped_draft(mapped, {"t": value})
    assert isinstance(draft, Draft)
    assert draft.received_at is not None
    assert draft.received_at.isoformat() == expected


@pytest.mark.parametrize("value", ["tomorrow", "", "9" * 30, None, {}, "2026-13-45T00:00:00Z"])
def test_an_instant_that_is_none_is_a_fault_at_its_place(value: Any) -> None:
    mapped = msgspec.convert({"map": {"received_at": {"at": "/call/time"}}}, Mapped)
    result = mapped_draft(mapped, {"call": {"time": value}})
    if value in ("", None):
        assert isinstance(result, Draft)
    else:
        assert isinstance(result, tuple)
        assert [fault.pointer for fault in result] == ["/call/time"]


def test_a_fault_of_the_draft_is_told_where_the_sender_wrote_it() -> None:
    assert origin(CALL_CENTRE, Fault(("complainant", "phone"), "x")).pointer == "/call/from"
    assert origin(CALL_CENTRE, Fault(("fields", "loss_cny", "0"), "x")).pointer == "/loss/0"
    assert origin(CALL_CENTRE, Fault(("channel",), "x")).pointer == "/channel"


@pytest.mark.parametrize(
    ("mapping", "pointer"),
    [
        ({"complainant.fone": {"at": "/x"}}, "/map/complainant.fone"),
        ({"fields.a.b": {"at": "/x"}}, "/map/fields.a.b"),
        ({"text": {}}, "/map/text"),
        ({"received_at": {"at": "/x", "zone": "Asia/Shangai"}}, "/map/received_at/zone"),
        ({"received_at": {"at": "/x", "zone": "../../etc/passwd"}}, "/map/received_at/zone"),
        ({"received_at": {"at": "/x", "time": "%Q"}}, "/map/received_at/time"),
    ],
)
def test_a_mapping_is_checked_when_it_is_saved(mapping: dict[str, Any], pointer: str) -> None:
    faults = mapping_faults(msgspec.convert({"map": mapping}, Mapped))
    assert [fault.pointer for fault in faults] == [pointer]


def test_the_mapping_of_the_tests_is_without_fault() -> None:
    assert mapping_faults(CALL_CENTRE) == ()


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"anonymous": "maybe"}, "/anonymous"),
        ({"complainant": {"phone": 1}}, "/complainant/phone"),
        ({"attachments": [{"name": "x", "content": 7}]}, "/attachments/0/content"),
        ({"unknown": 1}, ""),
    ],
)
def test_a_wrong_form_is_a_fault_at_its_place(value: dict[str, Any], pointer: str) -> None:
    result = draft_of(value)
    assert isinstance(result, tuple)
    assert [fault.pointer for fault in result] == [pointer]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["call", "type", "customer", "time", "loss"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_payload_makes_a_mapping_fail(payload: Any) -> None:
    result = mapped_draft(CALL_CENTRE, payload)
    assert isinstance(result, Draft) or all(isinstance(fault, Fault) for fault in result)

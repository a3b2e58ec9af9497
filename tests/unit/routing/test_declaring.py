"""Whether an entry speaks the policy's language."""

from __future__ import annotations

from typing import Any

import pytest

from services.routing.domain.allowing import ask, candidates
from services.routing.domain.declaring import problems
from shared.engine.calendar import CalendarBook
from shared.engine.case import Case
from shared.engine.model import Actor, Entry
from shared.policy.compiling import compile_policy
from tests.unit.routing.examples import NINE, SHOP

POLICY = compile_policy(SHOP)


def found(kind: str, **data: Any) -> list[tuple[str, str | None]]:
    return [(error.pointer, error.suggestion) for error in problems(POLICY, kind, data)]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("replied", {"solved": True, "amount_cny": "480.00", "by": "2026-03-05T18:00:00+08:00", "date": "2026-03-05"}),
        ("step", {"step": "callback", "documents": ["receipt"], "score": 5}),
        ("resolved", {"outcome": "upheld", "reasons": None}),
        ("resolved", {"outcome": "goodwill"}),
        ("classified", {"severity": "grave", "fields": {"order": "17", "loss": "12.50", "branch": "north"}}),
        ("commented", {"own_word": "x", "evidence": {"kind": ["photo", 2, True]}}),
        ("approved", {"step": "decision"}),
    ],
)
def test_declared_words_pass(kind: str, data: dict[str, Any]) -> None:
    assert found(kind, **data) == []


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("acepted", {}, [("/kind", "accepted")]),
        ("received", {}, [("/kind", None)]),
        ("policy_changed", {}, [("/kind", None)]),
        ("step", {}, [("/data/step", None)]),
        ("step", {"step": "calback"}, [("/data/step", "callback")]),
        ("approved", {"step": "decison"}, [("/data/step", "decision")]),
        ("replied", {"solvd": True}, [("/data/solvd", "solved")]),
        ("replied", {"solved": "yes"}, [("/data/solved", None)]),
        ("resolved", {"outcome": "upheldd"}, [("/data/outcome", "upheld")]),
        ("classified", {"severity": "grav"}, [("/data/severity", "grave")]),
        ("replied", {"amount_cny": "1e3"}, [("/data/amount_cny", None)]),
        ("replied", {"amount_cny": "1.005"}, [("/data/amount_cny", None)]),
        ("replied", {"by": "2026-03-05T18:00:00"}, [("/data/by", None)]),
        ("replied", {"by": "9999-12-31T23:59:59Z"}, [("/data/by", None)]),
        ("replied", {"by": "0001-01-01T00:00:00+14:00"}, [("/data/by", None)]),
        ("replied", {"date": "2026-02-30"}, [("/data/date", None)]),
        ("replied", {"score": 4.5}, [("/data/score", None)]),
        ("replied", {"documents": ["a", 1]}, [("/data/documents/1", None)]),
        ("replied", {"reason": "x" * 501}, [("/data/reason", None)]),
        ("replied", {"reason": "a\x00b"}, [("/data/reason", None)]),
        ("replied", {"evidence": [[[[[[[["deep"]]]]]]]]}, [("/data/evidence", None)]),
        ("classified", {"fields": {"odrer": "1"}}, [("/data/fields/odrer", "order")]),
        ("classified", {"fields": {"branch": "nort"}}, [("/data/fields/branch", "north")]),
        ("classified", {"fields": {"id_number": "1"}}, [("/data/fields/id_number", None)]),
        ("classified", {"fields": ["order"]}, [("/data/fields", None)]),
        ("commented", {"a/b~c": 1}, [("/data/a~1b~0c", None)]),
    ],
)
def test_what_is_not_declared_is_pointed_at(
    kind: str, data: dict[str, Any], expected: list[tuple[str, str | None]]
) -> None:
    assert found(kind, **data) == expected


def test_every_kind_and_step_is_asked_of_the_gates_and_the_case_stays_as_it_is() -> None:
    case = Case({1: POLICY}, CalendarBook.of(POLICY.document.calendar))
    case.apply(Entry(seq=1, kind="received", at=NINE, by=Actor(id="intake"), data={"channel": "phone"}))
    before = case.standing(NINE)
    probe = Entry(seq=2, kind="commented", at=NINE, by=Actor(id="a"))
    answers = {
        (each.kind, each.step): each for each in ask(case, Actor(id="a", roles=("clerk",)), candidates(POLICY), probe)
    }
    assert answers["closed", None].reason == "beyond_authority"
    assert answers["closed", None].clause == "X.1"
    assert answers["replied", None].allowed
    assert answers["step", "callback"].allowed
    assert ("approved", "decision") in answers
    assert not {"received", "counted", "policy_changed"} & {kind for kind, _ in answers}
    assert ("step", None) not in answers
    assert case.standing(NINE) == before

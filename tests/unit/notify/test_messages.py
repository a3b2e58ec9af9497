"""Message rules looked at on a folded case: who is told what, and with which values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from services.notify.domain import moments
from services.notify.domain.messages import Wanted, is_told, messages
from services.notify.domain.wording import fill, values
from shared.engine.calendar import CalendarBook, CalendarSpec, Counting, Revision
from shared.engine.case import Case, replay
from shared.engine.model import Actor, EffectView, Entry, PenaltyView
from shared.engine.rules import CompiledPolicy
from shared.policy.compiling import compile_policy

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
SHANGHAI = ZoneInfo("Asia/Shanghai")
CLERK = Actor(id="clerk", roles=("handler",), unit="centre")


def calendars() -> CalendarBook:
    always = Revision(published_at=datetime(2000, 1, 1, tzinfo=UTC), spec=CalendarSpec())
    return CalendarBook("Asia/Shanghai", {"default": [always]}, default="default", counting=Counting())


def a_policy(*rules: dict[str, Any], **sections: Any) -> CompiledPolicy:
    return compile_policy(
        {
            "policy": 1,
            "title": "A regime",
            "clocks": [
                {
                    "id": "reply",
                    "start": "received",
                    "within": "3d",
                    "stop": "replied",
                    "title": {"en": "Reply", "zh": "答复"},
                }
            ],
            "messages": list(rules),
            **sections,
        }
    )


def a_rule(**changes: Any) -> dict[str, Any]:
    return {"id": "m", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "x", **changes}


def entry(seq: int, kind: str, hours: int = 0, **data: Any) -> Entry:
    return Entry(seq=seq, kind=kind, at=NINE + timedelta(hours=hours), by=CLERK, data=data)


RECEIVED = entry(
    1,
    "received",
    channel="phone",
    severity="light",
    complainant={"id": "c-1", "type": "customer"},
    respondent={"staff": "s1", "unit": "u1"},
    handler={"unit": "u2"},
    fields={},
)


def wanted(policy: CompiledPolicy, *entries: Entry, effect: EffectView | None = None) -> list[Wanted]:
    case, moment = at_moment(policy, *entries, effect=effect)
    return messages(case, moment, case.standing(moment.at)) if is_told(policy, moment) else []


def at_moment(policy: CompiledPolicy, *entries: Entry, effect: EffectView | None = None) -> tuple[Case, moments.Moment]:
    moment = moments.of_entry(entries[-1]) if effect is None else moments.of_effect(effect)
    return replay({1: policy}, entries, calendars()), moment


def told(found: list[Wanted]) -> list[tuple[str, str, str, str]]:
    return [(each.rule, each.audience, each.addressee, each.channel) for each in found]


def test_without_rules_nobody_is_told() -> None:
    assert wanted(a_policy(), RECEIVED) == []


@pytest.mark.parametrize(
    ("to", "addressees"),
    [
        (["complainant"], [("complainant", "c-1")]),
        (["respondent"], [("respondent", "s1")]),
        (["handler"], [("handler", "u2")]),
        (["leader"], [("leader", "leader")]),
        (["=complaint.respondent.unit"], [("u1", "u1")]),
        (["=complaint.outcome"], []),
        (["complainant", "leader", "complainant"], [("complainant", "c-1"), ("leader", "leader")]),
        (["u2", "handler"], [("u2", "u2")]),
    ],
)
def test_whom_the_words_of_a_rule_mean(to: list[str], addressees: list[tuple[str, str]]) -> None:
    found = wanted(a_policy(a_rule(to=to)), RECEIVED)
    assert [(each.audience, each.addressee) for each in found] == addressees


ORGANISATION = {
    "units": {"u1": {"head": "chief"}, "u2": {"head": "head_of_two"}, "u3": ""},
    "roles": {"chief": "", "head_of_two": ""},
    "groups": {"panel": {"members": ["chief", "u3"]}},
}


@pytest.mark.parametrize(
    ("to", "addressees"),
    [
        ("handler_head", ["head_of_two"]),
        ("respondent_supervisor", ["chief"]),
        ("panel", ["chief", "u3"]),
    ],
)
def test_heads_and_groups_are_found_through_the_organisation(to: str, addressees: list[str]) -> None:
    found = wanted(a_policy(a_rule(to=[to]), organisation=ORGANISATION), RECEIVED)
    assert [(each.audience, each.addressee) for each in found] == [(to, each) for each in addressees]


def test_a_head_who_is_known_by_name_is_told_and_a_unit_without_one_tells_nobody() -> None:
    people = {"handler": {"unit": "u2", "head": "h9"}, "respondent": {"unit": "u3"}}
    received = msgspec.structs.replace(RECEIVED, data={**RECEIVED.data, **people})
    policy = a_policy(a_rule(to=["handler_head", "respondent_supervisor"]), organisation=ORGANISATION)
    assert [each.addressee for each in wanted(policy, received)] == ["h9"]


def test_an_assignment_makes_the_handler() -> None:
    found = wanted(a_policy(a_rule(on="assigned", to=["handler"])), RECEIVED, entry(2, "assigned", 1, staff="h7"))
    assert [each.addressee for each in found] == ["h7"]


def test_each_channel_is_a_message_and_the_webhook_one_whoever_is_named() -> None:
    rule = a_rule(to=["complainant", "leader"], channel=["sms", "email", "webhook"])
    assert told(wanted(a_policy(rule), RECEIVED)) == [
        ("m", "complainant", "c-1", "sms"),
        ("m", "complainant", "c-1", "email"),
        ("m", "leader", "leader", "sms"),
        ("m", "leader", "leader", "email"),
        ("m", "subscribers", "", "webhook"),
    ]


def test_the_webhook_is_told_although_nobody_else_is_known() -> None:
    nobody = msgspec.structs.replace(RECEIVED, data={"channel": "web", "anonymous": True})
    rule = a_rule(to=["respondent"], channel=["sms", "webhook"])
    assert told(wanted(a_policy(rule), nobody)) == [("m", "subscribers", "", "webhook")]


@pytest.mark.parametrize(
    ("on", "kind", "data", "expected"),
    [
        ("accepted", "accepted", {}, 1),
        ("accepted", "declined", {}, 0),
        ("step:callback", "step", {"step": "callback"}, 1),
        ("step:callback", "step", {"step": "visit"}, 0),
        (["closed", "step:callback"], "closed", {}, 1),
        ({"on": "resolved", "when": 'data.outcome == "upheld"'}, "resolved", {"outcome": "upheld"}, 1),
        ({"on": "resolved", "when": 'data.outcome == "upheld"'}, "resolved", {"outcome": "not_upheld"}, 0),
    ],
)
def test_triggers(on: Any, kind: str, data: dict[str, Any], expected: int) -> None:
    policy = a_policy(a_rule(on=on), vocabulary={"steps": {"callback": "called back", "visit": "visited"}})
    assert len(wanted(policy, RECEIVED, entry(2, kind, 1, **data))) == expected


def test_a_condition_sees_the_entry_that_is_told_of_and_who_made_it() -> None:
    rule = a_rule(on="closed", when='"handler" in roles && actor_unit == "centre" && seen["closed"] == 1')
    policy = a_policy(rule, workflow={"states": [{"state": "closed", "on": "closed"}]})
    assert len(wanted(policy, RECEIVED, entry(2, "closed", 1))) == 1


def test_a_condition_that_cannot_be_evaluated_tells_nobody_and_is_a_visible_problem() -> None:
    policy = a_policy(a_rule(on="received", when='last["proposed"].data.score > 3'))
    case, moment = at_moment(policy, RECEIVED)
    assert messages(case, moment, case.standing(NINE)) == []
    assert [problem.rule for problem in case.standing(NINE).problems] == ["m"]


EFFECT = EffectView(
    key="reply/1",
    rule="reply",
    clause=["R99.1", "R99.2"],
    kind="escalated",
    at=NINE + timedelta(days=3),
    to="leader",
    what="late",
)


@pytest.mark.parametrize(
    ("on", "expected"),
    [("effect:escalated", 1), ("effect:warned", 0), ("escalated", 0)],
)
def test_effects(on: str, expected: int) -> None:
    found = wanted(a_policy(a_rule(on=on, to=["=data.to"])), RECEIVED, effect=EFFECT)
    assert [each.addressee for each in found] == ["leader"] * expected


def test_an_endpoint_may_ask_for_an_effect_by_what_it_is_about() -> None:
    assert moments.of_effect(EFFECT).triggers == ("effect:escalated", "effect:escalated:late")


def test_a_withdrawal_is_its_own_moment() -> None:
    moment = moments.of_effect(EFFECT, withdrawn=True)
    assert moment.triggers == ("effect:withdrawn",)
    assert moment.source == "reply/1"


def test_a_posting_says_what_it_costs_whom() -> None:
    view = PenaltyView(key="p", rule="late", clause="R99.3", party="s1", kind="fine", at=NINE, amount_minor=48_000)
    moment = moments.of_penalty(view, NINE)
    assert moment.triggers == ("effect:penalty", "penalty:late")
    assert dict(moment.words) == {"amount": "480.00 CNY", "party": "s1", "clause": "R99.3"}


def filled(template: str, policy: CompiledPolicy, *entries: Entry, language: str = "en", **changes: Any) -> str:
    case, moment = at_moment(policy, *entries, effect=changes.pop("effect", None))
    stored = values(case, case.standing(moment.at), moment, "N-1")
    wire = msgspec.json.decode(msgspec.json.encode(stored))  # as it comes out of the database
    return fill(template, wire, policy, organisation="Bank", zone=SHANGHAI, language=language, **changes)


def test_what_a_template_says_of_a_received_complaint() -> None:
    policy = a_policy(
        vocabulary={"severities": {"light": {"label": {"en": "minor", "zh": "轻微"}}, "complex": "complex"}}
    )
    template = "{{ organisation }} {{ number }} {{ severity }} {{ channel }} {{ received_at }} {{ due_at }} {{ clocks.reply.state }}"
    assert filled(template, policy, RECEIVED) == (
        "Bank N-1 minor phone 2 March 2026, 09:00 5 March 2026, 23:59 running"
    )
    assert filled("{{ severity }} {{ due_at }}", policy, RECEIVED, language="zh") == "轻微 2026年3月5日 23:59"


def test_what_a_template_says_of_an_effect() -> None:
    policy = a_policy(vocabulary={"tasks": {"late": {"label": {"en": "answer is late", "zh": "逾期"}}}})
    template = "{{ title }}: {{ what }} ({{ clause }}), due {{ due_at }}, at {{ at }}, to {{ data.to }}"
    text = "Reply: answer is late (R99.1, R99.2), due 5 March 2026, 23:59, at 5 March 2026, 09:00, to leader"
    assert filled(template, policy, RECEIVED, effect=EFFECT) == text
    assert filled("{{ title }} {{ what }}", policy, RECEIVED, effect=EFFECT, language="zh") == "答复 逾期"


def test_what_a_rung_does_is_told_as_its_clock() -> None:
    """The limit is missed, so it is no longer the next one owed: the message still names it and its own due time."""
    policy = a_policy(
        clocks=[
            {
                "id": "reply",
                "title": "Reply",
                "start": "received",
                "within": "3d",
                "stop": "replied",
                "steps": [{"after": "0h", "do": [{"kind": "escalated", "to": "handler"}]}],
            },
            {"id": "other", "title": "Other", "start": "received", "within": "9d", "stop": "closed"},
        ]
    )
    case = replay({1: policy}, [RECEIVED], calendars())
    (effect,) = case.standing(NINE + timedelta(days=4)).effects
    assert filled("{{ title }} {{ due_at }}", policy, RECEIVED, effect=effect) == "Reply 5 March 2026, 23:59"


def test_free_texts_restricted_and_personal_fields_are_never_values() -> None:
    fields = {
        "loss": {"type": "money"},
        "grade": {"type": "name", "values": ["a", "b"]},
        "story": {"type": "text"},
        "person": {"type": "name"},
        "secret": {"type": "int", "restricted": True},
        "id_number": {"type": "text", "personal": True},
    }
    given = {"loss": "5.00", "grade": "a", "story": "words", "person": "x", "secret": 1, "id_number": "42"}
    received = msgspec.structs.replace(
        RECEIVED, data={**RECEIVED.data, "fields": given, "text": "words", "plan": "words"}
    )
    case, moment = at_moment(a_policy(vocabulary={"fields": fields}), received)
    stored = values(case, case.standing(NINE), moment, "N-1")
    assert stored["fields"] == {"loss": "5.00", "grade": "a"}
    assert "words" not in repr(stored)
    assert "complainant" not in stored["data"]


def test_the_name_is_said_only_where_it_is_given_and_is_one() -> None:
    policy = a_policy()
    assert filled("Dear {{ name }}.", policy, RECEIVED, name="王芳") == "Dear 王芳."
    assert filled("Dear {{ name }}.", policy, RECEIVED, name="call 123456789") == "Dear ."
    assert filled("Dear {{ name }}.", policy, RECEIVED) == "Dear ."

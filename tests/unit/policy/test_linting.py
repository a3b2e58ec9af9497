"""Broken policies: each gives the right finding at the right place, with the way out where there is one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from shared.policy.linting import lint

SOUND: dict[str, Any] = {
    "policy": 1,
    "title": "A sound policy",
    "settings": {"reply.limit": {"type": "amount", "default": "3wd"}},
    "vocabulary": {
        "kinds": {"external": ""},
        "categories": {"attitude": "", "quality": ""},
        "severities": {"simple": "", "complex": ""},
        "fields": {"loss_cny": {"type": "money"}, "major": {"type": "bool"}},
        "steps": {"callback": "", "verified": ""},
        "states": {"received": "", "accepted": "", "resolved": "", "closed": ""},
        "sanctions": {"apology": ""},
        "tasks": {"look": ""},
    },
    "organisation": {"units": {"office": ""}, "roles": {"director": ""}},
    "intake": {"channels": {"phone": ""}, "decline_reasons": {"not_ours": ""}},
    "classification": [
        {"set": {"severity": "complex"}, "when": "fields.major == true"},
        {"set": {"severity": "simple"}},
    ],
    "routing": [{"unit": "office"}],
    "workflow": {"gates": [{"on": "closed", "by": ["director"], "reason": "forbidden"}]},
    "clocks": [
        {
            "id": "reply",
            "start": "received",
            "stop": "replied",
            "within": {"setting": "reply.limit"},
            "steps": [{"before": "1wd", "do": [{"kind": "warned", "to": "office"}]}],
        },
        {"id": "wait", "kind": "timer", "start": "resolved", "cancel": "reopened", "within": "3mo"},
    ],
    "actions": [{"id": "raise", "on": "breach:reply", "do": [{"kind": "escalated", "to": "director"}]}],
    "subjects": [
        {
            "id": "month",
            "subject": "=complaint.respondent.unit",
            "on": "resolved",
            "window": "calendar_month",
            "threshold": {"more_than": 3},
        }
    ],
    "penalties": {
        "rules": [
            {"id": "late", "on": "breach:reply", "party": "office", "impose": [{"kind": "fine", "amount": "50.00"}]},
            {
                "id": "many",
                "on": "count:month",
                "party": "director",
                "impose": [{"kind": "sanction", "sanction": "apology"}],
            },
        ]
    },
    "messages": [
        {
            "id": "thanks",
            "on": "received",
            "to": ["complainant"],
            "channel": ["sms"],
            "template": "We have {{ number }}.",
        }
    ],
    "duties": [{"id": "box", "every": "working_day", "proof": "step:verified", "owner": "office"}],
}


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The sound policy with values put at places; a list index equal to its length appends."""
    document = deepcopy(SOUND)
    for pointer, value in changes:
        here: Any = document
        *steps, last = pointer.split("/")
        for step in steps:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        if isinstance(here, list):
            here[int(last) : int(last) + 1] = [value]
        else:
            here[last] = value
    return document


def test_a_sound_policy_has_no_findings() -> None:
    assert lint(SOUND).problems == []


CLOCK = {"id": "other", "start": "accepted", "stop": "replied", "within": "5wd"}
BROKEN: list[tuple[str, list[tuple[str, Any]], str, str, str]] = [
    # what, changes, path, code, word of the message or the suggestion
    ("misspelt section", [("clokcs", [])], "/clokcs", "unknown-key", "clocks"),
    ("misspelt key", [("clocks/0/witin", "3wd")], "/clocks/0/witin", "unknown-key", "within"),
    ("wrong shape", [("clocks/0/again", "often")], "/clocks/0/again", "shape", "often"),
    ("unknown trigger", [("clocks/0/start", "recieved")], "/clocks/0/start", "unknown-trigger", "received"),
    ("step without its prefix", [("clocks/0/stop", "callback")], "/clocks/0/stop", "unknown-trigger", "step:callback"),
    ("unknown step", [("clocks/0/stop", "step:calback")], "/clocks/0/stop", "unknown-trigger", "step:callback"),
    ("amount with a blank", [("settings/reply.limit/default", "3 wd")], "/clocks/0/within", "amount", "3wd"),
    ("a word that does not fit", [("clocks/0/again", "restrat")], "/clocks/0/again", "shape", "restart"),
    ("a list forgotten", [("messages/0/channel", "sms")], "/messages/0/channel", "shape", "[sms]"),
    (
        "a whole number for money",
        [("penalties/rules/0/impose/0/amount", None), ("penalties/rules/0/impose/0/at_least", 50)],
        "/penalties/rules/0/impose/0/at_least",
        "shape",
        '"50"',
    ),
    (
        "a key of a mapping that is no date",
        [("calendar", {"calendars": {"default": {}, "other": {"exceptions": {"2026-12-24": [], "2026-13-01": []}}}})],
        "/calendar/calendars/other/exceptions/2026-13-01",
        "shape",
        "2026-12-24",
    ),
    (
        "a wrong type deep in a mapping",
        [("vocabulary/fields/size", {"type": "mony"})],
        "/vocabulary/fields/size/type",
        "shape",
        "money",
    ),
    ("a time of day", [("clocks/0/counting", {"cutoff": "5pm"})], "/clocks/0/counting/cutoff", "shape", "17:30"),
    (
        "something never seen",
        [("workflow/gates/0/when", '"repliet" in seen')],
        "/workflow/gates/0/when",
        "expression",
        "replied",
    ),
    (
        "a step never seen",
        [("workflow/gates/0/when", 'last["callback"].at != null')],
        "/workflow/gates/0/when",
        "expression",
        "step:callback",
    ),
    (
        "a party that nobody is",
        [("penalties/rules/0/party", "directr")],
        "/penalties/rules/0/party",
        "unknown-name",
        "director",
    ),
    ("an owner that nobody is", [("clocks/0/owner", ["=by", "offce"])], "/clocks/0/owner", "unknown-name", "office"),
    (
        "a head that nobody is",
        [("organisation/units/office", {"head": "directr"})],
        "/organisation/units/office/head",
        "unknown-name",
        "director",
    ),
    (
        "a unit above itself",
        [("organisation/units/office", {"parent": "office"})],
        "/organisation/units/office/parent",
        "cycle",
        "itself",
    ),
    ("a type that is none", [("vocabulary/data", {"days": "integer"})], "/vocabulary/data/days", "unknown-name", "int"),
    (
        "a series without end",
        [("clocks/0/repeat", {"every": "1mo", "count": 999_999})],
        "/clocks/0/repeat/count",
        "endless",
        "400",
    ),
    (
        "an acceptance by the clock",
        [("intake/acceptance_rules", [{"on": "breach:reply", "accepted": True}])],
        "/intake/acceptance_rules/0/on",
        "unreachable",
        "start: [accepted, breach:reply]",
    ),
    ("a series of nothing", [("clocks/0/repeat", {"every": "0d"})], "/clocks/0/repeat/every", "endless", "never ends"),
    (
        "a limit that never ends",
        [("calendar", {"calendars": {"default": {"hours": {"mon": ["09:00-09:01"]}}}}), ("clocks/0/within", "60bh")],
        "/clocks/0/within",
        "never-ends",
        "20 years",
    ),
    (
        "too many instalments",
        [("penalties/rules/0/impose/0/instalments", {"count": 1_000_000})],
        "/penalties/rules/0/impose/0/instalments/count",
        "penalty-amount",
        "120",
    ),
    (
        "a factor in words",
        [("penalties/rules/0/impose/0/multiply", [{"by": "twice"}])],
        "/penalties/rules/0/impose/0/multiply/0/by",
        "penalty-amount",
        "0.5",
    ),
    (
        "a day that is none",
        [("duties/0/windows", [{"window": "02-30/03-10"}])],
        "/duties/0/windows/0/window",
        "shape",
        "02-30",
    ),
    (
        "a stage that is none",
        [("guidance", [{"clause": "R98.1", "text": "x", "stage": "recieved"}])],
        "/guidance/0/stage",
        "unknown-name",
        "received",
    ),
    (
        "unknown field",
        [("classification/0/when", "fields.mayor == true")],
        "/classification/0/when",
        "expression",
        "major",
    ),
    (
        "wrong type",
        [("classification/0/when", 'fields.loss_cny > "100"')],
        "/classification/0/when",
        "expression",
        "money",
    ),
    (
        "unknown value",
        [("classification/0/when", 'complaint.category == "atitude"')],
        "/classification/0/when",
        "expression",
        "attitude",
    ),
    ("syntax", [("classification/0/when", "fields.major ==")], "/classification/0/when", "expression", ""),
    (
        "unknown severity",
        [("classification/0/set/severity", "complx")],
        "/classification/0/set/severity",
        "unknown-name",
        "complex",
    ),
    ("unknown unit", [("routing/0/unit", "ofice")], "/routing/0", "unknown-name", "office"),
    ("unknown clock", [("actions/0/on", "breach:replie")], "/actions/0/on", "unknown-trigger", "breach:reply"),
    (
        "unknown task",
        [("actions/0/do/0", {"kind": "task", "what": "loook"})],
        "/actions/0/do/0/what",
        "unknown-name",
        "look",
    ),
    (
        "unknown sanction",
        [("penalties/rules/1/impose/0/sanction", "apologgy")],
        "/penalties/rules/1/impose/0/sanction",
        "unknown-name",
        "apology",
    ),
    ("id twice", [("clocks/2", {**CLOCK, "id": "reply"})], "/clocks/2/id", "duplicate-id", "reply"),
    (
        "unknown setting",
        [("clocks/0/within", {"setting": "reply.limt"})],
        "/clocks/0/within/setting",
        "unknown-setting",
        "reply.limit",
    ),
    ("nothing stops it", [("clocks/2", {**CLOCK, "stop": []})], "/clocks/2/stop", "never-met", "always broken"),
    ("nothing starts it", [("clocks/2", {**CLOCK, "start": []})], "/clocks/2/start", "never-starts", "other"),
    (
        "a timer without an instant",
        [("clocks/2", {"id": "other", "kind": "timer", "start": "accepted"})],
        "/clocks/2/within",
        "never-fires",
        "acts",
    ),
    (
        "a pause that contains its start",
        [("clocks/2", {**CLOCK, "pauses": [{"from": "accepted", "to": "resumed"}]})],
        "/clocks/2/pauses/0",
        "pause-at-start",
        "own start",
    ),
    (
        "a warning before the start",
        [("clocks/2", {**CLOCK, "steps": [{"before": "5wd", "do": [{"kind": "warned", "to": "office"}]}]})],
        "/clocks/2/steps/0/before",
        "unreachable",
        "before the start",
    ),
    ("a breach of a timer", [("actions/0/on", "breach:wait")], "/actions/0/on", "unreachable", "fired:wait"),
    ("a state that nothing enters", [("actions/0/on", "state:archived_twice")], "/actions/0/on", "unknown-trigger", ""),
    (
        "rules that set themselves off",
        [
            ("actions/1", {"id": "a", "on": "action:b", "do": []}),
            ("actions/2", {"id": "b", "on": "action:a", "do": []}),
        ],
        "/actions",
        "cycle",
        "action:a",
    ),
    (
        "a class rule behind one that always holds",
        [("classification/2", {"set": {"severity": "complex"}})],
        "/classification/2",
        "unreachable",
        "never comes",
    ),
    (
        "always refused",
        [("workflow/gates/1", {"on": "replied", "reason": "forbidden"})],
        "/clocks/0/stop",
        "never-met",
        "always refused",
    ),
    ("a gate for nobody", [("workflow/gates/0/by", ["directr"])], "/workflow/gates/0/by", "unknown-name", "nobody"),
    (
        "two ways of fixing an amount",
        [("penalties/rules/0/impose/0/at_least", "20.00")],
        "/penalties/rules/0/impose/0",
        "penalty-amount",
        "one way",
    ),
    (
        "percent of nothing",
        [("penalties/rules/0/impose/0", {"kind": "fine", "percent": "20"})],
        "/penalties/rules/0/impose/0",
        "penalty-amount",
        "of",
    ),
    (
        "a range the wrong way round",
        [("penalties/rules/0/impose/0", {"kind": "fine", "at_least": "9.00", "at_most": "1.00"})],
        "/penalties/rules/0/impose/0",
        "penalty-range",
        "more than",
    ),
    ("an unknown stack", [("penalties/rules/0/stack", "person")], "/penalties/rules/0/stack", "unknown-name", "person"),
    (
        "an amount with too many decimals",
        [("penalties/rules/0/impose/0/amount", "50.005")],
        "/penalties/rules/0/impose/0/amount",
        "amount",
        "decimals",
    ),
    (
        "overlapping hours",
        [("calendar", {"calendars": {"default": {"hours": {"mon-fri": ["09:00-13:00", "12:00-18:00"]}}}})],
        "/calendar/calendars/default/hours/mon-fri/1",
        "calendar",
        "overlap",
    ),
    ("an unknown zone", [("calendar", {"zone": "Asia/Shangai"})], "/calendar/zone", "calendar", "Asia/Shanghai"),
    ("an unknown window", [("subjects/0/window", "fortnight")], "/subjects/0/window", "window", "fortnight"),
    ("two thresholds", [("subjects/0/threshold/at_least", 4)], "/subjects/0/threshold", "shape", "either"),
    (
        "a template that cannot be read",
        [("messages/0/template", "{% if %}")],
        "/messages/0/template",
        "template",
        "does not work",
    ),
    (
        "a message that nothing causes",
        [("messages/0/on", ["replied", "breach:reply"])],
        "/messages/0/on/1",
        "untold-trigger",
        "effect",
    ),
    (
        "a clock that follows its own effect",
        [("clocks/1/start", "effect:warned")],
        "/clocks/1/start",
        "untold-trigger",
        "only messages",
    ),
    ("quiet hours", [("messages/0/quiet_hours", "9pm-8am")], "/messages/0/quiet_hours", "quiet-hours", "21:00-08:00"),
    (
        "numbers without a counter",
        [("intake/numbering", {"pattern": "{YYYY}{MM}{DD}"})],
        "/intake/numbering/pattern",
        "numbering",
        "{N}",
    ),
    ("an unknown cadence", [("duties/0/every", "fortnight")], "/duties/0/every", "shape", ""),
    (
        "a hostile condition",
        [("classification/0/when", " || ".join(["fields.major == true"] * 400))],
        "/classification/0/when",
        "shape",
        "",
    ),
]


@pytest.mark.parametrize(
    ("changes", "path", "code", "word"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN]
)
def test_a_broken_policy_is_told_at_its_place(changes: list[tuple[str, Any]], path: str, code: str, word: str) -> None:
    found = lint(changed(*changes))
    told = [(one.path, one.code, f"{one.message} {one.suggestion}") for one in found.errors]
    assert any(
        place.startswith(path) and kind == code and word.lower() in text.lower() for place, kind, text in told
    ), told


def test_a_finding_in_text_bears_its_line() -> None:
    text = "policy: 1\ntitle: T\nclocks:\n  - id: reply\n    start: recieved\n    stop: replied\n    within: 3wd\n"
    (found,) = lint(text).errors
    assert (found.path, found.line, found.suggestion) == ("/clocks/0/start", 5, "received")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("policy: 1\npolicy: 1\ntitle: T\n", "twice"),
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("- 1\n", "mapping"),
        ("policy: [\n", "YAML"),
        ("x" * 600_000, "512 KB"),
        ('policy: 1\ntitle: "\\0"\n', "cannot be stored"),
        ("policy: 1\nintake:\n\tchannels: {}\n", "3:1 not YAML: the line begins with a tab"),
        ("policy: 1\ntitle: Town: water\n", "2:12 not YAML: a text that contains `: ` stands in quotes"),
        ("policy: 1\nintake:\n  channels: {}\n required: []\n", "4:2 not YAML: the line is not indented like"),
        ("policy: 1\nclocks:\n  - {id: a, start: b\n  - {id: c}\n", "a bracket is not closed"),
        ("policy: 1\n---\npolicy: 1\n", "take out the line"),
        ('policy: 1\ntitle: "T\n', "a quote is opened and not closed"),
        ("policy: 1\ntitle: 城镇\n".encode("gbk"), "2:8 the text is not UTF-8 at byte 17: save it as UTF-8"),
        ("policy: 1\n".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_text_that_is_no_document_is_told(text: str | bytes, word: str) -> None:
    (found,) = lint(text).errors
    assert found.code == "document"
    assert word in f"{found.line}:{found.column} {found.message}"


def test_doubtful_rules_are_warned_about() -> None:
    document = changed(
        ("settings/unused", {"type": "text", "default": "x"}),
        ("clocks/2", {**CLOCK, "within": None}),
        ("actions/1", {"id": "never", "on": "breach:other", "do": [], "when": "1 == 2"}),
    )
    found = {(one.path, one.code) for one in lint(document).warnings}
    assert ("/settings/unused", "unused") in found
    assert ("/actions/1/on", "unreachable") in found
    assert ("/actions/1/when", "constant-condition") in found

"""Templates of tenants: what they may say, and that no hostile one stalls, grows or reaches anything."""

from __future__ import annotations

import re
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.domain import wording as filling
from shared.policy import wording
from shared.policy.wording import WordingError, problems, render


def details(template: str, **known: list[str]) -> list[str]:
    return [problem.detail for problem in problems(template, **known)]


def test_a_template_is_filled_and_what_is_unknown_is_empty() -> None:
    text = (
        "{{ organisation }}: {{ number }}, due {{ due_at | default: 'soon' }}{% if severity == 'light' %}!{% endif %}"
    )
    fields = {"organisation": "Bank", "number": "20261120-01", "severity": "light"}
    assert render(text, fields) == "Bank: 20261120-01, due soon!"


def test_every_declared_field_passes_the_check() -> None:
    text = " ".join(f"{{{{ {name} }}}}" for name in wording.FIELDS)
    text += "{{ clocks.reply.due_at }} {{ fields.loss }} {{ data.anything }}"
    assert details(text, clocks=["reply"], fields=["loss"]) == []


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ nmae }}", "nmae"),
        ("{{ complainant.phone }}", "complainant.phone"),
        ("{{ number.size }}", "number.size"),
        ("{{ clocks.other.due_at }}", "clocks.other.due_at"),
        ("{{ fields.secret }}", "fields.secret"),
        ("{{ fields }}", "fields"),
        ("{{ name.__class__ }}", "name.__class__"),
        ("{{ self }}", "self"),
        ("{% if phone == '1' %}x{% endif %}", "phone"),
        ("{% for x in people %}{{ x }}{% endfor %}", "people"),
    ],
)
def test_an_unknown_placeholder_is_found_when_the_policy_is_published(template: str, name: str) -> None:
    assert details(template, clocks=["reply"], fields=["loss"]) == [f"{name} is nothing that a message can say"]


def test_a_problem_names_its_line() -> None:
    assert [problem.line for problem in problems("one\ntwo {{ number }}\nthree {{ nmae }}")] == [3]


HOSTILE = [
    "{{ 7*7 }}",
    "{% assign a = 'x' %}",
    "{% capture a %}x{% endcapture %}",
    "{% include 'secrets' %}",
    "{% render 'secrets' %}",
    "{% liquid echo 1 %}",
    "{% increment n %}",
    "{% cycle 'a', 'b' %}",
    "{% tablerow i in (1..10) %}{% endtablerow %}",
    "{{ number | times: 99999999 }}",
    "{{ number | date: '%1000000000d' }}",
    "{{ number | append: number }}",
    "{{ number | replace: '', 'aaaa' }}",
    "{{ number | split: '' }}",
    "{{ number | url_encode }}",
    "{% for i in (1..100000000) %}x{% endfor %}",
    "{% for i in (1..999) %}{% for j in (1..999) %}x{% endfor %}{% endfor %}",
    "{% for i in (1..9999999999999999999999) %}x{% endfor %}",
    "{% if " + "(" * 500 + "number" + ")" * 500 + " %}x{% endif %}",
    "{% if number %}" * 200 + "{% endif %}" * 200,
    "{% if " + " or ".join(["number"] * 900) + " %}x{% endif %}" + "x" * 4000,
    "{{ '" + "x" * 5000 + "' }}",
    "{% for i in (1..900) %}" + "x" * 100 + "{% endfor %}",
    "{{",
    "{% if %}",
    "{% endif %}",
    "{{ number | }}",
    "{{ number | nosuch }}",
]


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_is_refused_in_no_time_and_no_memory(template: str) -> None:
    tracemalloc.start()
    began = time.process_time()
    assert problems(template) != []
    with pytest.raises(WordingError):
        render(template, {"number": "x" * 1000})
    spent = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 5
    assert peak < 16_000_000


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("${number} %n {x.__class__} %s {0}", "${number} %n {x.__class__} %s {0}"),
        ("{{ (1..1000000000) }}", "1..1000000000"),
        ("{{ (1..1000000000) | join: ',' }}", ""),
        ("{{ number | truncate: 999999999 }}", "N-1"),
        ("{{ number | truncate: -5 }}", "…"),
        ("{% comment %}{{ nothing }}{% endcomment %}", ""),
    ],
)
def test_what_looks_hostile_and_is_literal_or_bounded(template: str, text: str) -> None:
    assert render(template, {"number": "N-1"}) == text


def test_values_are_never_read_as_templates() -> None:
    assert (
        render("{{ what }}", {"what": "{{ number }}{% include 'x' %}", "number": "1"})
        == "{{ number }}{% include 'x' %}"
    )


def test_attributes_of_values_are_out_of_reach() -> None:
    for path in ("__class__", "__init__.__globals__", "upper", "real", "gi_frame"):
        assert render(f"{{{{ number.{path} }}}}", {"number": "1"}) == ""


def test_invisible_and_direction_turning_characters_of_values_are_dropped() -> None:
    value = "a\u202eb\u2066c\u200bd\x00e\x1b[31mf\ufeffg\ud800h"
    assert render("{{ what }}", {"what": value}) == "abcde[31mfgh"
    assert render("{{ what }}", {"what": "می\u200cخواهم"}) == "می\u200cخواهم"


@settings(max_examples=300)
@given(st.text(max_size=80))
def test_any_text_is_rendered_or_refused_and_nothing_else(template: str) -> None:
    try:
        render(template, {"number": "1"})
    except WordingError:
        assert problems(template) != []


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "{%", "%}", " if ", " for ", " in ", "(1..9)", "number", "|", "'", " end", "endfor", "x"]
        ),
        max_size=20,
    )
)
def test_any_heap_of_tokens_is_rendered_or_refused_and_nothing_else(tokens: list[str]) -> None:
    try:
        render("".join(tokens), {"number": "1"})
    except WordingError:
        assert problems("".join(tokens)) != []


@pytest.mark.parametrize(
    "name", ["王芳", "Ana María López-García", "O'Brien", "D’Angelo", "阿卜杜拉·买买提", "J. R. Smith", "Łukasz"]
)
def test_names_of_people_are_said(name: str) -> None:
    assert filling.polite_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "http://evil.example/x",
        "evil.example/win",
        "Call +8613800001111 now",
        "You won 100",
        "a@b.org",
        "Dear customer, your account is locked: reply",
        "x" * 41,
        "one two three four five six seven eight",
        "{{ number }}",
        "<b>x</b>",
        "A  --  B!",
    ],
)
def test_a_name_that_could_be_a_message_of_its_own_is_not_said(name: str | None) -> None:
    assert filling.polite_name(name) == ""


AT = datetime(2026, 11, 20, 10, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "language", "text"),
    [
        ("Asia/Shanghai", "zh", "2026年11月20日 18:05"),
        ("Asia/Shanghai", "zh-CN", "2026年11月20日 18:05"),
        ("Asia/Shanghai", "en", "20 November 2026, 18:05"),
        ("America/New_York", "en", "20 November 2026, 05:05"),
        ("Europe/Berlin", "de", "20 November 2026, 11:05"),
        ("Asia/Kathmandu", "en", "20 November 2026, 15:50"),
    ],
)
def test_an_instant_is_told_on_the_tenants_wall_clock(zone: str, language: str, text: str) -> None:
    assert filling.instant(AT, ZoneInfo(zone), language) == text


def test_the_language_is_the_recipients_then_the_tenants_then_english() -> None:
    texts = {"zh": "你好", "en": "Hello"}
    assert filling.choose(texts, "zh", "en") == ("zh", "你好")
    assert filling.choose(texts, None, "zh") == ("zh", "你好")
    assert filling.choose(texts, "fr", "de") == ("en", "Hello")
    assert filling.choose({"fr": "Bonjour"}, "zh") == ("fr", "Bonjour")
    assert filling.choose({}, "zh") == ("en", "")


def test_the_guide_lists_exactly_what_a_template_can_say() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "messages.md").read_text()
    table = guide.partition("<!-- fields -->")[2].partition("<!-- end -->")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|$", table, re.MULTILINE))
    assert listed == {**wording.FIELDS, **wording.GROUPS}
    for name in wording.FILTERS:
        assert f"`{name}`" in guide

"""The values that a template is filled with: taken from the case at the moment, put into words when it is sent.

In between they are stored with the delivery, so they are codes, instants and figures: nothing that tells who the
complainant is. The name alone comes later, from the vault, and only for the complainant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from services.notify.domain.messages import clock_of, due_at
from services.notify.domain.moments import Moment
from shared.engine.case import Case
from shared.engine.model import Standing
from shared.engine.rules import CompiledPolicy
from shared.policy import wording

LABELLED: Mapping[str, str] = {
    "kind": "kinds",
    "category": "categories",
    "severity": "severities",
    "outcome": "outcomes",
    "state": "states",
}
_NAME = re.compile(r"[^\W\d_]+(?:[ '’.·・-]{1,2}[^\W\d_]+){0,5}\.?", re.UNICODE)
_LONGEST_NAME = 40
_FORMS = {"zh": "{0.year}年{0.month}月{0.day}日 {0:%H:%M}", "en": "{0.day} {1} {0.year}, {0:%H:%M}"}
_MONTHS = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905 - reads better
)


def values(case: Case, standing: Standing, moment: Moment, number: str) -> dict[str, Any]:
    """Return what templates may say about this moment, as JSON: codes, figures, RFC 3339 instants."""
    complaint = case.scope.complaint
    owner = standing.owner
    found: dict[str, Any] = {
        "number": number,
        "kind": standing.classified.kind,
        "category": standing.classified.category,
        "severity": standing.classified.severity,
        "outcome": standing.outcome,
        "state": standing.state,
        "channel": complaint.get("channel"),
        "received_at": complaint.get("received_at"),
        "due_at": due_at(case.policy, standing, moment),
        "at": moment.at,
        "rule": clock_of(case.policy, moment.rule),
        "unit": None if owner is None else owner.unit or owner.role or owner.staff,
        **moment.words,
    }
    found["clocks"] = {view.rule: _known({"due_at": view.due_at, "state": view.state}) for view in standing.clocks}
    found["fields"] = {
        name: case.scope.fields[name]
        for name in wording.shown_fields(case.policy.document.vocabulary.fields)
        if case.scope.fields.get(name) is not None
    }
    found["data"] = {
        name: value for name, value in moment.data.items() if name not in wording.FREE_TEXT and _is_plain(value)
    }
    return {name: _plain(value) for name, value in _known(found).items()}


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int) for item in value)
    return isinstance(value, str | int | bool | datetime)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def choose(texts: Mapping[str, str], *languages: str | None) -> tuple[str, str]:
    """Return the language and the text for the first language there is; else English, else the first."""
    for language in (*languages, "en"):
        if language is not None and language in texts:
            return language, texts[language]
    for language, text in texts.items():
        return language, text
    return "en", ""


def fill(
    template: str,
    stored: Mapping[str, Any],
    policy: CompiledPolicy,
    *,
    organisation: str,
    zone: ZoneInfo,
    language: str,
    name: str | None = None,
) -> str:
    """Return the text as the recipient reads it. Raises shared.policy.wording.WordingError.

    Args:
        stored: what `values` returned.
        name: the complainant's, for the complainant alone; dropped unless it reads like a name, because whoever files a
            complaint chooses it and could otherwise send words of his own to somebody else's number.
    """
    words = _localised(stored, zone, language)
    for part, section in LABELLED.items():
        if words.get(part):
            words[part] = _label(getattr(policy.document.vocabulary, section), str(words[part]), language)
    words["title"] = _title(policy, str(stored.get("rule") or ""), language)
    if words.get("what"):
        words["what"] = _what(policy, str(words["what"]), language)
    words["organisation"] = organisation
    words["name"] = polite_name(name)
    return wording.render(template, words)


def polite_name(name: str | None) -> str:
    """The name if it is letters, spaces and the signs that names have; else nothing."""
    given = " ".join((name or "").split())
    return given if len(given) <= _LONGEST_NAME and _NAME.fullmatch(given) else ""


def _localised(value: Any, zone: ZoneInfo, language: str, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _localised(item, zone, language, key) for key, item in value.items()}
    if isinstance(value, str) and (name == "at" or name.endswith("_at")):
        try:
            return instant(datetime.fromisoformat(value), zone, language)
        except ValueError:
            return value
    return value


def instant(at: datetime, zone: ZoneInfo, language: str) -> str:
    """An instant on the tenant's wall clock: "20 November 2026, 18:00", 2026年11月20日 18:00."""
    local = at.astimezone(zone)
    form = _FORMS.get(language.split("-")[0].lower(), _FORMS["en"])
    return form.format(local, _MONTHS[local.month - 1])


def _label(words: Mapping[str, Any], code: str, language: str) -> str:
    """What the tenant calls a code, else the code with spaces."""
    return _text(getattr(words.get(code), "label", None), language) or code.replace("_", " ")


def _what(policy: CompiledPolicy, code: str, language: str) -> str:
    vocabulary = policy.document.vocabulary
    for section in (vocabulary.tasks, vocabulary.sanctions, vocabulary.steps):
        if code in section:
            return _label(section, code, language)
    return code.replace("_", " ")


def _title(policy: CompiledPolicy, rule: str, language: str) -> str:
    """The title of a clock, an action or whatever else has the id; without one the id with spaces."""
    document = policy.document
    for section in (document.clocks, document.actions, document.duties, document.subjects, document.penalties.rules):
        for each in section:
            if each.id == rule:
                return _text(getattr(each, "title", ""), language) or rule.replace("_", " ")
    return rule.replace("_", " ")


def _text(text: Any, language: str) -> str:
    """A text of the policy, which may be one for each language."""
    return choose(text, language)[1] if isinstance(text, Mapping) else str(text or "")

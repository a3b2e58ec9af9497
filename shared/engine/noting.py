"""What an entry says of the complaint, and what of it is remembered."""

from __future__ import annotations

from typing import Any, Final

from shared.engine.model import Entry
from shared.engine.rules import CLASS_PARTS, CLASSES, TELLING
from shared.engine.state import CaseState

SAID_LATER: Final = frozenset({"category", "severity", "priority", "kind", "outcome", "fields"})
"""What an entry after the first may say of the complaint; most say nothing of this."""
STATED_PARTS: Final = CLASS_PARTS[:4]
"""The parts of the class that a complaint states itself; the respondent's name is not one of them."""


def take_over(case: CaseState, entry: Entry) -> None:
    """What the entry states of the complaint."""
    kind = entry.kind
    if kind == "received":
        _take_first(case, entry)
    elif kind != "step":
        if not SAID_LATER.isdisjoint(entry.data):
            _take_said(case, entry)
        if kind in TELLING:
            _take_kind(case, entry)
    elif "fields" in entry.data:
        _take_fields(case, entry)


def keep(case: CaseState, entry: Entry) -> None:
    """Remember what expressions may ask of entries that were."""
    scope, kept, data, keys = case.scope, case.kept, entry.data, entry.keys
    for key in keys:
        if kept.last is None or key in kept.last:
            scope.last[key] = record(entry, key)
    if kept.entries:
        scope.entries.append(record(entry, keys[-1]))
    for name in kept.collected:
        value = data.get(name)
        if value.__class__ is list and name != "next_dates":
            known = scope.collected[name]
            known.extend(one for one in value if isinstance(one, str) and one not in known)
        elif value.__class__ is str and value not in scope.collected[name]:  # one name is a list of one
            scope.collected[name].append(value)


def _take_first(case: CaseState, entry: Entry) -> None:
    """What the complaint says of itself when it is received."""
    scope, data = case.scope, entry.data
    complaint = scope.complaint
    for part in STATED_PARTS:
        value = complaint[part] = data.get(part)
        if value is not None:
            case.stated[part] = value
    complaint["channel"] = data.get("channel")
    complaint["anonymous"] = bool(data.get("anonymous", False))
    complaint["received_at"] = entry.at
    complaint["complainant"] = data.get("complainant") or {}
    complaint["respondent"] = dict(data.get("respondent") or {})
    complaint["handler"] = dict(data.get("handler") or {})
    complaint["number"] = data.get("number")
    scope.fields = dict(data.get("fields") or {})
    case.alerts |= case.policy.groups
    case.expect_change(CLASSES)
    case.first_contact = scope.fields.get("first_receiver") or entry.by.id


def _take_said(case: CaseState, entry: Entry) -> None:
    """A class, an outcome or fields that an entry states anew."""
    data = entry.data
    parts = ("category", "severity", "priority")
    for part in (*parts, "kind") if entry.kind in ("classified", "corrected") else parts:
        if data.get(part) is not None:
            case.stated[part] = data[part]
            case.write(part, data[part])
            case.class_clauses.pop(part, None)  # no rule set it any more
            case.expect_change(CLASSES)
    if data.get("outcome") is not None:
        case.write("outcome", data["outcome"])
    if "fields" in data:
        _take_fields(case, entry)


def _take_fields(case: CaseState, entry: Entry) -> None:
    fields = entry.data["fields"]
    if isinstance(fields, dict):
        case.scope.fields = {**case.scope.fields, **fields}
        case.alerts |= case.policy.groups


def _take_kind(case: CaseState, entry: Entry) -> None:
    """What follows from the kind of an entry alone."""
    kind, data, complaint = entry.kind, entry.data, case.scope.complaint
    if kind == "assigned":
        handler = dict(complaint["handler"] or {})
        for part in ("staff", "unit"):
            if data.get(part) is not None:
                handler[part] = data[part]
        case.write("handler", handler)
    elif kind == "withdrawn":
        case.write("outcome", "withdrawn")
    elif kind == "corrected" and data.get("respondent_of"):
        case.write("respondent", dict(data["respondent_of"]))


def record(entry: Entry, key: str) -> dict[str, Any]:
    """An entry as `last` and `entries` show it."""
    by = entry.by
    roles = (*by.roles, by.unit) if by.unit else by.roles
    return {
        "trigger": key,
        "kind": entry.kind,
        "at": entry.at,
        "by": by.id,
        "roles": list(dict.fromkeys(roles)),
        "data": entry.data,
    }

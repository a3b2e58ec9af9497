"""Two documents compared in terms of rules, not lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from shared.engine.rules import clauses_of
from shared.policy.documents import escape


class Change(Struct, frozen=True, kw_only=True):
    """One rule that was added, removed, changed or moved. `parts` holds (pointer inside the rule, before, after)."""

    kind: Literal["added", "removed", "changed", "moved"]
    section: str
    rule: str
    clause: tuple[str, ...] = ()
    parts: tuple[tuple[str, Any, Any], ...] = ()


# Where rules stand in a document, and what names one: an id, or what it says of itself.
LISTS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("classification",), ("id", "set", "when")),
    (("routing",), ("id", "on", "unit", "role", "staff", "as", "when")),
    (("workflow", "states"), ("state", "on", "when")),
    (("workflow", "gates"), ("id", "on", "reason", "when")),
    (("intake", "acceptance_rules"), ("reason", "accepted", "when")),
    (("intake", "required"), ("fields", "before")),
    (("vocabulary", "facts"), ("name", "clause")),
    (("clocks",), ("id",)),
    (("actions",), ("id",)),
    (("subjects",), ("id",)),
    (("penalties", "rules"), ("id",)),
    (("penalties", "excluded"), ("when",)),
    (("messages",), ("id",)),
    (("duties",), ("id",)),
    (("reports",), ("row", "clause", "subject")),
    (("guidance",), ("clause", "stage")),
    (("by_design_not",), ("clause",)),
    (("incomplete",), ("clause",)),
)
ORDERED = frozenset({"classification", "workflow.states", "workflow.gates", "routing", "intake.acceptance_rules"})
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("settings",),
    ("vocabulary", "kinds"),
    ("vocabulary", "categories"),
    ("vocabulary", "severities"),
    ("vocabulary", "outcomes"),
    ("vocabulary", "states"),
    ("vocabulary", "fields"),
    ("vocabulary", "steps"),
    ("vocabulary", "data"),
    ("vocabulary", "sanctions"),
    ("vocabulary", "tasks"),
    ("organisation", "units"),
    ("organisation", "roles"),
    ("organisation", "groups"),
    ("intake", "channels"),
    ("intake", "decline_reasons"),
    ("penalties", "stacks"),
    ("calendar", "calendars"),
)


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What changed from one document to the other, in the order of the sections."""
    found: list[Change] = []
    seen: set[tuple[str, ...]] = set()
    for path, names in LISTS:
        found += _lists(".".join(path), _at(before, path) or [], _at(after, path) or [], names)
        seen.add(path)
    for path in MAPPINGS:
        found += _mappings(".".join(path), _at(before, path) or {}, _at(after, path) or {})
        seen.add(path)
    found += _rest(before, after, seen)
    return found


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        document = document.get(step) if isinstance(document, Mapping) else None
    return document


def _name(rule: Any, names: tuple[str, ...]) -> str:
    if not isinstance(rule, Mapping):
        return str(rule)
    if rule.get("id"):
        return str(rule["id"])
    return " ".join(f"{name}={_short(rule[name])}" for name in names if rule.get(name) is not None)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_short(inner)}" for key, inner in value.items())
    return str(value)


def _lists(section: str, before: list[Any], after: list[Any], names: tuple[str, ...]) -> Iterator[Change]:
    old, new = _named(before, names), _named(after, names)
    for name, rule in old.items():
        if name not in new:
            yield Change(kind="removed", section=section, rule=name, clause=_clause(rule))
    for name, rule in new.items():
        if name not in old:
            yield Change(kind="added", section=section, rule=name, clause=_clause(rule))
        elif old[name] != rule:
            parts = tuple(_parts(old[name], rule, ""))
            yield Change(kind="changed", section=section, rule=name, clause=_clause(rule), parts=parts)
    if section in ORDERED:
        kept_before = [name for name in old if name in new]
        kept_after = [name for name in new if name in old]
        for place, name in enumerate(kept_after):
            if kept_before[place] != name:
                yield Change(kind="moved", section=section, rule=name, clause=_clause(new[name]))
                kept_before.remove(name)
                kept_before.insert(place, name)


def _named(rules: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rule in rules:
        name = _name(rule, names)
        while name in found:
            name += "'"
        found[name] = rule
    return found


def _mappings(section: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in before:
        if name not in after:
            yield Change(kind="removed", section=section, rule=name, clause=_clause(before[name]))
    for name, rule in after.items():
        if name not in before:
            yield Change(kind="added", section=section, rule=name, clause=_clause(rule))
        elif before[name] != rule:
            yield Change(
                kind="changed",
                section=section,
                rule=name,
                clause=_clause(rule),
                parts=tuple(_parts(before[name], rule, "")),
            )


def _clause(rule: Any) -> tuple[str, ...]:
    return clauses_of(rule.get("clause")) if isinstance(rule, Mapping) else ()


def _parts(before: Any, after: Any, pointer: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                yield from _parts(before.get(key), after.get(key), f"{pointer}/{escape(str(key))}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                yield from _parts(old, new, f"{pointer}/{place}")
    else:
        yield pointer, before, after


def _rest(before: Mapping[str, Any], after: Mapping[str, Any], seen: set[tuple[str, ...]]) -> Iterator[Change]:
    """What is no rule: the title, the calendar's counting, the initial state."""
    for key in {**before, **after}:
        if (key,) in seen:
            continue
        old, new = _without(before.get(key), key, seen), _without(after.get(key), key, seen)
        if old != new:
            yield Change(kind="changed", section=str(key), rule="", parts=tuple(_parts(old, new, "")))


def _without(value: Any, key: str, seen: set[tuple[str, ...]]) -> Any:
    if not isinstance(value, Mapping):
        return value
    inner = {path[1] for path in seen if len(path) == 2 and path[0] == key}
    return {name: part for name, part in value.items() if name not in inner}

"""The tenant's choices put into the document: after this the engine knows no settings, only rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from shared.policy.cel import (
    BOOL,
    DYN,
    Environment,
    EvaluationError,
    ExpressionError,
    MapType,
    compile_expression,
    near_miss,
)
from shared.policy.documents import escape
from shared.policy.problems import PolicyProblem

PER_CLAUSE = ("asap_target", "hour_mode", "count_first_day", "roll")
"""Choices that exist for every clause: R04.5.roll and the like."""

_PER_CLAUSE = re.compile(r"^[A-Z]\d\d\.\d+\.(?:" + "|".join(PER_CLAUSE) + ")$")


class _SettingsScope:
    __slots__ = ("settings",)

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings


_ENVIRONMENT = Environment({"settings": MapType(DYN)})


def values_of(declared: Mapping[str, Any], chosen: Mapping[str, Any], problems: list[PolicyProblem]) -> dict[str, Any]:
    """The value of every setting: chosen by the tenant, else the default. Unknown names and values outside the list are problems."""
    values = {name: spec.get("default") if isinstance(spec, Mapping) else None for name, spec in declared.items()}
    for name, value in chosen.items():
        path = f"/settings/{escape(name)}"
        spec = declared.get(name)
        if spec is None:
            if not _PER_CLAUSE.match(name):
                hint = near_miss(name, declared)
                problems.append(
                    PolicyProblem(
                        path=path, message=f"there is no setting {name}", code="unknown-setting", suggestion=hint
                    )
                )
                continue
        elif isinstance(spec, Mapping) and spec.get("values") and value not in spec["values"] and value is not None:
            listed = ", ".join(map(str, spec["values"]))
            problems.append(
                PolicyProblem(
                    path=path,
                    message=f"{value!r} is none of {listed}",
                    code="setting-value",
                    suggestion=near_miss(str(value), map(str, spec["values"])),
                )
            )
            continue
        values[name] = value
    return values


def substitute(
    document: Mapping[str, Any], values: Mapping[str, Any], problems: list[PolicyProblem]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The document with every `{setting: ID}` replaced and every rule whose `if` is false left out.

    Returns:
        The document, and a map from the pointers of what is left to those of the document as written.
    """
    scope = _SettingsScope(values)
    origins: dict[str, str] = {}

    def condition(text: Any, path: str) -> bool:
        try:
            return compile_expression(str(text), _ENVIRONMENT, BOOL)(scope) is True
        except ExpressionError as error:
            problems.extend(
                PolicyProblem(
                    path=path,
                    message=one.message,
                    code="expression",
                    suggestion=one.suggestion,
                    line=one.line,
                    column=one.column,
                )
                for one in error.problems
            )
        except EvaluationError as error:
            problems.append(PolicyProblem(path=path, message=str(error), code="expression"))
        return True

    def walk(value: Any, path: str, out: str, keep: Callable[[Any, str], bool]) -> Any:
        origins[out] = path
        if isinstance(value, Mapping):
            if "setting" in value and set(value) <= {"setting", "key", "cases", "default"}:
                return walk(_picked(value, values, path, problems), path, out, keep)
            found = {}
            for key, inner in value.items():
                if key == "if" and path != "":
                    continue
                found[key] = walk(inner, f"{path}/{escape(key)}", f"{out}/{escape(key)}", keep)
            return found
        if isinstance(value, list):
            kept: list[Any] = []
            for place, inner in enumerate(value):
                if keep(inner, f"{path}/{place}"):
                    kept.append(walk(inner, f"{path}/{place}", f"{out}/{len(kept)}", keep))
            return kept
        return value

    def keep(value: Any, path: str) -> bool:
        return not (isinstance(value, Mapping) and "if" in value) or condition(value["if"], f"{path}/if")

    plain = {name: part for name, part in document.items() if name != "settings"}
    found = walk(plain, "", "", keep)
    found["settings"] = document.get("settings", {})
    return found, origins


def _picked(reference: Mapping[str, Any], values: Mapping[str, Any], path: str, problems: list[PolicyProblem]) -> Any:
    name = reference["setting"]
    if name not in values and not _PER_CLAUSE.match(str(name)):
        problems.append(
            PolicyProblem(
                path=f"{path}/setting",
                message=f"there is no setting {name}",
                code="unknown-setting",
                suggestion=near_miss(str(name), values),
            )
        )
        return None
    value = values.get(name)
    if "key" in reference:
        value = value.get(reference["key"]) if isinstance(value, Mapping) else None
    cases = reference.get("cases")
    if cases is None:
        return reference.get("default") if value is None else value
    key = (
        {True: "true", False: "false", None: "unset"}.get(value, str(value))
        if not isinstance(value, list | dict)
        else "other"
    )
    if key in cases:
        return cases[key]
    if "default" in reference:
        return reference["default"]
    problems.append(
        PolicyProblem(
            path=f"{path}/cases",
            message=f"there is no case for {key}, the value of {name}",
            code="setting-case",
            suggestion=near_miss(key, map(str, cases)),
        )
    )
    return None

"""JSON Schema of a policy, for editors: made from the Structs, with the places where a setting may stand instead of a value."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.engine import calendar
from shared.policy import schema
from shared.policy.meanings import meanings_of, summary_of
from shared.policy.schema import Policy

SETTING: dict[str, Any] = {
    "type": "object",
    "title": "Setting",
    "description": "the tenant's value of a setting, or the case that this value picks",
    "properties": {
        "setting": {"type": "string"},
        "key": {"type": "string"},
        "cases": {"type": "object"},
        "default": {},
    },
    "required": ["setting"],
    "additionalProperties": False,
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12)."""
    (top,), definitions = msgspec.json.schema_components([Policy], ref_template="#/$defs/{name}")
    found = {name: _explained(name, _with_settings(name, part)) for name, part in definitions.items()}
    found["SettingReference"] = SETTING
    return {"$schema": DIALECT, "title": "Recourse policy", **top, "$defs": found}


def _explained(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """The definition with the meaning of each key, which editors show beside it."""
    kind = getattr(schema, name, None) or getattr(calendar, name, None)
    if kind is None or "properties" not in part:
        return part
    meanings = meanings_of(kind)
    properties = {
        key: {**value, "description": meanings[key]} if key in meanings else value
        for key, value in part["properties"].items()
    }
    return {**part, "description": summary_of(kind), "properties": properties}


def _with_settings(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Every value of a rule may also be a reference to a setting; a rule in a list may have a condition `if`."""
    if part.get("type") != "object" or "properties" not in part or name in ("Setting", "Policy"):
        return part
    properties = {
        key: value if key in ("id", "if") or value == {} else _or_setting(value)
        for key, value in part["properties"].items()
    }
    properties.setdefault(
        "if", {"type": "string", "description": "over settings; the rule is left out when it is false"}
    )
    return {**part, "properties": properties}


def _or_setting(value: dict[str, Any]) -> dict[str, Any]:
    """The value, or a setting in its place; likewise each item of a list."""
    if value.get("type") == "array" and isinstance(value.get("items"), dict) and value["items"]:
        value = {**value, "items": _or_setting(value["items"])}
    elif "anyOf" in value:
        value = {**value, "anyOf": [_or_setting(one) if one.get("type") == "array" else one for one in value["anyOf"]]}
    default = {"default": value["default"]} if "default" in value else {}
    return {"anyOf": [value, {"$ref": "#/$defs/SettingReference"}], **default}

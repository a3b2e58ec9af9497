"""Sample values of messages, made from their types; and the stored bodies that later versions must still read."""

from __future__ import annotations

import types
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from shared.messages import Message, message_types
from shared.messages.base import encode

STORED = Path(__file__).resolve().parent / "stored"
M = TypeVar("M", bound=msgspec.Struct)


def sample(kind: type[M], *, only_required: bool = False) -> M:
    """Return a value with every field filled, or only those that have no default."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(
        **{
            field.name: _value(hints[field.name], field.name, only_required)
            for field in msgspec.structs.fields(kind)
            if field.required or not only_required
        }
    )


def _value(kind: Any, name: str, only_required: bool) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _value(next(each for each in arguments if each is not types.NoneType), name, only_required)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        members = arguments[:1] if arguments[-1] is Ellipsis else arguments
        return tuple(_value(each, name, only_required) for each in members)
    if origin is list:
        return [_value(arguments[0], name, only_required)]
    if origin is dict:
        return {"key": _value(arguments[1], name, only_required)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return sample(kind, only_required=only_required)
    plain: dict[Any, Any] = {
        UUID: UUID("01990000-0000-7000-8000-000000000001"),
        datetime: datetime(2026, 9, 1, 8, 30, 0, 123456, tzinfo=UTC),
        str: f"a {name.replace('_', ' ')}",
        int: 7,
        float: 1.5,
        bool: True,
        Any: "anything",
    }
    return plain[kind]


def store_new() -> list[str]:
    """Write the bodies of messages that have none yet, and return their names. What is stored is never written again."""
    STORED.mkdir(exist_ok=True)
    new = []
    for name, kind in message_types().items():
        path = STORED / f"{name}.json"
        if not path.exists():
            bodies = {"full": _body(sample(kind)), "first": _required(kind)}
            path.write_bytes(msgspec.json.format(msgspec.json.encode(bodies), indent=2) + b"\n")
            new.append(name)
    return new


def _body(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(encode(message))
    return found


def _required(kind: type[Message]) -> dict[str, Any]:
    wanted = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    return {name: value for name, value in _body(sample(kind, only_required=True)).items() if name in wanted}


if __name__ == "__main__":
    store_new()

"""What all messages share: the envelope, the subject, encoding and decoding."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import msgspec

LIVE = UUID(int=0)
"""The tenant of what concerns all live tenants at once: the tick of the live time."""

_TOKEN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_types: dict[str, type[Message]] = {}
M = TypeVar("M", bound="Message")


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope.

    `message_id` is a UUIDv7, or derived where the same fact must bear the same id; `at` is when it happened (aware UTC).
    """

    SUBJECT: ClassVar[str] = ""

    message_id: UUID
    tenant_id: UUID
    at: datetime
    traceparent: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.SUBJECT:
            _types[_type_name(cls.SUBJECT)] = cls


def _type_name(template: str) -> str:
    """`routing.v1.{tenant_id}.entry.appended` → `routing.v1.entry.appended`, the CloudEvents type."""
    return template.replace(".{tenant_id}", "")


def tenant_token(tenant_id: UUID) -> str:
    """The tenant's token in a subject: the one function that makes it. Raises ValueError for anything but a UUID."""
    token = str(tenant_id)
    if not _TOKEN.fullmatch(token):
        raise ValueError("a tenant's token is a UUID in 36 lower-case characters")
    return token


def subject_of(message: Message) -> str:
    return _subject(type(message).SUBJECT, message.tenant_id)


@lru_cache(maxsize=4096)
def _subject(template: str, tenant_id: UUID) -> str:
    return template.format(tenant_id=tenant_token(tenant_id))


def type_of(message: Message) -> str:
    """The CloudEvents type, e.g. `routing.v1.entry.appended`."""
    return _type_name(type(message).SUBJECT)


def message_types() -> dict[str, type[Message]]:
    """Every declared message by its CloudEvents type."""
    return dict(_types)


def class_of(subject: str) -> type[Message] | None:
    """The class declared for a concrete subject, or None."""
    parts = subject.split(".")
    if len(parts) != 5:
        return None
    return _types.get(".".join((parts[0], parts[1], parts[3], parts[4])))


def encode(message: Message) -> bytes:
    return msgspec.json.encode(message)


def decode(body: bytes, kind: type[M]) -> M:
    """Raises msgspec.DecodeError (malformed) or msgspec.ValidationError (wrong shape), both with the path to the mistake."""
    return msgspec.json.decode(body, type=kind)

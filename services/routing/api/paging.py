"""Cursors: where a page ends, opaque to clients."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from shared.errors import MalformedError

T = TypeVar("T")
LIMIT = 50
MOST = 200


class BadCursorError(MalformedError):
    slug = "bad-cursor"
    title = "The cursor is not one that a page has given."


def cursor(place: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place(text: str, kind: type[T]) -> T:
    """Return what `cursor` was given. BadCursorError for anything else."""
    try:
        return msgspec.json.decode(
            base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), type=kind
        )
    except (msgspec.MsgspecError, binascii.Error, ValueError, UnicodeDecodeError):
        raise BadCursorError() from None

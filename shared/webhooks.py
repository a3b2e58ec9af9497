"""Standard Webhooks signatures, made and checked.

A signed request carries three headers: `webhook-id` (the same for every attempt), `webhook-timestamp` (seconds since
1970) and `webhook-signature`, a list of `v1,<base64>` separated by spaces: HMAC-SHA256 over `id.timestamp.body`, raw
bytes. While a secret is rotated several are valid at once: the sender signs with each, the receiver accepts any.

Source: the Standard Webhooks specification 1.0, symmetric signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets as random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
TOLERANCE_SECONDS = 300

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes of a secret; the specification's bounds
_ID = re.compile(r"[!-\-/-~]{1,256}")  # printable ASCII; no dot, which separates the signed parts
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")
_MOST_SIGNATURES = 16
_DECOY = b"\0" * 32

Reason = Literal[
    "header_missing", "header_repeated", "id_malformed", "timestamp_malformed", "outside_window", "signature_wrong"
]


class SignatureError(Exception):
    """The request is not what it claims to be. `reason` is for our log; the sender is told no more than 401."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Signed(Struct, frozen=True):
    """What a valid signature vouches for."""

    message_id: str
    at: datetime


def new_secret() -> str:
    """Return a fresh secret of 32 random bytes in its written form, `whsec_…`."""
    return _PREFIX + base64.b64encode(random.token_bytes(32)).decode()


def secret_bytes(secret: str) -> bytes:
    """Return the key of a written secret: 24 to 64 bytes in base64, with or without `whsec_`; else ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a webhook secret is whsec_ and base64") from None
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"a webhook secret has {_SHORTEST} to {_LONGEST} bytes")
    return key


def _mac(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(key, b".".join((message_id.encode(), timestamp.encode(), body)), hashlib.sha256)


def sign(secrets: Sequence[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return the three headers for a body, signed with every secret given.

    Raises ValueError when there is no secret or the id could not be told apart from the rest of what is signed.
    """
    if not secrets:
        raise ValueError("nothing to sign with")
    if not _ID.fullmatch(message_id):
        raise ValueError("a webhook id is 1 to 256 printable ASCII characters without dots")
    timestamp = str(int(at.timestamp()))
    signatures = (
        base64.b64encode(_mac(secret_bytes(secret), message_id, timestamp, body)).decode() for secret in secrets
    )
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: " ".join(f"v1,{signature}" for signature in signatures),
    }


def verify(
    secrets: Sequence[str], headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes, now: datetime
) -> Signed:
    """Return what the signature vouches for, or raise SignatureError.

    Args:
        secrets: those valid now. With none the same work is done and `signature_wrong` is raised, so that an unknown
            sender takes as long as a wrong signature.
        headers: names in any case; a header that comes twice is refused.
        body: exactly the bytes received.
        now: aware; a timestamp more than 300 seconds before or after it is refused.
    """
    found = _headers(headers)
    message_id, timestamp = found[ID_HEADER], found[TIMESTAMP_HEADER]
    if not _ID.fullmatch(message_id):
        raise SignatureError("id_malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureError("timestamp_malformed")
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
        raise SignatureError("outside_window")
    offered = _offered(found[SIGNATURE_HEADER])
    genuine = False
    for key in [secret_bytes(secret) for secret in secrets] or [_DECOY]:
        expected = _mac(key, message_id, timestamp, body)
        for signature in offered:  # every pair is compared, so the time says nothing about which one fits
            genuine |= hmac.compare_digest(expected, signature)
    if not genuine or not secrets:
        raise SignatureError("signature_wrong")
    return Signed(message_id, datetime.fromtimestamp(int(timestamp), UTC))


def _headers(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if lower in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER):
            if lower in found:
                raise SignatureError("header_repeated")
            found[lower] = value
    if len(found) < 3:
        raise SignatureError("header_missing")
    return found


def _offered(header: str) -> list[bytes]:
    """The signatures of the version we speak; other versions are skipped, as the specification asks, never trusted."""
    offered = []
    for part in header.split(" ")[:_MOST_SIGNATURES]:
        version, _, signature = part.partition(",")
        if version != "v1":
            continue
        try:
            offered.append(base64.b64decode(signature, validate=True))
        except (binascii.Error, ValueError):
            continue
    return offered

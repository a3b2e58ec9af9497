"""`Idempotency-Key`: a repeat gets the stored answer, another body under the same key is refused, two at once are not
both done.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response

from shared import fail_points
from shared.database import Tx
from shared.errors import ConflictError, InvalidError, MalformedError

HEADER = "Idempotency-Key"
_HEADER = HEADER.lower().encode()
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

# One round trip. The look is older than the lock by a moment: an answer stored in between makes STORE fail, and the client come again.
LOCK_AND_FIND = """
SELECT pg_try_advisory_xact_lock(hashtextextended($1::uuid || ' ' || $2::text, 0)) AS locked, request_sha256, status, headers, body
  FROM (VALUES (1)) AS one
  LEFT JOIN idempotency_key ON tenant_id = $1 AND key = $2"""

STORE = """
INSERT INTO idempotency_key (tenant_id, key, request_sha256, status, headers, body)
VALUES ($1, $2, $3, $4, $5, $6)"""


class KeyReusedError(InvalidError):
    slug = "idempotency-key-reused"
    title = "The Idempotency-Key was used with another request."


class InProgressError(ConflictError):
    slug = "request-in-progress"
    title = "A request with this Idempotency-Key is in progress."


class KeyMissingError(MalformedError):
    slug = "idempotency-key-missing"
    title = "The request needs an Idempotency-Key."


def key_of(request: Request[Any, Any, Any], *, required: bool = False) -> str | None:
    """Return the header, or None. MalformedError for one that is not 1 to 255 printable ASCII characters, or for a missing one."""
    values = [value.decode("latin-1") for name, value in request.scope["headers"] if name == _HEADER]
    if not values:
        if required:
            raise KeyMissingError("Send an Idempotency-Key header: a fresh one per request, the same on a retry.")
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise MalformedError("Idempotency-Key must be one value of 1 to 255 printable ASCII characters.")
    return values[0]


async def request_sha256(request: Request[Any, Any, Any]) -> bytes:
    """Hash what makes two requests the same: method, path with query, body."""
    scope = request.scope
    query = scope["query_string"].decode("latin-1")
    digest = hashlib.sha256(f"{scope['method']} {scope['path']}?{query}\n".encode())
    digest.update(await request.body())
    return digest.digest()


async def once(
    request: Request[Any, Any, Any],
    tx: Tx,
    act: Callable[[], Awaitable[Any]],
    *,
    status: int = 201,
    headers: dict[str, str] | None = None,
    required: bool = False,
) -> Response[bytes]:
    """Do `act` and return its result as a JSON answer; under a key that has been answered already, return that answer instead.

    Key and answer are stored in `tx`, the transaction in which `act` works: both or neither. A refusal rolls back and is not stored, so the
    same key may be tried again with a corrected body.

    Raises:
        KeyReusedError: 422, the key belongs to another request.
        InProgressError: 409, the other request with this key has not ended yet.
    """
    key = key_of(request, required=required)
    if key is None:
        return _response(status, msgspec.json.encode(await act()), headers or {})
    return await stored_once(tx, key, await request_sha256(request), act, status=status, headers=headers)


async def stored_once(
    tx: Tx,
    key: str,
    sha256: bytes,
    act: Callable[[], Awaitable[Any]],
    *,
    status: int = 201,
    headers: dict[str, str] | None = None,
) -> Response[bytes]:
    """As `once`, for keys that come from elsewhere, such as a webhook's id."""
    [stored] = await tx.fetch(LOCK_AND_FIND, tx.tenant_id, key)
    if stored["status"] is not None:
        if stored["request_sha256"] != sha256:
            raise KeyReusedError("Use a fresh key for a new request; a retry repeats the request unchanged.")
        return _response(stored["status"], stored["body"], {**stored["headers"], "Idempotent-Replayed": "true"})
    if not stored["locked"]:
        raise InProgressError(retry_after_seconds=1)
    body = msgspec.json.encode(await act())
    try:
        await tx.execute(STORE, tx.tenant_id, key, sha256, status, headers or {}, body)
    except asyncpg.UniqueViolationError:  # it was answered between our look and our lock
        raise InProgressError(retry_after_seconds=1) from None
    fail_points.reach("idempotency.stored")
    return _response(status, body, headers or {})


def _response(status: int, body: bytes, headers: dict[str, str]) -> Response[bytes]:
    return Response(body, status_code=status, headers=headers, media_type="application/json")

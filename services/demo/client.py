"""A client of the API as a careful subscriber writes one: it repeats what got no answer, under the same key."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from services.audit.journal import Witness

PATIENCE_SECONDS = 40.0


class RefusedError(Exception):
    """An answer that is no 2xx where one was needed."""

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(f"{what}: {answer.status} {answer.problem} {answer.body!r}"[:600])
        self.answer = answer


class Answer(Struct, frozen=True):
    status: int
    body: Any
    repeated: bool = False  # what had been answered before under the same key

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def problem(self) -> str:
        """The last part of the problem's type: stable, for counting."""
        kind = self.body.get("type", "") if isinstance(self.body, dict) else ""
        return str(kind).rpartition("/")[2] or f"http-{self.status}"


class Api:
    """One caller: an address and a key."""

    def __init__(self, http: httpx.AsyncClient, key: str | None = None) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def with_key(self, key: str | None) -> Api:
        return Api(self._http, key)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        witness: Witness | None = None,
    ) -> Answer:
        """Send a request and return its answer; one that got none, or 503, is sent again, unchanged, for a while.

        Args:
            body: a value, sent as JSON; or `raw`, sent as it is.
            key: the Idempotency-Key, without which a POST that got no answer is not repeated by a careful client.
            witness: writes down each attempt before it is made, and each answer.
        """
        content = msgspec.json.encode(body) if body is not None else raw
        sent = {
            **self._headers,
            **({"Content-Type": "application/json"} if body is not None else {}),
            **(headers or {}),
        }
        if key is not None:
            sent["Idempotency-Key"] = key
        until = time.monotonic() + PATIENCE_SECONDS
        pause = 0.05
        while True:
            if witness is not None:
                witness.attempt(content or b"", bound=self._bound(method, path, query, content or b"", key))
            try:
                found = await self._http.request(method, path, content=content, headers=sent, params=query)
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
            else:
                if witness is not None:
                    witness.answer(found.status_code, found.content)
                answer = Answer(found.status_code, _decoded(found.content), "idempotent-replayed" in found.headers)
                passing = answer.status in (502, 503) or answer.problem in ("too-many-requests", "request-in-progress")
                if not passing or time.monotonic() > until:
                    return answer
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, 1.0)

    def _bound(self, method: str, path: str, query: Mapping[str, Any] | None, content: bytes, key: str | None) -> str:
        """What a repeat is compared with: all of a request that has a key, the body of a signed call."""
        if key is not None:
            where, _, rest = self._http.build_request(method, path, params=query).url.raw_path.partition(b"?")
            content = b"%b %b?%b\n%b" % (method.encode(), where, rest, content)
        return hashlib.sha256(content).hexdigest()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the decoded body. RefusedError for anything but 2xx."""
        return await self._good("GET", path, query={name: value for name, value in query.items() if value is not None})

    async def post(self, path: str, body: Any = None, *, key: str | None = None, witness: Witness | None = None) -> Any:
        return await self._good("POST", path, body={} if body is None else body, key=key, witness=witness)

    async def put(self, path: str, body: Any) -> Any:
        return await self._good("PUT", path, body=body)

    async def _good(self, method: str, path: str, **how: Any) -> Any:
        answer = await self.ask(method, path, **how)
        if not answer.is_good:
            raise RefusedError(f"{method} {path}", answer)
        return answer.body

    async def until_known(self) -> None:
        """Return when every service knows the key: each has its own copy, which comes by message."""
        for path in ("/v1/me", "/v1/cases?limit=1", "/v1/announcements?limit=1", "/v1/deliveries?limit=1"):
            until = time.monotonic() + PATIENCE_SECONDS
            while (answer := await self.ask("GET", path)).status == 401:
                if time.monotonic() > until:
                    raise RefusedError(f"GET {path}", answer)
                await asyncio.sleep(0.05)


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else None
    except msgspec.DecodeError:
        return None

"""SMS through any provider that takes JSON over HTTP, knows a message by our key, and can be asked for it.

The provider's own names for things are configuration. What is asked of it: the same key twice is one message
(`Idempotency-Key`, and a field of the body), and `lookup_url` says what became of a key. A provider without a look-up
can be used; then an outcome that nobody knows is sent once more at most.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from services.notify.domain.outcomes import Result, of_status
from shared.egress import Answer, Egress, EgressFailedError, EgressRefusedError

Pointer = Annotated[str, Meta(pattern=r"^(/[^/]{1,64}){1,6}$", description="where it stands in the body: /data/id")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Word = str | int


class SmsNames(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's names for the fields of a message."""

    key: Name = "key"
    to: Name = "to"
    text: Name = "text"
    sender: Name = "from"


class SmsAnswer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the provider answers; a status that is neither accepted nor refused is not known."""

    ref: Pointer = "/id"
    status: Pointer = "/status"
    accepted: tuple[Word, ...] = (
        "accepted",
        "queued",
        "sent",
        "delivered",
    )
    refused: tuple[Word, ...] = (
        "refused",
        "rejected",
        "failed",
    )


class SmsReceipt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the provider writes delivery receipts."""

    ref: Pointer = "/id"
    status: Pointer = "/status"
    delivered: tuple[Word, ...] = ("delivered",)
    failed: tuple[Word, ...] = (
        "failed",
        "undelivered",
        "expired",
    )


class SmsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider of SMS."""

    url: Annotated[str, Meta(max_length=2048)]
    lookup_url: Annotated[str, Meta(max_length=2048)] | None = None  # with {key}
    sender: Annotated[str, Meta(max_length=32)] = ""
    countries: tuple[Annotated[str, Meta(pattern=r"^[A-Z]{2}$")], ...] = ("CN",)  # empty: every country
    per_day: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None
    header: Name = "authorization"  # carries the token
    scheme: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,32}$")] = "Bearer"
    names: SmsNames = SmsNames()
    extra: dict[Name, str | int | bool] = {}
    answer: SmsAnswer = SmsAnswer()
    receipt: SmsReceipt = SmsReceipt()


class SmsSecrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored sealed."""

    token: Annotated[str, Meta(max_length=4096, pattern=r"^[!-~]*$")] = ""
    receipts: tuple[str, ...] = ()  # secrets that sign delivery receipts


class Sms(Struct, frozen=True, kw_only=True):
    key: UUID
    to: str  # E.164
    text: str


async def send(egress: Egress, config: SmsConfig, secrets: SmsSecrets, message: Sms, timeout: float) -> Result:
    """Hand one message over, and say what became of it."""
    names = config.names
    body: dict[str, Any] = {**config.extra, names.key: str(message.key), names.to: message.to, names.text: message.text}
    if config.sender:
        body[names.sender] = config.sender
    headers = {
        "content-type": "application/json",
        "idempotency-key": str(message.key),
        **_authorization(config, secrets),
    }
    try:
        answer = await egress.request(
            "POST", config.url, headers=headers, body=msgspec.json.encode(body), timeout=timeout
        )
    except EgressRefusedError as refusal:
        return Result(outcome="unavailable", detail=f"egress_{refusal.reason}")
    except EgressFailedError as failure:
        return Result(outcome="unknown" if failure.sent else "unavailable", detail="no_answer")
    if not 200 <= answer.status < 300:
        return of_status(answer.status, retry_after(answer))
    return _read(config, answer, absent_means="accepted")


async def look_up(egress: Egress, config: SmsConfig, secrets: SmsSecrets, key: UUID, timeout: float) -> Result | None:
    """Ask what became of a key: `accepted` or `refused` when the provider knows, None when it has never seen the key.

    `unavailable` when it does not say; then nothing may be sent yet.
    """
    assert config.lookup_url is not None
    url = config.lookup_url.replace("{key}", quote(str(key), safe=""))
    try:
        answer = await egress.request("GET", url, headers=_authorization(config, secrets), timeout=timeout)
    except (EgressRefusedError, EgressFailedError):
        return Result(outcome="unavailable", detail="lookup_without_answer")
    if answer.status == 404:
        return None
    if answer.status != 200:
        return Result(outcome="unavailable", detail=f"lookup_http_{answer.status}")
    found = _read(config, answer, absent_means="unknown")
    return found if found.outcome != "unknown" else Result(outcome="unavailable", detail="lookup_unclear")


def _authorization(config: SmsConfig, secrets: SmsSecrets) -> dict[str, str]:
    return {config.header: f"{config.scheme} {secrets.token}".strip()} if secrets.token else {}


def _read(config: SmsConfig, answer: Answer, *, absent_means: str) -> Result:
    """Read an answer of success: the provider's name for the message, and its status."""
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Result(outcome="unknown", detail="answer_unreadable")
    status, ref = pointed(body, config.answer.status), pointed(body, config.answer.ref)
    detail = f"http_{answer.status}"
    if status is None:
        outcome = "accepted" if absent_means == "accepted" else "unknown"
    elif status in config.answer.accepted:
        outcome = "accepted"
    elif status in config.answer.refused:
        outcome, detail = "refused", "provider_refused"
    else:
        outcome, detail = "unknown", "status_unclear"
    name = str(ref)[:200] if isinstance(ref, str | int) else None
    return msgspec.convert({"outcome": outcome, "detail": detail, "provider_ref": name}, Result)


def pointed(body: Any, pointer: str) -> Any:
    """The value at a JSON pointer, or None."""
    for part in pointer.split("/")[1:]:
        if isinstance(body, dict):
            body = body.get(part)
        elif isinstance(body, list) and part.isdecimal() and int(part) < len(body):
            body = body[int(part)]
        else:
            return None
    return body


def retry_after(answer: Answer) -> timedelta | None:
    """What `Retry-After` asks for, in seconds; its other form, a date, is not read."""
    text = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(text)) if text.isascii() and text.isdecimal() and len(text) < 8 else None

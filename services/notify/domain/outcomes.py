"""What follows from an attempt: done, again later, or given up; and how long to wait.

An attempt is written before its call. So an outcome that nobody knows (no answer, a broken connection, a crash between
call and record) is visible, and is cleared up before anything is sent again: by asking the provider for the key, or,
where it cannot be asked, by sending once more at most.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from msgspec import Struct

from services.notify.domain.messages import Channel

Outcome = Literal["accepted", "refused", "unavailable", "unknown"]
# accepted: the other side has taken it over. refused: it never will. unavailable: it has certainly not been taken over.
# unknown: it may have been.

State = Literal["queued", "held", "sending", "sent", "delivered", "failed", "dead", "suppressed", "expanded"]
FINAL: frozenset[State] = frozenset({"sent", "delivered", "failed", "dead", "suppressed", "expanded"})

# Seconds before attempt 2, 3, …: one attempt more than there are waits.
WAITS: dict[Channel, tuple[int, ...]] = {
    "sms": (2, 10, 60, 300, 900, 3600, 7200),
    "email": (2, 30, 120, 600, 1800, 3600, 7200, 14_400),
    "webhook": (2, 15, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000),
}
LONGEST_ASKED = timedelta(hours=6)
SENDS_WITHOUT_LOOKUP = 2


class Result(Struct, frozen=True, kw_only=True):
    """What one attempt came to. `detail` is a code of ours or a status, never an address or a text."""

    outcome: Outcome
    detail: str = ""
    provider_ref: str | None = None
    retry_after: timedelta | None = None
    gone: bool = False  # the address itself is closed for good


class Next(Struct, frozen=True):
    """The delivery's next state; `wait` when it is tried again."""

    state: State
    reason: str = ""
    wait: timedelta | None = None


def after(
    result: Result, *, channel: Channel, attempts: int, unknown: int, can_ask: bool, chance: float, scale: float = 1.0
) -> Next:
    """Return what to do after an attempt.

    Args:
        attempts: how many there were, this one included.
        unknown: how many of them have an unknown outcome, this one included.
        can_ask: the receiver can be asked what became of a key, or drops repeats of it by itself.
        chance: from [0, 1), for the jitter.
        scale: stretches the waits; sandboxes and tests use less than 1.
    """
    if result.outcome == "accepted":
        return Next("sent")
    if result.outcome == "refused":
        return Next("dead", result.detail)
    if result.outcome == "unknown" and not can_ask and unknown >= SENDS_WITHOUT_LOOKUP:
        return Next("dead", "outcome_unknown")
    wait = backoff(channel, attempts, chance, scale)
    if wait is None:
        return Next("dead", f"no_success_after_{attempts}_attempts")
    if result.retry_after is not None:
        wait = max(wait, min(result.retry_after, LONGEST_ASKED) * scale)
    return Next("queued", result.detail, wait)


def backoff(channel: Channel, attempts: int, chance: float, scale: float = 1.0) -> timedelta | None:
    """Return how long to wait after so many attempts, between half and one and a half of the table; None: no more."""
    waits = WAITS[channel]
    if attempts > len(waits):
        return None
    return timedelta(seconds=waits[attempts - 1] * (0.5 + chance) * scale)


def of_status(status: int, retry_after: timedelta | None = None) -> Result:
    """What an HTTP status says about a request that was meant to hand something over."""
    detail = f"http_{status}"
    if 200 <= status < 300:
        return Result(outcome="accepted", detail=detail)
    if status == 410:
        return Result(outcome="refused", detail=detail, gone=True)
    if status in (408, 425, 429, 503):
        return Result(outcome="unavailable", detail=detail, retry_after=retry_after)
    if status >= 500:
        return Result(outcome="unknown", detail=detail, retry_after=retry_after)
    return Result(outcome="refused", detail=detail)

"""Webhooks to the tenant's own systems: Standard Webhooks around a CloudEvent.

The receiver drops repeats by `webhook-id`, so an outcome that nobody knows is simply tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from services.notify.channels.sms import retry_after
from services.notify.domain.cloud_events import CONTENT_TYPE
from services.notify.domain.outcomes import Result, of_status
from shared import webhooks
from shared.egress import Egress, EgressFailedError, EgressRefusedError

MOST_SECRETS = 4


class Secret(Struct, frozen=True):
    """A signing secret; `until` is when a rotated one stops signing."""

    value: str
    until: datetime | None = None


def usable(secrets: Sequence[Secret], now: datetime) -> list[str]:
    """The secrets that sign at `now`, the newest first."""
    return [secret.value for secret in secrets if secret.until is None or secret.until > now]


def rotated(secrets: Sequence[Secret], new: str, now: datetime, overlap: timedelta) -> list[Secret]:
    """The secrets after a rotation: the new one, and the old ones for as long as they overlap."""
    kept = [
        replace(secret, until=min(secret.until or now + overlap, now + overlap))
        for secret in secrets
        if secret.value in usable(secrets, now)
    ]
    return [Secret(new), *(kept if overlap else [])][:MOST_SECRETS]


async def send(
    egress: Egress, url: str, secrets: Sequence[str], webhook_id: str, body: bytes, now: datetime, timeout: float
) -> Result:
    """Post one signed event, and say what became of it. `now` is the wall clock's: a receiver checks the signature's age."""
    headers = {"content-type": CONTENT_TYPE, **webhooks.sign(secrets, webhook_id, now, body)}
    try:
        answer = await egress.request("POST", url, headers=headers, body=body, timeout=timeout)
    except EgressRefusedError as refusal:
        return Result(outcome="unavailable", detail=f"egress_{refusal.reason}")
    except EgressFailedError:
        return Result(outcome="unavailable", detail="no_answer")
    result = of_status(answer.status, retry_after(answer))
    if result.outcome in ("accepted", "unavailable") or result.gone:
        return result
    return replace(
        result, outcome="unavailable"
    )  # the tenant may mend its endpoint: a wrong path, an expired certificate

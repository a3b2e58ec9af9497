"""One token bucket per tenant and process: a tenant's flood is answered 429 and delays nobody else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

from shared.errors import TooManyError

MAX_BUCKETS = 50_000  # the least recently used go first; a forgotten tenant starts with a full bucket


class RateLimiter:
    """`take` spends one token or raises TooManyError with the seconds to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[UUID, tuple[float, float]] = OrderedDict()  # tokens, at

    def take(self, tenant_id: UUID, per_second: float, burst: float) -> None:
        now = self._clock()
        tokens, at = self._buckets.pop(tenant_id, (burst, now))
        tokens = min(burst, tokens + (now - at) * per_second)
        allowed = tokens >= 1
        self._buckets[tenant_id] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = (1 - tokens) / per_second if per_second > 0 else 60.0
            raise TooManyError(
                f"The plan allows {per_second:g} requests a second, {burst:g} at once.", retry_after_seconds=wait
            )

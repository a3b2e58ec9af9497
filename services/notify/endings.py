"""Deliveries counted by what became of them, for the metrics and the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from services.notify.domain.outcomes import State
from shared.service import Runtime

log = structlog.get_logger()


class Endings:
    """One for a service: see `endings`."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._ended = runtime.metrics.counter(
            "deliveries_ended", "Deliveries by what became of them.", "channel", "state"
        )

    def count(self, channel: str, state: State, reason: str) -> None:
        self._ended.labels("notify", channel, state).inc()
        (log.warning if state in ("dead", "failed") else log.info)("delivery_ended", state=state, reason=reason)

    def count_dead(self, over: Mapping[tuple[str, str], int]) -> None:
        """Those that were over before they began, by channel and reason: one line for many."""
        for (channel, reason), count in over.items():
            self._ended.labels("notify", channel, "dead").inc(count)
            log.warning("deliveries_ended", state="dead", reason=reason, channel=channel, count=count)


def endings(runtime: Runtime[Any]) -> Endings:
    found = runtime.parts.get("notify-endings")
    if found is None:
        found = runtime.parts["notify-endings"] = Endings(runtime)
    assert isinstance(found, Endings)
    return found

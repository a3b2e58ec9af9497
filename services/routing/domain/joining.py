"""Merging and splitting complaints without losing time: what goes on keeps the strictest deadline of all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from shared.engine.model import ClockView, Standing


def running(standing: Standing) -> list[ClockView]:
    """The limits that count just now. One that is paused has no due instant to hand on, one that is breached keeps its own."""
    return [clock for clock in standing.clocks if clock.state == "running" and clock.due_at is not None]


def strictest(standings: Iterable[Standing]) -> dict[str, datetime]:
    """Return, by clock rule, the earliest due instant among the limits that run in any of the cases."""
    found: dict[str, datetime] = {}
    for standing in standings:
        for clock in running(standing):
            assert clock.due_at is not None
            if clock.rule not in found or clock.due_at < found[clock.rule]:
                found[clock.rule] = clock.due_at
    return found

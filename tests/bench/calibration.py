"""What this machine can do right now, measured in the same run as everything that is weighed against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

REFERENCE_LOOPS: Final = 21_000_000.0
"""Turns of the calibration loop in a second of processor time on the machine the targets are meant for."""


def per_second(work: Callable[[], int]) -> float:
    """How often a second of processor time does the work once; `work` returns how often it did it."""
    started = time.process_time()
    done = work()
    return done / max(time.process_time() - started, 1e-9)


def turns() -> int:
    """A fixed loop of plain Python; returns how many turns it made."""
    total = 0
    for turn in range(2_000_000):
        total += turn & 7
    return 2_000_000

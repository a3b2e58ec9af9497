"""How fast this machine is just now: limits in seconds are meant for the one of the calibration, and scaled to a slower one."""

from __future__ import annotations

import time
from typing import Final

from tests.bench.calibration import REFERENCE_LOOPS, turns

SLOWEST: Final = 0.4
"""A machine slower than that is taken for one of this speed: no limit grows without bound."""


def machine_speed() -> float:
    """The share of the reference that a loop of plain Python reaches by the clock on the wall; what else runs here counts.

    To be asked while the services rest, or their own work would excuse them.
    """
    began = time.monotonic()
    done = turns()
    return max(SLOWEST, min(1.0, done / (time.monotonic() - began) / REFERENCE_LOOPS))


def processor_speed() -> float:
    """The same by the processor's clock: what else runs here does not count, so it may be asked while the services work."""
    began = time.thread_time()
    done = turns()
    return max(SLOWEST, min(1.0, done / (time.thread_time() - began) / REFERENCE_LOOPS))

"""What the disk did while something was measured: on a host that is shared, it may stand still for a while.

From the system's own statistics of the device that a folder is on; nothing is written for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

LOOK_SECONDS: Final = 0.25
STILL_MILLISECONDS: Final = 100.0
"""An SSD takes a hundredth of it for a write that it syncs."""


class Counters(NamedTuple):
    """Of a device, since the system's start."""

    writes: int
    milliseconds: int  # that all of them together have taken
    under_way: int

    @classmethod
    def read(cls, place: Path) -> Counters:
        fields = place.read_text().split()
        return cls(int(fields[4]), int(fields[7]), int(fields[8]))


class Disk(Struct):
    """How long a disk stood still: in that time no write was done though some were under way, or each took `STILL_MILLISECONDS`."""

    still_seconds: float = 0.0
    longest_write_ms: float = 0.0  # on average over those of a quarter of a second

    def __str__(self) -> str:
        return f"disk still for {self.still_seconds:.1f} s, writes of up to {self.longest_write_ms:.0f} ms"

    def add(self, before: Counters, after: Counters, seconds: float) -> None:
        writes = after.writes - before.writes
        each = (after.milliseconds - before.milliseconds) / writes if writes else 0.0
        self.longest_write_ms = max(self.longest_write_ms, round(each, 1))
        if each >= STILL_MILLISECONDS or (not writes and before.under_way and after.under_way):
            self.still_seconds += seconds


@contextmanager
def watching(folder: Path) -> Iterator[Disk | None]:
    """Watch the disk of a folder from a thread while the block runs; None where the system does not tell."""
    device = folder.stat().st_dev
    place = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not place.exists():
        yield None
        return
    disk, over = Disk(), threading.Event()

    def watch() -> None:
        before, since = Counters.read(place), time.monotonic()
        while not over.wait(LOOK_SECONDS):
            after, now = Counters.read(place), time.monotonic()
            disk.add(before, after, now - since)
            before, since = after, now

    thread = threading.Thread(target=watch, name="disk", daemon=True)
    thread.start()
    try:
        yield disk
    finally:
        over.set()
        thread.join()
        disk.still_seconds = round(disk.still_seconds, 1)

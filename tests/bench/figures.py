"""What a benchmark gives: figures, and the targets they are weighed against.

A measuring module offers `async def measure(stage: Stage) -> list[Figure]` and `def targets(figures, calibration) -> list[Target]`.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from msgspec import Struct, field

from services.stack import Stack, running
from services.supervisor import Event
from tests.bench.calibration import REFERENCE_LOOPS

T = TypeVar("T")

LONGER: Final = 3.0  # how much longer a round lasts in `make bench-long`
REFERENCE_INSERTS: Final = 6_200.0
"""Single-row inserts of pgbench over 16 connections in a second, on the machine the targets are meant for."""


class Calibration(Struct, frozen=True, kw_only=True):
    """What the machine did in the same minutes."""

    loops_per_second: float  # turns of the fixed loop in a second of processor time
    inserts_per_second: float  # pgbench, single rows, 16 connections

    @classmethod
    def nothing(cls) -> Calibration:
        return cls(loops_per_second=0.0, inserts_per_second=0.0)

    @property
    def python(self) -> float:
        """Speed of plain Python against the reference machine; never more than 1: a fast machine is asked for no more."""
        return min(1.0, self.loops_per_second / REFERENCE_LOOPS)

    @property
    def database(self) -> float:
        return min(1.0, self.inserts_per_second / REFERENCE_INSERTS)

    @property
    def scale(self) -> float:
        """For work that is half Python and half PostgreSQL, as most of ours: the geometric mean of both."""
        return math.sqrt(self.python * self.database)


class Figure(Struct, frozen=True):
    """One measured value; `detail` holds what it was made of: every run, percentiles, shares of the processors."""

    name: str
    value: float
    unit: str
    detail: dict[str, Any] = {}


class Target(Struct, frozen=True):
    name: str
    value: float
    target: float
    met: bool


def at_least(name: str, value: float, wanted: float) -> Target:
    return Target(name, round(value, 4), round(wanted, 4), value >= wanted)


def at_most(name: str, value: float, wanted: float) -> Target:
    return Target(name, round(value, 4), round(wanted, 4), value <= wanted)


def by_name(figures: Iterable[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


class Kept:
    """What one module leaves running for the next."""

    def __init__(self) -> None:
        self._exits = AsyncExitStack()
        self._found: dict[str, object] = {}
        self._opened = 0

    async def get(self, name: str, opened: Callable[[str], AbstractAsyncContextManager[T]]) -> T:
        """Return what runs under that name; `opened` starts it when nothing does, under a name that was not used before."""
        if name not in self._found:
            self._opened += 1
            self._found[name] = await self._exits.enter_async_context(opened(f"{name}-{self._opened}"))
        return cast(T, self._found[name])

    async def close(self) -> None:
        self._found.clear()
        await self._exits.aclose()


class Stage(Struct, frozen=True, kw_only=True):
    """Where a module measures, and how thoroughly.

    Args:
        folder: scratch; `place` gives each module one of its own, on a disk, removed at the end of the run.
        runs: of each figure, interleaved with those it is compared with; the median counts.
        share: of the usual amount of work; 1.0 in `make bench`, less when somebody tries a module out.
        is_long: `make bench-long`: ten times the data, and longer rounds.
        until: when this module shall be done, by `clock`.
        kept: what the modules of one run share.
        tell: says what is going on.
    """

    folder: Path
    runs: int = 3
    share: float = 1.0
    is_long: bool = False
    until: float = math.inf
    kept: Kept = field(default_factory=Kept)
    tell: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic

    def lasting(self, seconds: float) -> float:
        """How long something of usually so many seconds lasts in this run."""
        return seconds * self.share * (LONGER if self.is_long else 1)

    def rounds(self, what: str) -> Iterator[int]:
        """So many rounds as are wanted; another one only if it will presumably end in time, but one in any case."""
        began = self.clock()
        for turn in range(self.runs):
            now = self.clock()
            if turn and now + (now - began) / turn > self.until:
                self.tell(f"{what}: {turn} rounds instead of {self.runs}: there is no time for another")
                return
            self.tell(f"{what}: round {turn + 1} of {self.runs}")
            yield turn

    def place(self, name: str) -> Path:
        found = self.folder / name
        found.mkdir(parents=True, exist_ok=True)
        return found

    @asynccontextmanager
    async def stack(
        self, name: str, *, processes: bool = True, extra: Mapping[str, str] | None = None
    ) -> AsyncIterator[Stack]:
        """PostgreSQL, NATS, the five services and the gateway on a data folder of that name, for as long as the block lasts.

        A name used before finds its data again.
        """

        def told(event: Event) -> None:
            if event.what in ("died", "unhealthy", "not started"):
                self.tell(f"{event.unit} {event.what} {event.detail}".rstrip())

        async with running(self.place(name), processes=processes, extra=extra, tell=told) as stack:
            yield stack

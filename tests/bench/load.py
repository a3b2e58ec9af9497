"""A load generator that costs next to nothing: requests are bytes made beforehand, answers are looked at no further than their status."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

from msgspec import Struct

from shared.embedded.processes import LOOPBACK

_HEAD: Final = b"HTTP/1.1 "
_LENGTH: Final = b"content-length:"
_CONNECT_SECONDS: Final = 5.0
_LAST_ANSWER_SECONDS: Final = 15.0


class Load(Struct, kw_only=True):
    """What came of it.

    `latencies` are seconds, of good answers; at a rate they count from when a request was due, not from when it went out.
    """

    seconds: float = 0.0
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    bodies: list[bytes] = []  # of good answers, where they were asked for; and
    due: list[float] = []  # when each of those requests was to be sent, seconds since 1970

    @property
    def good(self) -> int:
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)

    @property
    def per_second(self) -> float:
        return self.good / self.seconds if self.seconds else 0.0

    @property
    def problems(self) -> dict[str, int]:
        return {str(status): count for status, count in sorted(self.statuses.items()) if not 200 <= status < 300}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed; not a number of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


class Line(asyncio.Protocol):
    """One connection with at most one request on its way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answered: Callable[[int, bytes], None] | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, answered: Callable[[int, bytes], None]) -> None:
        """Send a request; `answered` hears its status and body, or status 0 when the connection breaks."""
        assert self._transport is not None
        assert self._answered is None
        self._answered = answered
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            self._received = received
            return
        place = received.find(_LENGTH, 0, end)
        stop = received.find(b"\r\n", place, end + 2) if place >= 0 else 0
        length = int(received[place + len(_LENGTH) : stop]) if place >= 0 else 0
        if len(received) < end + 4 + length:
            self._received = received
            return
        self._received = b""
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(int(received[len(_HEAD) : len(_HEAD) + 3]), received[end + 4 :])

    def connection_lost(self, _: Exception | None) -> None:
        self.is_lost = True
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(0, b"")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def lines(port: int, count: int) -> list[Line]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        made = await asyncio.gather(*(loop.create_connection(Line, LOOPBACK, port) for _ in range(count)))
    return [line for _, line in made]


async def flat_out(
    port: int, requests: Iterator[bytes], concurrency: int, seconds: float, *, keep: bool = False
) -> Load:
    """Ask as fast as answers come over so many connections, each with one request on its way."""
    load = Load(statuses=Counter(), latencies=[], bodies=[], due=[])
    open_lines = await lines(port, concurrency)
    clock = time.perf_counter
    done = asyncio.Event()
    running = concurrency
    began = clock()
    until = began + seconds

    def send(line: Line) -> None:
        sent = clock()

        def answered(status: int, body: bytes) -> None:
            nonlocal running
            now = clock()
            load.statuses[status] += 1
            if 200 <= status < 300:
                load.latencies.append(now - sent)
                if keep:
                    load.bodies.append(body)
                    load.due.append(time.time() - (now - sent))
            if now < until and not line.is_lost:
                send(line)
                return
            running -= 1
            if not running:
                done.set()

        line.ask(next(requests), answered)

    for line in open_lines:
        send(line)
    async with asyncio.timeout(seconds + _LAST_ANSWER_SECONDS):
        await done.wait()
    load.seconds = clock() - began
    for line in open_lines:
        line.close()
    return load


async def at_rate(
    port: int,
    requests: Iterator[bytes],
    per_second: float,
    seconds: float,
    *,
    most: int = 256,
    keep: bool = False,
) -> Load:
    """Ask at an even rate, whatever the answers do; a request that finds `most` on their way waits, and its latency counts the wait."""
    load = Load(statuses=Counter(), latencies=[], bodies=[], due=[])
    clock = time.perf_counter
    free = await lines(port, min(most, 16))
    opened = list(free)
    due: list[float] = []
    on_way = 0
    turned = asyncio.Event()

    def send(line: Line, at: float) -> None:
        nonlocal on_way
        on_way += 1

        def answered(status: int, body: bytes) -> None:
            nonlocal on_way
            on_way -= 1
            load.statuses[status] += 1
            if 200 <= status < 300:
                taken = clock() - at
                load.latencies.append(taken)
                if keep:
                    load.bodies.append(body)
                    load.due.append(time.time() - taken)
            if not line.is_lost:
                free.append(line)
            turned.set()

        line.ask(next(requests), answered)

    began = clock()
    total = int(per_second * seconds)
    number = 0
    while number < total or due:
        now = clock()
        while number < total and began + number / per_second <= now:
            due.append(began + number / per_second)
            number += 1
        while due and free:
            send(free.pop(), due.pop(0))
        if due and len(opened) < most:
            more = await lines(port, min(16, most - len(opened)))
            opened += more
            free += more
            continue
        turned.clear()
        if due:
            await asyncio.wait_for(turned.wait(), _LAST_ANSWER_SECONDS)
        elif number < total:
            await asyncio.sleep(max(0.0, began + number / per_second - clock()))
    async with asyncio.timeout(_LAST_ANSWER_SECONDS):
        while on_way:
            turned.clear()
            await turned.wait()
    load.seconds = clock() - began
    for line in opened:
        line.close()
    return load

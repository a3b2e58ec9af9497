"""The benchmark's own arithmetic: percentiles, targets, the last line; and that its load generator counts what it is answered."""

from __future__ import annotations

import asyncio
import math
from itertools import count

import pytest

from tests.bench.__main__ import Measured, report, table, verdict
from tests.bench.figures import Calibration, Figure, Target, at_least, at_most
from tests.bench.load import at_rate, flat_out, percentile

SLOW = Calibration(loops_per_second=10_500_000, inserts_per_second=1_550)
FAST = Calibration(loops_per_second=63_000_000, inserts_per_second=50_000)


def test_a_slow_machine_is_asked_for_less_and_a_fast_one_for_no_more() -> None:
    assert (SLOW.python, SLOW.database) == (0.5, 0.25)
    assert SLOW.scale == pytest.approx(math.sqrt(0.125))
    assert (FAST.python, FAST.database, FAST.scale) == (1, 1, 1)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.99, 10), (1.0, 10)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], share) == expected


def test_of_nothing_there_is_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_what_is_no_number_meets_no_target() -> None:
    assert not at_most("latency", math.nan, 50).met
    assert not at_least("rate", math.nan, 50).met


def test_the_last_line_names_what_was_missed() -> None:
    targets = [at_least("rate", 2, 1), at_most("latency", 3, 2), at_most("memory", 2, 2)]
    assert verdict(targets) == "targets met: 2 of 3; missed: latency"
    assert verdict(targets[:1]) == "targets met: 1 of 1"


def test_the_report_holds_every_figure_and_target() -> None:
    figure = Figure("rate", 2.0, "a second", {"runs": [1.0, 2.0, 3.0]})
    measured = [Measured("intake", 1.0, SLOW, [figure], [Target("rate", 2.0, 1.0, True)])]
    found = report(measured)
    assert found["figures"] == [
        {"module": "intake", "name": "rate", "value": 2.0, "unit": "a second", "detail": {"runs": [1.0, 2.0, 3.0]}}
    ]
    assert found["targets"] == [{"name": "rate", "value": 2.0, "target": 1.0, "met": True}]
    assert found["calibration"]["loops_per_second"] == 10_500_000
    assert any("rate" in line and "met" in line for line in table(measured))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every third request is refused; heads and bodies come in pieces."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            refused = head.endswith(b"3\r\n\r\n")
            writer.write(b"HTTP/1.1 429 No\r\n" if refused else b"HTTP/1.1 201 Created\r\n")
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(b"content-length: 4\r\n\r\nbo")
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(b"dy")
    except asyncio.IncompleteReadError:
        writer.close()


async def test_the_load_generator_counts_what_it_is_answered() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        requests = (b"POST / HTTP/1.1\r\nx-turn: %d\r\n\r\n" % (1 + number % 3) for number in count())
        even = await at_rate(port, requests, 300, 0.1, keep=True)
        assert (sum(even.statuses.values()), even.good, even.problems) == (30, 20, {"429": 10})
        assert even.bodies == [b"body"] * 20
        assert len(even.due) == len(even.latencies) == 20
        full = await flat_out(port, requests, 4, 0.1)
        assert full.good > 0
        assert set(full.statuses) == {201, 429}
        assert len(full.latencies) == full.good

"""The benchmark's own arithmetic: percentiles, targets, the last line; and that its load generator counts what it is answered."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.__main__ import Broken, Measured, Outcome, report, run, table, verdict, write_down
from tests.bench.disk import Counters, Disk
from tests.bench.figures import Calibration, Figure, Kept, Stage, Target, at_least, at_most
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
    part = Measured("intake", 1.0, SLOW, [], targets)
    assert verdict(Outcome([part])) == "targets met: 2 of 3; missed: latency"
    assert verdict(Outcome([Measured("intake", 1.0, SLOW, [], targets[:1])])) == "targets met: 1 of 1"
    broken = Outcome([part], [Broken("wakeups", "TimeoutError")])
    assert verdict(broken) == "targets met: 2 of 3; missed: latency; not measured: wakeups"


def test_the_report_holds_every_figure_and_target() -> None:
    figure = Figure("rate", 2.0, "a second", {"runs": [1.0, 2.0, 3.0]})
    measured = [Measured("intake", 1.0, SLOW, [figure], [Target("rate", 2.0, 1.0, True)])]
    found = report(Outcome(measured))
    assert found["figures"] == [
        {"module": "intake", "name": "rate", "value": 2.0, "unit": "a second", "detail": {"runs": [1.0, 2.0, 3.0]}}
    ]
    assert found["targets"] == [{"name": "rate", "value": 2.0, "target": 1.0, "met": True}]
    assert found["calibration"]["loops_per_second"] == 10_500_000
    assert any("rate" in line and "met" in line for line in table(Outcome(measured)))


def test_a_disk_that_stands_still_is_told_beside_the_calibration() -> None:
    disk = Disk()
    looks = [
        Counters(0, 0, 0),
        Counters(100, 50, 0),
        Counters(100, 50, 3),
        Counters(100, 50, 3),
        Counters(103, 1_400, 0),
    ]
    for before, after in pairwise(looks):
        disk.add(before, after, 0.25)
    assert (disk.still_seconds, disk.longest_write_ms) == (0.5, 450.0)
    measured = [Measured("intake", 1.0, SLOW, [], [], disk)]
    assert report(Outcome(measured))["calibration"]["modules"]["intake"]["disk"]["still_seconds"] == 0.5
    assert "disk still for 0.5 s, writes of up to 450 ms" in next(table(Outcome(measured)))


class _Stand:
    """Stands for the calibration: what is tested is what becomes of the modules."""

    async def look(self) -> Calibration:
        return SLOW


def _written(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "build" / "bench.json").read_text())
    return found


def _module(found: list[Figure] | BaseException) -> SimpleNamespace:
    async def measure(_: Stage) -> list[Figure]:
        if isinstance(found, BaseException):
            raise found
        return found

    return SimpleNamespace(measure=measure, targets=lambda *_: [at_least("rate", 2, 1)])


@pytest.mark.parametrize("fault", [TimeoutError("no facts"), SystemExit("nothing was woken")])
async def test_what_one_module_cannot_measure_the_others_still_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: BaseException
) -> None:
    monkeypatch.setitem(sys.modules, "tests.bench.start", _module(fault))
    monkeypatch.setitem(sys.modules, "tests.bench.intake", _module([Figure("rate", 2.0, "/s")]))
    outcome = Outcome()
    await run(["start", "intake"], Stage(folder=tmp_path), outcome, _Stand())
    assert [each.module for each in outcome.measured] == ["intake"]
    assert [each.module for each in outcome.broken] == ["start"]
    assert str(fault) in outcome.broken[0].reason


async def test_a_run_that_is_broken_off_writes_down_what_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tests.bench.start", _module([Figure("rate", 2.0, "/s")]))
    monkeypatch.setitem(sys.modules, "tests.bench.intake", _module(asyncio.CancelledError()))
    outcome = Outcome()
    with pytest.raises(asyncio.CancelledError):
        await run(["start", "intake", "wakeups"], Stage(folder=tmp_path), outcome, _Stand())
    said: list[str] = []
    write_down(outcome, said.append)
    assert said[-1] == "targets met: 1 of 1; not measured: intake, wakeups"
    written = _written(tmp_path)
    assert [each["name"] for each in written["figures"]] == ["rate"]
    assert [each["module"] for each in written["not_measured"]] == ["intake", "wakeups"]


def test_there_are_no_more_rounds_than_there_is_time(tmp_path: Path) -> None:
    now = [0.0]
    stage = Stage(folder=tmp_path, runs=5, until=25.0, clock=lambda: now[0])
    made = []
    for turn in stage.rounds("intake"):
        made.append(turn)
        now[0] += 10.0
    assert made == [0, 1]
    assert list(Stage(folder=tmp_path, runs=5, until=-1.0, clock=lambda: now[0]).rounds("intake")) == [0]
    assert len(list(Stage(folder=tmp_path, runs=5).rounds("intake"))) == 5


async def test_what_is_shared_is_started_once_and_anew_after_it_was_closed() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def open_one(name: str) -> AsyncIterator[str]:
        opened.append(name)
        yield name
        opened.append(f"{name} closed")

    kept = Kept()
    assert await kept.get("stack", open_one) == await kept.get("stack", open_one) == "stack-1"
    await kept.close()
    assert await kept.get("stack", open_one) == "stack-2"
    await kept.close()
    assert opened == ["stack-1", "stack-1 closed", "stack-2", "stack-2 closed"]


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
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_the_load_generator_counts_what_it_is_answered() -> None:
    answering: list[asyncio.Task[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.create_task(_answer(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
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
        await asyncio.gather(*answering)

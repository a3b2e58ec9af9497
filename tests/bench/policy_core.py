"""The policy core and the calendar, as `make bench-policy` measures them: in a process of its own, since it takes all cores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.bench.figures import Calibration, Figure, Stage, Target

_targets: list[Target] = []


async def measure(stage: Stage) -> list[Figure]:
    history = 1_000_000 if stage.is_long else 100_000
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.policy"),
        env={**os.environ, "CHECK": "0", "HISTORY": str(max(1000, round(history * stage.share)))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        said, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"tests.bench.policy ended with {process.returncode}")
    found: dict[str, Any] = msgspec.json.decode(said)
    _targets[:] = [Target(**each) for each in found["targets"]]
    return [
        Figure(name, value, name.rpartition("_")[2], {"scale": found["calibration"]["scale"]})
        for name, value in found["figures"].items()
    ]


def targets(_: Sequence[Figure], __: Calibration) -> list[Target]:
    """As the module has weighed them, by the calibration that it measured between its own runs."""
    return list(_targets)

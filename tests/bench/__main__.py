"""`make bench`: everything measured, weighed against its targets, and written down in `build/bench.json`.

    python -m tests.bench [intake pipeline …] [--long] [--runs N] [--share 0.2]

Without names, all modules run. The exit code is 1 for a missed target only with CHECK=1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import asyncpg
import msgspec
import uvloop

from services.cli.up import log_to
from shared.embedded.folder import open_folder
from shared.embedded.postgres import PostgresServer
from tests.bench import pgbench
from tests.bench.calibration import REFERENCE_LOOPS, per_second, turns
from tests.bench.figures import REFERENCE_INSERTS, Calibration, Figure, Stage, Target

MODULES: Final = ("policy_core", "start", "intake", "pipeline", "fairness", "wakeups", "scaling")
BUILD: Final = Path("build")
_CALIBRATION_SECONDS: Final = 3


class Measured(msgspec.Struct, frozen=True):
    """What one module found, and what the machine could do right before and right after."""

    module: str
    seconds: float
    calibration: Calibration
    figures: list[Figure]
    targets: list[Target]


class Calibrating:
    """A PostgreSQL of its own for pgbench: started for each look, and stopped so that nothing runs beside what is measured."""

    def __init__(self, folder: Path) -> None:
        self._server = PostgresServer(open_folder(folder), 0)
        self._script = folder / "plain.sql"
        self._script.write_text(pgbench.PLAIN_INSERT, encoding="utf-8")

    async def look(self) -> Calibration:
        await self._server.start()
        try:
            connection = await asyncpg.connect(self._server.dsn)
            await connection.execute(pgbench.PLAIN_TABLE)
            await connection.execute("TRUNCATE public.plain")
            await connection.close()
            inserts = await pgbench.per_second(self._server.dsn, self._script, _CALIBRATION_SECONDS)
        finally:
            await self._server.stop()
        loops = statistics.median(per_second(turns) for _ in range(5))
        return Calibration(loops_per_second=loops, inserts_per_second=inserts)


def between(looks: list[Calibration]) -> Calibration:
    return Calibration(
        loops_per_second=statistics.mean(look.loops_per_second for look in looks),
        inserts_per_second=statistics.mean(look.inserts_per_second for look in looks),
    )


async def run(names: list[str], stage: Stage) -> list[Measured]:
    calibrating = Calibrating(stage.place("calibration"))
    measured: list[Measured] = []
    before = await calibrating.look()
    for name in names:
        began = time.monotonic()
        module: ModuleType = import_module(f"tests.bench.{name}")
        stage.tell(f"{name} …")
        figures: list[Figure] = await module.measure(stage)
        after = await calibrating.look()
        calibration = between([before, after])
        before = after
        measured.append(
            Measured(
                module=name,
                seconds=round(time.monotonic() - began, 1),
                calibration=calibration,
                figures=figures,
                targets=module.targets(figures, calibration),
            )
        )
        stage.tell(f"{name}: {measured[-1].seconds:.0f} s")
    return measured


def report(measured: list[Measured]) -> dict[str, Any]:
    """What `build/bench.json` holds; each figure names its module, and each module's calibration stands beside the one of the whole run."""
    whole = between([each.calibration for each in measured])
    return {
        "calibration": {
            "loops_per_second": round(whole.loops_per_second),
            "reference_loops": REFERENCE_LOOPS,
            "inserts_per_second": round(whole.inserts_per_second, 1),
            "reference_inserts": REFERENCE_INSERTS,
            "scale": round(whole.scale, 4),
            "cores": os.cpu_count(),
            "modules": {
                each.module: {
                    "loops_per_second": round(each.calibration.loops_per_second),
                    "inserts_per_second": round(each.calibration.inserts_per_second, 1),
                    "seconds": each.seconds,
                }
                for each in measured
            },
        },
        "figures": [
            {"module": each.module, **msgspec.to_builtins(figure)} for each in measured for figure in each.figures
        ],
        "targets": [msgspec.to_builtins(target) for each in measured for target in each.targets],
    }


def table(measured: list[Measured]) -> Iterator[str]:
    for each in measured:
        look = each.calibration
        yield (
            f"{each.module}   (calibration: Python {look.python:.2f}, pgbench {look.inserts_per_second:,.0f} rows/s;"
            f" {each.seconds:.0f} s)"
        )
        for figure in each.figures:
            beside = ", ".join(
                f"{name} {value:,.6g}" for name, value in figure.detail.items() if isinstance(value, int | float)
            )
            yield f"  {figure.name:36} {figure.value:>14,.6g} {figure.unit}{f'   ({beside})' if beside else ''}"
        yield ""
    yield "targets"
    for target in (target for each in measured for target in each.targets):
        yield f"  {'met   ' if target.met else 'MISSED'} {target.name:36} {target.value:>14,.6g}   target {target.target:,.6g}"


def verdict(targets: list[Target]) -> str:
    missed = [target.name for target in targets if not target.met]
    said = f"targets met: {len(targets) - len(missed)} of {len(targets)}"
    return f"{said}; missed: {', '.join(missed)}" if missed else said


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on a real disk, gone afterwards: what is measured is committed."""
    BUILD.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD)).absolute()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("modules", nargs="*", choices=[[], *MODULES], help="those to run; all, if none is named")
    parser.add_argument("--long", action="store_true", help="with ten million sleeping cases and ten times the data")
    parser.add_argument("--runs", type=int, default=3, help="of each figure; the median counts")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual amount of work, to try something out")
    asked = parser.parse_args()

    def tell(line: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        sys.stderr.flush()

    with scratch() as folder:
        log_to(folder / "bench.log")
        stage = Stage(folder=folder, runs=asked.runs, share=asked.share, is_long=asked.long, tell=tell)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measured = runner.run(run(asked.modules or list(MODULES), stage))
    (BUILD / "bench.json").write_text(msgspec.json.format(msgspec.json.encode(report(measured)), indent=2).decode())
    targets = [target for each in measured for target in each.targets]
    for line in table(measured):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{verdict(targets)}\n")
    return int(os.environ.get("CHECK") == "1" and any(not target.met for target in targets))


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: everything measured, weighed against its targets, and written down in `build/bench.json`.

    python -m tests.bench [intake pipeline …] [--long] [--runs N] [--share 0.2]

Without names, all modules run. The exit code is 1 for a missed target only with CHECK=1, and in any case when something could not be
measured; what was measured until then is told all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import asyncpg
import msgspec
import uvloop

from services.cli.up import log_to
from shared.embedded.folder import open_folder
from shared.embedded.postgres import PostgresServer
from tests.bench import pgbench
from tests.bench.calibration import REFERENCE_LOOPS, per_second, turns
from tests.bench.disk import Disk, watching
from tests.bench.figures import REFERENCE_INSERTS, Calibration, Figure, Stage, Target

# Each with the seconds that it has, in `make bench` and in `make bench-long`; those that share a stack are neighbours.
MODULES: Final[Mapping[str, tuple[float, float]]] = {
    "policy_core": (40, 420),
    "start": (90, 150),
    "intake": (70, 210),
    "wakeups": (110, 900),
    "pipeline": (95, 540),
    "fairness": (50, 180),
    "scaling": (70, 180),
}
SHARING: Final = ("pipeline", "fairness", "scaling")
BUILD: Final = Path("build")
_CALIBRATION_SECONDS: Final = 2


class Measured(msgspec.Struct, frozen=True):
    """What one module found, and what the machine could do right before and right after."""

    module: str
    seconds: float
    calibration: Calibration
    figures: list[Figure]
    targets: list[Target]
    disk: Disk | None = None


class Looks(Protocol):
    async def look(self) -> Calibration:
        """What the machine can do right now."""


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


class Broken(msgspec.Struct, frozen=True):
    """A module that could not be measured to its end, and why."""

    module: str
    reason: str


class Outcome(msgspec.Struct):
    """What a run has come to so far."""

    measured: list[Measured] = []
    broken: list[Broken] = []

    @property
    def targets(self) -> list[Target]:
        return [target for each in self.measured for target in each.targets]


async def run(names: Sequence[str], stage: Stage, outcome: Outcome, calibrating: Looks) -> None:
    """Measure one module after the other into `outcome`. One that fails is named there, and the next goes on on a stack of its own."""
    before = await calibrating.look()
    try:
        for place, name in enumerate(names):
            began = time.monotonic()
            until = began + MODULES[name][stage.is_long] * stage.share
            try:
                module: ModuleType = import_module(f"tests.bench.{name}")
                stage.tell(f"{name} …")
                with watching(stage.folder) as disk:
                    figures: list[Figure] = await module.measure(msgspec.structs.replace(stage, until=until))
                after = await calibrating.look()
                calibration = between([before, after])
                before = after
                targets = module.targets(figures, calibration)
            except (Exception, SystemExit) as error:
                outcome.broken.append(Broken(name, f"{type(error).__name__}: {error}".strip(": ")))
                stage.tell(f"{name} broke off: {outcome.broken[-1].reason}")
                await stage.kept.close()
                continue
            except BaseException:
                outcome.broken.append(Broken(name, "broken off"))
                outcome.broken += [Broken(later, "not begun") for later in names[place + 1 :]]
                raise
            seconds = round(time.monotonic() - began, 1)
            outcome.measured.append(Measured(name, seconds, calibration, figures, targets, disk))
            stage.tell(f"{name}: {seconds:.0f} s")
            if not set(names[place + 1 :]) & set(SHARING):
                await stage.kept.close()
    finally:
        await stage.kept.close()


def report(outcome: Outcome) -> dict[str, Any]:
    """What `build/bench.json` holds; each figure names its module, and each module's calibration stands beside the one of the whole run."""
    measured = outcome.measured
    whole = between([each.calibration for each in measured]) if measured else Calibration.nothing()
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
                    "disk": msgspec.to_builtins(each.disk),
                }
                for each in measured
            },
        },
        "figures": [
            {"module": each.module, **msgspec.to_builtins(figure)} for each in measured for figure in each.figures
        ],
        "targets": [msgspec.to_builtins(target) for target in outcome.targets],
        "not_measured": [msgspec.to_builtins(each) for each in outcome.broken],
    }


def table(outcome: Outcome) -> Iterator[str]:
    for each in outcome.measured:
        look = each.calibration
        yield (
            f"{each.module}   (calibration: Python {look.python:.2f}, pgbench {look.inserts_per_second:,.0f} rows/s;"
            f" {each.seconds:.0f} s{f'; {each.disk}' if each.disk else ''})"
        )
        for figure in each.figures:
            beside = ", ".join(
                f"{name} {value:,.6g}" for name, value in figure.detail.items() if isinstance(value, int | float)
            )
            yield f"  {figure.name:36} {figure.value:>14,.6g} {figure.unit}{f'   ({beside})' if beside else ''}"
        yield ""
    yield "targets"
    for target in outcome.targets:
        yield f"  {'met   ' if target.met else 'MISSED'} {target.name:36} {target.value:>14,.6g}   target {target.target:,.6g}"


def verdict(outcome: Outcome) -> str:
    targets = outcome.targets
    missed = [target.name for target in targets if not target.met]
    said = [f"targets met: {len(targets) - len(missed)} of {len(targets)}"]
    if missed:
        said.append(f"missed: {', '.join(missed)}")
    if outcome.broken:
        said.append(f"not measured: {', '.join(each.module for each in outcome.broken)}")
    return "; ".join(said)


def write_down(outcome: Outcome, tell: Callable[[str], object]) -> None:
    """Into `build/bench.json`, and as a table whose last line is the verdict."""
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(msgspec.json.format(msgspec.json.encode(report(outcome)), indent=2).decode())
    for line in table(outcome):
        tell(line)
    for each in outcome.broken:
        tell(f"  NOT MEASURED {each.module}: {each.reason}")
    tell(verdict(outcome))


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

    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # also `timeout` gets what there is
    outcome = Outcome()
    is_interrupted = False
    try:
        with scratch() as folder:
            log_to(folder / "bench.log")
            stage = Stage(folder=folder, runs=asked.runs, share=asked.share, is_long=asked.long, tell=tell)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                calibrating = Calibrating(stage.place("calibration"))
                runner.run(run(asked.modules or list(MODULES), stage, outcome, calibrating))
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        write_down(outcome, lambda line: sys.stdout.write(f"{line}\n"))
    if is_interrupted:
        return 130
    is_missed = any(not target.met for target in outcome.targets)
    return int(bool(outcome.broken) or (os.environ.get("CHECK") == "1" and is_missed))


if __name__ == "__main__":
    sys.exit(main())

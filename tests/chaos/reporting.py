"""What a run leaves behind: build/chaos.json for machines, build/chaos.txt for people, one line as the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.chaos.frame import Report, State

FOLDER: Final = Path("build")


class Verdict(Struct, frozen=True):
    ok: bool
    text: str


def verdict_of(
    mode: str, reports: Sequence[Report], planned: Sequence[str], seed: int, *, require_all: bool
) -> Verdict:
    """Return the last line. A run that has not come to all that was planned has been broken off, and proves nothing."""
    what = "mutants caught" if mode == "mutants" else "cases passed"
    states: tuple[State, ...] = ("passed", "failed", "not run", "broken off")
    by_state = {state: [each.name for each in reports if each.state == state] for state in states}
    missing = [name for name in planned if name not in {each.name for each in reports}]
    is_broken_off = bool(missing or by_state["broken off"])
    ok = (
        bool(by_state["passed"])
        and not (by_state["failed"] or is_broken_off)
        and not (require_all and by_state["not run"])
    )
    parts = [f"{len(by_state['passed'])} of {len(planned)} {what}"]
    parts += [f"{state}: {', '.join(by_state[state])}" for state in states[1:] if by_state[state]]
    parts += [f"not begun: {', '.join(missing)}"] if missing else []
    how = ["FAILED"] if by_state["failed"] or not (ok or is_broken_off) else []
    how += ["broken off"] if is_broken_off else []
    return Verdict(ok, f"chaos {' and '.join(how) or 'passed'}, seed {seed}: {'; '.join(parts)}")


def stages_of(report: Report) -> str:
    """Where its seconds went, and how many processors were busy meanwhile."""
    spent = (f"{name} {each.seconds:.1f} ({each.processors:.1f})" for name, each in report.stages.items())
    looks = (f"{look.seconds:.1f}{f' awaiting {look.awaits}' if look.awaits else ''}" for look in report.looks)
    told = f"{report.seconds:.0f} s (busy processors): {', '.join(spent)}"
    return told + (f"; looks: {', '.join(looks)}" if report.looks else "")


def write(mode: str, seed: int, reports: Sequence[Report], verdict: Verdict) -> None:
    FOLDER.mkdir(exist_ok=True)
    content = {"mode": mode, "seed": seed, "ok": verdict.ok, "verdict": verdict.text, "cases": reports}
    (FOLDER / "chaos.json").write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    lines: list[str] = []
    for report in reports:
        lines.append(f"{report.name:<34} {report.state:<8} {report.seconds:7.1f} s  {report.compared:>8} comparisons")
        lines += [f"    {stages_of(report)}"] if report.stages else []
        lines += [f"    {why}" for why in report.why]
        lines += [f"    {name}: {value}" for name, value in report.figures.items()]
    (FOLDER / "chaos.txt").write_text("\n".join([*lines, verdict.text]) + "\n", encoding="utf-8")

"""Run folders of scenarios against the templates, and say where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from shared.engine.calendar import CalendarBook
from shared.engine.case import LoopError
from shared.engine.explaining import Explanation, explain_clocks, explain_penalty
from shared.engine.rules import CompiledPolicy
from shared.policy.documents import DocumentError
from shared.policy.problems import PolicyError
from shared.policy.simulating import (
    Difference,
    Outcome,
    Scenario,
    compare,
    compile_for,
    load_scenario,
    observed,
    simulate,
)
from shared.policy.template_files import document_of

MOST_KEPT: Final = 16
_compiled: dict[tuple[str, bytes, bytes], tuple[CompiledPolicy, CalendarBook]] = {}  # by regime, settings, calendar
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Result(Struct, frozen=True, kw_only=True):
    """One scenario: passed, or what differs."""

    id: str
    regime: str
    title: str
    passed: bool
    differences: list[Difference] = []
    error: str | None = None


def run(path: Path, document: Any = None) -> tuple[Scenario, Outcome]:
    """Simulate one scenario file under a document, by default the template of its regime.

    Raises:
        DocumentError, msgspec.ValidationError: the file is no scenario.
        PolicyError: the policy cannot be compiled under its settings.
        KeyError: there is no template for its regime.
    """
    scenario = load_scenario(path)
    policy, calendars = _template_for(scenario) if document is None else compile_for(scenario, document)
    return scenario, simulate(scenario, policy, calendars)


def _template_for(scenario: Scenario) -> tuple[CompiledPolicy, CalendarBook]:
    """The template of a scenario's regime under its choices; scenarios one after another mostly make the same ones."""
    key = scenario.regime, _encode(scenario.settings), _encode(scenario.calendar)
    found = _compiled.get(key)
    if found is None:
        if len(_compiled) >= MOST_KEPT:
            del _compiled[next(iter(_compiled))]
        found = _compiled[key] = compile_for(scenario, document_of(scenario.regime))
    return found


def check(folder: Path, document: Any = None) -> Iterator[Result]:
    """The result of every scenario of a folder, in the order of their names."""
    for path in sorted(folder.glob("*.yaml")):
        yield check_one(path, document)


def check_one(path: Path, document: Any = None) -> Result:
    try:
        scenario, outcome = run(path, document)
    except (DocumentError, msgspec.ValidationError, PolicyError, KeyError, ValueError, LoopError) as error:
        return Result(id=path.stem, regime="", title="", passed=False, error=f"{type(error).__name__}: {error}")
    differences = compare(scenario, outcome)
    return Result(
        id=scenario.id,
        regime=scenario.regime,
        title=scenario.title,
        passed=not differences,
        differences=differences,
    )


def simulation(path: Path, document: Any = None, lang: Literal["en", "zh"] = "en") -> dict[str, Any]:
    """Everything that one scenario file comes to. Raises what `run` raises."""
    scenario = load_scenario(path)
    return simulation_of(scenario, document_of(scenario.regime) if document is None else document, lang)


def simulation_of(scenario: Scenario, document: Any, lang: Literal["en", "zh"] = "en") -> dict[str, Any]:
    """Everything that a scenario comes to under a document, in the words of `expect`, with the explanation of each figure."""
    policy, calendars = compile_for(scenario, document)
    outcome = simulate(scenario, policy, calendars)
    differences = compare(scenario, outcome)
    return {
        "id": scenario.id,
        "regime": scenario.regime,
        "title": scenario.title,
        "passed": not differences,
        **observed(outcome),
        "problems": msgspec.to_builtins(outcome.standing.problems),
        "next_at": outcome.standing.next_at,
        "explanations": msgspec.to_builtins(_explanations(outcome, lang)),
        "differences": msgspec.to_builtins(differences),
    }


def _explanations(outcome: Outcome, lang: Literal["en", "zh"]) -> list[Explanation]:
    penalties = [explain_penalty(outcome.case, view, lang) for view in outcome.standing.penalties]
    return [*explain_clocks(outcome.case, lang), *penalties]


def explained(path: Path, document: Any = None, lang: Literal["en", "zh"] = "en") -> list[str]:
    """The lines that lead to each due instant and each amount of a scenario; none where it cannot be run."""
    try:
        _, outcome = run(path, document)
    except (DocumentError, msgspec.ValidationError, PolicyError, KeyError, ValueError, LoopError):
        return []
    return [f"{one.title} {one.clause}: {line}" for one in _explanations(outcome, lang) for line in one.lines]

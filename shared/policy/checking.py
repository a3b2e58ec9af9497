"""Run folders of scenarios against the templates, and say where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from shared.engine.case import LoopError
from shared.policy.documents import DocumentError
from shared.policy.problems import PolicyError
from shared.policy.simulating import Difference, Outcome, Scenario, compare, compile_for, load_scenario, simulate
from shared.policy.template_files import document_of


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
    policy, calendars = compile_for(scenario, document_of(scenario.regime) if document is None else document)
    return scenario, simulate(scenario, policy, calendars)


def check(folder: Path) -> Iterator[Result]:
    """The result of every scenario of a folder, in the order of their names."""
    for path in sorted(folder.glob("*.yaml")):
        yield check_one(path)


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

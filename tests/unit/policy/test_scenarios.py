"""Worked cases of the written regimes: each scenario is run under the template of its regime and must come out exactly as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.policy.checking import check_one

FOLDER = Path(__file__).parents[2] / "scenarios"


def regime_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("regime: ")[2][:3]


# By regime, so that scenarios one after another share a compiled template.
SCENARIOS = sorted(FOLDER.rglob("*.yaml"), key=lambda path: (regime_of(path), path.name))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_comes_out_as_written(path: Path) -> None:
    result = check_one(path)
    assert result.error is None
    assert result.differences == []


def test_there_are_scenarios_for_every_regime() -> None:
    assert {regime_of(path) for path in SCENARIOS} == {f"R{number:02}" for number in range(1, 39)}


def test_what_is_expected_wrongly_is_noticed(tmp_path: Path) -> None:
    """The comparison itself: a figure that is off by one, and an item more than there should be."""
    text = (FOLDER / "S113a.yaml").read_text(encoding="utf-8")
    wrong = tmp_path / "S113a.yaml"
    wrong.write_text(
        text.replace(
            'amount_cny: "150.00"}\n    - {clause: R20.27, party: doctor-3, kind: sanction, sanction: supervised',
            'amount_cny: "151.00"}\n    - {clause: R20.27, party: doctor-3, kind: sanction, sanction: supervised',
        )
    )
    paths = [one.path for one in check_one(wrong).differences]
    assert "penalties/0" in paths
    assert "penalties" in paths

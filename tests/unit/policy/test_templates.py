"""What ships: a template for each written regime, complete, without findings, readable."""

from __future__ import annotations

import re

import jsonschema
import pytest

from shared.policy import catalogue
from shared.policy.compiling import compile_policy
from shared.policy.coverage import coverage
from shared.policy.describing import describe
from shared.policy.documents import LARGEST
from shared.policy.json_schema import json_schema
from shared.policy.linting import lint
from shared.policy.template_files import document_of, names, text_of

REGIMES = sorted(catalogue.regimes())
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_every_regime_has_a_template() -> None:
    assert sorted(names()) == REGIMES
    assert all(re.fullmatch(r"r\d\d_[a-z0-9_]+", name) for name in names().values())


def test_every_clause_is_carried_by_something() -> None:
    found = coverage()
    assert found.total == 522
    assert found.missing == []
    assert found.regimes["R04"]["R04.7"]


def test_paid_and_hidden_press_work_is_left_out_on_purpose() -> None:
    rules = compile_policy(document_of("R18")).clause_rules
    for clause in ("R18.16", "R18.17"):
        assert any(rule.startswith("by_design_not") for rule in rules[clause])
        assert not any(rule.partition(".")[0] in ("actions", "clocks", "penalties") for rule in rules[clause])


@pytest.mark.parametrize("regime", REGIMES)
def test_a_template_has_no_errors_and_names_its_regime(regime: str) -> None:
    text = text_of(regime)
    assert len(text.encode()) <= LARGEST
    assert lint(text).errors == []
    policy = compile_policy(text)
    assert policy.regime == regime
    assert set(policy.clause_rules) <= set(catalogue.clause_ids())
    assert {clause.partition(".")[0] for clause in policy.clause_rules} <= {regime}


@pytest.mark.parametrize("regime", REGIMES)
def test_a_template_fits_the_schema_for_editors(regime: str) -> None:
    errors = [
        f"{list(error.path)}: {error.message[:200]}" for error in VALIDATOR.iter_errors(document_of(regime).values)
    ]
    assert errors == []


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_template_is_told_in_plain_sentences(regime: str, lang: str) -> None:
    policy = compile_policy(document_of(regime))
    sentences = describe(policy, "en" if lang == "en" else "zh")
    assert len(sentences) >= len(policy.clocks) + len(policy.penalties)
    for one in sentences:
        assert one.text.strip(" .。"), one
        assert "None" not in one.text, one

"""docs/policy-guide.md does what it says: the policy that a reader types works after every step, and comes out at the end as shown."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from services import cli
from shared.engine.model import EFFECT_KINDS
from shared.policy import wording
from shared.policy.checking import check, check_one, run
from shared.policy.compiling import ENGINE_TRIGGERS, compile_policy
from shared.policy.documents import parse
from shared.policy.json_schema import json_schema
from shared.policy.linting import lint
from shared.policy.simulating import Scenario, observed
from tests.guide.assembling import GUIDE, ORIGIN, POLICY, SCENARIOS, Command, commands, scenarios, steps

TEXT = GUIDE.read_text(encoding="utf-8")
STEPS = steps(TEXT)
FINAL = parse(STEPS[-1])


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_the_policy_works_after_every_step(number: int) -> None:
    assert [f"{one.path}: {one.message}" for one in lint(STEPS[number]).errors] == []


def test_the_finished_policy_has_no_findings_and_fits_the_schema_for_editors() -> None:
    assert lint(FINAL).problems == []
    assert list(jsonschema.Draft202012Validator(json_schema()).iter_errors(FINAL.values)) == []


def test_the_files_beside_the_tests_are_what_the_guide_says() -> None:
    """`make docs` writes them."""
    assert POLICY.read_text(encoding="utf-8") == ORIGIN + STEPS[-1]
    assert {path.name: path.read_text(encoding="utf-8") for path in SCENARIOS.glob("*.yaml")} == scenarios(TEXT)


def test_all_ten_scenarios_come_out_as_the_guide_says() -> None:
    results = list(check(SCENARIOS, FINAL))
    assert len(results) == 10
    for one in results:
        assert (one.id, one.error, one.differences) == (one.id, None, [])


@pytest.mark.parametrize(
    ("scenario", "right", "wrong"),
    [
        ("first", "10:00:00", "11:00:00"),
        ("late", '"21.00"', '"20.00"'),
        ("refused", "reply_missing", "too_late"),
        ("extension", "2026-03-20T18", "2026-03-17T18"),
        ("pause", "2026-03-19T18", "2026-03-16T18"),
        ("counter", "count: 3", "count: 4"),
        ("duty", "state: breached", "state: met"),
        ("decided", "above_maximum", "below_minimum"),
        ("appeal", '"-150.00"', '"-100.00"'),
        ("setting", "2026-03-07T23:59:59", "2026-03-09T18:00:00"),
    ],
)
def test_a_scenario_that_expects_something_else_does_not_pass(
    scenario: str, right: str, wrong: str, tmp_path: Path
) -> None:
    before, expect, after = scenarios(TEXT)[f"{scenario}.yaml"].partition("\nexpect:")
    assert right in after
    path = tmp_path / f"{scenario}.yaml"
    path.write_text(before + expect + after.replace(right, wrong, 1), encoding="utf-8")
    assert check_one(path, FINAL).differences


def test_every_rule_of_the_company_is_carried_by_something() -> None:
    written = re.findall(r"^\| (W01\.\d+) \|", TEXT, re.MULTILINE)
    assert len(written) == 22
    assert set(compile_policy(FINAL).clause_rules) == set(written)


def test_every_choice_of_its_settings_can_be_made() -> None:
    chosen = 0
    for name, setting in FINAL.values["settings"].items():
        for value in setting.get("values") or [True, False]:
            compile_policy(FINAL, {name: value})
            chosen += 1
    assert chosen == 4


@pytest.mark.parametrize("command", commands(TEXT), ids=lambda command: " ".join(command.arguments[1:]))
def test_a_command_says_what_the_guide_shows(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("water.yaml").write_text(command.policy, encoding="utf-8")
    Path("scenarios").mkdir()
    for name, text in command.scenarios.items():
        (Path("scenarios") / name).write_text(text, encoding="utf-8")
    cli.run(command.arguments)
    said = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip("\n").splitlines())
    pattern = ".*".join(re.escape(part) for part in re.split(r"^…$", command.said.strip("\n"), flags=re.MULTILINE))
    assert re.fullmatch(pattern, said, re.DOTALL), said


def test_the_lists_of_the_guide_are_complete() -> None:
    effects = TEXT.split("What it can do:")[1].split("What follows `on`")[0]
    assert set(re.findall(r"`([a-z]+)`(?=[, |])", effects)) >= EFFECT_KINDS
    triggers = TEXT.split("use\nthem anywhere:")[1].split("## Step 9")[0]
    assert set(re.findall(r"`([a-z]+):(?! )", triggers)) == set(ENGINE_TRIGGERS)


def test_the_links_of_the_documents_lead_somewhere() -> None:
    folder = GUIDE.parent
    for page in sorted(folder.glob("*.md")):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            there = page if target == "" else (page.parent / target)
            assert there.exists(), (page.name, target)
            if anchor:
                text = there.read_text(encoding="utf-8")
                heads = [re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in _heads(text)]
                assert anchor in {*heads, *re.findall(r'<a id="([^"]+)">', text)}, (page.name, target, anchor)


def test_the_texts_on_the_page_on_messages_work() -> None:
    page = (GUIDE.parent / "messages.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```liquid\n(.*?)```", page, re.DOTALL)
    assert len(shown.splitlines()) == 3
    assert wording.problems(shown) == []


def test_the_page_on_scenarios_shows_one_that_passes_and_every_key(tmp_path: Path) -> None:
    page = (GUIDE.parent / "scenarios.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(shown, encoding="utf-8")
    assert check_one(path, FINAL).differences == []
    for field in msgspec.structs.fields(Scenario):
        assert f"`{field.encode_name}`" in page, field.encode_name
    _, outcome = run(path, FINAL)
    found = observed(outcome)
    for name, value in found.items():
        assert f"| `{name}` |" in page, name
        for key in value[0] if isinstance(value, list) and value else ():
            assert f"`{key}`" in page, (name, key)


def test_blocks_that_are_no_steps_are_valid_yaml() -> None:
    for name, text in scenarios(TEXT).items():
        assert yaml.safe_load(text)["id"] == name.removesuffix(".yaml")


def _heads(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def test_choices_are_given_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        code = cli.run(("policy", *arguments))
        return code, capsys.readouterr().out

    _, usual = said("explain", str(POLICY))
    _, other = said("explain", str(POLICY), "--set", "short_limit=calendar_days", "--set", "head_pays=false")
    assert "within 5 working days;" in usual
    assert "fine 30 % of the penalty" in usual
    assert "within 5 calendar days;" in other
    assert "fine 30 % of the penalty" not in other
    code, told = said("lint", str(POLICY), "--set", "short_limit=calender_days")
    assert code == 1
    assert "Did you mean calendar_days?" in told
    assert cli.run(("policy", "lint", str(POLICY), "--set", "short_limit")) == 2


def test_a_limit_may_be_set_for_any_clause_of_any_regime(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(("policy", "lint", str(POLICY), "--set", "W01.8.count_first_day=true")) == 0
    assert cli.run(("policy", "lint", str(POLICY), "--set", "W01.8.count_first_dy=true")) == 1
    assert "there is no setting W01.8.count_first_dy" in capsys.readouterr().out

"""The chaos suite itself, as far as it can be told without starting anything: `make chaos` is too long for every day."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from services.audit.findings import CHECKS
from shared.fail_points import POINTS
from shared.messages.routing import EntryAppended
from shared.pending import read
from shared.policy.compiling import compile_policy
from shared.policy.documents import parse
from tests.chaos.cases import all_cases
from tests.chaos.fail_points import BURYING, PLACES
from tests.chaos.frame import GATE, CaseFailedError, Report, World, together
from tests.chaos.mutated import FAULTS
from tests.chaos.poison import bodies
from tests.chaos.reporting import stages_of, verdict_of
from tests.chaos.running import noted_when_broken_off
from tests.chaos.tenants import POLICY


async def _nothing(*_: Any) -> None:
    """A handler that none of the bodies may reach."""


def test_every_fail_point_is_some_services_and_no_other_is_named() -> None:
    named = [BURYING[1], *(point for points in PLACES.values() for point in points)]
    assert sorted(named) == sorted(POINTS)
    assert len(POINTS) >= 24


def test_the_eight_mutants_and_the_cases_have_names_of_their_own() -> None:
    assert len(FAULTS) == 8
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names) >= 14
    assert len(CHECKS) == 15


def test_no_poison_can_be_read() -> None:
    tenant_id = uuid4()
    for name, body, stranger in bodies(tenant_id):
        subject = f"routing.v1.{stranger or tenant_id}.entry.appended"
        _, message, flaw = read(subject, body, {EntryAppended: _nothing})
        assert message is None, name
        assert flaw


def test_the_policy_of_the_tenants_compiles() -> None:
    assert compile_policy(parse(POLICY).values, {}, 1).version == 1


def a_world(seed: int) -> Any:
    nobody: Any = None
    return World(nobody, nobody, nobody, seed, GATE)


def test_a_case_goes_the_same_way_whatever_else_is_run() -> None:
    first, again, other = a_world(7).of("kills"), a_world(7).of("kills"), a_world(7).of("flood")
    assert first.chance.random() == again.chance.random() != other.chance.random()
    assert a_world(8).of("kills").chance.random() != a_world(7).of("kills").chance.random()


def test_a_case_has_a_sheet_of_its_own_and_says_where_its_seconds_went() -> None:
    whole = a_world(7)
    own = whole.of("kills")
    for _ in range(2):
        with own.stage("case"):
            own.broken.append("something")
    assert not whole.broken
    assert not whole.stages
    report = Report(name="kills", state="passed", seconds=12.3, stages=own.stages)
    assert stages_of(report).startswith("12 s (busy processors): case 0.0 (")


async def test_the_first_failure_ends_what_is_done_beside_it() -> None:
    ended = asyncio.Event()

    async def go_on() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise CaseFailedError("it did not hold")

    with pytest.raises(CaseFailedError, match="did not hold"):
        await together([go_on(), fail()])
    assert ended.is_set()


def a_report(number: int, state: Any) -> Report:
    return Report(name=f"case {number}", state=state, seconds=1.0)


@pytest.mark.parametrize(
    ("states", "require_all", "is_ok"),
    [
        (["passed", "passed"], True, True),
        (["passed", "not run"], False, True),
        (["passed", "not run"], True, False),
        (["passed", "failed"], False, False),
        (["not run"], False, False),
        ([], False, False),
        (["passed", "broken off"], False, False),
    ],
)
def test_a_run_is_good_when_something_passed_and_nothing_failed(
    states: list[Any], require_all: bool, is_ok: bool
) -> None:
    reports = [a_report(number, state) for number, state in enumerate(states)]
    verdict = verdict_of("gate", reports, [each.name for each in reports], 7, require_all=require_all)
    assert verdict.ok is is_ok
    assert "seed 7" in verdict.text


def test_a_run_that_was_broken_off_says_so_and_proves_nothing() -> None:
    planned = ["case 0", "case 1", "case 2"]
    verdict = verdict_of("gate", [a_report(0, "passed"), a_report(1, "broken off")], planned, 7, require_all=False)
    assert not verdict.ok
    assert verdict.text == "chaos broken off, seed 7: 1 of 3 cases passed; broken off: case 1; not begun: case 2"
    verdict = verdict_of("gate", [a_report(0, "failed")], planned, 7, require_all=False)
    assert (
        verdict.text
        == "chaos FAILED and broken off, seed 7: 0 of 3 cases passed; failed: case 0; not begun: case 1, case 2"
    )


def test_a_case_that_is_cancelled_is_noted() -> None:
    reports: list[Report] = []
    with pytest.raises(KeyboardInterrupt), noted_when_broken_off("kills", reports):
        raise KeyboardInterrupt
    assert [(each.name, each.state) for each in reports] == [("kills", "broken off")]

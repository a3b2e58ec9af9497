"""How long the audit looks, and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from services.audit import auditing
from services.audit.findings import Findings


def a_look(*found: tuple[str, str, bool]) -> Findings:
    """Findings of one look: (subject, what, whether it may pass)."""
    findings = Findings()
    findings.looked_at(10)
    findings.stage = "transport"
    for subject, what, may_pass in found:
        findings.add("I9", subject, what, may_pass=may_pass)
    return findings


@pytest.fixture
def made() -> list[frozenset[str] | None]:
    """The parts that were made of each look; None: it was whole."""
    return []


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, made: list[frozenset[str] | None]) -> list[Findings]:
    """What one look after another finds, the last again and again; a second passes from each to the next."""
    to_come: list[Findings] = []
    seconds: Iterator[float] = iter(range(10_000))

    async def look_once(_: Any, only: frozenset[str] | None = None) -> Findings:
        made.append(only)
        return to_come.pop(0) if len(to_come) > 1 else to_come[0]

    async def sleep(_: float) -> None:
        """Nothing to wait for."""

    monkeypatch.setattr(auditing, "look_once", look_once)
    monkeypatch.setattr(auditing, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(auditing, "asyncio", SimpleNamespace(sleep=sleep))
    return to_come


async def found(patience: float, *, of_now: bool = False) -> list[tuple[str, str]]:
    evidence: Any = None
    verdict = await auditing.audit(evidence, patience=patience, of_now=of_now)
    assert verdict.compared == 10
    return [(each.subject, each.what) for each in verdict.details]


async def test_what_passes_in_time_is_no_finding_and_what_stays_is_one(looks: list[Findings]) -> None:
    looks += [a_look(("a", "waits", True), ("b", "waits", True)), a_look(("b", "waits", True))]
    assert await found(5) == [("b", "waits")]


async def test_what_cannot_pass_is_found_although_something_else_is_under_way(looks: list[Findings]) -> None:
    looks += [a_look(("a", "is lost", False), ("b", "waits", True)), a_look(("a", "is lost", False))]
    assert await found(5) == [("a", "is lost")]


async def test_a_system_that_goes_on_is_judged_by_what_was_under_way_at_first(looks: list[Findings]) -> None:
    looks += [a_look((f"case {number}", "waits", True), ("figure", f"{number} instead", True)) for number in range(500)]
    assert await found(5, of_now=True) == []
    assert len(looks) > 490, "and it is judged soon"


async def test_a_system_that_goes_on_is_found_out_by_what_stays(looks: list[Findings]) -> None:
    looks += [a_look((f"case {number}", "waits", True), ("a", "waits", True)) for number in range(500)]
    assert await found(5, of_now=True) == [("a", "waits")]


async def test_a_system_that_goes_on_is_found_out_by_what_cannot_pass(looks: list[Findings]) -> None:
    looks += [a_look(("case 1", "waits", True)), a_look(("case 2", "waits", True), ("a", "is lost", False))]
    assert await found(5, of_now=True) == [("a", "is lost")]


async def test_what_may_pass_is_looked_at_again_alone_and_the_last_look_is_whole(
    looks: list[Findings], made: list[frozenset[str] | None]
) -> None:
    looks += [a_look(("a", "waits", True)), a_look(("a", "waits", True)), a_look()]
    assert await found(5) == []
    assert made == [None, {"transport"}, {"transport"}, None]


async def test_what_the_second_whole_look_waits_for_may_pass_as_well(
    looks: list[Findings], made: list[frozenset[str] | None]
) -> None:
    looks += [a_look(("a", "waits", True)), a_look(), a_look(("b", "waits", True)), a_look()]
    assert await found(5) == []
    assert made == [None, {"transport"}, None, {"transport"}]


async def test_what_the_second_whole_look_finds_and_stays_is_found(looks: list[Findings]) -> None:
    looks += [a_look(("a", "waits", True)), a_look(), a_look(("b", "waits", True))]
    assert await found(5) == [("b", "waits")]


async def test_a_system_that_goes_on_needs_no_second_whole_look(
    looks: list[Findings], made: list[frozenset[str] | None]
) -> None:
    looks += [a_look(("a", "waits", True)), a_look(("b", "waits", True))]
    assert await found(5, of_now=True) == []
    assert made == [None, {"transport"}]


async def test_what_a_look_waited_for_is_told(looks: list[Findings]) -> None:
    looks += [a_look(("a", "waits", True)), a_look()]
    evidence: Any = None
    first, second, *_ = (await auditing.audit(evidence, patience=5, of_now=True)).looks
    assert (first.awaits, first.examples) == ({"I9": 1}, ["I9 a: waits"])
    assert (second.awaits, second.examples) == ({}, [])

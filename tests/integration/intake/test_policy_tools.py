"""The workbench over HTTP: what the commands do, for the tenant's own administrator."""

from __future__ import annotations

from typing import Any

from tests.integration.intake.world import World

BROKEN: dict[str, Any] = {
    "policy": 1,
    "title": "Broken",
    "vocabulary": {"kinds": {"external": ""}},
    "clocks": [{"id": "reply", "start": "recieved", "stop": "replied", "within": "3 wd"}],
}
SCENARIO: dict[str, Any] = {
    "id": "T1",
    "regime": "R20",
    "clauses": ["R20.12"],
    "title": "finished in time",
    "complaint": {"channel": "visit", "received_at": "2026-03-02T09:00:00+08:00", "severity": "complaint"},
    "events": [
        {"kind": "accepted", "at": "2026-03-02T10:00:00+08:00", "by": "specialist"},
        {"kind": "resolved", "at": "2026-03-05T10:00:00+08:00", "by": "specialist", "data": {"outcome": "not_upheld"}},
    ],
    "until": "2026-03-06T00:00:00+08:00",
    "expect": {"clocks": [{"clause": "R20.12", "due_at": "2026-03-05T18:00:00+08:00", "state": "met"}]},
}


async def test_lint_names_every_mistake_with_its_place(world: World) -> None:
    tenant = await world.tenant(policy=None)
    answer = await tenant.admin.post("/v1/policies:lint", {"document": BROKEN})
    assert answer.status_code == 200
    found = answer.json()
    assert not found["ok"]
    by_path = {one["path"]: one for one in found["problems"]}
    assert by_path["/clocks/0/start"]["suggestion"] == "received"
    assert "3wd" in by_path["/clocks/0/within"]["message"]


async def test_a_template_is_told_in_two_languages(world: World) -> None:
    tenant = await world.tenant(policy=None)
    for lang, word in (("en", "working days"), ("zh", "工作日")):
        answer = await tenant.admin.post("/v1/policies:explain", {"template": "R20", "lang": lang})
        assert answer.status_code == 200
        assert any(word in one["text"] for one in answer.json()["sentences"])


async def test_a_scenario_runs_without_a_trace(world: World) -> None:
    tenant = await world.tenant(policy=None)
    answer = await tenant.admin.post("/v1/policies:simulate", {"template": "R20", "scenario": SCENARIO})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["passed"], found["differences"]
    assert any("working day 3" in line for one in found["explanations"] for line in one["lines"])
    bad = await tenant.admin.post("/v1/policies:simulate", {"document": BROKEN, "scenario": SCENARIO})
    assert bad.status_code == 422
    assert bad.json()["type"] == "/problems/policy-unfit"


async def test_two_versions_are_compared_in_terms_of_rules(world: World) -> None:
    tenant = await world.tenant(policy=None)
    answer = await tenant.admin.post("/v1/policies:diff", {"before": {"template": "R20"}, "after": {"template": "R20"}})
    assert answer.json() == {"changes": []}
    after = {"document": {**BROKEN, "title": "Other"}}
    answer = await tenant.admin.post("/v1/policies:diff", {"before": {"document": BROKEN}, "after": after})
    assert [(one["kind"], one["section"]) for one in answer.json()["changes"]] == [("changed", "title")]


async def test_a_handler_has_no_workbench(world: World) -> None:
    tenant = await world.tenant(policy=None)
    assert (await tenant.admin.get("/v1/policies/schema")).json()["title"] == "Recourse policy"
    missing = await tenant.admin.post("/v1/policies:lint", {"template": "R99"})
    assert missing.status_code == 422

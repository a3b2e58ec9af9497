"""A draft is tried on what really happened: the same rules show no difference, others show whose and by how much."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tests.integration.routing.world import POLICY, World


def _with(within: str) -> dict[str, Any]:
    draft = deepcopy(POLICY)
    draft["clocks"][0]["within"] = within
    return draft


async def test_the_live_rules_show_no_difference(world: World) -> None:
    shop = await world.tenant()
    for _ in range(3):
        await shop.complaint()
    found = (await shop.call("POST", "/v1/cases:backtest", json={"document": POLICY})).json()
    assert found["next"] is None
    result = found["result"]
    assert (result["cases"], result["changed"], result["deadlines_moved"], result["failed"]) == (3, 0, 0, [])


async def test_a_draft_shows_the_complaints_behind_each_difference(world: World) -> None:
    shop, other = await world.tenant(), await world.tenant()
    mine = {str(await shop.complaint()) for _ in range(3)}
    await other.complaint()
    first = (await shop.call("POST", "/v1/cases:backtest", json={"document": _with("10wd"), "limit": 2})).json()
    second = (
        await shop.call(
            "POST", "/v1/cases:backtest", json={"document": _with("10wd"), "limit": 2, "after": first["next"]}
        )
    ).json()
    changes = first["result"]["changes"] + second["result"]["changes"]
    assert {one["case_id"] for one in changes} == mine
    assert second["next"] is None
    for one in changes:
        (moved,) = one["moved"]
        assert (moved["rule"], moved["clause"]) == ("reply", "X.3")
        assert moved["before"] < moved["after"]


async def test_a_draft_that_cannot_work_is_refused(world: World) -> None:
    shop = await world.tenant()
    answer = await shop.call("POST", "/v1/cases:backtest", json={"document": _with("ten days")})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/document/clocks/0/within"

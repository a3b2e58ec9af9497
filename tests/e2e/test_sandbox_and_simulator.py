"""What a sandbox does, live through five services, is what the simulator says of the same events."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from services.demo.client import Api
from services.demo.handling import advance
from shared.policy.checking import simulation_of
from shared.policy.simulating import Scenario
from shared.policy.template_files import document_of
from tests.e2e.conftest import World

PEOPLE = ("specialist", "leader_in_charge", "hospital_leader")
COMPLAINT = {
    "channel": "visit",
    "severity": "dispute",
    "text": "拔牙后要求退费。",
    "complainant": {"name": "万里", "phone": "13800000001"},
    "respondent": {"staff": "doctor-3", "unit": "dental", "supervisor": "head-d"},
    "fields": {"bad_effect": True, "refund_cny": "1000.00"},
}
ACTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("specialist", "accepted", {}),
    ("specialist", "assigned", {"unit": "dental"}),
    ("specialist", "resolved", {"outcome": "upheld"}),
    ("hospital_leader", "penalty_decided", {"clause": "R20.27", "party": "doctor-3", "amount_cny": "150.00"}),
    ("hospital_leader", "penalty_decided", {"clause": "R20.28", "party": "doctor-3", "percent": "12"}),
)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.timeout(180)
async def test_live_results_equal_the_simulators(world: World) -> None:
    created = await world.operator.post("/v1/tenants", {"slug": "clinic", "name": "Clinic", "sandbox": True})
    admin = world.operator.with_key(created["admin_key"])
    await admin.post("/v1/policies:publish", {"template": "R20", "reason": "The first."})
    await admin.until_known()
    keys: dict[str, Api] = {}
    for person in PEOPLE:
        body = {"role": "handler", "name": person, "staff_id": person}
        keys[person] = admin.with_key((await admin.post("/v1/credentials", body))["key"])
        await admin.put(f"/v1/staff/{person}", {"roles": [person]})
        await keys[person].until_known()
    case_id = UUID((await admin.post("/v1/complaints", COMPLAINT, key="one"))["id"])
    await admin.get(f"/v1/cases/{case_id}", wait=10)
    for who, kind, data in ACTS:
        await advance(admin, by="20min")
        await keys[who].post(f"/v1/cases/{case_id}/entries", {"kind": kind, "data": data})
    await advance(admin, by="10wd")

    live = await admin.get(f"/v1/cases/{case_id}")
    clocks = await admin.get(f"/v1/cases/{case_id}/clocks")
    penalties = await admin.get(f"/v1/cases/{case_id}/penalties")
    announced = await admin.get("/v1/announcements", case_id=case_id)
    received, *events = live["timeline"]
    given = {
        name: received["data"].get(name) for name in ("channel", "severity", "respondent", "complainant", "fields")
    }
    scenario = Scenario(
        id="live",
        regime="R20",
        clauses=[],
        title="as it was lived",
        complaint={"received_at": received["at"], **{name: value for name, value in given.items() if value}},
        events=[
            {"kind": one["kind"], "at": one["at"], "by": one["by"]["id"], "data": one["data"]}
            for one in events
            if one["by"]["id"] != "system"
        ],
        until=instant(clocks["now"]),
        expect={},
    )
    told = simulation_of(scenario, document_of("R20"))

    def keyed(rows: Any, *names: str) -> list[tuple[Any, ...]]:
        return sorted((tuple(_plain(row.get(name)) for name in names) for row in rows), key=str)

    names = ("clause", "due_at", "state", "stopped_at")
    assert keyed(clocks["clocks"], *names) == keyed(told["clocks"], *names)
    decided = ("clause", "party", "kind", "sanction", "number")
    assert keyed(penalties["penalties"], *decided) == keyed(told["penalties"], *decided)
    amounts = sorted(one["amount_minor"] for one in penalties["penalties"] if one["amount_minor"])
    # The higher of fine and share of the refund; the head pays for the first dispute.
    assert amounts == [150_00, 500_00]
    assert sorted(one["amount_cny"] for one in told["penalties"] if "amount_cny" in one) == ["150.00", "500.00"]
    effects = [one["effect"] for one in announced["announcements"] if one["withdrawn_at"] is None]
    assert keyed(effects, "clause", "kind", "at", "to") == keyed(told["effects"], "clause", "kind", "at", "to")
    assert effects
    balances = await admin.get("/v1/ledger/balances")
    assert sum(one["balance_minor"] for one in balances["balances"]) == 650_00


def _plain(value: Any) -> Any:
    """Instants as text of the same form, whoever wrote them."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, str) and value[4:5] == "-" and "T" in value:
        return instant(value).timestamp()
    return tuple(value) if isinstance(value, list) else value

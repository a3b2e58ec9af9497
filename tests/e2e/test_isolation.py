"""One tenant's key and another tenant's ids: on every path of the one OpenAPI document there is nothing to be found."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from services.demo.client import Answer, Api
from services.demo.handling import advance
from tests.e2e.conftest import World
from tests.e2e.test_one_complaint import DRAFT, School, until

REASON = {"reason": "a look"}
# Bodies that are good, so that nothing but the id can be what is wrong. An operation that takes one and is not here fails the test.
BODIES: dict[str, Any] = {
    "append_entry": {"kind": "commented", "data": {}},
    "link_case": {"to": "{other}"},
    "merge_case": {"into": "{other}"},
    "split_case": {"parts": [{"category": "operations"}]},
    "create_text": {"text": "a note", "kind": "comment"},
    "read_attachment": REASON,
    "unmask_contact": REASON,
    "change_provider": {"channel": "sms", "name": "SMS", "config": {"url": "http://127.0.0.1:9/messages"}},
    "change_source": {"active": False},
    "change_tenant": {"name": "Taken over"},
    "change_webhook": {"active": False},
    "put_staff": {"roles": ["petition_clerk"]},
}
OWN_NAMES = {"staff_id", "version", "row"}
"""Names within a tenant: the same one means each tenant's own, and a tenant may make its own."""

PUBLIC = {"receive_webhook", "take_receipt"}
"""What a signature protects; without a good one it is 401 for everybody."""


async def a_tenant_with_everything(world: World, slug: str) -> tuple[School, dict[str, str]]:
    """Return a tenant and an id of everything that it can own, by the names that paths use."""
    school = await School.open(world, slug)
    admin = school.admin
    attachment = {"name": "proof.txt", "content": base64.b64encode(b"proof").decode(), "media_type": "text/plain"}
    stored = await admin.post("/v1/complaints", {**DRAFT, "attachments": [attachment]}, key=f"{slug}-1")
    case_id = stored["id"]
    await admin.get(f"/v1/cases/{case_id}", wait=10)
    attachments = await admin.get(f"/v1/complaints/{case_id}/attachments")
    contact = await admin.get(f"/v1/complaints/{case_id}/contact")
    table = b"category,text\nteaching,one\n"
    imported = await admin.ask("POST", "/v1/imports?source=tables", raw=table, headers={"Content-Type": "text/csv"})
    now = datetime.fromisoformat((await admin.get("/v1/sandbox/clock"))["now"])
    await advance(admin, (now + timedelta(hours=1)).isoformat())
    operation = await admin.post("/v1/sandbox/clock:advance", {"by": "1h"})
    await until(lambda: admin.get("/v1/sandbox/clock"), lambda clock: clock["operation"] is None)
    deliveries = await until(lambda: admin.get("/v1/deliveries"), lambda found: found["deliveries"])
    tenant_id = str(school.tenant_id)
    await admin.ask("PATCH", f"/v1/tenants/{tenant_id}", body={"two_admins": True})
    proposed = await admin.post("/v1/policies:publish", {"template": "r02_driving_school", "reason": "another"})
    credentials = (await admin.get("/v1/credentials"))["items"]
    delivery_id = deliveries["deliveries"][0]["delivery_id"]
    endpoint_id = (await admin.get("/v1/webhooks"))["webhooks"][0]["endpoint_id"]
    return school, {
        "tenant_id": tenant_id,
        "case_id": case_id,
        "complaint_id": case_id,
        "complainant_id": contact["complainant_id"],
        "attachment_id": attachments["items"][0]["attachment_id"],
        "credential_id": credentials[-1]["credential_id"],
        "proposal_id": proposed["proposal_id"],
        "source_id": school.hook["source"]["source_id"],
        "import_id": imported.body["import_id"],
        "operation_id": operation["operation_id"],
        "delivery_id": delivery_id,
        "endpoint_id": endpoint_id,
        "provider_id": (await admin.get("/v1/providers"))["providers"][0]["provider_id"],
        "retry_delivery": f"{delivery_id}:retry",
        "command_webhook": f"{endpoint_id}:rotate",
        "staff_id": "hao.ran",
        "version": "1",
        "row": "complaints",
    }


def filled(path: str, operation_id: str, ids: dict[str, str]) -> str:
    """The path with ids in it. KeyError for a parameter that nobody has thought of."""
    for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
        path = path.replace(f"{{{name}}}", ids[operation_id if name == "command" else name])
    return path


def as_random(ids: dict[str, str]) -> dict[str, str]:
    """The same ids, of nothing that exists."""
    return {name: str(uuid4()) + value[36:] if len(value) >= 36 else value for name, value in ids.items()}


async def asked(
    api: Api, method: str, path: str, operation: dict[str, Any], ids: dict[str, str], own_case: str
) -> Answer:
    name = operation["operationId"]
    body = BODIES[name] if "requestBody" in operation else None
    if isinstance(body, dict):
        body = {key: own_case if value == "{other}" else value for key, value in body.items()}
    return await api.ask(method.upper(), filled(path, name, ids), body=body)


@pytest.mark.timeout(240)
async def test_another_tenants_ids_lead_nowhere_on_any_path(world: World) -> None:
    mine, my_ids = await a_tenant_with_everything(world, "mine")
    theirs, their_ids = await a_tenant_with_everything(world, "theirs")
    before = await _everything(theirs, their_ids)
    document = await mine.admin.get("/openapi.json")
    looked_at, wrong = 0, []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            parameters = {part[1:-1] for part in path.split("/") if part.startswith("{")}
            name = operation.get("operationId", "")
            if not parameters or name in PUBLIC or parameters <= OWN_NAMES:
                continue
            if path.startswith("/v1/ops/"):
                ids = {**their_ids, "dead_letter_id": str(uuid4())}
                answer = await asked(mine.admin, method, path, operation, ids, my_ids["case_id"])
                expected = 403  # the operator's alone, whatever the id
            else:
                answer = await asked(mine.admin, method, path, operation, their_ids, my_ids["case_id"])
                nothing = await asked(mine.admin, method, path, operation, as_random(their_ids), my_ids["case_id"])
                expected = 403 if name == "create_admin" else 404
                if (answer.status, answer.body) != (nothing.status, nothing.body):
                    wrong.append(
                        f"{name}: what is theirs is answered otherwise than what is nowhere: {answer} {nothing}"
                    )
            if answer.status != expected:
                wrong.append(f"{method} {path} ({name}): {answer.status} {answer.body}")
            looked_at += 1
    assert wrong == []
    assert looked_at > 50
    assert await _everything(theirs, their_ids) == before


async def _everything(school: School, ids: dict[str, str]) -> list[Any]:
    """What the owner sees, for comparison."""
    case = await school.admin.get(f"/v1/cases/{ids['case_id']}")
    return [
        case["timeline"],
        (await school.admin.get("/v1/credentials"))["items"],
        (await school.admin.get("/v1/sources"))["items"],
        (await school.admin.get("/v1/webhooks"))["webhooks"],
        (await school.admin.get("/v1/providers"))["providers"],
        (await school.admin.get("/v1/staff"))["items"],
        (await school.admin.get("/v1/policies/proposals"))["items"],
        (await school.admin.get(f"/v1/tenants/{ids['tenant_id']}"))["name"],
    ]


@pytest.mark.timeout(240)
async def test_another_tenants_ids_in_filters_and_bodies_find_nothing(world: World) -> None:
    mine, my_ids = await a_tenant_with_everything(world, "mine")
    theirs, their_ids = await a_tenant_with_everything(world, "theirs")
    case_id = their_ids["case_id"]
    for path, list_ in (
        ("/v1/announcements", "announcements"),
        ("/v1/ledger", "rows"),
        ("/v1/deliveries", "deliveries"),
        ("/v1/facts", "items"),
    ):
        assert (await mine.admin.get(path, case_id=case_id))[list_] == [], path
    texts = await theirs.admin.post("/v1/vault/texts:read", {"case_id": case_id})
    text_id = texts["items"][0]["text_id"]
    for body in ({"case_id": case_id}, {"text_ids": [text_id]}):
        assert (await mine.admin.ask("POST", "/v1/vault/texts:read", body=body)).status == 404
    own = my_ids["case_id"]
    for path, body in ((f"/v1/cases/{own}/merges", {"into": case_id}), (f"/v1/cases/{own}/links", {"to": case_id})):
        answer = await mine.admin.ask("POST", path, body=body)
        assert answer.status in (404, 422), answer.body
    listed = (await mine.admin.get("/v1/cases", closed="true"))["items"]
    assert case_id not in {line["case_id"] for line in listed}
    assert {line["case_id"] for line in listed} >= {own}

from __future__ import annotations

from typing import Any

import asyncpg

from shared.messages.intake import CalendarPublished, CredentialChanged, PolicyPublished, TenantChanged
from tests.infra import Infra
from tests.integration.intake.world import POLICY, World, messages


async def test_a_tenant_its_key_and_its_policy_are_told(world: World, streams: Infra) -> None:
    tenant = await world.tenant(zone="Europe/Berlin", sandbox=True)
    told = await messages(streams, tenant.tenant_id, 3)
    first, credential, policy = told
    assert isinstance(first, TenantChanged)
    assert isinstance(credential, CredentialChanged)
    assert isinstance(policy, PolicyPublished)
    assert (first.slug, first.zone, first.sandbox, first.revision) == (tenant.slug, "Europe/Berlin", True, 1)
    assert credential.role == "admin"
    assert len(credential.key_hash) == 64
    assert (policy.version, policy.effect, policy.reason) == (1, "keep", "a test")
    assert policy.document == POLICY
    assert len(policy.sha256) == 64


async def test_a_slug_is_taken_once(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(policy=None)
    answer = await world.operator.post("/v1/tenants", {"slug": tenant.slug, "name": "Another"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "/problems/slug-taken"
    assert await root.fetchval("SELECT count(*) FROM tenant") == 1


async def test_a_slug_that_is_none_is_refused(world: World) -> None:
    for slug in ("Upper", "a b", "*", "a.b", "x" * 64, "пример", "", "-a", ">"):
        answer = await world.operator.post("/v1/tenants", {"name": "x", "slug": slug})
        assert answer.status_code == 400, slug


async def test_a_plan_that_is_none_is_refused(world: World) -> None:
    for limits in ({"requests_per_second": 0}, {"burst": -1}, {"complaints_per_day": -1}, {"body_bytes": 10**9}):
        answer = await world.operator.post("/v1/tenants", {"name": "x", "slug": "x", "limits": limits})
        assert answer.status_code == 422, limits
        assert answer.json()["errors"][0]["pointer"] == f"/limits/{next(iter(limits))}"


async def test_a_zone_that_is_none_is_refused(world: World) -> None:
    answer = await world.operator.post("/v1/tenants", {"slug": "x", "name": "x", "zone": "Asia/Shangai"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/zone"


async def test_a_policy_is_published_as_text_and_as_values(world: World) -> None:
    tenant = await world.tenant(policy=None)
    assert (await tenant.admin.get("/v1/policies/current")).status_code == 404
    text = "policy: 1\ntitle: A hospital\nvocabulary:\n  kinds:\n    external: ''\n"
    assert (await tenant.publish(text)).json()["version"] == 1
    assert (await tenant.publish(POLICY, effect="from_now")).json()["version"] == 2
    current = (await tenant.admin.get("/v1/policies/current")).json()
    assert (current["version"], current["effect"], current["document"]) == (2, "from_now", POLICY)
    assert current["published_by"].startswith("admin:")
    first = (await tenant.admin.get("/v1/policies/1")).json()
    assert first["document"]["title"] == "A hospital"
    page = (await tenant.admin.get("/v1/policies?limit=1")).json()
    assert [item["version"] for item in page["items"]] == [2]
    rest = (await tenant.admin.get(f"/v1/policies?before={page['next']}")).json()
    assert [item["version"] for item in rest["items"]] == [1]


async def test_a_policy_that_cannot_work_is_refused_with_its_places(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(policy=None)
    document = POLICY | {"clocks": [{"id": "reply", "start": "accepted", "within": "3 working days"}], "titel": "x"}
    answer = await tenant.admin.post("/v1/policies:publish", {"document": document, "reason": "x"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "/problems/policy-invalid"
    assert answer.json()["errors"]
    assert all(error["pointer"].startswith("/") for error in answer.json()["errors"])
    assert await root.fetchval("SELECT count(*) FROM policy") == 0
    assert await root.fetchval("SELECT count(*) FROM outbox WHERE subject LIKE '%policy%'") == 0


async def test_what_cannot_be_published_is_refused(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(policy=None)
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"document": "policy: [", "reason": "x"}, 422),
        ({"document": "x" * 600_000, "reason": "x"}, 422),
        ({"document": {"policy": 1, "title": "x", "description": "y" * 600_000}, "reason": "x"}, 422),
        ({"document": POLICY}, 422),
        ({"reason": "x"}, 422),
        ({"template": "r99_nothing", "reason": "x"}, 422),
        ({"template": "../../etc/passwd", "reason": "x"}, 422),
        ({"document": POLICY, "template": "r09", "reason": "x"}, 422),
        ({"document": POLICY, "reason": "x", "effect": "now"}, 400),
        ({"document": POLICY, "reason": "x", "settings": {"nothing": 1}}, 422),
    ]
    for body, status in bodies:
        answer = await tenant.admin.post("/v1/policies:publish", body)
        assert answer.status_code == status, answer.text
    assert await root.fetchval("SELECT count(*) FROM policy") == 0


async def test_a_tenant_can_start_from_a_template(world: World) -> None:
    tenant = await world.tenant(policy=None)
    names = (await tenant.admin.get("/v1/policies/templates")).json()["items"]
    for name in ("r02_driving_school", "r09_tcm_hospital", "r17_village_bank", "r38_volkswagen_dealer"):
        assert name in names
        answer = await tenant.admin.post("/v1/policies:publish", {"template": name, "reason": "to begin with"})
        assert answer.status_code == 201, answer.text
        stored = await tenant.admin.complain(complainant={"name": "张三", "phone": "13812341111"}, text="等了很久")
        assert stored.status_code == 201, f"{name}: {stored.text}"
    by_regime = await tenant.admin.post("/v1/policies:publish", {"template": "R09", "validate_only": True})
    assert by_regime.status_code == 200


async def test_a_dry_run_publishes_nothing(world: World, root: asyncpg.Connection) -> None:
    tenant = await world.tenant(policy=None)
    answer = await tenant.publish(POLICY, validate_only=True, reason="")
    assert (answer.status_code, answer.json()["state"], answer.json()["version"]) == (200, "valid", None)
    assert await root.fetchval("SELECT count(*) FROM policy") == 0


async def test_a_publication_that_looked_at_an_old_version_is_a_conflict(world: World) -> None:
    tenant = await world.tenant()
    body = {"document": POLICY, "reason": "x", "base_version": 0}
    answer = await tenant.admin.post("/v1/policies:publish", body)
    assert answer.status_code == 409
    assert answer.json()["current_version"] == 1
    assert (await tenant.admin.post("/v1/policies:publish", body | {"base_version": 1})).status_code == 201


async def test_a_second_administrator_approves_where_the_tenant_wants_one(world: World) -> None:
    tenant = await world.tenant(policy=None, two_admins=True)
    second = await tenant.credential("admin")
    proposed = await tenant.publish(POLICY)
    assert (proposed.status_code, proposed.json()["state"]) == (202, "waiting")
    assert (await tenant.admin.get("/v1/policies/current")).status_code == 404
    path = f"/v1/policies/proposals/{proposed.json()['proposal_id']}"
    own = await tenant.admin.post(f"{path}/approve")
    assert (own.status_code, own.json()["type"]) == (409, "/problems/second-admin-needed")
    assert [each["proposal_id"] for each in (await second.get("/v1/policies/proposals")).json()["items"]] == [
        proposed.json()["proposal_id"]
    ]
    approved = await second.post(f"{path}/approve")
    assert (approved.status_code, approved.json()["version"]) == (201, 1)
    again = await second.post(f"{path}/approve")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/proposal-decided")
    withdrawn = (await tenant.publish(POLICY)).json()["proposal_id"]
    assert (await second.post(f"/v1/policies/proposals/{withdrawn}/withdraw")).status_code == 204
    assert (await second.post(f"/v1/policies/proposals/{withdrawn}/approve")).status_code == 409
    change = {"two_admins": False}
    path = f"/v1/tenants/{tenant.tenant_id}"
    assert (await tenant.admin.request("PATCH", path, json=change)).status_code == 403
    assert (await world.operator.request("PATCH", path, json=change)).status_code == 200


async def test_a_calendar_is_published_in_revisions(world: World, streams: Infra) -> None:
    tenant = await world.tenant()
    body = {
        "name": "default",
        "spec": {
            "hours": {"mon-fri": ["09:00-18:00"]},
            "holidays": ["2027-01-01"],
            "exceptions": {"2027-02-08": ["09:00-12:00"]},
            "announced_through": "2027-12-31",
        },
    }
    for revision in (1, 2):
        answer = await tenant.admin.post("/v1/calendars:publish", body)
        assert (answer.status_code, answer.json()["revision"]) == (201, revision), answer.text
    told = (await messages(streams, tenant.tenant_id, 5))[3:]
    assert all(isinstance(each, CalendarPublished) for each in told)
    assert isinstance(told[0], CalendarPublished)
    assert told[0].announced_through == "2027-12-31"
    assert told[0].spec["exceptions"] == {"2027-02-08": ["09:00-12:00"]}
    listed = (await tenant.admin.get("/v1/calendars")).json()["items"]
    assert [each["revision"] for each in listed] == [2, 1]
    book = await world.service.runtime.reference.calendars(tenant.tenant_id)
    assert book is not None


async def test_a_calendar_that_cannot_work_is_refused_with_its_places(world: World) -> None:
    tenant = await world.tenant()
    spec = {"hours": {"mon-fri": ["18:00-09:00"]}, "holidays": ["2027-13-01"]}
    answer = await tenant.admin.post("/v1/calendars:publish", {"name": "default", "spec": spec})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/spec/hours/mon-fri/0", "/spec/holidays/0"]


async def test_a_key_is_rotated_and_revoked_at_once(world: World, streams: Infra) -> None:
    tenant = await world.tenant()
    clerk = await tenant.credential("handler", staff_id="c1")
    me = (await clerk.get("/v1/me")).json()
    assert (me["role"], me["staff_id"], me["tenant"], me["sees_personal_data"]) == ("handler", "c1", tenant.slug, False)
    path = f"/v1/credentials/{me['credential_id']}"
    rotated = await tenant.admin.post(f"{path}/rotate")
    assert rotated.status_code == 200
    assert (await clerk.get("/v1/me")).status_code == 401
    clerk.key = rotated.json()["key"]
    assert (await clerk.get("/v1/me")).status_code == 200
    assert (await tenant.admin.request("DELETE", path)).status_code == 200
    assert (await clerk.get("/v1/me")).status_code == 401
    assert (await tenant.admin.request("DELETE", path)).status_code == 404
    told = (await messages(streams, tenant.tenant_id, 6))[3:]
    assert [(each.revision, each.active) for each in told if isinstance(each, CredentialChanged)] == [
        (1, True),
        (2, True),
        (3, False),
    ]


async def test_the_last_administrator_stays(world: World) -> None:
    tenant = await world.tenant()
    me = (await tenant.admin.get("/v1/me")).json()
    answer = await tenant.admin.request("DELETE", f"/v1/credentials/{me['credential_id']}")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-admin")
    assert (await tenant.admin.get("/v1/me")).status_code == 200
    replaced = await world.operator.post(f"/v1/tenants/{tenant.tenant_id}/credentials")
    assert replaced.status_code == 201
    assert (await tenant.admin.request("DELETE", f"/v1/credentials/{me['credential_id']}")).status_code == 200


async def test_a_key_that_has_expired_is_no_longer_good(world: World) -> None:
    tenant = await world.tenant()
    expired = await tenant.credential("handler", expires_at="2026-01-01T00:00:00Z")
    assert (await expired.get("/v1/me")).status_code == 401


async def test_the_operator_is_made_once(world: World) -> None:
    from services.intake.app import ensure_operator

    assert await ensure_operator(world.service.runtime.db) is None
    assert (await world.operator.get("/v1/me")).json()["role"] == "operator"


async def test_limits_and_activity_are_the_operators(world: World) -> None:
    tenant = await world.tenant()
    path = f"/v1/tenants/{tenant.tenant_id}"
    for change in ({"active": False}, {"limits": {"complaints_per_day": 1}}):
        assert (await tenant.admin.request("PATCH", path, json=change)).status_code == 403
    changed = await tenant.admin.request("PATCH", path, json={"name": "New", "webhook_url": "https://x.example/h"})
    assert (changed.json()["name"], changed.json()["webhook_url"]) == ("New", "https://x.example/h")
    cleared = await tenant.admin.request("PATCH", path, json={"webhook_url": None})
    assert (cleared.json()["name"], cleared.json()["webhook_url"]) == ("New", None)

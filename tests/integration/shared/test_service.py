"""The HTTP edge of a service: who may call, what is refused and how, answers only after the commit, and repeats."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import pytest
from litestar import Request, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from shared import idempotency, outbox
from shared.auth import Caller, UnguardedRouteError, new_key, public, requires
from shared.database import Tx
from shared.errors import ConflictError, InvalidError, NotFoundError
from shared.ids import OPERATOR
from shared.messages import CredentialChanged, EntryRequested
from shared.reference import FRESH_SECONDS
from shared.service import Loop, Runtime, Service, ServiceSpec, StartError, build
from shared.time_source import now_in
from tests.stack import NOW, Stack, a_request, http
from tests.waiting import until


class Person(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    phone: str | None = None


class Note(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(max_length=200)]
    count: Annotated[int, msgspec.Meta(ge=0)] = 0
    persons: list[Person] = []
    extra: dict[str, Any] = {}


class NoteView(msgspec.Struct):
    text: str
    tenant_id: UUID


class TooManyNotesError(ConflictError):
    slug = "too-many-notes"
    title = "There are too many notes."


ADD = "INSERT INTO effect (tenant_id, message_id, kind) VALUES ($1, $2, $3)"


@post("/v1/notes", guards=[requires("admin", "integration")], status_code=201)
async def add_note(
    data: JSONBody[Note], request: Request[Any, Any, Any], caller: NamedDependency[Caller], tx: NamedDependency[Tx]
) -> Response[bytes]:
    async def act() -> NoteView:
        await tx.execute(ADD, tx.tenant_id, uuid4(), data.text[:10])
        await outbox.add(tx, a_request(tx.tenant_id))
        if data.text == "slow":
            await asyncio.sleep(0.5)
        if data.text == "refuse":
            raise TooManyNotesError("Three are enough.", limit=3)
        if data.text == "invalid":
            raise InvalidError(rule="R09.3")
        if data.text == "break":
            raise RuntimeError("the inside must not be told")
        if data.text == "outage":
            raise asyncpg.ConnectionDoesNotExistError("secret detail")
        if data.text == "commit fails":
            await tx.execute("SET CONSTRAINTS ALL DEFERRED")
            await tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return NoteView(text=data.text, tenant_id=caller.tenant_id)

    return await idempotency.once(request, tx, act)


@put("/v1/notes/{note_id:uuid}", guards=[requires("admin")])
async def put_note(note_id: FromPath[UUID], data: JSONBody[Note], tx: NamedDependency[Tx]) -> NoteView:
    if (
        await tx.fetchval("SELECT 1 FROM effect WHERE tenant_id = $1 AND message_id = $2", tx.tenant_id, note_id)
        is None
    ):
        raise NotFoundError
    return NoteView(text=data.text, tenant_id=tx.tenant_id)


@get("/v1/notes", guards=[requires("admin", "auditor", "operator")])
async def list_notes(
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=100)] = 10,
) -> dict[str, Any]:
    assert runtime.service == "intake"
    return {
        "limit": limit,
        "count": await tx.fetchval("SELECT count(*) FROM effect"),
        "now": (await now_in(tx)).isoformat(),
    }


@post("/v1/hooks/{source:str}", guards=[public("a signature")], status_code=202)
async def hook(source: FromPath[str], request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"bytes": len(await request.body())}


ROUTES = [add_note, put_note, list_notes, hook]


async def notes(stack: Stack) -> int:
    return int(await stack.root.fetchval("SELECT count(*) FROM intake.effect"))


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    found: dict[str, Any] = answer.json()
    assert (found["type"], found["status"]) == (f"/problems/{slug}", status)
    assert found["title"].endswith(".")
    return found


# -- what cannot be read -------------------------------------------------------------------------------------------------

DEEP = b'{"text": "x", "extra": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}"
BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("cut off", b'{"text": "x"', 400, "bad-json"),
    ("no JSON", b"text=x", 400, "bad-json"),
    ("empty", b"", 400, "body-missing"),
    ("blank", b"  \n", 400, "body-missing"),
    ("GBK", '{"text": "投诉"}'.encode("gbk"), 400, "bad-encoding"),
    ("GB18030", '{"text": "龘投诉"}'.encode("gb18030"), 400, "bad-encoding"),
    ("Big5", '{"text": "投訴"}'.encode("big5"), 400, "bad-encoding"),
    ("UTF-16", '{"text": "x"}'.encode("utf-16"), 400, "bad-encoding"),
    ("overlong UTF-8", b'{"text": "\xc0\xaf"}', 400, "bad-encoding"),
    ("byte order mark", b'\xef\xbb\xbf{"text": "x"}', 400, "bad-json"),
    ("NUL", b'{"text": "a\\u0000b"}', 400, "bad-encoding"),
    ("NUL in a key", b'{"text": "x", "extra": {"a\\u0000": 1}}', 400, "bad-encoding"),
    ("raw NUL", b'{"text": "a\x00b"}', 400, "bad-json"),
    ("lone surrogate", b'{"text": "a\\ud800b"}', 400, "bad-encoding"),
    ("low surrogate first", b'{"text": "\\udc00\\ud800"}', 400, "bad-encoding"),
    ("40 levels", DEEP, 400, "too-deep"),
    ("100,000 levels", b"[" * 100_000, 400, "too-deep"),
    ("40,000 objects", b'{"a":' * 40_000, 400, "too-deep"),
    ("5,000 digits", b'{"text": "x", "count": ' + b"9" * 5000 + b"}", 400, "bad-json"),
    ("1e400", b'{"text": "x", "count": 1e400}', 400, "malformed"),
    ("NaN", b'{"text": "x", "count": NaN}', 400, "bad-json"),
    ("Infinity", b'{"text": "x", "count": -Infinity}', 400, "bad-json"),
    ("a key twice", b'{"text": "x", "text": "y"}', 400, "duplicate-key"),
    ("a list", b"[]", 400, "malformed"),
    ("null", b"null", 400, "malformed"),
    ("unknown field", b'{"text": "x", "cuont": 1}', 400, "malformed"),
    ("missing field", b"{}", 400, "malformed"),
    ("text for a number", b'{"text": "x", "count": "5"}', 400, "malformed"),
    ("true for a number", b'{"text": "x", "count": true}', 400, "malformed"),
    ("too long", json.dumps({"text": "x" * 201}).encode(), 400, "malformed"),
    ("too large", json.dumps({"text": "x" * 2_000_000}).encode(), 413, "too-large"),
]


@pytest.fixture
async def intake(stack: Stack) -> Any:
    async with stack.service("intake", routes=ROUTES) as service:
        yield service


@pytest.fixture
async def admin(stack: Stack, intake: Service) -> str:
    return await stack.a_key(await stack.a_tenant())


async def test_bad_bodies_are_refused_each_as_what_it_is_and_leave_nothing(
    stack: Stack, intake: Service, admin: str
) -> None:
    async with http(intake, admin) as client:
        for name, body, status, slug in BAD_BODIES:
            answer = await client.post("/v1/notes", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == status, (name, answer.text)
            assert_problem(answer, status, slug)
        good = await client.post("/v1/notes", json={"text": "投诉 🎉 \u202e x", "extra": {"a\\u0000b": "\\ud800"}})
        assert good.status_code == 201
    assert await notes(stack) == 1
    assert await stack.root.fetchval("SELECT count(*) FROM intake.outbox") == 1


async def test_every_bad_field_is_pointed_at(intake: Service, admin: str) -> None:
    body = {
        "txt": "x",
        "count": -1,
        "persons": [{"name": "ok"}, {"nam": "y"}, {"name": "", "phone": 7}],
        "a/b~c": 1,
    }
    async with http(intake, admin) as client:
        found = assert_problem(await client.post("/v1/notes", json=body), 400, "malformed")
    by_pointer = {error["pointer"]: error for error in found["errors"]}
    assert set(by_pointer) == {
        "/txt",
        "/a~1b~0c",
        "/text",
        "/count",
        "/persons/1/nam",
        "/persons/1/name",
        "/persons/2/name",
        "/persons/2/phone",
    }
    assert by_pointer["/txt"]["suggestion"] == "text"
    assert by_pointer["/persons/1/nam"]["suggestion"] == "name"
    assert by_pointer["/text"]["detail"] == "is missing"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=gbk",
        "",
    ],
)
async def test_only_json_is_read(intake: Service, admin: str, content_type: str) -> None:
    async with http(intake, admin) as client:
        answer = await client.post("/v1/notes", content=b'{"text": "x"}', headers={"Content-Type": content_type})
        assert_problem(answer, 415, "unsupported-media-type")


async def test_a_compressed_body_is_not_unpacked(intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert_problem(
            await client.post("/v1/notes", content=b"\x1f\x8b", headers=headers), 415, "unsupported-media-type"
        )


async def test_addresses_and_parameters_that_do_not_fit(intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        assert_problem(await client.get("/v1/nothing"), 404, "not-found")
        assert_problem(await client.delete("/v1/notes"), 405, "method-not-allowed")
        assert_problem(await client.put("/v1/notes/no-uuid", json={"text": "x"}), 404, "not-found")
        for query in ("limit=0", "limit=101", "limit=x", "limit=1e3", "limit="):
            found = assert_problem(await client.get(f"/v1/notes?{query}"), 400, "malformed")
            assert [error["pointer"] for error in found["errors"]] == ["/query/limit"]
        assert_problem(await client.get("/v1/notes?limit=1%00"), 400, "malformed")
        assert_problem(await client.post("/v1/hooks/a%00b"), 400, "malformed")


async def test_a_route_without_json_takes_any_bytes(intake: Service) -> None:
    async with http(intake) as client:
        answer = await client.post(
            "/v1/hooks/call-centre", content=b"\xff\x00", headers={"Content-Type": "application/octet-stream"}
        )
        assert (answer.status_code, answer.json()) == (202, {"bytes": 2})


# -- refusals, bugs, outages ----------------------------------------------------------------------------------------------


async def test_a_refusal_of_the_domain_is_told_and_leaves_nothing(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        found = assert_problem(await client.post("/v1/notes", json={"text": "refuse"}), 409, "too-many-notes")
        assert (found["title"], found["detail"], found["limit"]) == (
            "There are too many notes.",
            "Three are enough.",
            3,
        )
        assert (
            assert_problem(await client.post("/v1/notes", json={"text": "invalid"}), 422, "invalid")["rule"] == "R09.3"
        )
    assert await notes(stack) == 0
    assert await stack.root.fetchval("SELECT count(*) FROM intake.outbox") == 0


async def test_bugs_and_outages_tell_nothing_of_the_inside(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        bug = assert_problem(await client.post("/v1/notes", json={"text": "break"}), 500, "internal")
        assert "inside" not in json.dumps(bug)
        assert len(bug["trace_id"]) == 32
        outage = await client.post("/v1/notes", json={"text": "outage"})
        assert "secret" not in json.dumps(assert_problem(outage, 503, "unavailable"))
        assert int(outage.headers["retry-after"]) >= 1
    assert await notes(stack) == 0


async def test_a_commit_that_fails_is_never_answered_with_success(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        answer = await client.post("/v1/notes", json={"text": "commit fails"})
        assert answer.status_code >= 500
        assert (await client.post("/v1/notes", json={"text": "x"})).status_code == 201
    assert await notes(stack) == 1


# -- who may call ------------------------------------------------------------------------------------------------------------


async def test_callers_without_a_valid_key_look_all_the_same(stack: Stack, intake: Service) -> None:
    tenant = await stack.a_tenant()
    good = await stack.a_key(tenant)
    wrong_secret = good[:-1] + ("A" if good[-1] != "A" else "B")
    revoked = await stack.a_key(tenant, active=False)
    expired = await stack.a_key(tenant, expires_at=NOW.replace(year=2020))
    unknown, _ = new_key(uuid4())
    answers = set()
    for key in (wrong_secret, revoked, expired, unknown, "rk_x", "x" * 5000, good.upper(), good + " x"):
        async with http(intake, key) as client:
            answer = await client.get("/v1/notes")
            assert_problem(answer, 401, "unauthorized")
            answers.add(answer.content)
            assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(answers) == 1
    async with http(intake) as client:
        assert_problem(await client.get("/v1/notes"), 401, "unauthorized")
        assert_problem(await client.get("/v1/notes", headers={"Authorization": "Basic eDp5"}), 401, "unauthorized")
    async with http(intake, good) as client:
        assert (await client.get("/v1/notes")).status_code == 200


async def test_the_guard_speaks_before_the_body_is_read(stack: Stack, intake: Service) -> None:
    auditor = await stack.a_key(await stack.a_tenant(), "auditor")
    async with http(intake, auditor) as client:
        assert_problem(await client.post("/v1/notes", content=b"\xff"), 403, "forbidden")
    async with http(intake) as client:
        assert_problem(await client.post("/v1/notes", content=b"\xff"), 401, "unauthorized")


async def test_the_operators_role_counts_in_the_operators_tenant_only(stack: Stack, intake: Service) -> None:
    tenant = await stack.a_tenant()
    true_operator = await stack.a_key(tenant, "operator")
    async with http(intake, true_operator) as client:
        assert (await client.get("/v1/ops/intake/dead-letters")).status_code == 200
    for role in ("admin", "supervisor", "handler", "auditor", "integration"):
        async with http(intake, await stack.a_key(tenant, role)) as client:
            assert_problem(await client.get("/v1/ops/intake/dead-letters"), 403, "forbidden")
    key, hashed = new_key(credential := uuid4())
    await stack.root.execute(
        "INSERT INTO intake.credential (tenant_id, credential_id, revision, key_hash, role, name, active)"
        " VALUES ($1, $2, 1, $3, 'operator', 'pretender', true)",
        tenant,
        credential,
        hashed,
    )
    async with http(intake, key) as client:
        assert_problem(await client.get("/v1/ops/intake/dead-letters"), 403, "forbidden")


async def test_an_inactive_tenants_keys_do_not_work(stack: Stack, intake: Service) -> None:
    tenant = await stack.a_tenant()
    key = await stack.a_key(tenant)
    await stack.root.execute("UPDATE intake.tenant SET active = false WHERE tenant_id = $1", tenant)
    async with http(intake, key) as client:
        assert_problem(await client.get("/v1/notes"), 401, "unauthorized")


async def test_another_tenants_row_is_not_there(stack: Stack, intake: Service) -> None:
    mine, theirs = await stack.a_tenant(), await stack.a_tenant()
    async with http(intake, await stack.a_key(theirs)) as client:
        assert (await client.post("/v1/notes", json={"text": "x"})).status_code == 201
    note = await stack.root.fetchval("SELECT message_id FROM intake.effect")
    async with http(intake, await stack.a_key(mine)) as client:
        foreign = await client.put(f"/v1/notes/{note}", json={"text": "y"})
        missing = await client.put(f"/v1/notes/{uuid4()}", json={"text": "y"})
        assert (foreign.status_code, foreign.content) == (404, missing.content)
        assert (await client.get("/v1/notes")).json()["count"] == 0


async def test_a_route_without_a_guard_stops_the_start(stack: Stack) -> None:
    @get("/v1/forgotten")
    async def forgotten() -> str:
        return ""

    @get("/v1/twice", guards=[public("no data"), requires("admin")])
    async def twice() -> str:
        return ""

    for route in (forgotten, twice):
        with pytest.raises(UnguardedRouteError, match="GET /v1/"):
            build(ServiceSpec(name="intake", route_handlers=[route]), stack.settings("intake"))


async def test_a_revoked_key_works_nowhere_after_a_second(stack: Stack) -> None:
    async with (
        stack.service("intake") as intake,
        stack.service("sla", lambda runtime: runtime.reference.consumers("sla"), [list_of_sla]) as sla,
    ):
        tenant = await stack.a_tenant("sla")
        key, hashed = new_key(credential := uuid4())
        changed = CredentialChanged(
            message_id=uuid4(),
            tenant_id=tenant,
            at=NOW,
            credential_id=credential,
            revision=1,
            key_hash=hashed,
            role="admin",
            name="a",
            active=True,
        )
        await stack.tell(intake, changed)
        async with http(sla, key) as client:

            async def answered(status: int) -> bool:
                return (await client.get("/v1/things")).status_code == status

            await until(lambda: answered(200))
            assert await answered(200)  # and again, so that the key is cached
            revoked = msgspec.structs.replace(changed, message_id=uuid4(), revision=2, active=False)
            await stack.tell(intake, revoked)
            await until(lambda: answered(401))
            older = msgspec.structs.replace(changed, message_id=uuid4(), revision=1)
            await stack.tell(intake, older)
            heard = "SELECT count(*) FROM sla.inbox WHERE message_id = $1"
            await until(lambda: stack.root.fetchval(heard, older.message_id))
            await asyncio.sleep(2 * FRESH_SECONDS)
            assert await answered(401), "an older revision must not bring a revoked key back"


@get("/v1/things", guards=[requires("admin")])
async def list_of_sla(tx: NamedDependency[Tx]) -> int:
    return int(await tx.fetchval("SELECT count(*) FROM effect"))


async def test_a_tenant_over_its_rate_is_told_when_to_come_back_and_nobody_else_is(
    stack: Stack, intake: Service
) -> None:
    flood = await stack.a_key(await stack.a_tenant(requests_per_second=5, burst=10))
    quiet = await stack.a_key(await stack.a_tenant())
    async with http(intake, flood) as client:
        answers = [await client.get("/v1/notes") for _ in range(30)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert_problem(refused[0], 429, "too-many-requests")
    assert int(refused[0].headers["retry-after"]) >= 1
    async with http(intake, quiet) as client:
        assert (await client.get("/v1/notes")).status_code == 200


async def test_a_plans_size_of_bodies_is_kept(stack: Stack, intake: Service) -> None:
    small = await stack.a_key(await stack.a_tenant(body_bytes=100))
    async with http(intake, small) as client:
        assert_problem(await client.post("/v1/notes", json={"text": "x" * 150}), 413, "too-large")

        async def chunks() -> Any:
            for part in (b'{"text": "', b"x" * 150, b'"}'):
                yield part

        answer = await client.post("/v1/notes", content=chunks(), headers={"Content-Type": "application/json"})
        assert_problem(answer, 413, "too-large")


# -- repeats ---------------------------------------------------------------------------------------------------------------------


async def test_a_repeat_gets_the_stored_answer(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        headers = {"Idempotency-Key": "one"}
        first = await client.post("/v1/notes", json={"text": "x"}, headers=headers)
        again = await client.post("/v1/notes", json={"text": "x"}, headers=headers)
        assert (first.status_code, first.content) == (again.status_code, again.content)
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        assert_problem(
            await client.post("/v1/notes", json={"text": "y"}, headers=headers), 422, "idempotency-key-reused"
        )
        assert_problem(
            await client.post("/v1/notes", json={"text": "x"}, headers={"Idempotency-Key": "x" * 256}), 400, "malformed"
        )
    assert await notes(stack) == 1
    assert await stack.root.fetchval("SELECT count(*) FROM intake.outbox") == 1


async def test_many_at_once_under_one_key_are_done_once(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:

        async def send() -> httpx.Response:
            return await client.post("/v1/notes", json={"text": "slow"}, headers={"Idempotency-Key": "race"})

        answers = await asyncio.gather(*(send() for _ in range(12)))
        assert sorted({answer.status_code for answer in answers}) == [201, 409]
        for answer in answers:
            if answer.status_code == 409:
                assert_problem(answer, 409, "request-in-progress")
        assert (await send()).status_code == 201
    assert await notes(stack) == 1


async def test_a_refused_request_may_be_corrected_under_its_key(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        headers = {"Idempotency-Key": "two"}
        assert (await client.post("/v1/notes", json={"text": "refuse"}, headers=headers)).status_code == 409
        assert (await client.post("/v1/notes", json={"text": "x"}, headers=headers)).status_code == 201
    assert await notes(stack) == 1


async def test_one_tenants_key_says_nothing_about_anothers(stack: Stack, intake: Service, admin: str) -> None:
    other = await stack.a_key(await stack.a_tenant())
    for key in (admin, other):
        async with http(intake, key) as client:
            answer = await client.post("/v1/notes", json={"text": "x"}, headers={"Idempotency-Key": "same"})
            assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (201, None)
    assert await notes(stack) == 2


# -- time, watching, dead letters, loops --------------------------------------------------------------------------------------


async def test_a_sandbox_has_its_own_time_and_live_tenants_the_databases(stack: Stack, intake: Service) -> None:
    live, sandbox = await stack.a_tenant(), await stack.a_tenant(sandbox=True)
    await stack.root.execute("INSERT INTO intake.test_clock VALUES ($1, $2)", sandbox, NOW)
    async with http(intake, await stack.a_key(sandbox)) as client:
        assert (await client.get("/v1/notes")).json()["now"] == NOW.isoformat()
    async with http(intake, await stack.a_key(live)) as client:
        told = (await client.get("/v1/notes")).json()["now"]
    assert told.endswith("+00:00")
    assert told != NOW.isoformat()
    assert await intake.runtime.time.now(sandbox) == NOW


async def test_the_service_can_be_watched(stack: Stack, intake: Service, admin: str) -> None:
    async with http(intake, admin) as client:
        await client.post("/v1/notes", json={"text": "x"})
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        metrics = (await client.get("/metrics")).text
        assert (
            'recourse_http_requests_total{method="POST",route="/v1/notes",service="intake",status="201"} 1.0' in metrics
        )
        document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) >= {
        "/v1/notes",
        "/v1/notes/{note_id}",
        "/v1/hooks/{source}",
        "/v1/ops/intake/dead-letters",
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["tags"] == ["intake"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]


async def test_readiness_names_what_is_wrong_and_what_to_do(stack: Stack) -> None:
    service = build(ServiceSpec(name="intake"), stack.settings("intake"))
    before = await service.readiness()
    assert (before.ready, before.reasons[0].what) == (False, "The service is starting.")
    await service.start()
    try:
        await service.runtime.db.close()
        async with http(service) as client:
            answer = await client.get("/readyz")
        assert answer.status_code == 503
        [reason] = answer.json()["reasons"]
        assert "PostgreSQL" in reason["what"]
        assert "RECOURSE_DATABASE_URL" in reason["do"]
    finally:
        await service.stop()


async def test_a_database_that_lacks_migrations_or_is_newer_is_refused_in_a_sentence(stack: Stack) -> None:
    await stack.root.execute("DELETE FROM intake.schema_migration WHERE origin = 'intake'")
    with pytest.raises(StartError, match="recourse migrate"):
        await build(ServiceSpec(name="intake"), stack.settings("intake")).start()
    await stack.root.execute("INSERT INTO sla.schema_migration VALUES ('sla', 9999, 'from_the_future', '')")
    with pytest.raises(StartError, match="newer"):
        await build(ServiceSpec(name="sla"), stack.settings("sla")).start()


async def test_dead_letters_can_be_listed_shown_retried_and_discarded(stack: Stack) -> None:
    works = False

    async def on_request(message: EntryRequested, tx: Tx) -> None:
        if not works:
            raise RuntimeError
        await tx.execute(ADD, tx.tenant_id, message.message_id, message.kind)

    async with stack.service("intake") as intake, stack.hearing(on_request) as sla:
        tenant = uuid4()
        messages = [a_request(tenant) for _ in range(3)]
        await stack.tell(intake, *messages)
        for message in messages:  # straight to the end of its attempts
            await stack.root.execute(
                "INSERT INTO sla.attempt (tenant_id, consumer, message_key, failures) VALUES ($1, 'sla-on-entry', $2, 100)"
                " ON CONFLICT (tenant_id, consumer, message_key) DO UPDATE SET failures = 100",
                tenant,
                str(message.message_id),
            )
        operator = await stack.a_key(OPERATOR, "operator", service="sla")
        async with http(sla, operator) as client:
            base = "/v1/ops/sla/dead-letters"

            async def listed(state: str, count: int) -> list[dict[str, Any]]:
                found = (await client.get(f"{base}?state={state}")).json()["items"]
                return found if len(found) == count else []

            letters = await until(lambda: listed("dead", 3))
            assert {letter["message_key"] for letter in letters} == {str(message.message_id) for message in messages}
            page = (await client.get(f"{base}?limit=2")).json()
            rest = (await client.get(f"{base}?limit=2&cursor={page['next_cursor']}")).json()
            assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
            assert (await client.get(f"{base}?tenant_id={uuid4()}")).json()["items"] == []

            first = letters[0]["dead_letter_id"]
            shown = (await client.get(f"{base}/{first}")).json()
            assert json.loads(shown["body"])["message_id"] == letters[0]["message_key"]
            assert (await client.post(f"{base}/{first}/discard")).status_code == 202
            assert_problem(await client.post(f"{base}/{first}/retry"), 409, "conflict")
            assert_problem(await client.get(f"{base}/{uuid4()}"), 404, "not-found")

            assert (await client.post(f"{base}/{letters[1]['dead_letter_id']}/retry")).status_code == 202
            [again] = [
                each
                for each in await until(lambda: listed("dead", 2))
                if each["dead_letter_id"] == letters[1]["dead_letter_id"]
            ]
            assert again["error_class"] == "RuntimeError"

            works = True
            assert (await client.post(f"{base}/retry")).json() == {"count": 2}
            await until(lambda: listed("done", 2))
            assert set(map(str, await stack.effects())) == {letter["message_key"] for letter in letters[1:]}


async def test_a_loop_goes_on_after_a_failure_and_can_be_woken(stack: Stack) -> None:
    rounds: list[int] = []

    def loops(runtime: Runtime[Any]) -> list[Loop]:
        async def step() -> float | None:
            rounds.append(len(rounds))
            if len(rounds) == 1:
                raise RuntimeError
            return 3600

        return [Loop("count", step)]

    async with stack.service("intake", loops=loops) as intake:

        async def at_least(count: int) -> bool:
            return len(rounds) >= count

        await until(lambda: at_least(2))
        intake.runtime.wake("count")
        await until(lambda: at_least(3))


async def test_old_rows_are_removed_and_young_or_unpublished_ones_stay(stack: Stack) -> None:
    tenant = uuid4()
    for age, published in ((8, True), (6, True), (30, False)):
        await stack.root.execute(
            "INSERT INTO sla.outbox (tenant_id, message_id, subject, body, created_at, published_at, stream_seq)"
            " VALUES ($1, gen_random_uuid(), 'sla.v1.x.y.z', '', now() - make_interval(days => $2),"
            " CASE WHEN $3 THEN now() END, CASE WHEN $3 THEN 1 END)",
            tenant,
            age,
            published,
        )
    for age in (13, 15):
        await stack.root.execute(
            "INSERT INTO sla.inbox VALUES ($1, 'c', gen_random_uuid(), now() - make_interval(days => $2))", tenant, age
        )
    for key, age in (("young", 6), ("old", 8)):
        await stack.root.execute(
            "INSERT INTO sla.idempotency_key VALUES ($1, $2, '', 200, '{}', '', now() - make_interval(days => $3))",
            tenant,
            key,
            age,
        )
    async with stack.service("sla", RECOURSE_NATS_URL="nats://127.0.0.1:9"):

        async def counted() -> bool:
            found = await stack.root.fetchrow(
                "SELECT (SELECT count(*) FROM sla.outbox) AS a, (SELECT count(*) FROM sla.inbox) AS b,"
                " (SELECT count(*) FROM sla.idempotency_key) AS c"
            )
            assert found is not None
            return tuple(found.values()) == (2, 1, 1)

        await until(counted)
        assert await stack.root.fetchval("SELECT count(*) FROM sla.outbox WHERE published_at IS NULL") == 1

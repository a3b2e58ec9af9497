"""Transactions of one tenant, row-level security as an attacker meets it, deadlines, and the start-up check."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import shared.database
from shared import outbox
from shared.database import Database, Opening, Tx, UnsafeServerError, check_durability, dsn_for, is_outage
from shared.errors import UnavailableError
from shared.ids import new_id
from shared.migrations import SERVICES
from shared.settings import ServiceSettings, load
from tests.infra import STRICT, Infra, service_settings
from tests.infra import Database as OwnDatabase
from tests.stack import a_request

A, B = uuid4(), uuid4()
NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture
async def db(infra: Infra, database: OwnDatabase) -> AsyncIterator[Database]:
    opened = Database(settings(infra, database))
    await opened.open()
    yield opened
    await opened.close()


def settings(infra: Infra, database: OwnDatabase, **changes: str) -> ServiceSettings:
    return load(ServiceSettings, "sla", {**service_settings(infra, database, "sla"), **changes})


async def put_row(db: Database, tenant_id: UUID) -> UUID:
    message_id = new_id()
    async with db.worker_tx(tenant_id) as tx:
        await tx.execute(
            "INSERT INTO policy (tenant_id, version, document, settings, effect, published_by, published_at)"
            " VALUES ($1, 1, '{}'::json, '{}'::json, 'keep', 'somebody', now())",
            tenant_id,
        )
        await tx.execute(
            "INSERT INTO outbox (tenant_id, message_id, subject, body) VALUES ($1, $2, 'sla.v1.x.y.z', '')",
            tenant_id,
            message_id,
        )
    return message_id


@pytest.mark.parametrize("role", ["api", "worker"])
async def test_a_statement_without_a_predicate_sees_the_tenants_own_rows_only(db: Database, role: str) -> None:
    await put_row(db, A)
    await put_row(db, B)
    async with getattr(db, f"{role}_tx")(A) as tx:
        assert [row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM policy")] == [A]
        assert await tx.fetch("SELECT 1 FROM policy WHERE tenant_id = $1", B) == []


async def test_the_api_role_sees_no_other_tenants_outbox_and_the_worker_role_does(db: Database) -> None:
    await put_row(db, A)
    await put_row(db, B)
    async with db.api_tx(A) as tx:
        assert {row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM outbox")} == {A}
    async with db.worker_tx(A) as tx:
        assert {row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM outbox")} == {A, B}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO outbox (tenant_id, message_id, subject, body) VALUES ('{other}', gen_random_uuid(), '', '')",
        "INSERT INTO idempotency_key (tenant_id, key, request_sha256, status, headers, body) VALUES ('{other}', 'k', '', 200, '{{}}', '')",
    ],
)
async def test_a_row_cannot_be_written_for_another_tenant(db: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.api_tx(A) as tx:
            await tx.execute(statement.format(other=B))


async def test_a_transaction_of_several_tenants_sees_and_writes_theirs_and_nobody_elses(db: Database) -> None:
    c = UUID(int=0xC)
    for tenant in (A, B, c):
        async with db.worker_tx(tenant) as tx:
            await tx.execute("INSERT INTO staff (tenant_id, staff_id, revision) VALUES ($1, 'wang', 1)", tenant)
    async with db.worker_tx(A, B) as tx:
        assert {row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM staff")} == {A, B}
        assert await tx.execute("UPDATE staff SET revision = 2") == "UPDATE 2"
        assert [tx.of(tenant).tenant_id for tenant in (A, B)] == [A, B]
        with pytest.raises(KeyError):
            tx.of(c)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.worker_tx(A, B) as tx:
            await tx.execute("INSERT INTO staff (tenant_id, staff_id, revision) VALUES ($1, 'li', 1)", c)
    async with db.worker_tx(c) as tx:
        assert [row["revision"] for row in await tx.fetch("SELECT revision FROM staff")] == [1]
    with pytest.raises(TypeError):
        async with db.worker_tx(A, "'}', true); --"):  # type: ignore[arg-type]
            pass


def entering(*message_ids: UUID | str) -> Opening:
    statement = "INSERT INTO inbox (tenant_id, consumer, message_id) SELECT $1, $2, m FROM unnest($3) AS m ON CONFLICT DO NOTHING"
    return Opening(
        "entering", "uuid, text, uuid[]", statement, (str(A), "sla-on-x", f"{{{','.join(map(str, message_ids))}}}")
    )


async def test_a_transaction_may_begin_with_a_statement_and_knows_what_it_wrote(db: Database) -> None:
    one, two = uuid4(), uuid4()
    for opening, opened in ((entering(one), 1), (entering(one, two), 1), (entering(two), 0)):
        async with db.worker_tx(A, opening=opening) as tx:
            assert tx.opened == opened
    async with db.worker_tx(A) as tx:
        assert tx.opened is None
        assert {row["message_id"] for row in await tx.fetch("SELECT message_id FROM inbox")} == {one, two}


async def test_an_opening_is_undone_with_its_transaction_and_its_failure_leaves_the_connection_whole(
    db: Database,
) -> None:
    async def fail(opening: Opening) -> None:
        async with db.worker_tx(A, opening=opening):
            raise RuntimeError

    one = uuid4()
    with pytest.raises(RuntimeError):
        await fail(entering(one))
    with pytest.raises(asyncpg.DataError):
        await fail(entering("no-id"))
    async with db.worker_tx(A, opening=entering(one)) as tx:
        assert tx.opened == 1


async def test_an_opening_takes_ids_and_names_and_nothing_that_could_be_sql(db: Database) -> None:
    for text in ("'", "x'}'); --", "a b", "\\", "$1", '"'):
        with pytest.raises(ValueError, match="more than ids"):
            async with db.worker_tx(A, opening=entering(text)):
                pass


async def test_what_is_left_to_the_end_is_done_for_each_tenant_or_once_for_all(db: Database) -> None:
    done: list[tuple[UUID, list[str]]] = []

    async def store(tx: Tx, items: Sequence[str]) -> None:
        done.append((tx.tenant_id, list(items)))

    async def store_all(tx: Tx, items: Sequence[str]) -> None:
        done.append((UUID(int=0), list(items)))

    async with db.worker_tx(A, B) as tx:
        for tenant in (A, B, A):
            tx.of(tenant).at_the_end(store).append(str(tenant))
            tx.of(tenant).at_the_end(store_all, for_all=True).append(str(tenant))
        tx.of(A).kept["seen"] = True
        assert tx.of(B).kept == {"seen": True}
    assert done == [(A, [str(A)] * 2), (UUID(int=0), [str(A), str(B), str(A)]), (B, [str(B)])]


async def test_a_row_cannot_be_moved_to_another_tenant(db: Database) -> None:
    async with db.worker_tx(A) as tx:
        await tx.execute("INSERT INTO staff (tenant_id, staff_id, revision) VALUES ($1, 'li', 1)", A)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with db.worker_tx(A) as tx:
            await tx.execute("UPDATE staff SET tenant_id = $1", B)


async def test_a_connection_without_a_tenant_gets_an_error_and_no_rows(
    infra: Infra, database: OwnDatabase, db: Database
) -> None:
    await put_row(db, A)
    raw = await asyncpg.connect(
        database.dsn_as("sla_api", infra.role_passwords["sla_api"]), server_settings={"search_path": "sla"}
    )
    try:
        for _ in range(2):  # also after a first transaction, when the setting is '' and no longer unknown
            with pytest.raises(asyncpg.InvalidTextRepresentationError, match="no tenant is set"):
                await raw.fetch("SELECT 1 FROM policy")
            async with raw.transaction():
                await raw.execute(f"SELECT set_config('app.tenant_id', '{A}', true)")
                assert len(await raw.fetch("SELECT 1 FROM policy")) == 1
    finally:
        await raw.close()


ATTACKS = [
    "SET ROLE sla_owner",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION sla_worker",
    "SET ROLE sla_worker",
    "SET row_security = off; SELECT * FROM policy",
    "ALTER TABLE policy DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE policy NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY of_tenant ON policy",
    "CREATE POLICY open ON policy USING (true)",
    "ALTER TABLE policy OWNER TO sla_api",
    "TRUNCATE policy",
    "DROP TABLE policy",
    "CREATE TABLE sla.mine (a int)",
    "CREATE TABLE public.mine (a int)",
    "CREATE VIEW sla.mine AS SELECT * FROM policy",
    "CREATE FUNCTION sla.mine() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
    "SELECT apply_tenant_policy('policy', true)",
    "SELECT * FROM intake.outbox",
    "SELECT * FROM intake.tenant",
    "SELECT * FROM inbox",
    "SELECT * FROM dead_letter",
    "UPDATE outbox SET published_at = now(), stream_seq = 1",
    "DELETE FROM outbox",
    "INSERT INTO tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits)"
    " VALUES ('{a}', 9, '', '', '', true, true, '{{}}')",
    "UPDATE credential SET role = 'operator'",
    "COPY policy TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
    "ALTER ROLE sla_api BYPASSRLS",
    "GRANT sla_worker TO sla_api",
    "COPY policy FROM STDIN",
]


async def test_the_api_role_cannot_get_around_its_limits(db: Database) -> None:
    await put_row(db, A)
    await put_row(db, B)
    succeeded = []
    for attack in ATTACKS:
        try:
            async with db.api_tx(A) as tx:
                await tx.execute(attack.format(a=A, b=B))
        except asyncpg.PostgresError:
            continue
        succeeded.append(attack)
    assert succeeded == []
    for tenant in (A, B):
        async with db.worker_tx(tenant) as tx:
            assert await tx.fetchval("SELECT count(*) FROM policy") == 1


async def test_what_an_injection_sets_in_a_session_does_not_reach_the_next_transaction(db: Database) -> None:
    """Injected SQL may set another tenant for its own transaction: row-level security is a net, not a wall. It ends there."""
    await put_row(db, A)
    await put_row(db, B)
    async with db.api_tx(A) as tx:
        await tx.execute(f"SELECT set_config('app.tenant_id', '{B}', false)")
    async with db.worker_tx(A) as tx:
        await tx.execute(f"SELECT set_config('app.tenant_ids', '{{{{{B}}}}}', false)")
    for _ in range(20):
        for begun in (db.api_tx, db.worker_tx):
            async with begun(A) as tx:
                assert [row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM policy")] == [A]


async def test_leases_by_many_tenants_never_mix(db: Database) -> None:
    tenants = [uuid4() for _ in range(20)]
    for tenant in tenants:
        await put_row(db, tenant)
    leaks = 0

    async def lease(number: int) -> None:
        nonlocal leaks
        tenant = tenants[number % len(tenants)]
        try:
            async with db.api_tx(tenant) as tx:
                found = [row["tenant_id"] for row in await tx.fetch("SELECT tenant_id FROM policy")]
                leaks += found != [tenant]
                if number % 7 == 0:
                    raise RuntimeError
                if number % 11 == 0:
                    await tx.execute("SELECT 1 / 0")
        except (RuntimeError, asyncpg.DivisionByZeroError):
            pass

    for start in range(0, 1000, 10):
        await asyncio.gather(*(lease(number) for number in range(start, start + 10)))
    assert leaks == 0


async def test_every_table_with_a_tenant_is_under_forced_security_and_every_key_begins_with_it(
    database: OwnDatabase,
) -> None:
    root = await asyncpg.connect(database.dsn)
    try:
        unprotected = await root.fetch(
            """
            SELECT c.oid::regclass::text AS name
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
             WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p')
               AND NOT (c.relrowsecurity AND c.relforcerowsecurity)""",
            list(SERVICES),
        )
        assert [row["name"] for row in unprotected] == []
        foreign = await root.fetch(
            """
            SELECT i.indexrelid::regclass::text AS name
              FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
             WHERE n.nspname = ANY ($1) AND i.indisunique AND i.indkey[0] <> a.attnum""",
            list(SERVICES),
        )
        assert [row["name"] for row in foreign] == []
        loose = await root.fetch(
            """
            SELECT schemaname || '.' || tablename || ' ' || policyname AS name
              FROM pg_policies
             WHERE schemaname = ANY ($1)
               AND (with_check IS NULL OR roles = '{public}' OR (qual = 'true' AND NOT roles[1]::text LIKE '%\\_worker'))""",
            list(SERVICES),
        )
        assert [row["name"] for row in loose] == []
        roles = await root.fetch(
            """
            SELECT rolname AS name FROM pg_roles
             WHERE rolname ~ '_(api|worker|owner)$' AND rolname !~ '^pg_'
               AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication OR rolinherit
                    OR (rolcanlogin = (rolname ~ '_owner$'))
                    OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = pg_roles.oid))"""
        )
        assert [row["name"] for row in roles] == []
        owned = await root.fetch(
            """
            SELECT c.oid::regclass::text AS name
              FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
             WHERE r.rolname ~ '_(api|worker)$' AND r.rolname !~ '^pg_'"""
        )
        assert [row["name"] for row in owned] == []
        reachable = await root.fetch(
            """
            SELECT p.oid::regprocedure::text AS name
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = ANY ($1) AND p.prosecdef""",
            list(SERVICES),
        )
        assert [row["name"] for row in reachable] == []
        views = await root.fetch(
            """
            SELECT c.oid::regclass::text AS name
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = ANY ($1)
               AND (c.relkind = 'm' OR (c.relkind = 'v' AND NOT 'security_invoker=true' = ANY (coalesce(c.reloptions, '{}'))))""",
            list(SERVICES),
        )
        assert [row["name"] for row in views] == []
    finally:
        await root.close()


async def test_a_savepoint_undoes_its_block_alone(db: Database) -> None:
    async with db.worker_tx(A) as tx:
        await tx.execute("INSERT INTO test_clock VALUES ($1, now())", A)
        for _ in range(2):
            with pytest.raises(asyncpg.UniqueViolationError):
                async with tx.transaction():
                    await tx.execute("INSERT INTO test_clock VALUES ($1, now())", A)
        async with tx.transaction():
            await tx.execute("UPDATE test_clock SET now = 'epoch'")
    async with db.worker_tx(A) as tx:
        assert (await tx.fetchval("SELECT now FROM test_clock")).timestamp() == 0


async def test_what_waits_for_the_commit_is_called_after_it_and_only_then(db: Database) -> None:
    called: list[str] = []
    async with db.api_tx(A) as tx:
        tx.after_commit(lambda: called.append("committed"))
        assert called == []
    assert called == ["committed"]

    async def failing() -> None:
        async with db.api_tx(A) as tx:
            tx.after_commit(lambda: called.append("rolled back"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await failing()
    assert called == ["committed"]


async def test_json_columns_take_and_give_values_in_their_order(db: Database) -> None:
    document = {"zebra": [1, {"b": None, "a": "中文"}], "apple": 1.5}
    async with db.worker_tx(A) as tx:
        await tx.execute(
            "INSERT INTO policy (tenant_id, version, document, settings, effect, published_by, published_at)"
            " VALUES ($1, 2, $2, $3, 'keep', 'somebody', now())",
            A,
            document,
            {},
        )
        found: Any = await tx.fetchval("SELECT document FROM policy WHERE version = 2")
    assert found == document
    assert list(found) == ["zebra", "apple"]


async def test_a_statement_that_takes_too_long_is_ended_by_its_deadline(infra: Infra, database: OwnDatabase) -> None:
    db = Database(settings(infra, database, RECOURSE_COMMAND_SECONDS="0.6"))
    await db.open()
    try:
        with pytest.raises((TimeoutError, asyncpg.QueryCanceledError)):
            async with db.api_tx(A) as tx:
                await tx.execute("SELECT pg_sleep(100)")
        async with db.api_tx(A) as tx:
            assert await tx.fetchval("SELECT 1") == 1
    finally:
        await db.close()


async def test_an_exhausted_pool_answers_in_time_and_gets_its_connections_back(
    infra: Infra, database: OwnDatabase
) -> None:
    db = Database(settings(infra, database, RECOURSE_API_CONNECTIONS="1", RECOURSE_ACQUIRE_SECONDS="0.3"))
    await db.open()
    try:
        async with db.api_tx(A):
            with pytest.raises(UnavailableError):
                async with db.api_tx(A):
                    pass
        async with db.api_tx(A) as tx:
            assert await tx.fetchval("SELECT 1") == 1
    finally:
        await db.close()


async def test_a_cancelled_request_leaves_neither_a_transaction_nor_a_lost_connection(
    infra: Infra, database: OwnDatabase
) -> None:
    db = Database(settings(infra, database, RECOURSE_API_CONNECTIONS="2"))
    await db.open()
    try:
        for wait in (0.0, 0.001, 0.003, 0.01, 0.05) * 4:

            async def work() -> None:
                async with db.api_tx(A) as tx:
                    await tx.execute(
                        "INSERT INTO outbox (tenant_id, message_id, subject, body) VALUES ($1, $2, '', '')", A, uuid4()
                    )
                    await tx.execute("SELECT pg_sleep(1)")

            task = asyncio.create_task(work())
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with db.api_tx(A) as one, db.api_tx(A) as two:
            assert await one.fetchval("SELECT 1") + await two.fetchval("SELECT 1") == 2
        async with db.worker_tx(A) as tx:
            assert await tx.fetchval("SELECT count(*) FROM outbox") == 0
    finally:
        await db.close()


async def test_a_killed_backend_is_replaced(db: Database, database: OwnDatabase) -> None:
    root = await asyncpg.connect(database.dsn)
    try:
        for _ in range(3):
            async with db.api_tx(A) as tx:
                await tx.fetchval("SELECT 1")
            await root.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sla_api'")
            failures: list[Exception] = []
            for _ in range(10):
                try:
                    async with db.api_tx(A) as tx:
                        await tx.fetchval("SELECT 1")
                except Exception as error:
                    failures.append(error)
            assert len(failures) <= 2
            assert all(map(is_outage, failures))
        async with db.api_tx(A) as tx:
            assert await tx.fetchval("SELECT 1") == 1
    finally:
        await root.close()


async def test_a_transaction_needs_a_tenant(db: Database) -> None:
    for nobody in (None, "", str(A)):
        with pytest.raises(TypeError):
            async with db.api_tx(nobody):  # type: ignore[arg-type]
                pass


class Server:
    """Answers the start-up check's question."""

    def __init__(self, **values: str) -> None:
        self.values = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on", **values}

    async def fetch(self, _: str) -> list[dict[str, str]]:
        return [{"name": name, "setting": value} for name, value in self.values.items()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"synchronous_commit": "off"},
        {"synchronous_commit": "local"},
        {"synchronous_commit": "remote_write"},
        {"fsync": "off"},
        {"full_page_writes": "off"},
    ],
)
async def test_a_server_that_may_lose_what_it_confirms_is_refused(wrong: dict[str, str]) -> None:
    await check_durability(Server())
    await check_durability(Server(synchronous_commit="remote_apply"))
    with pytest.raises(UnsafeServerError, match=next(iter(wrong))):
        await check_durability(Server(**wrong))


async def test_a_role_that_commits_lazily_is_refused_at_the_start(infra: Infra, database: OwnDatabase) -> None:
    root = await asyncpg.connect(database.dsn)
    db = Database(settings(infra, database, **STRICT))
    try:
        await root.execute(f'ALTER ROLE sla_worker IN DATABASE "{database.name}" SET synchronous_commit = off')
        with pytest.raises(UnsafeServerError):
            await db.open()
    finally:
        await db.close()
        await root.close()


async def test_how_array_types_are_made_is_asked_once_for_all_connections(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    ask = asyncpg.Connection._introspect_types  # type: ignore[attr-defined]  # not in its stubs

    async def count(self: Any, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await ask(self, *arguments)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", count)
    monkeypatch.setattr(shared.database, "_types", {})
    given = ([A, B], [{"a": [1]}, {}], ["x"], [NINE])
    for _ in range(3):
        connection = await db.connect()
        try:
            row = await connection.fetchrow("SELECT $1::uuid[], $2::jsonb[], $3::text[], $4::timestamptz[]", *given)
            assert row is not None
            assert tuple(row) == given
        finally:
            await connection.close()
        assert asked == 1


def test_the_address_for_a_role_keeps_place_and_options() -> None:
    assert dsn_for("postgresql://root:x@db:5432/r?sslmode=require", "sla_api", "p@ss/1") == (
        "postgresql://sla_api:p%40ss%2F1@db:5432/r?sslmode=require"
    )
    assert dsn_for("postgresql:///r?host=/run/pg", "sla_api") == "postgresql://sla_api@/r?host=/run/pg"


async def test_messages_are_stored_in_order_at_the_end_without_those_of_an_undone_savepoint(db: Database) -> None:
    first, undone, second, third = (a_request(A) for _ in range(4))
    async with db.worker_tx(A) as tx:
        await outbox.add(tx, first)
        with contextlib.suppress(ZeroDivisionError):
            async with tx.transaction():
                await outbox.add(tx, undone)
                raise ZeroDivisionError
        async with tx.transaction():
            await outbox.add(tx, second)
        await outbox.add_many(tx, [third, first])
    async with db.worker_tx(A) as tx:
        stored = [row["message_id"] for row in await tx.fetch("SELECT message_id FROM outbox ORDER BY id")]
    assert stored == [first.message_id, second.message_id, third.message_id]

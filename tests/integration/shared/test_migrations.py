"""Forward-only migrations: once each, from several processes at once, whole or not at all, and never over a newer database."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared import migrations
from shared.migrations import Migration, MigrationError, migrate, migrate_all
from tests.infra import Database, Infra


def a_migration(number: int, sql: str, name: str = "step", origin: str = "sla") -> Migration:
    return Migration(origin, number, name, sql)


async def history(dsn: str) -> list[tuple[str, int]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT origin, number FROM sla.schema_migration ORDER BY applied_at, number")
        return [(row["origin"], row["number"]) for row in rows]
    finally:
        await connection.close()


async def test_every_service_is_migrated_once_though_many_ask_at_once(empty_database: Database, infra: Infra) -> None:
    done = await asyncio.gather(*(migrate_all(empty_database.dsn, infra.role_passwords) for _ in range(4)))
    for service in migrations.SERVICES:
        applied = [each[service] for each in done if each[service]]
        assert len(applied) == 1
        assert applied[0] == [f"{each.origin}/{each.number:04d}_{each.name}" for each in migrations.of_service(service)]
    assert await migrate_all(empty_database.dsn) == {service: [] for service in migrations.SERVICES}


async def test_an_edited_migration_is_refused(empty_database: Database) -> None:
    await migrate(empty_database.dsn, "sla", migrations=[a_migration(1, "CREATE TABLE a (x int)")])
    with pytest.raises(MigrationError, match="edited"):
        await migrate(empty_database.dsn, "sla", migrations=[a_migration(1, "CREATE TABLE a (y int)")])
    with pytest.raises(MigrationError, match="edited"):
        await migrate(empty_database.dsn, "sla", migrations=[a_migration(1, "CREATE TABLE a (x int)", name="other")])


async def test_a_newer_database_is_refused_and_left_alone(empty_database: Database) -> None:
    both = [a_migration(1, "CREATE TABLE a (x int)"), a_migration(2, "CREATE TABLE b (x int)")]
    await migrate(empty_database.dsn, "sla", migrations=both)
    with pytest.raises(MigrationError, match="newer"):
        await migrate(empty_database.dsn, "sla", migrations=both[:1])
    assert await history(empty_database.dsn) == [("sla", 1), ("sla", 2)]


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_database: Database) -> None:
    first = a_migration(1, "CREATE TABLE a (x int)")
    broken = a_migration(2, "CREATE TABLE b (x int); INSERT INTO a VALUES (1); SELECT 1 / 0")
    with pytest.raises(MigrationError, match="0002_step failed"):
        await migrate(empty_database.dsn, "sla", migrations=[first, broken])
    assert await history(empty_database.dsn) == [("sla", 1)]
    connection = await asyncpg.connect(empty_database.dsn)
    try:
        assert await connection.fetchval("SELECT to_regclass('sla.b')") is None
        assert await connection.fetchval("SELECT count(*) FROM sla.a") == 0
    finally:
        await connection.close()
    mended = a_migration(2, "CREATE TABLE b (x int)")
    assert await migrate(empty_database.dsn, "sla", migrations=[first, mended]) == ["sla/0002_step"]


async def test_an_index_can_be_built_outside_a_transaction(empty_database: Database) -> None:
    files = [
        a_migration(1, "CREATE TABLE a (x int, y int)"),
        a_migration(
            2,
            "-- no-transaction\nCREATE INDEX CONCURRENTLY a_x ON a (x);\n-- a remark\nCREATE INDEX CONCURRENTLY a_y ON a (y);\n",
        ),
    ]
    await migrate(empty_database.dsn, "sla", migrations=files)
    connection = await asyncpg.connect(empty_database.dsn)
    try:
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE schemaname = 'sla' AND tablename = 'a'")
            == 2
        )
    finally:
        await connection.close()


async def test_a_runner_that_is_killed_leaves_no_lock(empty_database: Database) -> None:
    """The lock belongs to the session, and the session ends with its process."""
    holder = await asyncpg.connect(empty_database.dsn)
    await holder.execute("SELECT pg_advisory_lock(hashtext('recourse migrate sla'))")
    waiting = asyncio.create_task(
        migrate(empty_database.dsn, "sla", migrations=[a_migration(1, "CREATE TABLE a (x int)")])
    )
    await asyncio.sleep(0.3)
    assert not waiting.done()
    holder.terminate()
    assert await waiting == ["sla/0001_step"]


async def test_tables_belong_to_the_owner_and_nobody_logs_in_as_it(empty_database: Database, infra: Infra) -> None:
    await migrate(empty_database.dsn, "sla", infra.role_passwords, [a_migration(1, "CREATE TABLE a (x int)")])
    connection = await asyncpg.connect(empty_database.dsn)
    try:
        assert (
            await connection.fetchval("SELECT tableowner FROM pg_tables WHERE schemaname = 'sla' AND tablename = 'a'")
            == "sla_owner"
        )
        assert not await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'sla_owner'")
    finally:
        await connection.close()


TABLES = """
SELECT c.relname::text AS name, p.polname::text AS policy, pg_get_expr(p.polqual, c.oid) AS seen,
       pg_get_expr(p.polwithcheck, c.oid) AS written,
       (SELECT stadistinct FROM pg_statistic WHERE starelid = c.oid AND staattnum = a.attnum) AS tenants
  FROM pg_policy p
  JOIN pg_class c ON c.oid = p.polrelid
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
 WHERE c.relnamespace = $1::text::regnamespace
 ORDER BY c.relname, p.polname"""


@pytest.mark.parametrize("service", ["intake", "reporting"])
async def test_tables_of_an_older_database_come_out_as_those_of_a_new_one(
    empty_database: Database, database: Database, service: str
) -> None:
    """Their policies, and what is expected of rows that nobody has counted."""
    newest = ("shared", 4), ("intake", 4)
    older = [each for each in migrations.of_service(service) if (each.origin, each.number) not in newest]
    await migrate(empty_database.dsn, service, migrations=older)
    connection = await asyncpg.connect(empty_database.dsn)
    new = await asyncpg.connect(database.dsn)
    try:
        before = await connection.fetch(TABLES, service)
        await connection.execute(
            f"INSERT INTO {service}.tenant SELECT gen_random_uuid(), 1, '', '', 'UTC', false, true, '{{}}' FROM generate_series(1, 3);"
            f" ANALYZE {service}.tenant"
        )
        await migrate(empty_database.dsn, service)
        after = {(row["name"], row["policy"]): tuple(row) for row in await connection.fetch(TABLES, service)}
        wanted = {(row["name"], row["policy"]): tuple(row) for row in await new.fetch(TABLES, service)}
    finally:
        await connection.close()
        await new.close()
    counted = [key for key in wanted if key[0] == "tenant"]
    assert {after.pop(key)[-1] for key in counted} == {-1.0}  # as it was counted
    assert {wanted.pop(key)[-1] for key in counted} == {1.0}
    assert after == wanted
    assert {row[-1] for row in after.values()} == {1.0}
    assert any("uuid[]" in str(tuple(row)) for row in before)
    assert not any("uuid[]" in str(row) for row in after.values())

"""Every SQL statement of the service fits the migrated schema, and what must be fast uses its index."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.routing.loops import in_turns
from services.routing.repository import assignments, cases, clocks, moves, staff, worklist
from tests.infra import Database
from tests.plans import found_by, read_widely

STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (assignments, cases, clocks, moves, staff, worklist)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


async def test_every_statement_can_be_prepared(database: Database) -> None:
    assert len(STATEMENTS) > 40
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "routing"})
    try:
        for name, statement in STATEMENTS.items():
            try:
                await connection.prepare(statement)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")
    finally:
        await connection.close()


def test_every_statement_about_a_tenant_names_the_tenant() -> None:
    crossing = {
        "clocks.TICK",
        "clocks.NOTE_TICK",
        "clocks.PACE",
        "clocks.DUE_LIVE",
        "clocks.DUE_OF_EACH",
        "clocks.SANDBOXES_DUE",
        "clocks.RUNNING_OPERATIONS",
    }
    crossing |= {"moves.OPEN", "moves.TENANTS", "clocks.LOCK_TEST_CLOCK", "clocks.STAMP", "cases.LOCK_SUBJECT"}
    for name, statement in STATEMENTS.items():
        if name not in crossing:
            of_one = any(text in statement for text in ("tenant_id = $1", "VALUES ($1", "SELECT $1,"))
            of_each_row = any(
                text in statement for text in ("tenant_id = new.tenant_id", "made.tenant_id = new.tenant_id")
            )
            assert of_one or of_each_row, name


async def test_the_work_list_is_read_from_its_index(database: Database) -> None:
    connection = await asyncpg.connect(
        database.dsn, server_settings={"search_path": "routing", "enable_seqscan": "off", "enable_sort": "off"}
    )
    try:
        await connection.execute(
            """INSERT INTO "case" (tenant_id, case_id, kind, policy_version, current_policy_version, version, state, received_at,
                                   changed_at)
               SELECT '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'complaint', 1, 1, 1, 'received', now(), now()
                 FROM generate_series(1, 200)"""
        )
        await connection.execute('ANALYZE "case"')
        plan = await connection.fetch("EXPLAIN " + _inlined(worklist.OPEN_COMPLAINTS))
        assert "case_work" in "\n".join(row[0] for row in plan)
    finally:
        await connection.close()


async def test_a_tenant_with_much_that_is_due_leaves_room_for_the_others(database: Database) -> None:
    busy, quiet = UUID(int=2), UUID(int=3)
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "routing"})
    undone = connection.transaction()
    await undone.start()
    try:
        for tenant_id, number, ago in ((busy, 200, "2 hours"), (quiet, 3, "1 hour")):
            await connection.execute(
                """WITH made AS (
                       INSERT INTO "case" (tenant_id, case_id, kind, policy_version, current_policy_version, version, state,
                                           received_at, changed_at)
                       SELECT $1, gen_random_uuid(), 'complaint', 1, 1, 1, 'received', now(), now()
                         FROM generate_series(1, $2::integer)
                       RETURNING case_id)
                   INSERT INTO wake_up (tenant_id, case_id, wake_at, sandbox)
                   SELECT $1, case_id, (SELECT at FROM live_tick) - $3::text::interval, false FROM made""",
                tenant_id,
                number,
                ago,
            )
        tx: Any = connection  # a repository asks no more of it than to fetch
        due = await clocks.due_live(tx, 50, 8)
        assert [each.tenant_id for each in due].count(quiet) == 3
        assert len({each.case_id for each in due}) == 50
        turns = in_turns(due, 8)
        assert [{each.tenant_id for each in turn} for turn in turns[:2]] in ([{busy}, {quiet}], [{quiet}, {busy}])
        assert sum(map(len, turns)) == 50
        assert {len(turn) for turn in turns} <= {8, 7, 3}
    finally:
        await undone.rollback()
        await connection.close()


def _inlined(statement: str) -> str:
    values = {
        1: "'00000000-0000-0000-0000-000000000001'::uuid",
        2: "'complaint'",
        3: "false",
        12: "now()",
        13: "-1",
        14: "now()",
        16: "50",
    }
    values[15] = "'00000000-0000-0000-0000-000000000000'::uuid"
    for place in range(16, 0, -1):
        statement = statement.replace(f"${place}", values.get(place, "NULL"))
    return statement


async def test_a_case_is_found_by_its_key_also_where_nobody_has_counted_the_rows(database: Database) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    found_by_key = ["clocks.STAMP", "clocks.STAMP_TOGETHER", "clocks.PACE", "cases.INSERT_CASES", "cases.LOCK_CASE"]
    found_by_key += ["cases.UPDATE_CASE", "cases.SUBJECT", "cases.GROW_SUBJECT", "assignments.END"]
    found_by_key += ["assignments.OF_CASE", "assignments.BEFORE"]
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "routing"}, statement_cache_size=0)
    try:
        wide = {name: await read_widely(connection, STATEMENTS[name]) for name in found_by_key}
    finally:
        await connection.close()
    assert {name: tables - {"staff_revision", "live_tick"} for name, tables in wide.items()} == {
        name: set() for name in found_by_key
    }


LOOKED_UP = {
    "staff.LOADS": {"staff_member_pkey", "case_in_hand", "assignment_latest"},
    "cases.UNASSIGNED": {"case_stored", "assignment_one_active"},
    "cases.COUNTED": {"entry_counted"},
    "worklist.ALL": {"case_listed"},
    "worklist.NUMBERED": {"case_numbered"},
}


@pytest.mark.parametrize("name", LOOKED_UP)
async def test_what_lies_closed_is_not_read_for_what_is_asked(database: Database, name: str) -> None:
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "routing"}, statement_cache_size=0)
    try:
        assert await found_by(connection, STATEMENTS[name]) == LOOKED_UP[name]
    finally:
        await connection.close()

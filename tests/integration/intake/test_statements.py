"""Every SQL statement of intake is prepared against the migrated schema, as the role that runs it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import asyncpg

from services.intake import repository
from tests.infra import Database, Infra
from tests.plans import read_widely


def statements() -> Iterator[tuple[str, str]]:
    for module in pkgutil.iter_modules(repository.__path__, f"{repository.__name__}."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.isupper() and isinstance(value, str):
                yield f"{module.name.rpartition('.')[2]}.{name}", value


KEPT = """
SELECT regexp_replace(prosrc, '^.*RETURN QUERY(.*);[[:space:]]*END $', E'\\\\1') AS statement, proargtypes::regtype[]::text[] AS types
  FROM pg_proc
 WHERE oid = 'intake.store_complaints'::regproc"""
"""The one statement that the server keeps, with the types of what it is given."""


async def kept_statement(connection: asyncpg.Connection) -> str:
    row = await connection.fetchrow(KEPT)
    assert row is not None
    typed: str = row["statement"]
    types: list[str] = row["types"]
    for number in range(len(types), 0, -1):
        typed = re.sub(rf"\${number}\b(?!::)", f"${number}::{types[number - 1]}", typed)
    return typed.replace("WITH ", "WITH unused AS (SELECT $2::text), ", 1)


async def test_every_statement_fits_the_schema(infra: Infra, database: Database) -> None:
    found = dict(statements())
    assert len(found) > 50
    roles = {role: infra.role_passwords[f"intake_{role}"] for role in ("api", "worker")}
    for role, password in roles.items():
        connection = await asyncpg.connect(
            database.dsn_as(f"intake_{role}", password), server_settings={"search_path": "intake, public"}
        )
        try:
            for name, statement in found.items():
                try:
                    await connection.prepare(statement)
                except asyncpg.PostgresError as error:
                    raise AssertionError(f"{name} as {role}: {error}") from None
        finally:
            await connection.close()


async def test_every_statement_names_its_tenant() -> None:
    across = {  # what is asked before a tenant is known, or by loops for all of them
        "complaints.PRUNE_RECEIPTS",
        "complaints.STORE",  # which the server keeps, and which names it throughout
        "imports.TENANTS_WITH_WORK",
        "sources.BY_ADDRESS",
        "sources.ADD_ADDRESS",
        "tenants.OWNER_OF_SLUG",
        "tenants.TAKE_SLUG",
    }
    for name, statement in statements():
        bound = "tenant_id = $1" in statement or "(tenant_id" in statement or "SELECT $1" in statement
        assert bound or name in across, name


async def test_rows_are_found_by_their_keys_also_where_nobody_has_counted_them(
    infra: Infra, database: Database
) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    found = dict(statements())
    for role in ("api", "worker"):
        connection = await asyncpg.connect(
            database.dsn_as(f"intake_{role}", infra.role_passwords[f"intake_{role}"]),
            server_settings={"search_path": "intake, public"},
            statement_cache_size=0,
        )
        try:
            await connection.execute("SELECT set_config('app.tenant_id', gen_random_uuid()::text, false)")
            asked = {name: found[f"complaints.{name}"] for name in ("LOOK", "ANSWERED")}
            asked["store_complaints"] = await kept_statement(connection)
            for name, statement in asked.items():
                wide = await read_widely(connection, statement)
                assert wide <= {"test_clock", "policy"}, f"{name} as {role}"  # of which a tenant has one row, or few
        finally:
            await connection.close()

"""Every SQL statement of the project is prepared against the migrated schema, as the roles that run it: a typo fails here."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import asyncpg
import pytest

import services
import shared
from shared.migrations import SERVICES
from tests.infra import Database
from tests.plans import read_widely

STATEMENT = re.compile(r"\s*(--[^\n]*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)\b", re.IGNORECASE)
COMPOSED = re.compile(r"\{[a-z_]+\}")


def statements() -> Iterator[tuple[str, str, str]]:
    """Module, name and text of every module constant that holds a statement."""
    for package in (shared, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if name.isupper() and isinstance(value, str) and STATEMENT.match(value) and not COMPOSED.search(value):
                    yield found.name, name, value


ALL = sorted(set(statements()))


def of(service: str) -> list[tuple[str, str, str]]:
    """What runs in a service's schema: its own, and the plumbing's."""
    return [each for each in ALL if each[0].startswith((f"services.{service}.", "shared."))]


def test_the_collection_finds_the_statements() -> None:
    modules = {module for module, _, _ in ALL}
    assert {"shared.outbox", "shared.relay", "shared.consuming", "shared.idempotency", "shared.reference"} <= modules
    assert len(ALL) > 50


@pytest.mark.parametrize("service", SERVICES)
async def test_every_statement_fits_the_schema(database: Database, service: str) -> None:
    wrong = []
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": f"{service}, public"})
    try:
        for module, name, text in of(service):
            try:
                await connection.prepare(text)
            except asyncpg.PostgresError as error:
                wrong.append(f"{module}.{name}: {error}")
    finally:
        await connection.close()
    assert wrong == []


@pytest.mark.parametrize(
    "name",
    [
        "consuming.CLAIM",
        "consuming.ENTERED",
        "consuming.FORGET",
        "relay.NEXT",
        "relay.MARK",
        "relay.WAITING",
        "relay.HIGHEST",
        "relay.UNPUBLISH_ABOVE",
        "relay.UNPUBLISH_PLACES",
        "housekeeping.PRUNE_OUTBOX",
        "housekeeping.PRUNE_INBOX",
        "housekeeping.PRUNE_IDEMPOTENCY",
        "housekeeping.PRUNE_ATTEMPTS",
        "housekeeping.PRUNE_DEAD_LETTERS",
        "idempotency.LOCK_AND_FIND",
    ],
)
async def test_the_plumbing_finds_its_rows_by_an_index_also_where_nobody_has_counted_them(
    database: Database, name: str
) -> None:
    """A plan that is made while the tables are empty is kept until somebody counts their rows."""
    texts = {f"{module.rpartition('.')[2]}.{constant}": text for module, constant, text in ALL}
    connection = await asyncpg.connect(database.dsn, server_settings={"search_path": "sla"}, statement_cache_size=0)
    try:
        assert await read_widely(connection, texts[name]) == set()
    finally:
        await connection.close()

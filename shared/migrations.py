"""Forward-only migrations: numbered SQL files, one schema and three roles per service.

`shared/migrations/NNNN_*.sql` goes into every service's schema, then `services/<service>/migrations/NNNN_*.sql`. Each
file runs once, in one transaction, as the service's owner role, with `search_path` set to its schema; a file whose
first line is `-- no-transaction` runs statement by statement outside of one (CREATE INDEX CONCURRENTLY). A file that
was edited after it ran, a gap in the numbers and a database that is newer than the code are refused.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

SERVICES = ("intake", "routing", "sla", "notify", "reporting")
ROOT = Path(__file__).resolve().parent.parent
LOCK_SECONDS = 60.0
_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,40}")

HISTORY = """
SELECT origin, number, name, sha256
  FROM schema_migration
 ORDER BY origin, number"""

RECORD = """
INSERT INTO schema_migration (origin, number, name, sha256)
VALUES ($1, $2, $3, $4)"""


class MigrationError(Exception):
    """The database and the files do not fit together; the sentence says what to do."""


class Migration(msgspec.Struct, frozen=True):
    origin: str  # "shared" or the service
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.sql.startswith("-- no-transaction")


def read(folder: Path, origin: str) -> list[Migration]:
    """Return the folder's migrations in order; MigrationError for a gap, a number taken twice or a name that does not fit."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")) if folder.is_dir() else []:
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{origin}: {path.name} is not named like 0001_create_case.sql.")
        found.append(Migration(origin, int(match[1]), match[2], path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationError(f"{origin}: migration {expected:04d} is missing; numbers have no gaps.")
    return found


@functools.cache
def of_service(service: str, root: Path = ROOT) -> tuple[Migration, ...]:
    """Return everything that belongs into the service's schema, shared files first. Read once a process."""
    return (
        *read(root / "shared" / "migrations", "shared"),
        *read(root / "services" / service / "migrations", service),
    )


async def migrate(
    superuser_dsn: str,
    service: str,
    passwords: Mapping[str, str] | None = None,
    migrations: Sequence[Migration] | None = None,
) -> list[str]:
    """Bring one service's schema up to date and return the names of what was applied. Safe to run from several processes at once.

    Args:
        passwords: by role ("intake_api"); roles without one log in by trust or socket.
    """
    if not _SERVICE.fullmatch(service):
        raise MigrationError(f"{service!r} is no service's name.")
    files = of_service(service) if migrations is None else migrations
    connection = await asyncpg.connect(superuser_dsn, server_settings={"timezone": "UTC"})
    try:
        await _lock(connection, service)
        await _create_roles(connection, service, passwords or {})
        await _create_schema(connection, service)
        return await _apply(connection, service, files)
    finally:
        await connection.close()


async def migrate_all(superuser_dsn: str, passwords: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Bring every service's schema up to date; what was applied, by service."""
    return {service: await migrate(superuser_dsn, service, passwords) for service in SERVICES}


async def pending(dsn: str, service: str) -> list[str]:
    """Return the names of what is not applied yet; MigrationError as for `migrate`. For the start-up check, with any role's connection."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": service})
    try:
        return [migration.name for migration in _outstanding(await _history(connection, service), of_service(service))]
    finally:
        await connection.close()


async def _lock(connection: Any, service: str) -> None:
    """Take the service's lock by asking again and again: a session that waits inside pg_advisory_lock holds a snapshot, and a snapshot
    blocks CREATE INDEX CONCURRENTLY."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LOCK_SECONDS
    while not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", f"recourse migrate {service}"):
        if loop.time() > until:
            raise MigrationError(
                f"{service}: another process has been migrating for {LOCK_SECONDS:.0f} s; look at it first."
            )
        await asyncio.sleep(0.1)


async def _create_roles(connection: Any, service: str, passwords: Mapping[str, str]) -> None:
    for suffix, login in (("owner", "NOLOGIN"), ("api", "LOGIN"), ("worker", "LOGIN")):
        role = f"{service}_{suffix}"
        # Roles belong to the whole cluster, and advisory locks to one database: another database's migration may be a step ahead.
        for last in (False, False, True):
            try:
                if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
                    await connection.execute(
                        f"CREATE ROLE {role} {login} NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOBYPASSRLS NOREPLICATION"
                    )
                if role in passwords:
                    secret = await connection.fetchval("SELECT quote_literal($1::text)", str(passwords[role]))
                    await connection.execute(f"ALTER ROLE {role} PASSWORD {secret}")
                break
            except (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.InternalServerError):
                if last:
                    raise
                await asyncio.sleep(0.05)


async def _create_schema(connection: Any, service: str) -> None:
    async with connection.transaction():
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {service}_owner")
        await connection.execute(f"GRANT USAGE ON SCHEMA {service} TO {service}_api, {service}_worker")
        await connection.execute(
            f"CREATE TABLE IF NOT EXISTS {service}.schema_migration ("
            " origin text NOT NULL, number integer NOT NULL, name text NOT NULL, sha256 text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (origin, number))"
        )
        await connection.execute(f"GRANT SELECT ON {service}.schema_migration TO {service}_api, {service}_worker")


async def _history(connection: Any, service: str) -> dict[tuple[str, int], tuple[str, str]]:
    return {(row["origin"], row["number"]): (row["name"], row["sha256"]) for row in await connection.fetch(HISTORY)}


def _outstanding(history: Mapping[tuple[str, int], tuple[str, str]], files: Sequence[Migration]) -> list[Migration]:
    known = {(each.origin, each.number) for each in files}
    for (origin, number), (name, _) in history.items():
        if (origin, number) not in known:
            raise MigrationError(
                f"The database is newer than this program: it has {origin} migration {number:04d}_{name}. Run the newer version."
            )
    outstanding = []
    for each in files:
        applied = history.get((each.origin, each.number))
        if applied is None:
            outstanding.append(each)
        elif applied != (each.name, each.sha256):
            raise MigrationError(
                f"{each.origin} migration {each.number:04d}_{each.name} was edited after it ran. Restore it, and write a new one."
            )
    return outstanding


async def _apply(connection: Any, service: str, files: Sequence[Migration]) -> list[str]:
    await connection.execute(f"SET search_path = {service}, public")
    done = []
    for each in _outstanding(await _history(connection, service), files):
        await connection.execute("SET lock_timeout = '2s'")
        try:
            if each.in_transaction:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL ROLE {service}_owner")
                    await connection.execute(each.sql)
                    await connection.execute("RESET ROLE")
                    await connection.execute(RECORD, each.origin, each.number, each.name, each.sha256)
            else:
                await connection.execute(f"SET ROLE {service}_owner")
                for statement in _statements(each.sql):
                    await connection.execute(statement)
                await connection.execute("RESET ROLE")
                await connection.execute(RECORD, each.origin, each.number, each.name, each.sha256)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{each.origin} migration {each.number:04d}_{each.name} failed: {error}") from error
        done.append(f"{each.origin}/{each.number:04d}_{each.name}")
    return done


def _statements(sql: str) -> list[str]:
    """Split at semicolons that end a line. Enough for index statements, which is all that such a file may hold."""
    without_comments = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return [part.strip() for part in re.split(r";\s*$", without_comments, flags=re.MULTILINE) if part.strip()]

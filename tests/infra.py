"""The PostgreSQL and NATS that tests run against; a test never sees which kind it got.

`INFRA=embedded` (the default) starts the servers of the wheels, `INFRA=containers` starts images made by `make images`,
and `INFRA=external` uses servers that run already.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import msgspec

from shared.embedded.access import USERS, render_config
from shared.embedded.environment import database_roles, service_environment
from shared.embedded.folder import open_folder
from shared.embedded.nats import NatsServer
from shared.embedded.postgres import PostgresServer
from tests.waiting import PATIENCE

POSTGRES_IMAGE = "recourse-postgres:18"
NATS_IMAGE = "recourse-nats:2.15"
LABEL = "recourse-tests"


def new_role_passwords() -> dict[str, str]:
    return {role: uuid4().hex for role in database_roles()}


class Infra(msgspec.Struct, frozen=True):
    """Where the servers are.

    Args:
        postgres_dsn: the superuser's address of the database `postgres`.
        nats_address: `host:port`.
        nats_passwords: by user; `nats_url` puts them in.
        monitor_url: NATS's own pages.
        role_passwords: of the database's roles, by role (`intake_api`, `intake_worker`, …).
    """

    postgres_dsn: str
    nats_address: str
    nats_passwords: Mapping[str, str]
    monitor_url: str
    role_passwords: Mapping[str, str] = msgspec.field(default_factory=new_role_passwords)

    def nats_url(self, user: str) -> str:
        """The address for `intake`, `routing`, `sla`, `notify`, `reporting` or `operator`."""
        return f"nats://{user}:{self.nats_passwords[user]}@{self.nats_address}"


class Database(msgspec.Struct, frozen=True):
    """One test's own database, migrated and empty; `dsn` is the superuser's."""

    name: str
    dsn: str

    def dsn_as(self, user: str, password: str) -> str:
        """The address for another role."""
        address = urlsplit(self.dsn)
        return urlunsplit(address._replace(netloc=f"{user}:{password}@{address.hostname}:{address.port}"))


def database_dsn(dsn: str, name: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


STRICT = {"RECOURSE_REQUIRE_DURABLE": "true", "RECOURSE_COMMAND_SECONDS": "3", "RECOURSE_ACQUIRE_SECONDS": "2"}
"""What a service insists on when it is not under test; for the tests of that."""


def service_settings(infra: Infra, database: Database, service: str, port: int = 0) -> dict[str, str]:
    """The environment variables from which `shared.settings.load` makes the service's settings.

    They differ from the usual ones in that a statement may take as long as a test is prepared to wait: a machine that
    stands still for some seconds is no outage of the database.
    """
    patient = {"RECOURSE_COMMAND_SECONDS": str(PATIENCE / 3), "RECOURSE_ACQUIRE_SECONDS": str(PATIENCE / 3)}
    return {**_environment(infra, database, service, port), **patient, "RECOURSE_REQUIRE_DURABLE": "false"}


def _environment(infra: Infra, database: Database, service: str, port: int) -> dict[str, str]:
    return service_environment(
        service,
        database_url=urlunsplit(
            urlsplit(database.dsn)._replace(netloc=urlsplit(database.dsn).netloc.rpartition("@")[2])
        ),
        role_passwords=infra.role_passwords,
        nats_url=f"nats://{infra.nats_address}",
        nats_password=infra.nats_passwords[service],
        nats_monitor_url=infra.monitor_url,
        stream_bytes=64 * 1024 * 1024,
        port=port,
    )


@contextmanager
def running_infra(kind: str) -> Iterator[Infra]:
    """Start what `kind` says, and stop it afterwards."""
    if kind == "embedded":
        with _embedded() as infra:
            yield infra
    elif kind == "containers":
        with _containers() as infra:
            yield infra
    elif kind == "external":
        yield _external()
    else:
        raise ValueError(f"INFRA={kind}: must be embedded, containers or external")


@contextmanager
def _embedded() -> Iterator[Infra]:
    folder = open_folder(Path(tempfile.mkdtemp(prefix="recourse-test-")))
    # A test may hold a service's connections open after its end; a few more than a stack needs.
    postgres = PostgresServer(folder, 0, settings={"max_connections": "300"})
    nats = NatsServer(folder, 0)

    async def start() -> None:
        await postgres.start()
        await nats.start()

    async def stop() -> None:
        await nats.stop()
        await postgres.stop()

    try:
        asyncio.run(start())
        yield Infra(postgres.dsn, f"127.0.0.1:{nats.port}", nats.passwords, nats.monitor_url)
    finally:
        asyncio.run(stop())
        shutil.rmtree(folder)


@contextmanager
def _containers() -> Iterator[Infra]:
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image is not ours to build; see the sweep below
    os.environ.setdefault("TC_MAX_TRIES", "30")
    import docker
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    for left_behind in docker.from_env().containers.list(all=True, filters={"label": f"{LABEL}={worker}"}):
        left_behind.remove(force=True)  # by a test run that was killed
    passwords = {user: uuid4().hex for user in USERS}
    with tempfile.TemporaryDirectory(prefix="recourse-test-") as folder:
        config = Path(folder) / "nats.conf"
        config.write_text(
            render_config(passwords, store="/data", host="0.0.0.0", port=4222, monitor="0.0.0.0:8222", max_file="2GB")
        )
        Path(folder).chmod(0o755)
        labels = {LABEL: worker}
        postgres = PostgresContainer(POSTGRES_IMAGE, password=uuid4().hex, driver=None).with_kwargs(labels=labels)
        nats = (
            DockerContainer(NATS_IMAGE)
            .with_volume_mapping(folder, "/config", "ro")
            .with_command(["-c", "/config/nats.conf"])
            .with_exposed_ports(4222, 8222)
            .with_kwargs(labels=labels)
        )
        with postgres, nats:
            wait_for_logs(nats, "Server is ready", timeout=30)
            host = nats.get_container_host_ip()
            yield Infra(
                postgres.get_connection_url(driver=None),
                f"{host}:{nats.get_exposed_port(4222)}",
                passwords,
                f"http://{host}:{nats.get_exposed_port(8222)}",
            )


def _external() -> Infra:
    """Servers named by the environment.

    `RECOURSE_TEST_POSTGRES` is a superuser's address, `RECOURSE_TEST_NATS` is `host:port`,
    `RECOURSE_TEST_NATS_PASSWORDS` is a file with a JSON object of passwords by user, and
    `RECOURSE_TEST_NATS_MONITOR` is the address of NATS's own pages.
    """
    passwords = msgspec.json.decode(Path(os.environ["RECOURSE_TEST_NATS_PASSWORDS"]).read_bytes(), type=dict[str, str])
    return Infra(
        os.environ["RECOURSE_TEST_POSTGRES"],
        os.environ["RECOURSE_TEST_NATS"],
        passwords,
        os.environ["RECOURSE_TEST_NATS_MONITOR"],
    )


async def create_database(server_dsn: str, name: str, template: str | None = None) -> str:
    """Create a database, empty or as a copy of a template nobody is connected to; return its address."""
    connection = await asyncpg.connect(server_dsn)
    source = f'TEMPLATE "{template}" STRATEGY file_copy' if template else ""
    try:
        await connection.execute(f'CREATE DATABASE "{name}" {source}')
    finally:
        await connection.close()
    return database_dsn(server_dsn, name)


async def drop_database(server_dsn: str, name: str) -> None:
    """Drop a database, disconnecting whoever is left."""
    connection = await asyncpg.connect(server_dsn)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@asynccontextmanager
async def a_database(infra: Infra, template: str) -> AsyncIterator[Database]:
    """A copy of a migrated and empty database, dropped at the end."""
    name = f"test_{uuid4().hex}"
    yield Database(name, await create_database(infra.postgres_dsn, name, template))
    await drop_database(infra.postgres_dsn, name)


async def empty_tables(connection: asyncpg.Connection, schema: str, keep: Iterable[str] = ()) -> None:
    """Forget what earlier tests left in a service's tables, while it runs; what it is told at its start stays."""
    tables = await connection.fetch(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = $1"
        " AND NOT tablename = ANY($2) ORDER BY tablename",
        schema,
        ["schema_migration", "relay_state", *keep],
    )
    statement = f"TRUNCATE {', '.join(each['name'] for each in tables)}"
    for _ in range(20):
        with suppress(
            asyncpg.DeadlockDetectedError
        ):  # the service's loops lock the same tables, in an order of their own
            await connection.execute(statement)
            return
    raise TimeoutError(f"the tables of {schema} are never free")


async def clear_streams(infra: Infra) -> None:
    """Delete every stream: the next test finds NATS as it first was."""
    import nats

    client = await nats.connect(infra.nats_url("operator"), connect_timeout=int(PATIENCE))
    try:
        js = client.jetstream(timeout=PATIENCE)
        for stream in await js.streams_info():
            await js.delete_stream(stream.config.name or "")
    finally:
        await client.close()

"""The servers of a local stack, ready for the services: PostgreSQL with every schema, NATS, everybody's passwords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import asyncpg

from services.supervisor import ServiceProcess, Supervisor
from shared.embedded.access import SERVICES
from shared.embedded.environment import database_roles, service_environment
from shared.embedded.errors import LocalStackError
from shared.embedded.folder import DEFAULT_FOLDER, kept_passwords, open_folder
from shared.embedded.nats import NatsServer
from shared.embedded.postgres import PostgresServer
from shared.embedded.processes import claim_port
from shared.migrations import MigrationError, migrate_all

DATABASE: Final = "recourse"


class LocalStack:
    """PostgreSQL and NATS on one data folder, and what a service needs to know to use them."""

    def __init__(self, folder: Path, postgres: PostgresServer, nats: NatsServer, passwords: Mapping[str, str]) -> None:
        self.folder = folder
        self.postgres = postgres
        self.nats = nats
        self._role_passwords = passwords

    @classmethod
    async def start(
        cls,
        supervisor: Supervisor,
        data_dir: Path = DEFAULT_FOLDER,
        *,
        postgres_port: int = 0,
        nats_port: int = 0,
        nats_monitor_port: int = 0,
    ) -> LocalStack:
        """Start both servers under the supervisor, create what is missing and bring every schema up to date.

        Raises LocalStackError, in a sentence: folder in use, newer data, busy port, failed start.
        """
        folder = open_folder(data_dir)
        postgres = PostgresServer(folder, postgres_port)
        nats = NatsServer(folder, nats_port, nats_monitor_port)
        await supervisor.add_together([postgres, nats])
        passwords = kept_passwords(folder / "roles.secret.json", database_roles())
        await _create_database(postgres)
        try:
            await migrate_all(postgres.dsn_of(DATABASE), passwords)
        except MigrationError as failure:
            raise LocalStackError(str(failure)) from failure
        return cls(folder, postgres, nats, passwords)

    @property
    def superuser_dsn(self) -> str:
        """For migrations and audits; no service gets it."""
        return self.postgres.dsn_of(DATABASE)

    def environment(self, service: str, port: int = 0) -> dict[str, str]:
        """The settings of one service as environment variables."""
        return service_environment(
            service,
            database_url=self.postgres.address_of(DATABASE),
            role_passwords=self._role_passwords,
            nats_url=self.nats.address,
            nats_password=self.nats.passwords[service],
            nats_monitor_url=self.nats.monitor_url,
            stream_bytes=self.nats.stream_bytes(len(SERVICES)),
            port=port,
        )

    def process(self, service: str, port: int = 0, extra: Mapping[str, str] | None = None) -> ServiceProcess:
        """One service as a child process, not started yet; `extra` are further variables of its environment."""
        port = claim_port(port, service)
        return ServiceProcess(service, self.folder, port, {**self.environment(service, port), **(extra or {})})


async def _create_database(postgres: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()

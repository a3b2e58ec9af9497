"""A local stack gives every service its own roles and secrets, and keeps them from one start to the next."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import nats
import pytest

from services.local_stack import LocalStack
from services.supervisor import Supervisor
from shared.embedded.access import SERVICES
from shared.embedded.errors import FolderInUseError
from shared.settings import ServiceSettings, load
from tests.infra import Database, Infra, service_settings


async def roles_that_log_in(settings: ServiceSettings) -> list[str]:
    address = settings.database_url.removeprefix("postgresql://")
    found = []
    for kind, password in (("api", settings.api_password), ("worker", settings.worker_password)):
        connection = await asyncpg.connect(f"postgresql://{settings.service}_{kind}:{password}@{address}")
        found.append(await connection.fetchval("SELECT current_user"))
        await connection.close()
    return found


async def test_every_service_finds_its_database_and_its_broker_before_and_after_a_restart(tmp_path: Path) -> None:
    environments = []
    for _ in range(2):
        async with Supervisor() as supervisor:
            stack = await LocalStack.start(supervisor, tmp_path)
            environments.append({service: stack.environment(service) for service in SERVICES})
            for service in SERVICES:
                settings = load(ServiceSettings, service, stack.environment(service))
                assert await roles_that_log_in(settings) == [f"{service}_api", f"{service}_worker"]
                client = await nats.connect(settings.nats_url, user=service, password=str(settings.nats_password))
                await client.close()
            connection = await asyncpg.connect(stack.superuser_dsn)
            schemas = {row["nspname"] for row in await connection.fetch("SELECT nspname FROM pg_namespace")}
            await connection.close()
            assert set(SERVICES) <= schemas
    secrets = [
        {name: value for each in environment.values() for name, value in each.items() if "PASSWORD" in name}
        for environment in environments
    ]
    assert secrets[0] == secrets[1]
    assert len(set(secrets[0].values())) == len(secrets[0]) == 3 * len(SERVICES)


async def test_no_service_is_told_the_secrets_of_another(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        stack = await LocalStack.start(supervisor, tmp_path)
        for service in SERVICES:
            told = [name for name in stack.environment(service) if "PASSWORD" in name]
            assert all(service.upper() in name for name in told)
        with pytest.raises(FolderInUseError):
            async with Supervisor() as second:
                await LocalStack.start(second, tmp_path)


async def test_the_shared_servers_of_the_tests_serve_the_same_settings(infra: Infra, database: Database) -> None:
    for service in SERVICES:
        settings = load(ServiceSettings, service, service_settings(infra, database, service))
        assert await roles_that_log_in(settings) == [f"{service}_api", f"{service}_worker"]
        assert settings.database_url.endswith(database.name)

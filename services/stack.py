"""Everything on one machine: the servers, the five services and the gateway; in this process, or one process each."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from services.local_stack import LocalStack
from services.supervisor import Event, ServiceProcess, Supervisor
from shared.embedded.access import SERVICES
from shared.embedded.folder import DEFAULT_FOLDER, kept_passwords, write_private
from shared.embedded.processes import LOOPBACK, claim_port

ADDRESS_FILE: Final = "address.json"
"""In the data folder while a stack runs: where its gateway is, for the commands."""

_WITH_MASTER_KEY: Final = ("intake", "routing", "notify")


class Address(Struct, frozen=True):
    """Where a running stack is."""

    url: str
    smtp_port: int
    pid: int


class Stack(Struct, kw_only=True):
    """A running stack. `operator_key` is there at the first start of a data folder alone."""

    local: LocalStack
    supervisor: Supervisor
    url: str
    smtp_port: int
    operator_key: str | None
    is_split: bool  # one process each


@asynccontextmanager
async def running(
    data: Path = DEFAULT_FOLDER,
    *,
    processes: bool = False,
    port: int = 0,
    smtp_port: int = 0,
    extra: Mapping[str, str] | None = None,
    tell: Callable[[Event], object] = lambda _: None,
) -> AsyncIterator[Stack]:
    """Start everything, and stop it when the block ends.

    Args:
        port: the gateway's; 0 is any free one. Likewise `smtp_port`, where complaints come in by mail.
        extra: further settings for every service, RECOURSE_…

    Raises LocalStackError, StartError or SettingsError, each a sentence.
    """
    port = claim_port(port, "the gateway")
    smtp_port = claim_port(smtp_port, "mail")
    async with Supervisor(tell) as supervisor:
        local = await LocalStack.start(supervisor, data)
        environments = {name: _environment(local, name, smtp_port, extra or {}) for name in SERVICES}
        operator_key = await new_operator_key(environments["intake"])
        async with AsyncExitStack() as exits:
            if processes:
                await _as_processes(supervisor, local, environments, port)
            else:
                await _in_this_process(exits, environments, port)
            url = f"http://{LOOPBACK}:{port}"
            place = local.folder / ADDRESS_FILE
            write_private(place, msgspec.json.encode(Address(url, smtp_port, os.getpid())))
            exits.callback(place.unlink, missing_ok=True)
            yield Stack(
                local=local,
                supervisor=supervisor,
                url=url,
                smtp_port=smtp_port,
                operator_key=operator_key,
                is_split=processes,
            )


def address_of(data: Path = DEFAULT_FOLDER) -> Address | None:
    """Where the stack on a data folder is, if one runs."""
    try:
        found = msgspec.json.decode((data.expanduser() / ADDRESS_FILE).read_bytes(), type=Address)
        os.kill(found.pid, 0)
    except (OSError, msgspec.DecodeError):
        return None
    return found


async def new_operator_key(intake: Mapping[str, str]) -> str | None:
    """Make the operator's credential at the first start of all and return its key; None when there is one already.

    Args:
        intake: the environment of intake, which owns credentials.
    """
    from services.intake.settings import IntakeSettings
    from services.intake.tenancy import ensure_operator
    from shared.database import Database
    from shared.settings import load

    database = Database(load(IntakeSettings, "intake", intake))
    await database.open()
    try:
        return await ensure_operator(database)
    finally:
        await database.close()


def _environment(local: LocalStack, service: str, smtp_port: int, extra: Mapping[str, str]) -> dict[str, str]:
    variables = {**local.environment(service), **extra}
    if service in _WITH_MASTER_KEY:
        variables[f"RECOURSE_{service.upper()}_MASTER_KEY"] = master_key(local.folder, service)
    if service == "intake":
        variables["RECOURSE_SMTP_PORT"] = str(smtp_port)
    return variables


def master_key(folder: Path, service: str) -> str:
    """The key that a service's secrets are wrapped by: made once, kept in the data folder beside what it protects.

    On a laptop that is as good as it gets; in a deployment it comes from wherever secrets are kept.
    """
    place = folder / f"{service}.master.secret.json"
    if not place.exists():
        write_private(place, msgspec.json.encode({"key": base64.b64encode(secrets.token_bytes(32)).decode()}))
    return kept_passwords(place, ["key"])["key"]


async def _as_processes(
    supervisor: Supervisor, local: LocalStack, environments: Mapping[str, Mapping[str, str]], port: int
) -> None:
    services = []
    for name in SERVICES:
        own = claim_port(0, name)
        variables = {**environments[name], f"RECOURSE_{name.upper()}_PORT": str(own)}
        services.append(ServiceProcess(name, local.folder, own, variables))
    urls = {f"RECOURSE_{each.name.upper()}_URL": each.url for each in services}
    gateway = ServiceProcess("gateway", local.folder, port, {**urls, "RECOURSE_GATEWAY_PORT": str(port)})
    await supervisor.add_together([*services, gateway])
    await supervisor.wait_ready()


async def _in_this_process(exits: AsyncExitStack, environments: Mapping[str, Mapping[str, str]], port: int) -> None:
    from services.composing import build
    from services.gateway.app import Gateway
    from services.gateway.backends import InMemory
    from services.supervisor import Endpoint, serving

    made = [build(name, environments[name]) for name in SERVICES]

    for service in made:
        exits.push_async_callback(service.stop)
        await service.start()
    gateway = Gateway({service.spec.name: InMemory(service.app) for service in made})
    await exits.enter_async_context(serving("gateway", Endpoint(gateway.app, port)))

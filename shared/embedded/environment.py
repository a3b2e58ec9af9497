"""The settings that make a service use the servers of a local stack: environment variables (shared/settings.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared.embedded.access import SERVICES


def database_roles(services: Iterable[str] = SERVICES) -> tuple[str, ...]:
    """The roles that log in, each with a password of its own; a service's owner never does."""
    return tuple(f"{service}_{kind}" for service in services for kind in ("api", "worker"))


def service_environment(
    service: str,
    *,
    database_url: str,
    role_passwords: Mapping[str, str],
    nats_url: str,
    nats_password: str,
    nats_monitor_url: str,
    stream_bytes: int,
    port: int = 0,
) -> dict[str, str]:
    """Return the variables of one service: its own secrets and nobody else's.

    Args:
        database_url: without a user; the roles of the service are put in by the service.
        nats_url: `nats://host:port`; the user is the service's name.
        stream_bytes: the most its stream may hold; all streams together must fit into the server's `max_file`.
        port: where the service answers HTTP; 0 is any free one.
    """
    name = service.upper()
    return {
        "RECOURSE_DATABASE_URL": database_url,
        f"RECOURSE_DATABASE_PASSWORD_{name}_API": role_passwords[f"{service}_api"],
        f"RECOURSE_DATABASE_PASSWORD_{name}_WORKER": role_passwords[f"{service}_worker"],
        "RECOURSE_NATS_URL": nats_url,
        f"RECOURSE_NATS_PASSWORD_{name}": nats_password,
        "RECOURSE_NATS_MONITOR_URL": nats_monitor_url,
        f"RECOURSE_{name}_PORT": str(port),
        "RECOURSE_STREAM_MAX_BYTES": str(stream_bytes),
    }

"""Settings: environment variables, read once at start into a frozen Struct. A missing or wrong one stops the start
with its name.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

PREFIX = "RECOURSE_"


class Secret(str):
    """Text that never shows: `repr` is masked, so a printed Struct gives nothing away. Use `str(secret)` where it is needed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SettingsError(Exception):
    """One sentence per mistake, each with the variable's name; never its value."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service reads. A field `outbox_batch` is RECOURSE_OUTBOX_BATCH, or RECOURSE_SLA_OUTBOX_BATCH for sla alone."""

    service: str  # not from the environment
    database_url: str  # postgresql://host:port/database, without a user; socket: postgresql:///database?host=/folder
    nats_url: str  # nats://host:port
    api_password: Secret | None = None  # RECOURSE_DATABASE_PASSWORD_<SERVICE>_API; none: trust or socket
    worker_password: Secret | None = None  # RECOURSE_DATABASE_PASSWORD_<SERVICE>_WORKER
    nats_password: Secret | None = None  # RECOURSE_NATS_PASSWORD_<SERVICE>; the user is the service's name
    nats_monitor_url: str | None = (
        None  # http://host:port of NATS's monitoring; lets the start-up check read the sync interval
    )
    host: str = "127.0.0.1"
    port: int = 0  # RECOURSE_<SERVICE>_PORT; 0: any free one
    api_connections: int = 8  # at most, per process
    worker_connections: int = 6
    command_seconds: float = 3.0  # every statement
    acquire_seconds: float = 2.0  # waiting for a connection of the pool
    start_seconds: float = 60.0  # how long the start waits for the database
    stop_seconds: float = 10.0  # how long a stop waits for work in hand
    statement_cache: int = 256  # 0 behind a pooler that shares connections between transactions
    require_durable: bool = True  # refuse a database or a NATS server that may lose what it has confirmed
    max_body_bytes: int = 1_048_576  # a route may say otherwise
    stream_max_bytes: int = 1_073_741_824
    stream_replicas: int = 1
    outbox_batch: int = 500  # messages published at a time, from 17 on in one atomic batch; at most 1000
    outbox_retention_days: int = 7
    inbox_retention_days: int = 14
    idempotency_retention_days: int = 7
    dead_letter_retention_days: int = 90
    audit_seconds: float = 3600.0  # between two looks for holes in the stream
    otlp_endpoint: str | None = None  # http://host:4318: where OpenTelemetry spans go; none: nowhere
    trace_share: float = 1.0  # of the traces that begin here, how many are exported
    egress_allow: tuple[str, ...] = ()  # host:port, comma-separated; the port may be *: addresses that would be refused


S = TypeVar("S", bound=msgspec.Struct)


def load(kind: type[S], service: str, environ: Mapping[str, str]) -> S:
    """Return the settings of `service`, whose Struct has a field of that name.

    SettingsError names every variable that is missing or does not fit.
    """
    values: dict[str, Any] = {"service": service}
    mistakes: list[str] = []
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        if field.name == "service":
            continue
        names = _names(field.name, service)
        name = next((each for each in names if environ.get(each, "") != ""), None)
        if name is None:
            if field.required:
                mistakes.append(f"{names[-1]} is not set, and has no default.")
            continue
        try:
            values[field.name] = _value(environ[name], hints[field.name])
        except (msgspec.ValidationError, ValueError):
            mistakes.append(f"{name} does not fit: expected {_expected(hints[field.name])}.")
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    settings = kind(**values)
    if isinstance(settings, ServiceSettings) and (unsafe := _unsafe(settings)):
        raise SettingsError("\n".join(unsafe))
    return settings


def _unsafe(settings: ServiceSettings) -> list[str]:
    """What would make the service lose, repeat or hang, although it is to do none of these."""
    if not settings.require_durable:
        return []
    longest_away = settings.outbox_retention_days
    bounds = (
        ("INBOX_RETENTION_DAYS", settings.inbox_retention_days >= max(14, longest_away + 1),
         "at least 14 and more than RECOURSE_OUTBOX_RETENTION_DAYS: what comes again after it is done again"),
        ("IDEMPOTENCY_RETENTION_DAYS", settings.idempotency_retention_days >= 7, "at least 7: later repeats are taken for new requests"),
        ("COMMAND_SECONDS", 0 < settings.command_seconds <= 3, "above 0 and at most 3: requests would hang with the database"),
        ("ACQUIRE_SECONDS", 0 < settings.acquire_seconds <= 2, "above 0 and at most 2: requests would queue for connections"),
        ("OUTBOX_BATCH", 0 < settings.outbox_batch <= 1000, "from 1 to 1000: the server takes no larger batch"),
    )  # fmt: skip
    return [f"{PREFIX}{name} must be {what}." for name, holds, what in bounds if not holds]


def _names(field: str, service: str) -> tuple[str, ...]:
    own = service.upper()
    special = {
        "api_password": f"DATABASE_PASSWORD_{own}_API",
        "worker_password": f"DATABASE_PASSWORD_{own}_WORKER",
        "nats_password": f"NATS_PASSWORD_{own}",
    }
    if field in special:
        return (PREFIX + special[field],)
    if field == "port":
        return (f"{PREFIX}{own}_PORT",)
    return (f"{PREFIX}{own}_{field.upper()}", PREFIX + field.upper())


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _value(text: str, annotation: Any) -> Any:
    members = _members(annotation)
    if Secret in members:
        return Secret(text)
    if any(typing.get_origin(member) is tuple for member in members):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return msgspec.convert(text, annotation, strict=False)


def _expected(annotation: Any) -> str:
    return " or ".join(getattr(each, "__name__", str(each)) for each in _members(annotation) if each is not type(None))

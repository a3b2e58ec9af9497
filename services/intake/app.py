"""Composition root of intake: what the service is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.intake.api import ROUTES
from services.intake.envelope import MasterKeys
from services.intake.gathering import Storing
from services.intake.handlers import Handlers
from services.intake.loops import loops, rewrap
from services.intake.mail import MailDeliveries
from services.intake.mail_reader import MailReader
from services.intake.parts import Parts, parts_of, put_parts
from services.intake.settings import IntakeSettings
from services.intake.smtp import MailServer
from services.intake.tenancy import ensure_operator
from services.intake.vault import Vault
from shared.consuming import Consumer
from shared.messages.contacts import CONTACT_SUBJECT
from shared.rate_limit import RateLimiter
from shared.service import Runtime, Service, ServiceSpec
from shared.service import build as build_service
from shared.settings import SettingsError, load

__all__ = ["SPEC", "build", "ensure_operator"]

NAME: Final = "intake"


def _consumers(runtime: Runtime[Any]) -> Sequence[Consumer]:
    return [*runtime.reference.consumers(NAME), *Handlers(runtime).consumers()]


async def _start(runtime: Runtime[IntakeSettings]) -> None:
    settings = runtime.settings
    vault = Vault(master_keys(settings))
    parts = Parts(
        vault=vault,
        storing=Storing(
            runtime.db,
            runtime.reference,
            vault,
            batch=settings.store_batch,
            queue=settings.store_queue,
            connections=settings.api_connections // 2,
            seconds=2 * settings.command_seconds,
        ),
        senders=RateLimiter(),
        mail_reader=None,
        mail_server=None,
    )
    put_parts(runtime, parts)
    await runtime.nats.respond(CONTACT_SUBJECT, Handlers(runtime).answer_contact)
    if settings.smtp_port is not None:
        parts.mail_reader = MailReader(settings.mail_memory_bytes, settings.mail_seconds)
        parts.mail_server = MailServer(MailDeliveries(runtime), settings)
        await parts.mail_server.start()


async def _stop(runtime: Runtime[IntakeSettings]) -> None:
    parts = parts_of(runtime)
    if parts.mail_server is not None:
        await parts.mail_server.stop()
    if parts.mail_reader is not None:
        await parts.mail_reader.close()
    await parts.storing.stop()


def master_keys(settings: IntakeSettings) -> MasterKeys:
    """Return the master keys; SettingsError, naming the variable, when one does not fit."""
    previous = tuple(part.strip() for part in str(settings.master_key_previous or "").split(",") if part.strip())
    try:
        return MasterKeys.from_text(str(settings.master_key), previous)
    except ValueError as error:
        raise SettingsError(f"RECOURSE_MASTER_KEY or RECOURSE_MASTER_KEY_PREVIOUS does not fit: {error}.") from None


SPEC: Final = ServiceSpec(
    name=NAME,
    route_handlers=ROUTES,
    consumers=_consumers,
    loops=loops,
    on_start=_start,
    prepare=rewrap,
    on_stop=_stop,
    description="Tenants and what they publish, complaints as they come in, and the vault with all personal data.",
)


def build(environ: Mapping[str, str]) -> Service:
    """Return the service as the environment sets it up, not started yet. Raises SettingsError."""
    settings = load(IntakeSettings, NAME, environ)
    master_keys(settings)
    return build_service(SPEC, settings)

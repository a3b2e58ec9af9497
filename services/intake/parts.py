"""What intake keeps for itself while it runs, beside the runtime that every service has."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from services.intake.gathering import Storing
from services.intake.mail_reader import MailReader
from services.intake.settings import IntakeSettings
from services.intake.smtp import MailServer
from services.intake.vault import Vault
from shared.rate_limit import RateLimiter
from shared.service import Runtime

_KEY = "intake"


class Parts(Struct):
    vault: Vault
    storing: Storing
    senders: RateLimiter  # of those who come without an API key: webhooks and mail
    mail_reader: MailReader | None
    mail_server: MailServer | None


def parts_of(runtime: Runtime[Any]) -> Parts:
    """Return the parts; they are there from the start of the service on."""
    parts: Parts = runtime.parts[_KEY]
    return parts


def put_parts(runtime: Runtime[Any], parts: Parts) -> None:
    runtime.parts[_KEY] = parts


def settings_of(runtime: Runtime[Any]) -> IntakeSettings:
    settings: IntakeSettings = runtime.settings
    return settings

"""A tenant's active provider, opened for one call."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from services.notify.channels import email, sms
from services.notify.channels.email import Email, EmailConfig, EmailSecrets
from services.notify.channels.sms import Sms, SmsConfig, SmsSecrets
from services.notify.domain.outcomes import Result
from services.notify.parts import Parts, provider_place
from shared.database import Record
from shared.policy.wording import one_line


class Message(Struct, frozen=True, kw_only=True):
    """Ready to be handed to a provider. Lives as long as the call."""

    channel: Literal["sms", "email"]
    to: str
    masked: str
    key: UUID
    subject: str
    text: str
    prefix: str = ""  # of a number: the range it belongs to

    def __repr__(self) -> str:
        return f"Message({self.key})"


class Provider(Struct, frozen=True, kw_only=True):
    """Either of SMS or of e-mail."""

    provider_id: UUID
    sms: SmsConfig | None = None
    sms_secrets: SmsSecrets = SmsSecrets()
    email: EmailConfig | None = None
    email_secrets: EmailSecrets = EmailSecrets()

    @property
    def can_be_asked(self) -> bool:
        return self.sms is not None and self.sms.lookup_url is not None

    @property
    def countries(self) -> tuple[str, ...]:
        return self.sms.countries if self.sms is not None else ()

    def per_day(self, parts: Parts) -> int:
        """How many messages a day: the plan's number, or less if the provider says so."""
        plan = parts.settings.sms_per_day if self.sms is not None else parts.settings.email_per_day
        config = self.sms or self.email
        return plan if config is None or config.per_day is None else min(plan, config.per_day)

    async def send(self, parts: Parts, message: Message, at: datetime) -> Result:
        seconds = parts.settings.send_seconds
        if self.sms is not None:
            short = Sms(key=message.key, to=message.to, text=one_line(message.text))
            return await sms.send(parts.egress, self.sms, self.sms_secrets, short, seconds)
        assert self.email is not None
        mail = Email(key=message.key, to=message.to, subject=message.subject, text=message.text, at=at)
        return await email.send(parts.egress, parts.tls, self.email, self.email_secrets, mail, seconds)

    async def look_up(self, parts: Parts, key: UUID) -> Result | None:
        """What became of a key; see `channels.sms.look_up`."""
        assert self.sms is not None
        return await sms.look_up(parts.egress, self.sms, self.sms_secrets, key, parts.settings.send_seconds)


def opened(parts: Parts, row: Record) -> Provider | None:
    """The provider of a loaded delivery's channel, its secrets unsealed; None when the tenant has none."""
    provider_id = row["active_provider_id"]
    if provider_id is None:
        return None
    sealed = parts.sealer.open(row["tenant_id"], provider_place(provider_id), row["provider_sealed"])
    if row["channel"] == "sms":
        return Provider(
            provider_id=provider_id,
            sms=msgspec.convert(row["provider_config"], SmsConfig),
            sms_secrets=msgspec.json.decode(sealed, type=SmsSecrets),
        )
    return Provider(
        provider_id=provider_id,
        email=msgspec.convert(row["provider_config"], EmailConfig),
        email_secrets=msgspec.json.decode(sealed, type=EmailSecrets),
    )

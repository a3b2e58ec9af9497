"""E-mail over SMTP: one message, one recipient, marked as automatic so that no machine answers it.

SMTP has no key to ask for. A connection that breaks before the message was handed over has certainly not delivered it; one
that breaks between the last byte and the server's answer may have, and that is what `unknown` means here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import format_datetime
from typing import Annotated, Literal
from uuid import UUID

import aiosmtplib
from msgspec import Meta, Struct

from services.notify.domain.outcomes import Result
from shared.egress import Egress, EgressRefusedError

PORTS = frozenset({25, 465, 587})


class EmailConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that takes the tenant's e-mail."""

    host: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]{1,253}$")]
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    username: Annotated[str, Meta(max_length=256)] = ""
    from_address: Annotated[str, Meta(max_length=254)]
    from_name: Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    null_return_path: bool = False  # bounces go nowhere instead of to from_address
    per_day: Annotated[int, Meta(ge=0, le=10_000_000)] | None = None


class EmailSecrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    password: Annotated[str, Meta(max_length=1024)] = ""


class Email(Struct, frozen=True, kw_only=True):
    key: UUID
    to: str
    subject: str
    text: str
    at: datetime


def is_address(text: str) -> bool:
    """Whether a text is exactly one address that we can write to: ASCII, with a domain, without display name or line break."""
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > 254 or text.count("@") != 1:
        return False
    try:
        parsed = Address(addr_spec=text)
    except (MessageError, ValueError, IndexError):
        return False
    return bool(parsed.username) and "." in parsed.domain and parsed.addr_spec == text


def compose(config: EmailConfig, message: Email) -> EmailMessage:
    """Return the mail. Raises ValueError for an address that is none; no header ever takes a line break."""
    if not is_address(message.to) or not is_address(config.from_address):
        raise ValueError("not an address")
    mail = EmailMessage(policy=WIRE)
    mail["From"] = Address(config.from_name, addr_spec=config.from_address)
    mail["To"] = Address(addr_spec=message.to)
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.key}@{config.from_address.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834
    mail["X-Auto-Response-Suppress"] = "All"
    mail.set_content(message.text)
    return mail


async def send(
    egress: Egress, tls: ssl.SSLContext, config: EmailConfig, secrets: EmailSecrets, message: Email, timeout: float
) -> Result:
    """Hand one mail over, and say what became of it."""
    try:
        mail = compose(config, message).as_bytes()
    except (ValueError, MessageError):
        return Result(outcome="refused", detail="address_malformed")
    conversation = _Conversation()
    try:
        async with asyncio.timeout(timeout):
            await _converse(egress, tls, config, secrets, message.to, mail, conversation)
    except EgressRefusedError as refusal:
        return Result(outcome="unavailable", detail=f"egress_{refusal.reason}")
    except aiosmtplib.SMTPResponseException as answer:
        return _of_code(answer.code)
    except (aiosmtplib.SMTPException, OSError, TimeoutError):
        return Result(outcome="unknown" if conversation.handing_over else "unavailable", detail="no_answer")
    finally:
        conversation.close()
    return Result(outcome="accepted", detail="smtp_250")


class _Conversation:
    """How far it got, and what is to be closed."""

    def __init__(self) -> None:
        self.handing_over = False
        self.client: aiosmtplib.SMTP | None = None
        self.socket: socket.socket | None = None

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        elif self.socket is not None:
            self.socket.close()


async def _converse(
    egress: Egress,
    tls: ssl.SSLContext,
    config: EmailConfig,
    secrets: EmailSecrets,
    to: str,
    mail: bytes,
    conversation: _Conversation,
) -> None:
    target = await egress.target(config.host, config.port, ports=PORTS)
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    conversation.socket = connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (target.address, target.port))
    conversation.client = client = aiosmtplib.SMTP(
        hostname=config.host,
        sock=connection,
        use_tls=config.tls == "implicit",
        start_tls=config.tls == "starttls",
        tls_context=tls,
        local_hostname=config.from_address.rpartition("@")[2],
        timeout=None,
    )
    await client.connect()
    if config.username:
        await client.login(config.username, secrets.password)
    await client.mail("" if config.null_return_path else config.from_address)
    await client.rcpt(to)
    conversation.handing_over = True
    await client.data(mail)


def _of_code(code: int) -> Result:
    """What the server's own words mean: 4xx not now, 5xx never, whatever stage it says it at."""
    if 500 <= code < 600:
        return Result(outcome="refused", detail=f"smtp_{code}")
    return Result(outcome="unavailable", detail=f"smtp_{code}")

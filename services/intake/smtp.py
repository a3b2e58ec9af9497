"""Complaints by e-mail: an SMTP server that answers 250 only when everything is committed, and 550 to whom it does not
know.

Bounded in connections, recipients, size and time. The sender's address authorises nothing; it is stored as a contact.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

import structlog
from aiosmtpd.smtp import SMTP, Envelope, Session

from services.intake.domain.mail import MESSAGE_BYTES
from services.intake.settings import IntakeSettings
from shared.database import OUTAGES
from shared.errors import UnavailableError
from shared.telemetry import continued_trace, describe

POSTPONED: tuple[type[BaseException], ...] = (UnavailableError, *OUTAGES)
UNKNOWN: Final = "550 5.1.1 There is no such address here."
LATER: Final = "451 4.3.0 The message cannot be stored just now; try again later."
TOO_MANY: Final = "452 4.5.3 Too many recipients."
AUTOMATIC: Final = "550 5.7.1 Messages that no person wrote are not taken here."
NOT_TAKEN: Final = "554 5.6.0 The message cannot be taken: "
STORED: Final = "250 2.0.0 Stored."


class Deliveries(Protocol):
    """What the server asks: whom an address means, and what becomes of a message."""

    async def addressee(self, address: str) -> Hashable | None:
        """Return whom the address means, or None. Raises one of POSTPONED during an outage."""

    async def deliver(self, addressee: Any, raw: bytes, return_path: str | None) -> str:
        """Return the reply to the sender: 250 only for what is committed."""


class MailServer:
    """Listens on its own port, in the service's own loop."""

    def __init__(self, deliveries: Deliveries, settings: IntakeSettings) -> None:
        self._deliveries = deliveries
        self._settings = settings
        self._open = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None, "the server was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self._settings.smtp_host, self._settings.smtp_port)
        structlog.get_logger().info("mail_server_started", port=self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 2)

    def _connection(self) -> asyncio.Protocol:
        if self._open >= self._settings.smtp_connections:
            return _TurnedAway()
        self._open += 1
        return _Connection(_Handler(self._deliveries, self._settings), self._settings, self._closed)

    def _closed(self) -> None:
        self._open -= 1


class _Connection(SMTP):
    def __init__(self, handler: _Handler, settings: IntakeSettings, closed: Callable[[], None]) -> None:
        super().__init__(
            handler,
            hostname="recourse",
            ident="Recourse",
            data_size_limit=MESSAGE_BYTES,
            enable_SMTPUTF8=True,
            timeout=settings.smtp_seconds,
            command_call_limit={"*": 20, "RCPT": 50, "NOOP": 10},
        )
        self._on_closed = closed

    def connection_lost(self, error: Exception | None) -> None:
        self._on_closed()
        super().connection_lost(error)


class _TurnedAway(asyncio.Protocol):
    """Says that everybody is busy, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"421 4.3.2 Too many connections; try again later.\r\n")
        transport.close()


class _Handler:
    """What aiosmtpd calls; the names of the methods are its own."""

    def __init__(self, deliveries: Deliveries, settings: IntakeSettings) -> None:
        self._deliveries = deliveries
        self._settings = settings
        self._addressees: dict[str, Hashable] = {}

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= self._settings.smtp_recipients:
            return TOO_MANY
        try:
            addressee = await self._deliveries.addressee(address)
        except POSTPONED as outage:
            structlog.get_logger().warning("mail_postponed", **describe(outage))
            return LATER
        except Exception as error:  # aiosmtpd would answer 500, and the sender give the message up
            structlog.get_logger().error("mail_failed", **describe(error))
            return LATER
        if addressee is None:
            return UNKNOWN
        self._addressees[address] = addressee
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        raw = envelope.original_content
        if raw is None or not envelope.rcpt_tos:
            return "503 5.5.1 There is no recipient."
        addressees = dict.fromkeys(self._addressees[address] for address in envelope.rcpt_tos)
        with continued_trace(None):
            answers = [await self._deliveries.deliver(each, raw, envelope.mail_from) for each in addressees]
        # One answer stands for all recipients: unless all have it, the sender comes again, and repeats are recognised.
        return next((answer for code in ("4", "5", "2") for answer in answers if answer.startswith(code)), LATER)

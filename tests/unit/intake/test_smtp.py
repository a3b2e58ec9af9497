"""The mail server and its answers, with somebody else behind it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import aiosmtplib
import asyncpg
import pytest

from services.intake.settings import IntakeSettings
from services.intake.smtp import STORED, MailServer
from shared.settings import Secret

SETTINGS = IntakeSettings(
    service="intake",
    database_url="postgresql://nowhere/none",
    nats_url="nats://nowhere",
    master_key=Secret("none"),
    smtp_port=0,
)


class Broken:
    """Fails on the way to whom it is asked about, as long as it has failures left."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.taken: list[bytes] = []

    async def addressee(self, address: str) -> Hashable | None:
        if self.failures:
            raise self.failures.pop(0)
        return address

    async def deliver(self, addressee: Any, raw: bytes, return_path: str | None) -> str:
        self.taken.append(raw)
        return STORED


@pytest.mark.parametrize(
    "failure",
    [asyncpg.InternalClientError("cannot switch to state 15"), RuntimeError("a bug"), OSError("no route")],
    ids=["driver", "bug", "outage"],
)
async def test_a_failure_of_ours_postpones_a_message_and_never_bounces_it(failure: Exception) -> None:
    deliveries = Broken(failure)
    server = MailServer(deliveries, SETTINGS)
    await server.start()
    try:
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=server.port, start_tls=False) as client:
            await client.mail("a@example.org")
            with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refusal:
                await client.rcpt("front@example.org")
            assert refusal.value.code == 451
            await client.rcpt("front@example.org")
            await client.data(b"Subject: once more\r\n\r\nIt is stored.")
    finally:
        await server.stop()
    assert len(deliveries.taken) == 1

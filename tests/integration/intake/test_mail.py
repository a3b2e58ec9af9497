from __future__ import annotations

import asyncio
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import asyncpg
import pytest

from services.intake.mail_reader import MailReader, TooSlowError
from services.intake.parts import parts_of
from tests.integration.intake.world import Tenant, World

SENDER = "zhang.san@example.com"


def a_mail(text: str = "等了三个小时", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"张三 <{SENDER}>"
    message["To"] = "complaints@hospital.example"
    message["Subject"] = headers.pop("subject", "投诉")
    message["Message-ID"] = headers.pop("message_id", "<1@example.com>")
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


async def send(world: World, message: EmailMessage | bytes, to: str | list[str], sender: str = SENDER) -> str:
    """Send over a real session and return the last reply's text; raises what the server refuses."""
    raw = message if isinstance(message, bytes) else bytes(message)
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=world.smtp_port, use_tls=False, start_tls=False) as client:
        _, reply = await client.sendmail(sender, to, raw)
    return reply


async def an_address(world: World, **fields: Any) -> tuple[Tenant, str]:
    tenant = await world.tenant()
    source = await tenant.source("email", "front", **fields)
    return tenant, f"{source['address']}@mail.example"


async def test_a_message_is_stored_before_it_is_confirmed(world: World, root: asyncpg.Connection) -> None:
    tenant, address = await an_address(world)
    message = a_mail()
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="票据.pdf")
    assert (await send(world, message, address)).startswith("2.0.0 Stored")
    row = await root.fetchrow("SELECT complaint_id, source, words::text FROM complaint")
    assert row is not None
    assert row["source"] == "email"
    assert '"channel": "email"' in row["words"]
    contact = await tenant.admin.post(f"/v1/complaints/{row['complaint_id']}/contact/unmask", {"reason": "a test"})
    assert (contact.json()["name"], contact.json()["email"]) == ("张三", SENDER)
    texts = await tenant.admin.post("/v1/vault/texts:read", {"case_id": str(row["complaint_id"]), "reason": "a test"})
    found = {each["kind"]: each["text"] for each in texts.json()["items"]}
    assert found["complaint"] == "投诉\n\n等了三个小时"
    assert "Message-ID: <1@example.com>" in found["original"]
    files = await tenant.admin.get(f"/v1/complaints/{row['complaint_id']}/attachments")
    assert [each["name"] for each in files.json()["items"]] == ["票据.pdf"]


async def test_the_readable_address_means_the_same_source(world: World, root: asyncpg.Connection) -> None:
    tenant, _ = await an_address(world)
    await send(world, a_mail(), f"complaints+front@{tenant.slug}.mail.example")
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_an_unknown_recipient_is_refused(world: World, root: asyncpg.Connection) -> None:
    tenant, address = await an_address(world)
    unknown = [
        "nobody@mail.example",
        "complaints+back@" + tenant.slug + ".mail.example",
        "complaints+front@other.mail.example",
        "a" * 24 + "@mail.example",
    ]
    for each in unknown:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refusal:
            await send(world, a_mail(), each)
        assert refusal.value.recipients[0].code == 550
    source = (await tenant.admin.get("/v1/sources")).json()["items"][0]
    await tenant.admin.request("DELETE", f"/v1/sources/{source['source_id']}")
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
        await send(world, a_mail(), address)
    assert await root.fetchval("SELECT count(*) FROM complaint") == 0


async def test_a_message_delivered_twice_is_stored_once(world: World, root: asyncpg.Connection) -> None:
    _, address = await an_address(world)
    await send(world, a_mail(), address)
    await send(world, b"Received: from elsewhere\r\n" + bytes(a_mail()), address)
    await send(world, a_mail("another text under a borrowed id"), address)
    assert await root.fetchval("SELECT count(*) FROM complaint") == 2


async def test_one_message_to_two_tenants_is_a_complaint_of_each(world: World, root: asyncpg.Connection) -> None:
    _, one = await an_address(world)
    _, other = await an_address(world)
    await send(world, a_mail(), [one, other])
    assert await root.fetchval("SELECT count(DISTINCT tenant_id) FROM complaint") == 2


async def test_what_no_person_wrote_is_refused(world: World, root: asyncpg.Connection) -> None:
    _, address = await an_address(world)
    automatic: list[tuple[dict[str, str], str]] = [
        ({"Auto_Submitted": "auto-replied"}, SENDER),
        ({"Precedence": "bulk"}, SENDER),
        ({"List_Id": "<news.example.com>"}, SENDER),
        ({}, ""),
    ]
    for headers, sender in automatic:
        with pytest.raises(aiosmtplib.SMTPDataError) as refusal:
            await send(world, a_mail(**headers), address, sender)
        assert refusal.value.code == 550
    assert await root.fetchval("SELECT count(*) FROM complaint") == 0


async def test_a_form_that_writes_through_a_mailer_can_be_let_in(world: World, root: asyncpg.Connection) -> None:
    _, address = await an_address(world, settings={"takes_automatic": True})
    await send(world, a_mail(Auto_Submitted="auto-generated"), address, "")
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_too_many_recipients_and_too_large_a_message_are_refused(world: World) -> None:
    tenant, address = await an_address(world)
    more = [address] + [(await tenant.source("email", f"s{n}"))["address"] + "@mail.example" for n in range(6)]
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=world.smtp_port, start_tls=False) as client:
        await client.mail(SENDER)
        codes = []
        for each in more:
            try:
                codes.append((await client.rcpt(each)).code)
            except aiosmtplib.SMTPRecipientRefused as refusal:
                codes.append(refusal.code)
        assert codes == [250] * 5 + [452] * 2
    with pytest.raises(aiosmtplib.SMTPResponseException) as too_large:
        await send(world, b"From: a@example.com\r\n\r\n" + b"x" * 76 * 1 + (b"\r\n" + b"y" * 76) * 20_000, address)
    assert too_large.value.code == 552
    with pytest.raises(aiosmtplib.SMTPResponseException) as header:
        await send(world, b"X: y\r\n" * 3000 + b"\r\nx", address)
    assert header.value.code == 554


async def test_a_tenant_without_a_policy_is_asked_to_be_written_to_later(world: World) -> None:
    tenant = await world.tenant(policy=None)
    source = await tenant.source("email", "front")
    with pytest.raises(aiosmtplib.SMTPDataError) as refusal:
        await send(world, a_mail(), f"{source['address']}@mail.example")
    assert refusal.value.code == 451


async def test_during_an_outage_the_sender_comes_again(world: World, root: asyncpg.Connection) -> None:
    _, address = await an_address(world)
    database = world.service.runtime.db
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=world.smtp_port, start_tls=False) as client:
        await client.mail(SENDER)
        await client.rcpt(address)
        await database.close()
        with pytest.raises(aiosmtplib.SMTPDataError) as refusal:
            await client.data(bytes(a_mail()))
        assert refusal.value.code == 451
        await client.mail(SENDER)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused) as unknown:
            await client.rcpt(address)
        assert unknown.value.code == 451
    await database.open()
    await send(world, a_mail(), address)
    assert await root.fetchval("SELECT count(*) FROM complaint") == 1


async def test_connections_are_bounded(world: World) -> None:
    limit = 50
    held = []
    try:
        for _ in range(limit):
            held.append(await asyncio.open_connection("127.0.0.1", world.smtp_port))
            assert (await held[-1][0].readline()).startswith(b"220")
        reader, writer = await asyncio.open_connection("127.0.0.1", world.smtp_port)
        assert (await reader.readline()).startswith(b"421")
        writer.close()
    finally:
        for _, writer in held:
            writer.close()


async def test_a_message_that_kills_the_reader_stops_nothing_else(world: World) -> None:
    reader = parts_of(world.service.runtime).mail_reader
    assert reader is not None
    mail = await reader.read(bytes(a_mail()))
    assert getattr(mail, "text", None) == "等了三个小时"
    process = reader._process
    assert process is not None
    process.kill()
    await process.wait()
    mail = await reader.read(bytes(a_mail("again")))
    assert getattr(mail, "text", None) == "again"
    assert reader._process is not process


async def test_a_message_that_takes_too_long_is_given_up() -> None:
    reader = MailReader(256 * 1024 * 1024, 5.0)
    try:
        await reader.read(bytes(a_mail()))
        reader._seconds = 0.0
        with pytest.raises(TooSlowError):
            await reader.read(bytes(a_mail()))
        assert reader._process is None
        reader._seconds = 5.0
        assert getattr(await reader.read(bytes(a_mail("next"))), "text", None) == "next"
    finally:
        await reader.close()


async def test_the_reader_has_little_memory_and_no_secrets() -> None:
    reader = MailReader(256 * 1024 * 1024, 5.0)
    try:
        await reader.read(bytes(a_mail()))
        assert reader._process is not None
        folder = Path(f"/proc/{reader._process.pid}")
        environ = await asyncio.to_thread((folder / "environ").read_bytes)
        limits = await asyncio.to_thread((folder / "limits").read_text)
        assert b"RECOURSE" not in environ
        assert str(256 * 1024 * 1024) in next(line for line in limits.splitlines() if "address space" in line)
    finally:
        await reader.close()

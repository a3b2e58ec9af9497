"""Sending one organisation's complaints through all four ways in, good ones and bad ones; every answer goes into its journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from typing import Any, Final
from uuid import UUID, uuid4

import aiosmtplib
import msgspec

from services.demo.client import PATIENCE_SECONDS, Answer, Api
from services.demo.journal import Journal, Source
from services.demo.organisations import Complaint, Mail, Organisation
from shared import webhooks

Pace = Callable[[], Awaitable[None]]
"""Awaited before each complaint: a load that is to last is spread out."""

BAD_ENCODING: Final = "投诉".encode("gbk")
LOOP: Final = "mailer-daemon@example.org"


class Sender:
    """Sends for one organisation.

    Args:
        api: with the key of the organisation's own systems (role integration).
        hook: path and secret of its call centre's webhook.
        mailbox: the address to which its complainants write.
    """

    def __init__(
        self,
        organisation: Organisation,
        api: Api,
        *,
        hook: tuple[str, str],
        mailbox: str,
        smtp_port: int,
        pace: Pace,
        journal: Journal,
    ) -> None:
        self.organisation = organisation
        self.journal = journal
        self._api = api
        self._hook = hook
        self._mailbox = mailbox
        self._smtp_port = smtp_port
        self._pace = pace

    async def send_all(self) -> None:
        """Send everything; the ways in are used at the same time, and what is over the quota comes last."""
        async with asyncio.TaskGroup() as ways:
            for way in (self._by_api, self._by_webhook, self._by_mail, self._by_table):
                ways.create_task(way())
        if self.organisation.per_day < 1000:
            await self._over_the_quota()

    # -- HTTP API ------------------------------------------------------------------------------------------------------

    async def _by_api(self) -> None:
        first: tuple[str, Complaint, Answer] | None = None
        for complaint in self.organisation.api:
            await self._pace()
            key = f"demo-{uuid4()}"
            answer = await self._take(key, body=complaint.draft)
            self._note("api", answer, complaint.plan)
            first = first or (key, complaint, answer)
        assert first is not None
        key, complaint, before = first
        again = await self._take(key, body=complaint.draft)
        self.journal.repeat(as_before=again.repeated and again.body == before.body, what="request")
        other = {**complaint.draft, "text": "Another text under the same key."}
        self._refused("api", await self._take(key, body=other), "idempotency-key-reused")
        headers = {"Content-Type": "application/json"}
        raw = b'{"channel": "phone", "text": "' + BAD_ENCODING + b'"}'
        answer = await self._take(f"demo-{uuid4()}", raw=raw, headers=headers)
        self._refused("api", answer, "bad-encoding")
        wrong = {**complaint.draft, "chanel": "phone"}
        answer = await self._take(f"demo-{uuid4()}", body=wrong)
        self._refused("api", answer, "malformed")

    async def _over_the_quota(self) -> None:
        for _ in range(2):
            await self._pace()
            draft = {**self.organisation.api[0].draft, "text": "One more today."}
            self._refused("api", await self._take(f"demo-{uuid4()}", body=draft), "quota-exceeded")

    async def _take(self, key: str, **content: Any) -> Answer:
        witness = self.journal.witness("api", key)
        return await self._api.ask("POST", "/v1/complaints", key=key, witness=witness, **content)

    # -- the call centre's webhook ------------------------------------------------------------------------------------------

    async def _by_webhook(self) -> None:
        mapped = self.organisation.webhook_map is not None
        first: tuple[str, bytes, Answer] | None = None
        for complaint in self.organisation.webhook:
            await self._pace()
            payload: dict[str, Any] = (
                {"call": complaint.draft}
                if mapped
                else {"type": "complaint.taken", "timestamp": datetime.now(UTC).isoformat(), "data": complaint.draft}
            )
            raw = msgspec.json.encode(payload)
            message_id = f"call_{uuid4().hex}"
            answer = await self._post(message_id, raw)
            self._note("webhook", answer, complaint.plan)
            first = first or (message_id, raw, answer)
        assert first is not None
        message_id, raw, before = first
        again = await self._post(message_id, raw)
        self.journal.repeat(as_before=again.is_good and again.body == before.body, what="webhook")
        forged = await self._post(f"call_{uuid4().hex}", raw, secret=webhooks.new_secret())
        self._refused("webhook", forged, "unauthorized")
        stale = await self._post(f"call_{uuid4().hex}", raw, at=datetime.now(UTC) - timedelta(seconds=400))
        self._refused("webhook", stale, "unauthorized")

    async def _post(
        self, message_id: str, raw: bytes, *, secret: str | None = None, at: datetime | None = None
    ) -> Answer:
        path, good_secret = self._hook
        signed = webhooks.sign([secret or good_secret], message_id, at or datetime.now(UTC), raw)
        headers = {"Content-Type": "application/json", **signed}
        witness = self.journal.witness("webhook", message_id)
        return await self._api.with_key(None).ask("POST", path, raw=raw, headers=headers, witness=witness)

    # -- mail ------------------------------------------------------------------------------------------------------------------

    async def _by_mail(self) -> None:
        composed = [_mail(mail, self._mailbox) for mail in self.organisation.mails]
        for message in composed:
            await self._pace()
            code, said = await self._hand_over(message, self._mailbox)
            if code == 250:
                self.journal.stored("smtp")
            else:
                self.journal.refuse("smtp", f"smtp-{code}")
                self.journal.wrong.append(f"a mail was refused: {code} {said}")
        code, said = await self._hand_over(composed[0], self._mailbox)
        self.journal.repeat(as_before=code == 250, what="mail")
        code, _ = await self._hand_over(
            _mail(self.organisation.mails[0], "nobody@recourse.example"), "nobody@recourse.example"
        )
        self.journal.expect_refusal("smtp", f"smtp-{code}", "smtp-550")
        automatic = _mail(self.organisation.mails[0], self._mailbox)
        automatic["Auto-Submitted"] = "auto-replied"
        code, _ = await self._hand_over(automatic, self._mailbox, return_path=LOOP)
        self.journal.expect_refusal("smtp", "smtp-automatic" if code == 550 else f"smtp-{code}", "smtp-automatic")

    async def _hand_over(self, message: EmailMessage, to: str, return_path: str | None = None) -> tuple[int, str]:
        """Deliver one message as a mail server does: what is postponed, or breaks off, is tried again."""
        until = time.monotonic() + PATIENCE_SECONDS
        content = message.as_bytes(policy=WIRE)
        witness = self.journal.witness("smtp", f"{message['Message-ID']} {to}")
        while True:
            witness.attempt(content)
            try:
                client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self._smtp_port, timeout=15, start_tls=False)
                async with client:
                    await client.sendmail(return_path or str(message["From"].addresses[0].addr_spec), [to], content)
                witness.answer(250)
                return 250, ""
            except aiosmtplib.SMTPRecipientsRefused as refusal:
                code, said = refusal.recipients[0].code, refusal.recipients[0].message
                witness.answer(code)
            except aiosmtplib.SMTPResponseException as refusal:
                code, said = refusal.code, refusal.message
                witness.answer(code)
            except (aiosmtplib.SMTPException, OSError) as broken:
                code, said = 421, type(broken).__name__
            if code >= 500 or time.monotonic() > until:
                return code, said
            await asyncio.sleep(0.3)

    # -- tables ------------------------------------------------------------------------------------------------------------------

    async def _by_table(self) -> None:
        await self._pace()
        content = self.organisation.table.encode(self.organisation.encoding)
        key = f"demo-{uuid4()}"
        headers = {"Content-Type": "text/csv"}
        path = "/v1/imports?source=tables"
        witness = self.journal.witness("csv", key)
        witness.attempt(content)
        answer = await self._api.ask("POST", path, raw=content, key=key, headers=headers)
        if not answer.is_good:
            witness.answer(answer.status)
            for _ in range(self.organisation.table_rows):
                self.journal.refuse("csv", answer.problem)
            self.journal.wrong.append(f"a table was refused: {answer.problem}")
            return
        import_id = answer.body["import_id"]
        until = time.monotonic() + PATIENCE_SECONDS
        found = answer.body
        while found["state"] != "done" and time.monotonic() < until:
            await asyncio.sleep(0.1)
            found = await self._api.get(f"/v1/imports/{import_id}")
        witness.answer(200, stored=found["stored"], refused=found["refused"])
        again = await self._api.ask("POST", path, raw=content, key=key, headers=headers)
        self.journal.repeat(as_before=again.body["import_id"] == import_id, what="table")
        for _ in range(found["stored"]):
            self.journal.stored("csv")
        for _ in range(found["refused"]):
            self.journal.refuse("csv", "row-invalid")
        if (found["rows"], found["refused"]) != (self.organisation.table_rows, self.organisation.table_bad_rows):
            self.journal.wrong.append(f"a table of {self.organisation.table_rows} rows was read otherwise: {found}")

    # -- answers -----------------------------------------------------------------------------------------------------------------

    def _note(self, source: Source, answer: Answer, plan: str) -> None:
        if answer.is_good:
            self.journal.stored(source, UUID(answer.body["id"]), plan)
        else:
            self.journal.refuse(source, answer.problem)
            self.journal.wrong.append(f"{source}: a good complaint was refused as {answer.problem}: {answer.body}")

    def _refused(self, source: Source, answer: Answer, expected: str) -> None:
        if answer.is_good:
            self.journal.stored(source, UUID(answer.body["id"]))
            self.journal.wrong.append(f"{source}: stored, and should have been refused as {expected}")
        else:
            self.journal.expect_refusal(source, answer.problem, expected)


def _mail(mail: Mail, to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"{mail.name} <{mail.sender}>"
    message["To"] = to
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<{uuid4()}@example.org>"
    message["Date"] = datetime.now(UTC)
    message.set_content(mail.text)
    return message

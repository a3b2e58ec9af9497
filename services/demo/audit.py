"""The demonstration's audit: what its senders wrote down and its other side took, given to the auditor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from services.audit.auditing import audit as compare
from services.audit.findings import Verdict
from services.audit.provider import Taken, write_record
from services.audit.sources import Evidence
from services.demo.journal import Journal
from services.demo.report import Audit
from services.notify.sinks import EmailSink, SmsSink, WebhookSink

JOURNAL_FILE: Final = "journal.jsonl"
PROVIDER_FILE: Final = "provider.jsonl"
"""In the data folder, for `recourse audit`."""

QUIET_SECONDS: Final = 20.0


class Findings(Struct, frozen=True):
    """What the audit says, in the words of the report."""

    verdict: Verdict

    @property
    def are_clean(self) -> bool:
        return self.verdict.ok

    @property
    def sentences(self) -> list[str]:
        return [f"{each.check}, {each.subject}: {each.what}" for each in self.verdict.details]

    @property
    def audit(self) -> Audit:
        """What was too much counts as duplicated, everything else as lost."""
        total = sum(self.verdict.checks.values())
        duplicated = sum(each.is_extra for each in self.verdict.details)
        return Audit(lost=total - duplicated, duplicated=duplicated, checks=self.verdict.compared)


async def audit(
    dsn: str,
    nats_url: str,
    journals: Iterable[Journal],
    *,
    sms: SmsSink,
    email: EmailSink,
    webhook: WebhookSink,
    keep: Path | None = None,
    patience: float = QUIET_SECONDS,
) -> Findings:
    """Audit until nothing is under way any more; what is still missing then is lost.

    Args:
        dsn: of the superuser.
        nats_url: of the operator.
        keep: folder in which the record of the other side is written down.
    """
    evidence = Evidence(
        dsn=dsn,
        nats=nats_url,
        lines=lambda: [line for journal in journals for line in journal.lines],
        record=lambda: record_of(sms, email, webhook),
    )
    verdict = await compare(evidence, patience=patience)
    if keep is not None:
        write_record(keep / PROVIDER_FILE, record_of(sms, email, webhook))
    return Findings(verdict)


def record_of(sms: SmsSink, email: EmailSink, webhook: WebhookSink) -> list[Taken]:
    """Return what the sinks took."""
    return [
        *(Taken(channel="sms", key=key) for key in sms.messages),
        *(Taken(channel="email", key=str(taken.mail["Message-ID"])) for taken in email.mails),
        *(Taken(channel="webhook", key=key) for key in webhook.events),
    ]

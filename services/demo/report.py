"""What the demonstration found out, as values and as text for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from shared.money import format_minor


class Fine(Struct, frozen=True, kw_only=True):
    """An amount that the policy imposed, with the reasons in full."""

    clause: str
    amount_minor: int
    currency: str
    explanation: str


class TenantReport(Struct, frozen=True, kw_only=True):
    """`sent` = `stored` + all that was refused; repeats of what had been answered are counted nowhere."""

    slug: str
    regime: str
    sent: int
    stored: int
    refused: dict[str, int]
    assigned: int
    on_time: int
    late: int
    escalated: int
    fines: list[Fine]


class Sources(Struct, frozen=True, kw_only=True):
    """What came in by which way."""

    api: int
    webhook: int
    smtp: int
    csv: int


class Sinks(Struct, frozen=True, kw_only=True):
    """What arrived on the other side."""

    sms: int
    email: int
    webhook: int


class Audit(Struct, frozen=True, kw_only=True):
    """`checks`: comparisons made. `lost` and `duplicated`: what was missing or too much in them."""

    lost: int
    duplicated: int
    checks: int


class DemoReport(Struct, frozen=True, kw_only=True):
    ok: bool
    seconds: float
    sent: int
    stored: int
    refused: dict[str, int]
    sources: Sources
    tenants: list[TenantReport]
    sinks: Sinks
    audit: Audit


_CHANNELS = {"sms": "SMS", "email": "e-mails", "webhook": "webhooks"}


def totals(tenants: list[TenantReport]) -> tuple[int, int, dict[str, int]]:
    """Return what all tenants together sent, stored and refused."""
    refused: Counter[str] = Counter()
    for tenant in tenants:
        refused.update(tenant.refused)
    return sum(each.sent for each in tenants), sum(each.stored for each in tenants), dict(sorted(refused.items()))


def text(
    report: DemoReport, names: dict[str, str], delivered: dict[str, dict[str, int]], findings: list[str]
) -> Iterator[str]:
    """Yield the lines of the final report.

    Args:
        names: of the tenants, by slug.
        delivered: messages that arrived, by slug and channel.
        findings: what the audit missed or found twice, one sentence each.
    """
    for tenant in report.tenants:
        yield f"{names[tenant.slug]} ({tenant.slug}, regime {tenant.regime})"
        yield f"  sent {tenant.sent}, stored {tenant.stored}, refused {sum(tenant.refused.values())}: {_reasons(tenant.refused)}"
        yield (
            f"  assigned {tenant.assigned}, on time {tenant.on_time}, late {tenant.late}, escalated {tenant.escalated}, "
            f"amounts imposed {len(tenant.fines)}"
        )
        messages = delivered.get(tenant.slug, {})
        yield f"  messages delivered: {', '.join(f'{messages.get(each, 0)} {name}' for each, name in _CHANNELS.items())}"
        if tenant.fines:
            fine = max(tenant.fines, key=lambda each: each.amount_minor)
            yield f"  for instance {format_minor(fine.amount_minor, fine.currency)} {fine.currency} under {fine.clause}:"
            yield from (f"    {line}" for line in fine.explanation.splitlines())
        yield ""
    sources, sinks, audit = report.sources, report.sinks, report.audit
    yield f"Came in: {sources.api} by API, {sources.webhook} by webhook, {sources.smtp} by e-mail, {sources.csv} in tables."
    yield f"Arrived: {sinks.sms} SMS, {sinks.email} e-mails, {sinks.webhook} signed webhooks."
    yield f"Audit: {audit.checks} comparisons, {audit.lost} lost, {audit.duplicated} duplicated."
    yield from (f"  {finding}" for finding in findings[:20])
    yield f"{'All is well' if report.ok else 'NOT WELL'} after {report.seconds:.0f} s."


def _reasons(refused: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "none"

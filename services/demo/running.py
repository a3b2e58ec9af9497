"""The demonstration from beginning to end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
from msgspec import Struct

from services.audit.journal import JournalFile
from services.demo.audit import JOURNAL_FILE, Findings, audit
from services.demo.client import Api
from services.demo.faults import strike
from services.demo.handling import Staff, advance
from services.demo.journal import Journal
from services.demo.organisations import DAYS, ORGANISATIONS, Day, Member, Organisation
from services.demo.report import DemoReport, Fine, Sinks, Sources, TenantReport, totals
from services.demo.sending import Sender
from services.notify.sinks import EmailSink, SmsSink, WebhookSink
from services.stack import Stack, running
from services.supervisor import Event

ZONE: Final = ZoneInfo("Asia/Shanghai")
# The other side is on this machine. It answers soon, so what a killed sender had in hand may be taken up by another soon, too.
SETTINGS: Final = {"RECOURSE_EGRESS_ALLOW": "127.0.0.1:*", "RECOURSE_SEND_SECONDS": "3"}
WEEKS: Final = timedelta(weeks=3)
# How far each day is from the Monday on which everything comes in: late enough that limits of a day, or of three, have passed.
AFTER: Final[dict[Day, timedelta]] = {
    "monday": timedelta(),
    "tuesday": timedelta(hours=26),
    "friday": timedelta(days=4, hours=5),
}
FAULT_PACE_SECONDS: Final = 1.2
QUIET_SECONDS: Final = 20.0
MONEY: Final = frozenset({"fine", "deduction", "compensation", "recovery", "pay_factor", "clawback"})

Tell = Callable[[str], None]


class Outcome(Struct, frozen=True, kw_only=True):
    """The report, and what a person wants to know besides."""

    report: DemoReport
    names: dict[str, str]  # of the tenants, by slug
    delivered: dict[str, dict[str, int]]  # messages by slug and channel
    findings: list[str]  # what the audit and the senders found wrong


class Tenancy(Struct, kw_only=True):
    """One organisation as a tenant of the running stack."""

    organisation: Organisation
    tenant_id: UUID
    admin: Api
    sender: Sender
    staff: Staff
    monday: datetime


class OtherSide(Struct, kw_only=True):
    """Providers and systems of the tenants, as far as they are not ours."""

    sms: SmsSink
    email: EmailSink
    webhook: WebhookSink


async def run(
    tell: Tell,
    *,
    faults: bool = False,
    data: Path | None = None,
    split: bool = True,
    organisations: tuple[Organisation, ...] = ORGANISATIONS,
) -> Outcome:
    """Start everything, let it happen, and look at what came of it.

    Args:
        tell: hears what is going on, a line at a time.
        faults: kill everything once while complaints come in.
        data: folder to keep the data in; none: one that is removed afterwards.
        split: one process for each service; else all in this one (then there is nothing to kill).
    """
    began = time.monotonic()
    folder = data or Path(tempfile.mkdtemp(prefix="recourse-demo-"))
    try:
        async with AsyncExitStack() as exits:
            tell("starting PostgreSQL, NATS, the five services and the gateway")
            stack = await exits.enter_async_context(
                running(
                    folder,
                    processes=split,
                    extra=SETTINGS,
                    tell=lambda event: _told(event, tell),
                )
            )
            if stack.operator_key is None:
                raise ValueError(f"{folder} has been used before; the demonstration needs a folder of its own")
            other_side = OtherSide(
                sms=await exits.enter_async_context(SmsSink().running()),
                email=await exits.enter_async_context(EmailSink().running()),
                webhook=await exits.enter_async_context(WebhookSink().running()),
            )
            limits = httpx.Limits(max_connections=60, max_keepalive_connections=60)
            http = await exits.enter_async_context(
                httpx.AsyncClient(base_url=stack.url, timeout=httpx.Timeout(30.0), limits=limits, trust_env=False)
            )
            demonstration = _Demonstration(stack, other_side, Api(http, stack.operator_key), tell, faults=faults)
            return await demonstration.run(organisations, began)
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _told(event: Event, tell: Tell) -> None:
    """Pass on what the supervisor sees of deaths."""
    if event.what in ("died", "unhealthy", "not started"):
        tell(f"{event.unit} {event.what}{f', {event.detail}' if event.detail else ''}")


class _Demonstration:
    def __init__(self, stack: Stack, other_side: OtherSide, operator: Api, tell: Tell, *, faults: bool) -> None:
        self._stack = stack
        self._other_side = other_side
        self._operator = operator
        self._tell = tell
        self._faults = faults
        self._delivered: dict[str, dict[str, int]] = {}
        self._folder = stack.local.folder
        self._journal = JournalFile(self._folder / JOURNAL_FILE)
        self._struck = asyncio.Event()
        if not faults:
            self._struck.set()

    async def run(self, organisations: tuple[Organisation, ...], began: float) -> Outcome:
        self._tell(f"subscribing {len(organisations)} tenants: rules, people, keys, sources, providers")
        tenancies = await asyncio.gather(*(self._subscribe(place, each) for place, each in enumerate(organisations)))
        self._tell("sending complaints by API, webhook, e-mail and tables, good ones and bad ones")
        await self._load(tenancies)
        sent = sum(tenancy.sender.journal.sent for tenancy in tenancies)
        stored = sum(len(tenancy.sender.journal.receipts) for tenancy in tenancies)
        self._tell(f"{sent} sent, {stored} stored; staff look through what came in")
        await asyncio.gather(*(each.staff.look_through() for each in tenancies))
        for day in DAYS:
            if day != "monday":
                await self._go_to(tenancies, AFTER[day])
            acts = sum(await asyncio.gather(*(each.staff.work(day) for each in tenancies)))
            self._tell(f"{day}: {acts} acts of staff")
        await self._go_to(tenancies, WEEKS)
        self._tell("three weeks are over; counting, and auditing every promise")
        reports = list(await asyncio.gather(*(self._report(each) for each in tenancies)))
        findings = await self._audit(tenancies)
        return self._outcome(tenancies, reports, findings, began)

    # -- subscribing --------------------------------------------------------------------------------------------------------

    async def _subscribe(self, place: int, organisation: Organisation) -> Tenancy:
        body: dict[str, Any] = {
            "slug": organisation.slug,
            "name": organisation.name,
            "sandbox": True,
            "language": organisation.language,
            "limits": {"complaints_per_day": organisation.per_day},
        }
        created = await self._operator.post("/v1/tenants", body)
        admin = self._operator.with_key(created["admin_key"])
        document = organisation.document
        source = {"document": document} if document is not None else {"template": organisation.policy}
        publication = {**source, "settings": organisation.settings, "reason": "The first version."}
        await admin.post("/v1/policies:publish", publication)
        hook = await admin.post("/v1/sources", self._webhook_source(organisation))
        mail = {"name": "letters", "kind": "email", "channel": organisation.mail_channel}
        mailbox = (await admin.post("/v1/sources", mail))["source"]["address"]
        await admin.post("/v1/sources", {"name": "tables", "kind": "csv"})
        keys = {member.id: await self._key(admin, member) for member in organisation.staff}
        systems = await admin.post("/v1/credentials", {"role": "integration", "name": "Own systems"})
        await admin.until_known()
        for number, member in enumerate(organisation.staff):
            phone = f"+86139{place:02d}{number:06d}"
            await admin.put(f"/v1/staff/{member.id}", _staff(organisation, member, phone))
        await self._providers(admin)
        await asyncio.gather(*(key.until_known() for key in keys.values()))
        monday = await _to_monday(admin)
        tenant_id = UUID(created["tenant"]["tenant_id"])
        journal = Journal(tenant_id, self._journal)
        return Tenancy(
            organisation=organisation,
            tenant_id=tenant_id,
            admin=admin,
            sender=Sender(
                organisation,
                admin.with_key(systems["key"]),
                hook=(hook["source"]["path"], hook["secret"]),
                mailbox=f"{mailbox}@recourse.example",
                smtp_port=self._stack.smtp_port,
                pace=self._pace,
                journal=journal,
            ),
            staff=Staff(organisation, keys, admin, journal),
            monday=monday,
        )

    def _webhook_source(self, organisation: Organisation) -> dict[str, Any]:
        settings = {"map": organisation.webhook_map} if organisation.webhook_map is not None else {}
        return {"name": "call-centre", "kind": "webhook", "channel": organisation.webhook_channel, "settings": settings}

    async def _key(self, admin: Api, member: Member) -> Api:
        body = {"role": member.role, "name": member.name, "staff_id": member.id, "sees_personal_data": True}
        return admin.with_key((await admin.post("/v1/credentials", body))["key"])

    async def _providers(self, admin: Api) -> None:
        sms = {"channel": "sms", "name": "SMS gateway", "config": self._other_side.sms.config}
        email = {"channel": "email", "name": "Mail relay", "config": self._other_side.email.config}
        await admin.post("/v1/providers", sms)
        await admin.post("/v1/providers", email)
        endpoint = await admin.post("/v1/webhooks", {"url": self._other_side.webhook.url, "description": "Own systems"})
        self._other_side.webhook.secrets.append(endpoint["secret"])

    # -- what happens --------------------------------------------------------------------------------------------------------

    async def _load(self, tenancies: list[Tenancy]) -> None:
        async with asyncio.TaskGroup() as senders:
            for tenancy in tenancies:
                senders.create_task(tenancy.sender.send_all())
            if self._faults:
                await strike(self._stack, self._tell)
                self._struck.set()
        if self._faults:
            await self._stack.supervisor.wait_ready()

    async def _pace(self) -> None:
        """While faults strike, complaints come one after the other, so that there is something to lose all the time."""
        if not self._struck.is_set():
            try:
                await asyncio.wait_for(self._struck.wait(), FAULT_PACE_SECONDS)
            except TimeoutError:
                return

    async def _go_to(self, tenancies: list[Tenancy], after: timedelta) -> None:
        targets = [(tenancy.monday + after).isoformat() for tenancy in tenancies]
        steps = await asyncio.gather(
            *(advance(tenancy.admin, target) for tenancy, target in zip(tenancies, targets, strict=True))
        )
        shown = (tenancies[0].monday + after).astimezone(ZONE)
        self._tell(f"the test clocks stand at {shown:%A %H:%M}, day {after.days + 1}; {sum(steps)} due instants passed")

    # -- what came of it ------------------------------------------------------------------------------------------------------

    async def _report(self, tenancy: Tenancy) -> TenantReport:
        journal, admin = tenancy.sender.journal, tenancy.admin
        stored = len(journal.receipts)
        figures = await _once(
            lambda: admin.get("/v1/statistics"), lambda found: found["received"] >= stored and not found["behind"]
        )
        self._delivered[tenancy.organisation.slug] = {
            each["channel"]: each["count"] for each in figures["messages"] if each["state"] in ("sent", "delivered")
        }
        return TenantReport(
            slug=tenancy.organisation.slug,
            regime=tenancy.organisation.regime,
            sent=journal.sent,
            stored=stored,
            refused=dict(sorted(journal.refused.items())),
            assigned=figures["assigned"],
            on_time=figures["on_time"],
            late=figures["late"],
            escalated=figures["escalated"],
            fines=await _fines(admin),
        )

    async def _audit(self, tenancies: list[Tenancy]) -> Findings:
        local, other_side = self._stack.local, self._other_side
        self._journal.close()
        return await audit(
            local.superuser_dsn,
            local.nats.url("operator"),
            [tenancy.sender.journal for tenancy in tenancies],
            sms=other_side.sms,
            email=other_side.email,
            webhook=other_side.webhook,
            keep=self._folder,
        )

    def _outcome(
        self, tenancies: list[Tenancy], reports: list[TenantReport], findings: Findings, began: float
    ) -> Outcome:
        sent, stored, refused = totals(reports)
        wrong = [f"{each.organisation.slug}: {what}" for each in tenancies for what in each.sender.journal.wrong]
        other_side = self._other_side
        sinks = Sinks(
            sms=len(other_side.sms.messages), email=len(other_side.email.mails), webhook=len(other_side.webhook.events)
        )
        fines = [fine for report in reports for fine in report.fines]
        enough = (
            sum(report.late for report in reports) > 0
            and sum(report.escalated for report in reports) > 0
            and any(fine.explanation for fine in fines)
            and min(sinks.sms, sinks.email, sinks.webhook) > 0
        )
        report = DemoReport(
            ok=findings.are_clean and not wrong and enough,
            seconds=round(time.monotonic() - began, 1),
            sent=sent,
            stored=stored,
            refused=refused,
            sources=Sources(
                api=_from(tenancies, "api"),
                webhook=_from(tenancies, "webhook"),
                smtp=_from(tenancies, "smtp"),
                csv=_from(tenancies, "csv"),
            ),
            tenants=reports,
            sinks=sinks,
            audit=findings.audit,
        )
        names = {each.organisation.slug: each.organisation.name for each in tenancies}
        return Outcome(report=report, names=names, delivered=self._delivered, findings=[*findings.sentences, *wrong])


def _from(tenancies: list[Tenancy], source: Any) -> int:
    return sum(tenancy.sender.journal.sent_from(source) for tenancy in tenancies)


def _staff(organisation: Organisation, member: Member, phone: str) -> dict[str, Any]:
    return {
        "name": member.name,
        "roles": list(member.roles),
        "unit": member.unit,
        "email": f"{member.id}@{organisation.slug}.example",
        "phone": phone,
        "language": organisation.language,
    }


async def _to_monday(admin: Api) -> datetime:
    """Move the new sandbox's clock to ten o'clock on its next Monday, and return that instant."""
    clock = await _once(lambda: admin.get("/v1/sandbox/clock"), lambda found: found["now"] is not None)
    now = datetime.fromisoformat(clock["now"]).astimezone(ZONE)
    monday = (now + timedelta(days=7 - now.weekday())).replace(hour=10, minute=0, second=0, microsecond=0)
    await advance(admin, monday.isoformat())
    return monday.astimezone(UTC)


async def _fines(admin: Api) -> list[Fine]:
    """Return every amount that stands in the ledger, with its explanation."""
    amounts: dict[tuple[str, str], dict[str, Any]] = {}
    cursor: str | None = None
    while True:
        page = await admin.get("/v1/ledger", limit=500, cursor=cursor)
        for row in page["rows"]:
            found = amounts.setdefault((row["case_id"], row["penalty"]["key"]), {**row, "minor": 0})
            found["minor"] += row["difference_minor"]
            found["penalty"] = row["penalty"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    explained: dict[str, list[dict[str, Any]]] = {}
    fines: list[Fine] = []
    for (case_id, _), row in amounts.items():
        if row["kind"] not in MONEY or not row["minor"]:
            continue
        if case_id not in explained:
            explained[case_id] = (await admin.get(f"/v1/cases/{case_id}/explanations"))["penalties"]
        fines.append(
            Fine(
                clause=_clause(row["penalty"]["clause"]),
                amount_minor=row["minor"],
                currency=row["currency"],
                explanation=_explanation(row["penalty"], explained[case_id]),
            )
        )
    return fines


def _explanation(penalty: dict[str, Any], explanations: list[dict[str, Any]]) -> str:
    for each in explanations:
        if each["rule"] == penalty["rule"] and each["inputs"]["party"] == penalty["party"]:
            head = f"{each['title'] or each['rule']}: {each['result']}, {penalty['party']} ({_clause(each['clause'])})"
            return "\n".join([head, *each["lines"]])
    return ""


def _clause(clause: Any) -> str:
    return ", ".join(clause) if isinstance(clause, list) else str(clause or "")


async def _once(ask: Callable[[], Awaitable[Any]], is_so: Callable[[Any], bool]) -> Any:
    """Ask until the answer is as wanted, or for a while; return the last answer."""
    until = time.monotonic() + QUIET_SECONDS
    while True:
        found = await ask()
        if is_so(found) or time.monotonic() > until:
            return found
        await asyncio.sleep(0.1)

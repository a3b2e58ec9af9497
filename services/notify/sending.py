"""The background edge that sends: one delivery at a time under a lease, its attempt written down before the call.

A call to a provider outlives any transaction, so the right to make it is a lease with a fencing token: whoever has been
overtaken may still finish its call, but not record what follows from it. An attempt without an end (the process died
between call and record) is what an outcome nobody knows looks like; it is cleared up by asking the provider for its key.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import structlog
from msgspec import Struct

from services.notify import contacts, repository
from services.notify.channels import email, sms, webhook
from services.notify.channels.email import Email, EmailConfig, EmailSecrets
from services.notify.channels.sms import Sms, SmsConfig, SmsSecrets
from services.notify.contacts import Members, Person
from services.notify.domain import cloud_events, wording
from services.notify.domain.budgets import PER_MAILBOX, PER_NUMBER, PER_PREFIX, Budget, take
from services.notify.domain.masking import masked_email, masked_phone
from services.notify.domain.messages import COMPLAINANT
from services.notify.domain.numbers import Mobile, mobile
from services.notify.domain.outcomes import FINAL, SENDS_WITHOUT_LOOKUP, WAITS, Next, Result, State, after, backoff
from services.notify.handlers import EVENT_RULE, delivery_id
from services.notify.parts import Parts, endpoint_place, provider_place
from services.notify.repository import Claim, Delivery, NewDelivery
from services.notify.telling import tell_changes
from shared import telemetry
from shared.database import Record, Tx
from shared.engine.rules import MessageRule
from shared.errors import NotYetError, UnavailableError
from shared.ids import derived_id
from shared.messages.base import LIVE
from shared.policy.wording import WordingError, one_line
from shared.reference import Tenant
from shared.service import Runtime
from shared.time_source import now_in

MOST_SMS_CHARACTERS = 1000
MOST_SUBJECT_CHARACTERS = 200
ENDPOINT_PATIENCE_DAYS = 5  # an endpoint that has failed for so long is not called any more
IDLE_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
TEST_RULE = "test"
MOST_TRIES = 40  # claims without an attempt: what is needed for it never answered

log = structlog.get_logger()
Posting = tuple[Record, bytes, int, int]
"""Endpoint, body, the attempt's number, and how many attempts there were since it was queued."""


class Ended(Struct, frozen=True):
    """Nothing is sent: the delivery enters this state for this reason."""

    state: State
    reason: str


class Later(Struct, frozen=True):
    """Nothing is sent now: what is needed for it does not answer."""

    reason: str


class Held(Struct, frozen=True):
    """A budget is spent: not before this instant of the tenant's time."""

    until: datetime
    reason: str


class Message(Struct, frozen=True, kw_only=True):
    """Ready to be handed to a provider. Lives as long as the call."""

    channel: Literal["sms", "email"]
    to: str
    masked: str
    key: UUID
    subject: str
    text: str
    prefix: str = ""

    def __repr__(self) -> str:
        return f"Message({self.key})"


class Provider(Struct, frozen=True, kw_only=True):
    provider_id: UUID
    sms: SmsConfig | None = None
    sms_secrets: SmsSecrets = SmsSecrets()
    email: EmailConfig | None = None
    email_secrets: EmailSecrets = EmailSecrets()

    @property
    def can_be_asked(self) -> bool:
        return self.sms is not None and self.sms.lookup_url is not None


class Sender:
    """`step` is the loop's round: it claims what is due and starts sending it, within the limits of concurrency."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_tenant: Counter[UUID] = Counter()
        self._idle = 0
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    @property
    def _parts(self) -> Parts:
        parts: Parts = self._runtime.parts["notify"]
        return parts

    async def step(self) -> float | None:
        settings = self._parts.settings
        free = settings.send_at_once - len(self._tasks)
        if free <= 0:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return 0
        most = settings.send_at_once_per_tenant
        busy = [tenant_id for tenant_id, count in self._per_tenant.items() if count >= most]
        async with self._runtime.db.worker_tx(LIVE) as tx:
            claims = await repository.claim(tx, free, most, busy, self.lease_seconds)
        for claim in claims:
            self._start(claim)
        if claims:
            self._idle = 0
            return 0
        self._idle = min(self._idle + 1, len(IDLE_SECONDS) - 1)
        return IDLE_SECONDS[self._idle]

    @property
    def lease_seconds(self) -> float:
        """Longer than everything that is done under it: looking up, asking for the contact, calling, and the statements between."""
        settings = self._parts.settings
        return settings.send_seconds * 3 + settings.contact_seconds + settings.command_seconds * 4

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._guarded(claim), name="notify send")
        self._tasks.add(task)
        self._per_tenant[claim.tenant_id] += 1

        def done(finished: asyncio.Task[None]) -> None:
            self._tasks.discard(finished)
            self._per_tenant[claim.tenant_id] -= 1
            if self._per_tenant[claim.tenant_id] <= 0:
                del self._per_tenant[claim.tenant_id]
            self._runtime.wake("sender")

        task.add_done_callback(done)

    async def finish(self, seconds: float) -> None:
        """Let calls in flight end, for a stop; what takes longer is cut off and cleared up after the next start."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, claim: Claim) -> None:
        """Send, and let no failure of ours take the loop along: the lease ends, and the delivery is claimed anew."""
        with structlog.contextvars.bound_contextvars(
            tenant_id=str(claim.tenant_id), delivery_id=str(claim.delivery_id)
        ):
            try:
                await self.send(claim)
            except Exception as error:
                log.error("delivery_interrupted", **telemetry.describe(error))

    # -- one delivery ------------------------------------------------------------------------------------------------------

    async def send(self, claim: Claim) -> None:
        """Do what is to be done for one delivery under its claim."""
        tenant = await self._runtime.reference.tenant(claim.tenant_id)
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return
            delivery = await repository.delivery(tx, claim.tenant_id, claim.delivery_id)
            if delivery is None:
                return
            if delivery.state in FINAL:  # a receipt was faster than we
                await repository.leave_queue(tx, claim.tenant_id, claim.delivery_id)
                return
            row = call = None
            if delivery.channel != "webhook":
                row = await repository.active_provider(tx, claim.tenant_id, delivery.channel)
            elif not is_worded(delivery):
                call = await self._begin_webhook(tx, claim, delivery, tenant, _event(delivery))
        if delivery.channel != "webhook":
            await self._send_to_person(claim, delivery, tenant, row)
            return
        if is_worded(delivery):
            call = await self._begin_worded_webhook(claim, delivery, tenant)
        if call is not None:
            await self._call_webhook(claim, delivery, tenant, *call)

    # -- webhooks ----------------------------------------------------------------------------------------------------------

    async def _begin_webhook(
        self, tx: Tx, claim: Claim, delivery: Delivery, tenant: Tenant, body: bytes
    ) -> Posting | None:
        """Write the attempt down; None when there is nobody to call any more."""
        at = _at(delivery, tenant, await now_in(tx))
        endpoint = await repository.endpoint(tx, claim.tenant_id, UUID(delivery.addressee))
        if endpoint is None or not endpoint["active"]:
            reason = "endpoint_deleted" if endpoint is None else "endpoint_stopped"
            await self._end(tx, claim, Ended("suppressed", reason), at)
            return None
        attempt, attempts = await repository.begin_attempt(
            tx,
            claim,
            recipient=str(endpoint["endpoint_id"]),
            provider_id=None,
            key=claim.delivery_id,
            at=at,
        )
        return endpoint, body, attempt, attempts

    async def _begin_worded_webhook(self, claim: Claim, delivery: Delivery, tenant: Tenant) -> Posting | None:
        """As above, for a message that a rule words for the tenant's systems."""
        try:
            worded = await self._worded(delivery, tenant, None, None)
        except NotYetError:
            await self._stop(claim, delivery, tenant, Later("policy_missing"))
            return None
        if isinstance(worded, Ended):
            await self._stop(claim, delivery, tenant, worded)
            return None
        data = {"rule": delivery.rule, "number": delivery.number, "subject": worded[0], "text": worded[1]}
        body = cloud_events.event(
            cloud_events.MESSAGE_TYPE, delivery.delivery_id, delivery.tenant_id, delivery.case_id, delivery.at, data
        )
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return None
            return await self._begin_webhook(tx, claim, delivery, tenant, body)

    async def _call_webhook(
        self,
        claim: Claim,
        delivery: Delivery,
        tenant: Tenant,
        endpoint: Record,
        body: bytes,
        attempt: int,
        attempts: int,
    ) -> None:
        parts = self._parts
        sealed = parts.sealer.open(claim.tenant_id, endpoint_place(endpoint["endpoint_id"]), endpoint["sealed"])
        wall = datetime.now(UTC)  # not the tenant's time: the receiver compares it with its own clock
        secrets = webhook.usable(msgspec.json.decode(sealed, type=list[webhook.Secret]), wall)
        webhook_id = str(delivery.delivery_id if is_worded(delivery) else delivery.event_id)
        result = await webhook.send(
            parts.egress, endpoint["url"], secrets, webhook_id, body, wall, parts.settings.send_seconds
        )
        following = self._after(delivery, tenant, result, attempts, unknown=0, can_ask=True)
        if delivery.rule == TEST_RULE and following.state == "queued":
            following = Next("dead", result.detail)  # whoever tests an endpoint waits for the answer
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if result.outcome == "accepted":
                await repository.endpoint_works(tx, claim.tenant_id, endpoint["endpoint_id"])
            elif delivery.rule != TEST_RULE:
                await repository.endpoint_fails(
                    tx,
                    claim.tenant_id,
                    endpoint["endpoint_id"],
                    gone=result.gone,
                    patience_days=ENDPOINT_PATIENCE_DAYS,
                )
            await self._record(tx, claim, delivery, tenant, attempt, result, following)

    # -- people ------------------------------------------------------------------------------------------------------------

    async def _send_to_person(self, claim: Claim, delivery: Delivery, tenant: Tenant, row: Record | None) -> None:
        if row is None:
            await self._stop(claim, delivery, tenant, Ended("dead", "no_provider"))
            return
        provider = self._provider(claim.tenant_id, row)
        person = await self._person(delivery)
        if isinstance(person, Members):
            await self._expand(claim, delivery, tenant, person)
            return
        message = await self._message(delivery, tenant, provider, person) if isinstance(person, Person) else person
        if not isinstance(message, Message):
            await self._stop(claim, delivery, tenant, message)
            return
        unknown = await self._clear_up(claim, delivery, tenant, provider)
        if unknown is None:
            return
        begun = await self._begin(claim, delivery, tenant, provider, message)
        if begun is None:
            return
        attempt, attempts = begun
        result = await self._call(provider, message, delivery, tenant)
        still_unknown = unknown + (result.outcome == "unknown")
        following = self._after(
            delivery, tenant, result, attempts, unknown=still_unknown, can_ask=provider.can_be_asked
        )
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            await self._record(tx, claim, delivery, tenant, attempt, result, following)

    async def _person(self, delivery: Delivery) -> Person | Members | Ended | Later:
        try:
            found = await contacts.ask(self._runtime, delivery, self._parts.settings.contact_seconds)
        except UnavailableError:
            return Later("contact_unavailable")
        if found is None:
            return Ended("suppressed", "no_contact" if delivery.audience == COMPLAINANT else "nobody_holds_the_role")
        return found

    async def _message(
        self, delivery: Delivery, tenant: Tenant, provider: Provider, person: Person
    ) -> Message | Ended | Later:
        """Put the message into words for its recipient, and check the address."""
        addressed = self._address(delivery, provider, person)
        if isinstance(addressed, Ended):
            return addressed
        to, masked, prefix = addressed
        name = person.name if delivery.audience == COMPLAINANT else None
        try:
            worded = await self._worded(delivery, tenant, person.language, name)
        except NotYetError:
            return Later("policy_missing")
        if isinstance(worded, Ended):
            return worded
        subject, text = worded
        if delivery.channel == "sms" and len(text) > MOST_SMS_CHARACTERS:
            return Ended("dead", "text_too_long")
        recipient = self._parts.sealer.hash(tenant.tenant_id, delivery.channel, to)
        return Message(
            channel="sms" if delivery.channel == "sms" else "email",
            to=to,
            masked=masked,
            prefix=prefix,
            key=derived_id("send", delivery.delivery_id, delivery.round, recipient.hex()),
            subject=subject,
            text=text,
        )

    def _address(self, delivery: Delivery, provider: Provider, person: Person) -> tuple[str, str, str] | Ended:
        """The address, how it is shown, and the range of numbers it belongs to."""
        if delivery.channel == "sms":
            if not person.phone:
                return Ended("suppressed", "no_phone")
            countries = provider.sms.countries if provider.sms is not None else ()
            found = mobile(person.phone, countries)
            if not isinstance(found, Mobile):
                return Ended("suppressed", found)
            return found.number, masked_phone(found.number), found.prefix
        if not person.email:
            return Ended("suppressed", "no_email")
        if not email.is_address(person.email):
            return Ended("suppressed", "address_malformed")
        return person.email, masked_email(person.email), ""

    async def _worded(
        self, delivery: Delivery, tenant: Tenant, language: str | None, name: str | None
    ) -> tuple[str, str] | Ended:
        """Subject and text. Raises NotYetError while the policy's version has not arrived."""
        assert delivery.policy_version is not None
        policy = await self._runtime.reference.policy(tenant.tenant_id, delivery.policy_version)
        rule: MessageRule | None = next((each for each in policy.messages if each.id == delivery.rule), None)
        if rule is None:
            return Ended("dead", "rule_missing")
        chosen, template = wording.choose(rule.template, language, tenant.language)
        _, subject = wording.choose(rule.subject, chosen)
        zone = ZoneInfo(tenant.zone)
        try:
            text, title = (
                wording.fill(
                    each,
                    delivery.fields,
                    policy,
                    organisation=tenant.name,
                    zone=zone,
                    language=chosen,
                    name=name,
                )
                for each in (template, subject)
            )
        except WordingError:
            return Ended("dead", "template_fails")
        if not text.strip():
            return Ended("suppressed", "text_empty")
        title = one_line(title) or one_line(f"{tenant.name} {delivery.number}")
        return title[:MOST_SUBJECT_CHARACTERS], text.strip()

    async def _clear_up(self, claim: Claim, delivery: Delivery, tenant: Tenant, provider: Provider) -> int | None:
        """Find out what became of attempts nobody knows about.

        Returns how many remain unknown, so that a message may be sent, or None when the delivery's fate was found out,
        or cannot be found out now.
        """
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            keys = await repository.unknown_attempts(tx, claim.tenant_id, claim.delivery_id)
        if not keys:
            return 0
        if not provider.can_be_asked:
            since = min(len(keys), delivery.attempts)  # those before a person queued it again have been judged
            if since >= SENDS_WITHOUT_LOOKUP:
                await self._stop(claim, delivery, tenant, Ended("dead", "outcome_unknown"))
                return None
            return since
        for key in dict.fromkeys(keys):
            assert provider.sms is not None
            found = await sms.look_up(
                self._parts.egress, provider.sms, provider.sms_secrets, key, self._parts.settings.send_seconds
            )
            if found is None:
                continue
            if found.outcome == "unavailable":
                await self._stop(claim, delivery, tenant, Later(found.detail))
                return None
            await self._found_out(claim, delivery, tenant, found)
            return None
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return None
            await repository.end_unknown_attempts(tx, claim, "unavailable", "never_arrived")
        return 0

    async def _found_out(self, claim: Claim, delivery: Delivery, tenant: Tenant, found: Result) -> None:
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return
            at = _at(delivery, tenant, await now_in(tx))
            await repository.end_unknown_attempts(tx, claim, found.outcome, "found_by_key")
            state: State = "sent" if found.outcome == "accepted" else "dead"
            await self._end(
                tx,
                claim,
                Ended(state, "" if state == "sent" else found.detail),
                at,
                provider_ref=found.provider_ref,
            )

    async def _begin(
        self, claim: Claim, delivery: Delivery, tenant: Tenant, provider: Provider, message: Message
    ) -> tuple[int, int] | None:
        """Spend the budgets and write the attempt down, both or neither; None when it is not to be sent now."""
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return None
            at = _at(delivery, tenant, await now_in(tx))
            if delivery.attempts == 0:
                held = await self._spend(tx, tenant, provider, message, at)
                if held is not None:
                    await self._hold(tx, claim, tenant, held)
                    return None
            return await repository.begin_attempt(
                tx, claim, recipient=message.masked, provider_id=provider.provider_id, key=message.key, at=at
            )

    async def _spend(self, tx: Tx, tenant: Tenant, provider: Provider, message: Message, at: datetime) -> Held | None:
        """Take one message from each budget it falls under; nothing is taken when one of them is spent."""
        budgets: list[tuple[Budget, str]] = (
            [(PER_NUMBER, message.to), (PER_PREFIX, message.prefix)]
            if message.channel == "sms"
            else [(PER_MAILBOX, message.to.lower())]
        )
        taken: list[tuple[str, bytes, list[datetime]]] = []
        for budget, subject in budgets:
            hashed = self._parts.sealer.hash(tenant.tenant_id, budget.scope, subject)
            used = await repository.uses(tx, tenant.tenant_id, budget.scope, hashed, at)
            used, until = take(used, at, budget)
            if until is not None:
                return Held(until, f"budget_{budget.scope}")
            taken.append((budget.scope, hashed, used))
        day = at.astimezone(ZoneInfo(tenant.zone)).date()
        if not await repository.take_day(tx, tenant.tenant_id, message.channel, day, self._per_day(provider)):
            log.warning("day_budget_spent", channel=message.channel)
            tomorrow = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(tenant.zone)) + timedelta(days=1)
            return Held(max(tomorrow.astimezone(UTC), at + timedelta(minutes=1)), "budget_day")
        for scope, hashed, used in taken:
            await repository.remember_uses(tx, tenant.tenant_id, scope, hashed, used)
        return None

    def _per_day(self, provider: Provider) -> int:
        settings = self._parts.settings
        plan = settings.sms_per_day if provider.sms is not None else settings.email_per_day
        config = provider.sms or provider.email
        return plan if config is None or config.per_day is None else min(plan, config.per_day)

    async def _call(self, provider: Provider, message: Message, delivery: Delivery, tenant: Tenant) -> Result:
        parts = self._parts
        if provider.sms is not None:
            return await sms.send(
                parts.egress,
                provider.sms,
                provider.sms_secrets,
                Sms(key=message.key, to=message.to, text=one_line(message.text)),
                parts.settings.send_seconds,
            )
        assert provider.email is not None
        mail = Email(
            key=message.key,
            to=message.to,
            subject=message.subject,
            text=message.text,
            at=_at(delivery, tenant, datetime.now(UTC)),
        )
        return await email.send(
            parts.egress, parts.tls, provider.email, provider.email_secrets, mail, parts.settings.send_seconds
        )

    def _provider(self, tenant_id: UUID, row: Record) -> Provider:
        sealed = self._parts.sealer.open(tenant_id, provider_place(row["provider_id"]), row["sealed"])
        if row["channel"] == "sms":
            return Provider(
                provider_id=row["provider_id"],
                sms=msgspec.convert(row["config"], SmsConfig),
                sms_secrets=msgspec.json.decode(sealed, type=SmsSecrets),
            )
        return Provider(
            provider_id=row["provider_id"],
            email=msgspec.convert(row["config"], EmailConfig),
            email_secrets=msgspec.json.decode(sealed, type=EmailSecrets),
        )

    async def _expand(self, claim: Claim, delivery: Delivery, tenant: Tenant, members: Members) -> None:
        """Give each member a delivery of his or her own, under ids derived from this one."""
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return
            children = [
                NewDelivery(
                    delivery_id=delivery_id(
                        claim.tenant_id, delivery.event_id, delivery.rule, delivery.audience, staff_id, delivery.channel
                    ),
                    rule=delivery.rule,
                    audience=delivery.audience,
                    addressee=staff_id,
                    channel=delivery.channel,
                    state="queued",
                    due_at=delivery.due_at,
                    policy_version=delivery.policy_version,
                    fields=delivery.fields,
                )
                for staff_id in members.staff_ids
                if staff_id != delivery.addressee
            ]
            await repository.add_deliveries(
                tx,
                claim.tenant_id,
                delivery.event_id,
                delivery.case_id,
                delivery.at,
                children,
                sandbox=tenant.sandbox,
            )
            await self._end(tx, claim, Ended("expanded", ""), delivery.due_at)
            tx.after_commit(lambda: self._runtime.wake("sender"))

    # -- recording ---------------------------------------------------------------------------------------------------------

    def _after(
        self, delivery: Delivery, tenant: Tenant, result: Result, attempts: int, *, unknown: int, can_ask: bool
    ) -> Next:
        return after(
            result,
            channel=delivery.channel,
            attempts=attempts,
            unknown=unknown,
            can_ask=can_ask,
            chance=self._random.random(),
            scale=self._scale(tenant),
        )

    def _scale(self, tenant: Tenant) -> float:
        settings = self._parts.settings
        return settings.sandbox_retry_scale if tenant.sandbox else settings.retry_scale

    async def _record(
        self,
        tx: Tx,
        claim: Claim,
        delivery: Delivery,
        tenant: Tenant,
        attempt: int,
        result: Result,
        following: Next,
    ) -> None:
        """Write down what an attempt came to, and what follows, unless somebody else has taken over meanwhile."""
        if not await repository.holds(tx, claim):
            log.warning("lease_lost")
            return
        await repository.end_attempt(tx, claim, attempt, result.outcome, result.detail)
        at = _at(delivery, tenant, await now_in(tx))
        if following.wait is None:
            await self._end(tx, claim, Ended(following.state, following.reason), at, provider_ref=result.provider_ref)
            return
        await repository.change(
            tx,
            claim.tenant_id,
            claim.delivery_id,
            "queued",
            at,
            reason=following.reason,
            provider_ref=result.provider_ref,
        )
        await repository.wake_later(tx, claim.tenant_id, claim.delivery_id, following.wait.total_seconds())

    async def _stop(self, claim: Claim, delivery: Delivery, tenant: Tenant, why: Ended | Later) -> None:
        """End a delivery without an attempt, or put it off."""
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if not await repository.holds(tx, claim):
                return
            at = _at(delivery, tenant, await now_in(tx))
            if isinstance(why, Ended):
                await self._end(tx, claim, why, at)
                return
            if claim.fence > MOST_TRIES:
                await self._end(tx, claim, Ended("dead", why.reason), at)
                return
            await repository.change(tx, claim.tenant_id, claim.delivery_id, "queued", at, reason=why.reason)
            tries = min(claim.fence, len(WAITS[delivery.channel]))
            wait = backoff(delivery.channel, tries, self._random.random(), self._scale(tenant))
            assert wait is not None
            await repository.wake_later(tx, claim.tenant_id, claim.delivery_id, wait.total_seconds())

    async def _hold(self, tx: Tx, claim: Claim, tenant: Tenant, held: Held) -> None:
        await repository.change(tx, claim.tenant_id, claim.delivery_id, "held", held.until, reason=held.reason)
        await repository.hold_until(tx, claim.tenant_id, claim.delivery_id, held.until, sandbox=tenant.sandbox)
        await tell_changes(tx, [claim.delivery_id], at=held.until)

    async def _end(self, tx: Tx, claim: Claim, ended: Ended, at: datetime, *, provider_ref: str | None = None) -> None:
        await repository.change(
            tx,
            claim.tenant_id,
            claim.delivery_id,
            ended.state,
            at,
            reason=ended.reason,
            provider_ref=provider_ref,
        )
        await repository.leave_queue(tx, claim.tenant_id, claim.delivery_id)
        await tell_changes(tx, [claim.delivery_id], at=at)
        (log.warning if ended.state in ("dead", "failed") else log.info)(
            "delivery_ended", state=ended.state, reason=ended.reason
        )


def is_worded(delivery: Delivery) -> bool:
    """Whether a rule's template makes the text, so that the policy is needed to send it."""
    return delivery.rule not in (EVENT_RULE, TEST_RULE)


def _event(delivery: Delivery) -> bytes:
    """The CloudEvent of the entry or effect itself."""
    return cloud_events.event(
        delivery.event_type,
        delivery.event_id,
        delivery.tenant_id,
        delivery.case_id,
        delivery.at,
        delivery.event_body,
    )


def _at(delivery: Delivery, tenant: Tenant, now: datetime) -> datetime:
    """When it is sent, in the tenant's time: a sandbox sends each message at its own instant, however fast its clock went."""
    return delivery.due_at if tenant.sandbox else now

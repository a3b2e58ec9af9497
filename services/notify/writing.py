"""One SMS or e-mail of one delivery to one person: found, worded, cleared up, paid for, sent, recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.notify import contacts, repository
from services.notify.channels import email
from services.notify.contacts import Members, Person
from services.notify.domain.masking import masked_email, masked_phone
from services.notify.domain.messages import COMPLAINANT
from services.notify.domain.numbers import Mobile, mobile
from services.notify.domain.outcomes import SENDS_WITHOUT_LOOKUP, Result, State
from services.notify.handlers import delivery_id, store
from services.notify.parts import Parts
from services.notify.phrasing import words_of
from services.notify.providers import Message, Provider, opened
from services.notify.recording import Ended, Later, Recorder, at_of
from services.notify.repository import Claim, Delivery, Loaded, NewDelivery
from services.notify.spending import spend
from shared import fail_points
from shared.errors import NotYetError, UnavailableError
from shared.ids import derived_id
from shared.reference import Tenant
from shared.service import Runtime

MOST_SMS_CHARACTERS = 1000


class Writer:
    """`send` does everything for one claimed delivery."""

    def __init__(self, runtime: Runtime[Any], recorder: Recorder) -> None:
        self._runtime = runtime
        self._recorder = recorder

    @property
    def _parts(self) -> Parts:
        parts: Parts = self._runtime.parts["notify"]
        return parts

    async def send(self, claim: Claim, loaded: Loaded, tenant: Tenant) -> None:
        delivery = loaded.delivery
        provider = opened(self._parts, loaded.row)
        if provider is None:
            await self._recorder.stop(claim, delivery, tenant, Ended("dead", "no_provider"))
            return
        person = await self._person(delivery)
        if isinstance(person, Members):
            await self._expand(claim, delivery, tenant, person)
            return
        message = await self._message(delivery, tenant, provider, person) if isinstance(person, Person) else person
        if not isinstance(message, Message):
            await self._recorder.stop(claim, delivery, tenant, message)
            return
        unknown = await self._clear_up(claim, loaded, tenant, provider)
        if unknown is not None:
            await self._attempt(claim, delivery, tenant, provider, message, unknown)

    async def _attempt(
        self, claim: Claim, delivery: Delivery, tenant: Tenant, provider: Provider, message: Message, unknown: int
    ) -> None:
        begun = await self._begin(claim, delivery, tenant, provider, message)
        if begun is None:
            return
        attempt, attempts, at = begun
        fail_points.reach("notify.attempted")
        result = await provider.send(self._parts, message, at)
        fail_points.reach("notify.called")
        following = self._recorder.follow(
            delivery,
            tenant,
            result,
            attempts,
            unknown=unknown + (result.outcome == "unknown"),
            can_ask=provider.can_be_asked,
        )
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            await self._recorder.attempt(tx, claim, delivery, tenant, attempt, result, following)

    # -- to whom, in which words -------------------------------------------------------------------------------------------

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
        addressed = _address(delivery, provider, person)
        if isinstance(addressed, Ended):
            return addressed
        to, masked, prefix = addressed
        name = person.name if delivery.audience == COMPLAINANT else None
        try:
            words = await words_of(self._runtime.reference, delivery, tenant, person.language, name)
        except NotYetError:
            return Later("policy_missing")
        if isinstance(words, Ended):
            return words
        if delivery.channel == "sms" and len(words.text) > MOST_SMS_CHARACTERS:
            return Ended("dead", "text_too_long")
        recipient = self._parts.sealer.hash(tenant.tenant_id, delivery.channel, to)
        return Message(
            channel="sms" if delivery.channel == "sms" else "email",
            to=to,
            masked=masked,
            prefix=prefix,
            key=derived_id("send", delivery.delivery_id, delivery.round, recipient.hex()),
            subject=words.subject,
            text=words.text,
        )

    async def _expand(self, claim: Claim, delivery: Delivery, tenant: Tenant, members: Members) -> None:
        """Give each member a delivery of his or her own, under ids derived from this one."""
        children = [
            NewDelivery(
                tenant_id=claim.tenant_id,
                event_id=delivery.event_id,
                delivery_id=delivery_id(
                    claim.tenant_id, delivery.event_id, delivery.rule, delivery.audience, staff_id, delivery.channel
                ),
                case_id=delivery.case_id,
                rule=delivery.rule,
                audience=delivery.audience,
                addressee=staff_id,
                channel=delivery.channel,
                state="queued",
                at=delivery.at,
                due_at=delivery.due_at,
                policy_version=delivery.policy_version,
                fields=delivery.fields,
            )
            for staff_id in members.staff_ids
            if staff_id != delivery.addressee
        ]
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if await repository.holds(tx, claim) is None:
                return
            await store(tx, self._runtime, [], children, sandboxes=[claim.tenant_id] if tenant.sandbox else [])
            await self._recorder.end(tx, claim, delivery, tenant, Ended("expanded", ""))

    # -- what became of earlier attempts -------------------------------------------------------------------------------------

    async def _clear_up(self, claim: Claim, loaded: Loaded, tenant: Tenant, provider: Provider) -> int | None:
        """Find out what became of attempts nobody knows about.

        Returns how many remain unknown, so that a message may be sent, or None when the delivery's fate was found out,
        or cannot be found out now.
        """
        delivery, keys = loaded.delivery, loaded.unknown_keys
        if not keys:
            return 0
        if not provider.can_be_asked:
            since = min(len(keys), delivery.attempts)  # those before a person queued it again have been judged
            if since >= SENDS_WITHOUT_LOOKUP:
                await self._recorder.stop(claim, delivery, tenant, Ended("dead", "outcome_unknown"))
                return None
            return since
        for key in dict.fromkeys(keys):
            found = await provider.look_up(self._parts, key)
            if found is None:
                continue
            if found.outcome == "unavailable":
                await self._recorder.stop(claim, delivery, tenant, Later(found.detail))
            else:
                await self._found_out(claim, delivery, tenant, found)
            return None
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if await repository.holds(tx, claim) is None:
                return None
            await repository.end_unknown_attempts(tx, claim, "unavailable", "never_arrived")
        return 0

    async def _found_out(self, claim: Claim, delivery: Delivery, tenant: Tenant, found: Result) -> None:
        state: State = "sent" if found.outcome == "accepted" else "dead"
        ended = Ended(state, "" if state == "sent" else found.detail)
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if await repository.holds(tx, claim) is None:
                return
            await repository.end_unknown_attempts(tx, claim, found.outcome, "found_by_key")
            await self._recorder.end(tx, claim, delivery, tenant, ended, provider_ref=found.provider_ref)

    async def _begin(
        self, claim: Claim, delivery: Delivery, tenant: Tenant, provider: Provider, message: Message
    ) -> tuple[int, int, datetime] | None:
        """Spend the budgets and write the attempt down, both or neither.

        Returns its number, how many there were since the delivery was queued, and when it is made; None when it is not
        to be sent now.
        """
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            now = await repository.holds(tx, claim)
            if now is None:
                return None
            at = at_of(delivery, tenant, now)
            if delivery.attempts == 0:
                held = await spend(
                    tx,
                    self._parts.sealer,
                    tenant,
                    message.channel,
                    message.to,
                    message.prefix,
                    provider.per_day(self._parts),
                    at,
                )
                if held is not None:
                    await self._recorder.hold(tx, claim, tenant, held)
                    return None
            attempt, attempts = await repository.begin_attempt(
                tx, claim, recipient=message.masked, provider_id=provider.provider_id, key=message.key, at=at
            )
            return attempt, attempts, at


def _address(delivery: Delivery, provider: Provider, person: Person) -> tuple[str, str, str] | Ended:
    """The address, how it is shown, and the range of numbers it belongs to."""
    if delivery.channel == "sms":
        if not person.phone:
            return Ended("suppressed", "no_phone")
        found = mobile(person.phone, provider.countries)
        if not isinstance(found, Mobile):
            return Ended("suppressed", found)
        return found.number, masked_phone(found.number), found.prefix
    if not person.email:
        return Ended("suppressed", "no_email")
    if not email.is_address(person.email):
        return Ended("suppressed", "address_malformed")
    return person.email, masked_email(person.email), ""

"""The message edge: entries, effects and postings become deliveries; a settled sandbox clock becomes a settlement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import structlog
from msgspec import Struct

from services.notify import repository
from services.notify.channels.webhook import Secret
from services.notify.domain import moments
from services.notify.domain.cloud_events import MESSAGE_TYPE, is_wanted
from services.notify.domain.messages import SUBSCRIBERS, Channel, Wanted, is_told, messages
from services.notify.domain.moments import Moment
from services.notify.domain.outcomes import State
from services.notify.domain.wording import values
from services.notify.endings import endings
from services.notify.parts import Parts, endpoint_place
from services.notify.repository import NewDelivery, NewEvent, Timeline
from services.notify.telling import tell, tell_changes
from shared import fail_points, webhooks
from shared.consuming import Consumer
from shared.database import Tx
from shared.egress import EgressRefusedError, parse_url
from shared.engine.case import Case, replay
from shared.errors import NotFoundError, NotYetError
from shared.ids import derived_id
from shared.messages import AnnouncementMade, ClockSettled, EntryAppended, PenaltyPosted, TenantChanged
from shared.messages.base import Message, type_of
from shared.policy.quiet_hours import held_until, parse_quiet_hours
from shared.reference import Reference, Tenant
from shared.service import Runtime
from shared.time_source import now_in
from shared.tracing import traceparent

ENDPOINTS_FRESH_SECONDS = 2.0  # a changed endpoint is known everywhere after so long
EVENT_RULE = "event"
"""The rule of deliveries that no rule wants: every entry and effect goes to the endpoints that subscribe to it."""

TEST_RULE = "test"
"""The rule of an event that somebody sends to try an endpoint."""

GATHERED = "notify.gathered"
NOTHING_YET = Timeline(case_kind="complaint", policy_version=0, number="", entries=())

log = structlog.get_logger()


class Subscription(Struct, frozen=True):
    endpoint_id: UUID
    events: tuple[str, ...]


class Telling(Struct, frozen=True):
    """An event with its deliveries, until the end of the transaction."""

    event: NewEvent
    deliveries: list[NewDelivery]
    sandbox: bool
    traceparent: str | None


class Gathered(Struct):
    """What is known of a group of messages once its entries are stored."""

    # Tenant, case and seq of entries that had not arrived before, and are still to be looked at.
    new: set[tuple[UUID, UUID, int]]
    cases: dict[UUID, list[UUID]]  # of each tenant, that the group is about
    timelines: dict[UUID, dict[UUID, Timeline]] = {}  # of a tenant's cases, once they were asked for


class Happening(Struct, frozen=True, kw_only=True):
    """A message from another service, as rules and webhooks need it."""

    message: Message
    case_id: UUID
    case_kind: str
    number: str
    policy_version: int
    seq: int  # entries up to this one must be here before rules can look; 0: whatever is here
    moment: Moment
    silent: bool


class Handlers:
    """One function per kind of message. `consumers` binds them to their streams."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime
        self._subscriptions: dict[UUID, tuple[float, tuple[Subscription, ...]]] = {}

    def consumers(self) -> list[Consumer]:
        return [
            *self._reference.consumers("notify"),
            Consumer("notify", "intake", name="notify-on-intake", handlers={TenantChanged: self.on_tenant}),
            Consumer(
                "notify",
                "routing",
                name="notify-on-entry",
                handlers={EntryAppended: self.on_entry},
                together=self.gather,
            ),
            Consumer(
                "notify",
                "sla",
                name="notify-on-sla",
                together=self.gather,
                handlers={
                    AnnouncementMade: self.on_announcement,
                    PenaltyPosted: self.on_penalty,
                    ClockSettled: self.on_settled,
                },
            ),
        ]

    @property
    def _reference(self) -> Reference:
        return self._runtime.reference

    # -- what happened ---------------------------------------------------------------------------------------------------

    async def gather(self, messages: Sequence[Any], tx: Tx) -> None:
        """Store the entries of a group of messages in one statement."""
        entries = [each for each in messages if isinstance(each, EntryAppended)]
        cases: dict[UUID, dict[UUID, None]] = {}
        for each in messages:
            if not isinstance(each, ClockSettled):
                cases.setdefault(each.tenant_id, {})[each.case_id] = None
        tx.kept[GATHERED] = Gathered(
            new=await repository.add_entries(tx, entries) if entries else set(),
            cases={tenant_id: list(of_tenant) for tenant_id, of_tenant in cases.items()},
        )

    async def on_entry(self, message: EntryAppended, tx: Tx) -> None:
        entry = message.entry
        new = _gathered(tx).new
        line = (message.tenant_id, message.case_id, entry.seq)
        if line not in new:
            return
        new.discard(line)
        await self._tell(
            Happening(
                message=message,
                case_id=message.case_id,
                case_kind=message.case_kind,
                number=message.number,
                policy_version=message.policy_version,
                seq=entry.seq,
                moment=moments.of_entry(entry),
                silent=message.silent,
            ),
            tx,
        )

    async def on_announcement(self, message: AnnouncementMade, tx: Tx) -> None:
        effect = message.effect
        if message.withdrawn:
            await tx.finish()  # what earlier messages of the group queued can be withdrawn, too
            withdrawn = await repository.suppress_withdrawn(tx, tx.tenant_id, message.case_id, effect.key)
            await tell_changes(tx, withdrawn, at=message.at)
        await self._tell(
            Happening(
                message=message,
                case_id=message.case_id,
                case_kind=message.case_kind,
                number=message.number,
                policy_version=effect.policy_version,
                seq=0,
                moment=moments.of_effect(effect, withdrawn=message.withdrawn),
                silent=effect.silent,
            ),
            tx,
        )

    async def on_penalty(self, message: PenaltyPosted, tx: Tx) -> None:
        await self._tell(
            Happening(
                message=message,
                case_id=message.case_id,
                case_kind="complaint",
                number=message.number,
                policy_version=message.penalty.policy_version,
                seq=0,
                moment=moments.of_penalty(message.penalty, message.at),
                silent=False,
            ),
            tx,
        )

    async def on_settled(self, message: ClockSettled, tx: Tx) -> None:
        await repository.add_settlement(tx, tx.tenant_id, message.operation_id, message.target)
        tx.after_commit(lambda: self._runtime.wake("rest"))

    # -- deliveries ------------------------------------------------------------------------------------------------------

    async def _tell(self, what: Happening, tx: Tx) -> None:
        """Store the deliveries that one happening calls for, in the transaction that takes its message."""
        tenant = await self._tenant(tx.tenant_id)
        subscriptions = await self._subscribed(tx)
        names = (type_of(what.message), *what.moment.triggers)
        wanted = [
            self._delivery(what, EVENT_RULE, SUBSCRIBERS, str(each.endpoint_id), "webhook")
            for each in subscriptions
            if is_wanted(each.events, names)
        ]
        wanted += await self._by_rules(what, tenant, subscriptions, tx)
        if not wanted:
            return
        message = what.message
        event = NewEvent(
            tenant_id=tx.tenant_id,
            event_id=message.message_id,
            kind=names[0],
            case_id=what.case_id,
            number=what.number,
            source=what.moment.source,
            at=what.moment.at,
            body=_told(message),
        )
        tx.at_the_end(self._store, for_all=True).append(Telling(event, wanted, tenant.sandbox, traceparent()))

    async def _store(self, tx: Tx, told: Sequence[Telling]) -> None:
        """Store what a transaction's messages call for in one statement, and tell what is over already."""
        await store(
            tx,
            self._runtime,
            [each.event for each in told],
            [delivery for each in told for delivery in each.deliveries],
            sandboxes={each.event.tenant_id for each in told if each.sandbox},
            traces={each.event.event_id: each.traceparent for each in told},
        )
        fail_points.reach("notify.stored")

    async def _by_rules(
        self, what: Happening, tenant: Tenant, subscriptions: Sequence[Subscription], tx: Tx
    ) -> list[NewDelivery]:
        """What the policy's message rules want."""
        if what.case_kind != "complaint" and "received" in what.moment.triggers:
            return []  # the first line of a duty or a subject: nobody has complained
        received_under = await self._reference.policy(tx.tenant_id, what.policy_version)
        if not is_told(received_under, what.moment):
            newest = await self._newest(tx.tenant_id)
            if newest <= what.policy_version or not is_told(
                await self._reference.policy(tx.tenant_id, newest), what.moment
            ):
                return []
        timeline = await self._timeline(what, tx)
        if timeline.complete_to < what.seq or (what.case_kind == "complaint" and not timeline.entries):
            raise NotYetError("earlier entries of the case have not arrived")
        case = await self._case(what, timeline, tx.tenant_id)
        standing = case.standing(max(what.moment.at, case.at or what.moment.at))
        found: list[NewDelivery] = []
        fields: dict[str, Any] = {}
        for each in messages(case, what.moment, standing):
            fields = fields or values(case, standing, what.moment, what.number or timeline.number)
            held = await self._held(each, what.moment.at, tenant, tx)
            if each.channel != "webhook":
                found.append(
                    self._delivery(
                        what,
                        each.rule,
                        each.audience,
                        each.addressee,
                        each.channel,
                        version=case.policy.version,
                        fields=fields,
                        held=held,
                    )
                )
                continue
            found += [
                self._delivery(
                    what,
                    each.rule,
                    SUBSCRIBERS,
                    str(subscription.endpoint_id),
                    "webhook",
                    version=case.policy.version,
                    fields=fields,
                    held=held,
                )
                for subscription in subscriptions
                if is_wanted(subscription.events, (MESSAGE_TYPE, *what.moment.triggers))
            ]
        return found

    async def _timeline(self, what: Happening, tx: Tx) -> Timeline:
        """The case's timeline as far as it has arrived; those of a group are read together, when the first is asked for."""
        if what.seq == 1 and isinstance(what.message, EntryAppended):
            return Timeline(
                case_kind=what.case_kind,
                policy_version=what.policy_version,
                number=what.number,
                entries=(what.message.entry,),
            )
        gathered = _gathered(tx)
        known = gathered.timelines.get(tx.tenant_id)
        if known is None:
            known = await repository.timelines(tx, tx.tenant_id, gathered.cases[tx.tenant_id])
            gathered.timelines[tx.tenant_id] = known
        return known.get(what.case_id, NOTHING_YET)

    async def _case(self, what: Happening, timeline: Timeline, tenant_id: UUID) -> Case:
        """The case as it was at the moment."""
        entries = [
            entry for entry in timeline.entries if (entry.seq <= what.seq if what.seq else entry.at <= what.moment.at)
        ]
        version = timeline.policy_version or what.policy_version
        versions = {version, what.policy_version} | {
            int(entry.data["version"])
            for entry in entries
            if entry.kind == "policy_changed" and "version" in entry.data
        }
        policies = {each: await self._reference.policy(tenant_id, each) for each in versions}
        calendars = await self._reference.calendars(tenant_id)
        return replay(policies, entries, calendars, policy_version=version, case_kind=what.case_kind)

    async def _held(self, wanted: Wanted, at: datetime, tenant: Tenant, tx: Tx) -> datetime | None:
        """Until when quiet hours hold a message back, judged at the time it would go out."""
        if wanted.quiet_hours is None:
            return None
        try:
            hours = parse_quiet_hours(wanted.quiet_hours)
        except ValueError:
            log.warning("quiet_hours_unreadable", rule=wanted.rule)
            return None
        now = at if tenant.sandbox else await now_in(tx)
        return held_until(now, hours, ZoneInfo(tenant.zone))

    def _delivery(
        self,
        what: Happening,
        rule: str,
        audience: str,
        addressee: str,
        channel: Channel,
        *,
        version: int | None = None,
        fields: dict[str, Any] | None = None,
        held: datetime | None = None,
    ) -> NewDelivery:
        state: State = "held" if held else "queued"
        reason = "quiet_hours" if held else ""
        if what.silent:
            state, reason = "suppressed", "silent"
        message = what.message
        return NewDelivery(
            tenant_id=message.tenant_id,
            event_id=message.message_id,
            delivery_id=delivery_id(message.tenant_id, message.message_id, rule, audience, addressee, channel),
            case_id=what.case_id,
            rule=rule,
            audience=audience,
            addressee=addressee,
            channel=channel,
            state=state,
            reason=reason,
            at=what.moment.at,
            due_at=held or what.moment.at,
            policy_version=version,
            fields=fields or {},
        )

    # -- what is known of the tenant ---------------------------------------------------------------------------------------

    async def _tenant(self, tenant_id: UUID) -> Tenant:
        try:
            return await self._reference.tenant(tenant_id)
        except NotFoundError:
            raise NotYetError("the tenant has not arrived") from None

    async def _newest(self, tenant_id: UUID) -> int:
        try:
            return await self._reference.current_version(tenant_id)
        except NotFoundError:
            raise NotYetError("no policy has arrived") from None

    async def _subscribed(self, tx: Tx) -> tuple[Subscription, ...]:
        cached = self._subscriptions.get(tx.tenant_id)
        if cached is not None and time.monotonic() - cached[0] < ENDPOINTS_FRESH_SECONDS:
            return cached[1]
        rows = await repository.endpoints(tx, tx.tenant_id)
        found = tuple(Subscription(row["endpoint_id"], tuple(row["events"])) for row in rows if row["active"])
        self._subscriptions[tx.tenant_id] = (time.monotonic(), found)
        return found

    def forget_subscriptions(self, tenant_id: UUID) -> None:
        self._subscriptions.pop(tenant_id, None)

    async def on_tenant(self, message: TenantChanged, tx: Tx) -> None:
        """Keep the endpoint that the tenant's own record names; its secret is made here and shown by a rotation."""
        parts: Parts = self._runtime.parts["notify"]
        endpoint_id = derived_id("endpoint of the tenant", message.tenant_id)
        row = await repository.lock_endpoint(tx, tx.tenant_id, endpoint_id)
        url = message.webhook_url
        if url is not None:
            try:
                parse_url(url, parts.egress.rules)
            except EgressRefusedError as refusal:
                log.warning("endpoint_refused", reason=refusal.reason)
                return
        if row is None and url is not None:
            place = endpoint_place(endpoint_id)
            sealed = parts.sealer.seal(tx.tenant_id, place, msgspec.json.encode([Secret(webhooks.new_secret())]))
            await repository.add_endpoint(tx, tx.tenant_id, endpoint_id, url, "named by the tenant", [], sealed)
        elif row is not None and (row["url"], row["active"]) != (url, True):
            await repository.change_endpoint(
                tx,
                tx.tenant_id,
                endpoint_id,
                url=url or row["url"],
                description=row["description"],
                events=row["events"],
                active=url is not None,
                stopped_because=None,
                sealed=row["sealed"],
            )
        tx.after_commit(lambda: self.forget_subscriptions(message.tenant_id))


def _gathered(tx: Tx) -> Gathered:
    found: Gathered = tx.kept[GATHERED]
    return found


def delivery_id(tenant_id: UUID, event_id: UUID, rule: str, audience: str, addressee: str, channel: str) -> UUID:
    """The same message to the same recipient on the same channel has the same id, however often it is worked out."""
    return derived_id("delivery", tenant_id, event_id, rule, audience, addressee, channel)


async def store(
    tx: Tx,
    runtime: Runtime[Any],
    events: Sequence[NewEvent],
    deliveries: Sequence[NewDelivery],
    *,
    sandboxes: Collection[UUID],
    traces: Mapping[UUID, str | None] = MappingProxyType({}),
) -> None:
    """Store events with their deliveries, wake the sender for what is queued, and tell what became of the rest.

    Args:
        sandboxes: those of the tenants that are sandboxes.
        traces: what each event belongs to, so that what is told of it later is found under it.
    """
    rows = await repository.add_deliveries(tx, events, deliveries, sandboxes=sandboxes)
    wanted = {each.delivery_id: each for each in deliveries}
    over: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["state"] == "queued":
            continue
        delivery = wanted[row["delivery_id"]]
        at = delivery.at
        if row["state"] == "dead":  # decided here and now
            at = delivery.due_at if delivery.tenant_id in sandboxes else row["now"]
            over[row["channel"], row["reason"]] += 1
        await tell(tx, row, at, traces.get(delivery.event_id))
    if any(row["state"] == "queued" for row in rows):
        tx.after_commit(lambda: runtime.wake("sender"))
    if over:
        tx.after_commit(lambda: endings(runtime).count_dead(over))


def _told(message: Message) -> dict[str, Any]:
    """The body of a message without its envelope."""
    body: dict[str, Any] = msgspec.to_builtins(message)
    for name in ("message_id", "tenant_id", "traceparent", "at"):
        body.pop(name, None)
    return body

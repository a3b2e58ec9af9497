"""The message edge: one function for each kind of message; no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from services.routing import parts, testing_time
from services.routing.repository import moves
from services.routing.repository.cases import NewCase
from services.routing.settings import RoutingSettings
from services.routing.writing import Writing
from shared.consuming import Consumer
from shared.database import Tx
from shared.engine.model import SYSTEM
from shared.errors import NotYetError
from shared.ids import derived_id
from shared.messages.intake import (
    CalendarPublished,
    ComplaintReceived,
    CredentialChanged,
    EntryRequested,
    PolicyPublished,
    TenantChanged,
)
from shared.messages.notify import ClockRested
from shared.messages.sla import ClockSettled
from shared.service import Runtime

log = structlog.get_logger()


class Handlers:
    """What routing does about each message. `tx` is a worker transaction of the message's tenant."""

    def __init__(self, runtime: Runtime[RoutingSettings]) -> None:
        self.runtime = runtime
        self.reference = runtime.reference

    async def before_complaints(self, messages: Sequence[ComplaintReceived | EntryRequested], tx: Tx) -> None:
        """Ask once for all new cases of a group what each begins with."""
        new = [(message.tenant_id, message.case_id) for message in messages if isinstance(message, ComplaintReceived)]
        if len(new) > 1:
            await parts.of(self.runtime).desk.expect(tx, new)

    async def on_complaint(self, message: ComplaintReceived, tx: Tx) -> None:
        """Make the case, its first line exactly as given, and assign it."""
        new = NewCase(
            case_id=message.case_id,
            kind="complaint",
            policy_version=message.policy_version,
            received_at=message.entry.at,
            number=message.number,
            source=message.source,
            silent=message.silent,
            duplicate_of=message.duplicate_of,
        )
        desk = parts.of(self.runtime).desk
        # What an effect created while a sandbox's clock moves goes on at the instant of the effect.
        at = message.entry.at if message.source == "effect" else None
        writing = await desk.begin_new(tx, new, message.entry, at=at)
        if writing is None:
            return
        if message.duplicate_of is not None:
            await desk.add(
                writing, "linked", SYSTEM, {"linked_to": str(message.duplicate_of)}, key="duplicate", checked=False
            )
        await desk.save(writing, at_the_end=True)

    async def on_entry_requested(self, message: EntryRequested, tx: Tx) -> None:
        """Enter an act that reached intake. Nobody waits for an answer, so a refused one stays on the timeline as a comment."""
        desk = parts.of(self.runtime).desk
        await tx.finish()  # the complaint may have come in this very transaction
        writing = await desk.begin(tx, message.case_id, at=message.at)
        if writing is None:
            raise NotYetError("the complaint has not arrived")
        key = f"request:{message.message_id}"
        if writing.has_key(key):
            return
        refusal = writing.refusal(writing.entry(message.kind, message.by, message.data))
        if refusal is None:
            await desk.add(writing, message.kind, message.by, message.data, key=key, checked=False)
        else:
            log.info("request_refused", rule=refusal.rule, reason=refusal.reason, kind=message.kind)
            data: dict[str, Any] = {"what": message.kind, "reason": refusal.reason, "rule": refusal.rule}
            if "text_id" in message.data:
                data["text_id"] = message.data["text_id"]
            await desk.add(writing, "commented", message.by, data, key=key, checked=False)
        await self._save(writing)

    async def _save(self, writing: Writing) -> None:
        await parts.of(self.runtime).desk.save(writing)

    async def on_tenant(self, message: TenantChanged, tx: Tx) -> None:
        """Keep the copy; a new sandbox gets its test clock, which stands until it is moved."""
        await self.reference.on_tenant(message, tx)
        if message.sandbox:
            await testing_time.start(tx, message.created_at or message.at)

    async def on_policy(self, message: PolicyPublished, tx: Tx) -> None:
        """Keep the version; one that reaches open cases becomes a job."""
        await self.reference.on_policy(message, tx)
        if message.effect != "keep":
            move_id = derived_id("move", message.tenant_id, "policy", message.version)
            await moves.add_policy(tx, message.tenant_id, move_id, message.version, message.effect)
            tx.after_commit(lambda: self.runtime.wake("moves"))
        tx.after_commit(lambda: self.runtime.wake("duties"))

    async def on_calendar(self, message: CalendarPublished, tx: Tx) -> None:
        """Keep the edition; cases whose clocks it moves are found by a job."""
        await self.reference.on_calendar(message, tx)
        move_id = derived_id("move", message.tenant_id, "calendar", message.name, message.revision)
        await moves.add_calendar(tx, message.tenant_id, move_id, message.name, message.revision)
        tx.after_commit(lambda: self.runtime.wake("moves"))

    async def on_credential(self, message: CredentialChanged, tx: Tx) -> None:
        await self.reference.on_credential(message, tx)

    async def on_settled(self, message: ClockSettled, tx: Tx) -> None:
        await testing_time.settled(tx, message.operation_id, message.steps)
        tx.after_commit(lambda: self.runtime.wake("test-clocks"))

    async def on_rested(self, message: ClockRested, tx: Tx) -> None:
        await testing_time.rested(tx, message.operation_id)
        tx.after_commit(lambda: self.runtime.wake("test-clocks"))


def consumers(runtime: Runtime[RoutingSettings]) -> Sequence[Consumer]:
    """The durables of routing. Reference data and complaints go separate ways, so that neither waits for the other."""
    on = Handlers(runtime)
    return [
        Consumer(
            "routing",
            "intake",
            name="routing-on-tenant",
            handlers={
                TenantChanged: on.on_tenant,
                CredentialChanged: on.on_credential,
                PolicyPublished: on.on_policy,
                CalendarPublished: on.on_calendar,
            },
        ),
        Consumer(
            "routing",
            "intake",
            name="routing-on-complaint",
            handlers={ComplaintReceived: on.on_complaint, EntryRequested: on.on_entry_requested},
            together=on.before_complaints,
        ),
        Consumer("routing", "sla", name="routing-on-sla", handlers={ClockSettled: on.on_settled}),
        Consumer("routing", "notify", name="routing-on-notify", handlers={ClockRested: on.on_rested}),
    ]

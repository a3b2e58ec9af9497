"""One webhook of one delivery: the attempt written down, the event posted, the outcome recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from services.notify import repository
from services.notify.channels import webhook
from services.notify.domain import cloud_events
from services.notify.domain.outcomes import Next
from services.notify.handlers import EVENT_RULE, TEST_RULE
from services.notify.parts import Parts, endpoint_place
from services.notify.phrasing import words_of
from services.notify.recording import Ended, Later, Recorder, at_of
from services.notify.repository import Claim, Delivery, Loaded
from shared import fail_points
from shared.database import Record, Tx
from shared.errors import NotYetError
from shared.reference import Tenant
from shared.service import Runtime

ENDPOINT_PATIENCE_DAYS = 5  # an endpoint that has failed for so long is not called any more


class Posting(Struct, frozen=True, kw_only=True):
    """A call whose attempt has been written down."""

    endpoint: Record
    body: bytes
    attempt: int
    attempts: int  # since it was queued last


class Poster:
    def __init__(self, runtime: Runtime[Any], recorder: Recorder) -> None:
        self._runtime = runtime
        self._recorder = recorder

    async def begin(self, tx: Tx, claim: Claim, loaded: Loaded, tenant: Tenant) -> Posting | None:
        """Write the attempt of an entry's or effect's own event down; None when there is nobody to call any more."""
        return await self._begin(tx, claim, loaded, tenant, _event(loaded.delivery))

    async def begin_worded(self, claim: Claim, loaded: Loaded, tenant: Tenant) -> Posting | None:
        """As `begin`, for a message that a rule words for the tenant's systems."""
        delivery = loaded.delivery
        try:
            words = await words_of(self._runtime.reference, delivery, tenant, None, None)
        except NotYetError:
            await self._recorder.stop(claim, delivery, tenant, Later("policy_missing"))
            return None
        if isinstance(words, Ended):
            await self._recorder.stop(claim, delivery, tenant, words)
            return None
        data = {"rule": delivery.rule, "number": delivery.number, "subject": words.subject, "text": words.text}
        body = cloud_events.event(
            cloud_events.MESSAGE_TYPE,
            delivery.delivery_id,
            delivery.tenant_id,
            delivery.case_id,
            delivery.at,
            data,
        )
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if await repository.holds(tx, claim) is None:
                return None
            return await self._begin(tx, claim, loaded, tenant, body)

    async def _begin(self, tx: Tx, claim: Claim, loaded: Loaded, tenant: Tenant, body: bytes) -> Posting | None:
        endpoint, at = loaded.row, at_of(loaded.delivery, tenant, loaded.now)
        if not endpoint["endpoint_active"]:
            reason = "endpoint_deleted" if endpoint["endpoint_id"] is None else "endpoint_stopped"
            await self._recorder.end(tx, claim, loaded.delivery, tenant, Ended("suppressed", reason))
            return None
        attempt, attempts = await repository.begin_attempt(
            tx, claim, recipient=str(endpoint["endpoint_id"]), provider_id=None, key=claim.delivery_id, at=at
        )
        return Posting(endpoint=endpoint, body=body, attempt=attempt, attempts=attempts)

    async def call(self, claim: Claim, delivery: Delivery, tenant: Tenant, posting: Posting) -> None:
        """Post the event, and record what came of it."""
        parts: Parts = self._runtime.parts["notify"]
        endpoint = posting.endpoint
        endpoint_id = endpoint["endpoint_id"]
        sealed = parts.sealer.open(claim.tenant_id, endpoint_place(endpoint_id), endpoint["endpoint_sealed"])
        wall = datetime.now(UTC)  # not the tenant's time: the receiver compares it with its own clock
        secrets = webhook.usable(msgspec.json.decode(sealed, type=list[webhook.Secret]), wall)
        webhook_id = str(delivery.delivery_id if is_worded(delivery) else delivery.event_id)
        fail_points.reach("notify.attempted")
        result = await webhook.send(
            parts.egress, endpoint["url"], secrets, webhook_id, posting.body, wall, parts.settings.send_seconds
        )
        fail_points.reach("notify.called")
        following = self._recorder.follow(delivery, tenant, result, posting.attempts, unknown=0, can_ask=True)
        if delivery.rule == TEST_RULE and following.wait is not None:
            following = Next("dead", result.detail)  # whoever tests an endpoint waits for the answer
        async with self._runtime.db.worker_tx(claim.tenant_id) as tx:
            if result.outcome != "accepted" and delivery.rule != TEST_RULE:
                await repository.endpoint_fails(
                    tx, claim.tenant_id, endpoint_id, gone=result.gone, patience_days=ENDPOINT_PATIENCE_DAYS
                )
            elif result.outcome == "accepted" and endpoint["failing_since"] is not None:
                await repository.endpoint_works(tx, claim.tenant_id, endpoint_id)
            await self._recorder.attempt(tx, claim, delivery, tenant, posting.attempt, result, following)


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

"""Publishing policies and calendars: checked, numbered, stored and told in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from services.intake.domain.policies import checked, fingerprint
from services.intake.refusals import PolicyInvalidError, PolicyMovedError
from services.intake.repository import publications as rows
from services.intake.repository import tenants
from services.intake.repository.publications import CalendarRow, PolicyRow
from shared import outbox
from shared.database import Tx
from shared.errors import FieldError, NotFoundError
from shared.ids import derived_id
from shared.messages.intake import CalendarPublished, PolicyPublished
from shared.policy.problems import PolicyError, PolicyProblem
from shared.time_source import now_in

Effect = Literal["keep", "from_now", "retroactive"]
MAX_PROBLEMS = 200


class Checked(Struct, frozen=True):
    """A document that can work, as plain values, with what may not have been meant."""

    document: dict[str, Any]
    settings: dict[str, Any]
    warnings: list[PolicyProblem]

    @property
    def sha256(self) -> str:
        return fingerprint(self.document, self.settings)


async def check(source: Mapping[str, Any] | str, settings: Mapping[str, Any]) -> Checked:
    """Compile and lint a policy, off the event loop. PolicyInvalidError with everything found."""
    try:
        return await asyncio.to_thread(_check, source, settings)
    except PolicyError as error:
        raise PolicyInvalidError(
            errors=[
                FieldError(problem.path, problem.message, problem.suggestion)
                for problem in error.problems[:MAX_PROBLEMS]
            ],
            problems=error.problems[:MAX_PROBLEMS],
        ) from None


def _check(source: Mapping[str, Any] | str, settings: Mapping[str, Any]) -> Checked:
    document, warnings = checked(source, settings)
    return Checked(document, dict(settings), warnings)


async def publish(
    tx: Tx, policy: Checked, *, effect: Effect, reason: str, published_by: str, base_version: int | None
) -> PolicyRow:
    """Store a policy as the tenant's next version and tell it.

    Args:
        base_version: the version that the author looked at; PolicyMovedError when another has been published since.
            None: whichever.
    """
    version = await lock_next_version(tx, base_version)
    row = PolicyRow(
        version=version,
        document=policy.document,
        settings=policy.settings,
        effect=effect,
        published_by=published_by,
        reason=reason,
        sha256=policy.sha256,
        published_at=await now_in(tx),
    )
    await rows.add_policy(tx, tx.tenant_id, row)
    await outbox.add(
        tx,
        PolicyPublished(
            message_id=derived_id("policy.published", tx.tenant_id, version),
            tenant_id=tx.tenant_id,
            at=row.published_at,
            version=version,
            document=row.document,
            settings=row.settings,
            effect=effect,
            published_by=published_by,
            reason=reason,
            sha256=row.sha256,
        ),
    )
    return row


async def lock_next_version(tx: Tx, base_version: int | None) -> int:
    """Keep others from publishing until the transaction ends, and return the version that is next."""
    if await tenants.lock_tenant(tx, tx.tenant_id) is None:
        raise NotFoundError()
    version = await rows.next_version(tx, tx.tenant_id)
    if base_version is not None and base_version != version - 1:
        raise PolicyMovedError(f"The current version is {version - 1}.", current_version=version - 1)
    return version


async def publish_calendar(tx: Tx, name: str, spec: Mapping[str, Any], *, moves_running: bool) -> CalendarRow:
    """Store a calendar's next revision and tell it. `spec` has been checked."""
    if await tenants.lock_tenant(tx, tx.tenant_id) is None:
        raise NotFoundError()
    values = dict(spec)
    announced = values.pop("announced_through", None)
    row = CalendarRow(
        name=name,
        revision=await rows.next_revision(tx, tx.tenant_id, name),
        spec=values,
        announced_through=announced,
        moves_running=moves_running,
        published_at=await now_in(tx),
    )
    await rows.add_calendar(tx, tx.tenant_id, row)
    await outbox.add(
        tx,
        CalendarPublished(
            message_id=derived_id("calendar.published", tx.tenant_id, name, row.revision),
            tenant_id=tx.tenant_id,
            at=row.published_at,
            name=name,
            revision=row.revision,
            spec=values,
            announced_through=announced.isoformat() if announced is not None else None,
            moves_running=moves_running,
        ),
    )
    return row

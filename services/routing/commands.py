"""People's acts: who acts, whether the words are the policy's, and the entry that comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from services.routing.domain import acting, declaring, staffing
from services.routing.writing import Desk, Writing
from shared.auth import Caller
from shared.database import Tx
from shared.engine.model import Actor, Entry
from shared.errors import (
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    NotYetError,
    PreconditionFailedError,
    UnavailableError,
)
from shared.service import Runtime

T = TypeVar("T")
ATTEMPTS = 3


class UnknownWordsError(InvalidError):
    slug = "unknown-words"
    title = "The entry uses words that the policy does not declare, or values that do not fit them."


class MergedError(ConflictError):
    slug = "merged"
    title = "The case was merged into another one."


async def in_transaction(runtime: Runtime[Any], caller: Caller, act: Callable[[Tx], Awaitable[T]]) -> T:
    """Do `act` in a transaction of the caller's tenant; again, when it got into a deadlock with another one.

    Two entries that count for the same subjects, or a merge, may wait for each other; the database ends one of them, nothing of it is left.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with runtime.db.api_tx(caller.tenant_id) as tx:
                return await act(tx)
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            if attempt == ATTEMPTS:
                raise
        except NotYetError as not_yet:
            raise UnavailableError(
                "Reference data for this case are still on their way.", retry_after_seconds=1
            ) from not_yet
    raise AssertionError("unreachable")


async def opened(desk: Desk, tx: Tx, case_id: UUID, if_match: str | None = None) -> Writing:
    """Open a case for writing.

    Raises:
        NotFoundError: no such case, or another tenant's.
        PreconditionFailedError: it is not the version that the client has seen.
    """
    writing = await desk.begin(tx, case_id)
    if writing is None:
        raise NotFoundError()
    assert writing.stored is not None
    if if_match is not None and if_match.strip() not in ("*", etag(writing.stored.version)):
        raise PreconditionFailedError(current_version=writing.stored.version)
    return writing


def etag(version: int) -> str:
    return f'"{version}"'


async def actor_for(desk: Desk, writing: Writing, caller: Caller, acting_as: str | None) -> Actor:
    """Return who acts on this case, in which roles. ForbiddenError for a role or unit that is not theirs."""
    found = await acting_person(desk, writing.tx, caller, acting_as, writing.now)
    return acting.in_part(found, writing.case.scope.complaint)


async def acting_person(desk: Desk, tx: Tx, caller: Caller, acting_as: str | None, at: datetime) -> Actor:
    """Return who acts: the person behind the key in their roles of the moment, or the key itself where there is none.

    A tenant's own system (role integration) may pass on what the complainant did; nobody else acts for anybody.
    """
    if caller.staff_id is None:
        if acting_as == acting.COMPLAINANT.id and caller.role == "integration":
            return acting.COMPLAINANT
        if acting_as not in (None, caller.role):
            raise ForbiddenError(f"This key stands for nobody on the staff and cannot act as {acting_as!r}.")
        return Actor(id=caller.actor_id, roles=(caller.role,))
    members = await desk.roster.members(tx, tx.tenant_id)
    member = members.get(caller.staff_id)
    if member is None:
        if acting_as not in (None, caller.staff_id):
            raise ForbiddenError(f"{acting_as!r} is no role or unit of {caller.staff_id}.")
        return Actor(id=caller.staff_id)
    if not member.active:
        raise ForbiddenError(f"{caller.staff_id} is not on the staff any more.")
    found = staffing.actor(members, caller.staff_id, at, acting_as)
    if found is None:
        raise ForbiddenError(
            f"{acting_as!r} is no role or unit of {caller.staff_id}.",
            own=list(staffing.roles_of(members, caller.staff_id, at)),
        )
    return found


def check_words(writing: Writing, kind: str, data: dict[str, Any]) -> None:
    """Raise UnknownWordsError with a pointer for each word or value that the case's policy does not know."""
    errors = declaring.problems(writing.policy, kind, data)
    done_at = declaring.instant(data.get("done_at"))
    if done_at is not None and not errors:
        first = writing.timeline[0].at
        if done_at > writing.now:
            errors.append(FieldError("/data/done_at", "lies in the future"))
        elif done_at < first:
            errors.append(FieldError("/data/done_at", "lies before the case was received"))
    if errors:
        raise UnknownWordsError(errors=errors)


async def command(
    desk: Desk, writing: Writing, caller: Caller, kind: str, data: dict[str, Any], acting_as: str | None
) -> Entry:
    """Add what somebody asks for. Raises the refusals of `check_words`, `actor_for` and `Desk.add`."""
    if writing.case.state == "merged":
        raise MergedError(into=_merged_into(writing))
    check_words(writing, kind, data)
    by = await actor_for(desk, writing, caller, acting_as)
    entry = await desk.add(writing, kind, by, data)
    assert entry is not None  # it bears no key, so none was there already
    return entry


def _merged_into(writing: Writing) -> Any:
    return next((entry.data.get("into") for entry in reversed(writing.timeline) if entry.kind == "merged"), None)

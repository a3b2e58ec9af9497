"""The test clock of a sandbox: where it stands, and moving it on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from services.routing import commands, parts, testing_time
from services.routing.repository import clocks
from services.routing.repository.clocks import Operation
from shared.auth import Caller, requires
from shared.database import Tx
from shared.engine.amounts import parse_amount
from shared.errors import ConflictError, FieldError, InvalidError, NotFoundError
from shared.idempotency import once
from shared.service import Runtime
from shared.time_source import now_in

POLL_SECONDS = 0.05


class NotASandboxError(NotFoundError):
    slug = "not-a-sandbox"
    title = "Only a sandbox tenant has a test clock."


class ClockMovingError(ConflictError):
    slug = "clock-moving"
    title = "The clock is being moved already."


class BackwardsError(InvalidError):
    slug = "clock-backwards"
    title = "A test clock never goes back."


class ClockView(msgspec.Struct, frozen=True, kw_only=True):
    """`operation`: the one that is moving the clock, None when it stands."""

    now: datetime
    operation: UUID | None
    target: datetime | None


class Advance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of both. `to`: an instant (RFC 3339). `by`: an amount of time, "3wd", "36h", counted on the tenant's calendar from now."""

    to: datetime | None = None
    by: Annotated[str, msgspec.Meta(max_length=40)] | None = None


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting_for`: who is not done yet. `steps`: due instants that were gone through."""

    operation_id: UUID
    state: str
    started_from: datetime
    target: datetime
    steps: int
    waiting_for: list[str]


@get(
    "/v1/sandbox/clock",
    guards=[requires("admin", "supervisor", "handler", "auditor", "integration")],
    operation_id="get_clock",
)
async def get_clock(caller: NamedDependency[Caller], tx: NamedDependency[Tx]) -> ClockView:
    """The test clock."""
    if not caller.sandbox:
        raise NotASandboxError()
    running = await clocks.running_operation(tx, tx.tenant_id)
    return ClockView(
        now=await now_in(tx),
        operation=running.operation_id if running else None,
        target=running.target if running else None,
    )


@post("/v1/sandbox/clock:advance", guards=[requires("admin")], status_code=202, operation_id="advance_clock")
async def advance(
    data: JSONBody[Advance],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """Move the clock on, from one due instant to the next. The operation is done when everything on the way has been done and told."""
    if not caller.sandbox:
        raise NotASandboxError()
    headers: dict[str, str] = {}

    async def act(tx: Tx) -> Response[bytes]:
        async def begin() -> OperationView:
            await clocks.lock_test_clock(tx, tx.tenant_id)
            now = await now_in(tx)
            if await clocks.running_operation(tx, tx.tenant_id) is not None:
                raise ClockMovingError()
            target = await _target(runtime, tx, data, now)
            if target < now:
                raise BackwardsError(errors=[FieldError("/to", f"the clock stands at {now.isoformat()}")])
            found = await testing_time.begin(parts.of(runtime).desk, tx, now, target, caller.actor_id)
            headers["Location"] = f"/v1/sandbox/clock/operations/{found.operation_id}"
            tx.after_commit(lambda: runtime.wake("test-clocks"))
            return operation_view(found)

        return await once(request, tx, begin, status=202, headers=headers)

    return await commands.in_transaction(runtime, caller, act)


@get(
    "/v1/sandbox/clock/operations/{operation_id:uuid}",
    guards=[requires("admin", "supervisor", "auditor")],
    operation_id="get_clock_operation",
)
async def get_operation(
    operation_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    wait: Annotated[float, QueryParameter(ge=0, le=60, description="seconds to wait until it is done")] = 0.0,
) -> OperationView:
    """An operation that moves the clock, or has moved it."""
    until = asyncio.get_running_loop().time() + wait
    while True:
        async with runtime.db.api_tx(caller.tenant_id) as tx:
            found = await clocks.operation(tx, tx.tenant_id, operation_id)
        if found is None:
            raise NotFoundError()
        if found.state == "done" or asyncio.get_running_loop().time() >= until:
            return operation_view(found)
        await asyncio.sleep(POLL_SECONDS)


def operation_view(operation: Operation) -> OperationView:
    waiting = (
        [] if operation.state == "done" else ["sla"] * (not operation.settled) + ["notify"] * (not operation.rested)
    )
    return OperationView(
        operation_id=operation.operation_id,
        state=operation.state,
        started_from=operation.started_from,
        target=operation.target,
        steps=operation.steps,
        waiting_for=waiting,
    )


async def _target(runtime: Runtime[Any], tx: Tx, data: Advance, now: datetime) -> datetime:
    if (data.to is None) == (data.by is None):
        raise InvalidError("Say either `to` or `by`.", errors=[FieldError("", "exactly one of `to` and `by`")])
    if data.to is not None:
        if data.to.tzinfo is None:
            raise InvalidError(errors=[FieldError("/to", "an instant needs an offset, such as +08:00")])
        return data.to.astimezone(UTC)
    assert data.by is not None
    try:
        amount = parse_amount(data.by)
    except ValueError as error:
        raise InvalidError(errors=[FieldError("/by", str(error))]) from None
    book = await runtime.reference.calendars(tx.tenant_id)
    return book.at(None, now, now).due(now, amount, book.counting).astimezone(UTC)


ROUTE_HANDLERS = [get_clock, advance, get_operation]

"""Acts that belong to no complaint: the opinion box is emptied, the half-yearly summary is done."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from services.routing import commands, keeping, parts
from services.routing.api.cases import ACTORS, EntryCommand, entry_answer
from services.routing.api.views import EntryAnswer
from services.routing.repository import clocks
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import NotFoundError
from shared.idempotency import once
from shared.service import Runtime


@post("/v1/duties/entries", guards=[requires(*ACTORS)], status_code=201, operation_id="append_duty_entry")
async def append_duty_entry(
    data: JSONBody[EntryCommand],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """Enter an act on the tenant's duties of this year."""
    desk = parts.of(runtime).desk
    headers: dict[str, str] = {}

    async def act(tx: Tx) -> Response[bytes]:
        async def enter() -> EntryAnswer:
            case_id = await keeping.duty_case(desk, tx, (await clocks.stamp(tx, tx.tenant_id)).at)
            if case_id is None:
                raise NotFoundError("The policy has no duties.")
            writing = await commands.opened(desk, tx, case_id)
            entry = await commands.command(desk, writing, caller, data.kind, data.data, data.as_)
            answer = entry_answer(writing, entry, await desk.save(writing))
            headers["ETag"] = commands.etag(answer.version)
            return answer

        return await once(request, tx, enter, headers=headers)

    return await commands.in_transaction(runtime, caller, act)


ROUTE_HANDLERS = [append_duty_entry]

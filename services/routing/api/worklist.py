"""Work lists: what is to be done, most urgent first, and what waits for somebody's decision."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from services.routing.api.cases import READERS
from services.routing.api.paging import LIMIT, MOST, cursor, place
from services.routing.repository import assignments, worklist
from services.routing.repository.assignments import WaitingApproval
from services.routing.repository.worklist import Filters, Line, Place
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import InvalidError
from shared.time_source import now_in

Word = Annotated[str | None, QueryParameter(max_length=120)]
Cursor = Annotated[str | None, QueryParameter(max_length=400, description="`next` of the page before")]
Limit = Annotated[int, QueryParameter(ge=1, le=MOST)]


class WorkList(msgspec.Struct, frozen=True, kw_only=True):
    """`next`: the cursor of the next page, None on the last."""

    now: datetime
    items: list[Line]
    next: str | None


class Approvals(msgspec.Struct, frozen=True, kw_only=True):
    items: list[WaitingApproval]
    next: str | None


@get("/v1/cases", guards=[requires(*READERS)], operation_id="list_cases")
async def list_cases(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    unit: Word = None,
    role: Word = None,
    staff: Annotated[str | None, QueryParameter(max_length=120, description="a staff id, or `me`")] = None,
    in_state: Annotated[str | None, QueryParameter(name="state", max_length=120)] = None,
    severity: Word = None,
    category: Word = None,
    number: Word = None,
    overdue: Annotated[bool | None, QueryParameter(description="with a limit missed and undone, or without")] = None,
    closed: Annotated[bool, QueryParameter(description="also closed cases")] = False,
    kind: Annotated[Literal["complaint", "duty", "subject"], QueryParameter()] = "complaint",
    after: Cursor = None,
    limit: Limit = LIMIT,
) -> WorkList:
    """Cases by priority, then by what is overdue or due first."""
    if staff == "me":
        if caller.staff_id is None:
            raise InvalidError("`staff=me` needs a key that stands for somebody on the staff.")
        staff = caller.staff_id
    now = await now_in(tx)
    filters = Filters(
        kind=kind,
        with_closed=closed or in_state is not None or number is not None,
        unit=unit,
        role=role,
        staff=staff,
        state=in_state,
        severity=severity,
        category=category,
        number=number,
        overdue=overdue,
        now=now,
    )
    lines, end = await worklist.page(tx, tx.tenant_id, filters, place(after, Place) if after else None, limit)
    return WorkList(now=now, items=lines, next=cursor(end) if end is not None else None)


@get("/v1/approvals", guards=[requires(*READERS)], operation_id="list_approvals")
async def list_approvals(tx: NamedDependency[Tx], after: Cursor = None, limit: Limit = LIMIT) -> Approvals:
    """Requests that wait for a decision, oldest first."""
    start = place(after, tuple[datetime, UUID, int]) if after else (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0), 0)
    found = await assignments.waiting_approvals(tx, tx.tenant_id, start, limit + 1)
    end = None
    if len(found) > limit:
        last = found[limit - 1]
        end = cursor((last.requested_at, last.case_id, last.seq))
    return Approvals(items=found[:limit], next=end)


ROUTE_HANDLERS = [list_cases, list_approvals]

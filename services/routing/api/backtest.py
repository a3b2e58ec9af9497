"""Back-test a draft on the tenant's own history, a page of complaints a call."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from services.routing.api.impact import BadDraftError
from services.routing.backtesting import Job, Workers
from services.routing.repository import history
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import FieldError, InvalidError
from shared.policy.backtesting import Backtest
from shared.policy.compiling import compile_policy
from shared.policy.problems import PolicyError
from shared.service import Runtime
from shared.time_source import now_in

WORKERS = "backtests"
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A draft and the days of receipt to try it on, `from` and `to` included, in UTC. `after`: `next` of the answer before."""

    document: dict[str, Any]
    settings: dict[str, Any] = {}
    from_: date | None = msgspec.field(default=None, name="from")
    to: date | None = None
    after: tuple[datetime, UUID] | None = None
    limit: Annotated[int, Meta(ge=1, le=5000)] = 1000


class Trialled(msgspec.Struct, frozen=True, kw_only=True):
    """The result on this page; add up pages until `next` is null."""

    result: Backtest
    next: tuple[datetime, UUID] | None


@post(
    "/v1/cases:backtest",
    guards=[requires("admin", "supervisor", "auditor")],
    status_code=200,
    opt={"body_bytes": 600_000},
    operation_id="backtest_policy",
)
async def backtest_policy(
    data: JSONBody[Trial],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    tx: NamedDependency[Tx],
) -> Trialled:
    """What the draft would have made of complaints that were received then: breaches gained and lost, fines, deadlines moved."""
    try:
        draft = compile_policy(data.document, data.settings)
    except PolicyError as refused:
        raise BadDraftError(
            errors=[FieldError(f"/document{each.path}", each.message, each.suggestion) for each in refused.problems]
        ) from None
    now = await now_in(tx)
    since = BEGINNING if data.from_ is None else datetime.combine(data.from_, time(), UTC)
    until = now if data.to is None else min(now, datetime.combine(data.to, time(), UTC) + timedelta(days=1))
    if until < since:
        raise InvalidError(errors=[FieldError("/to", "is before /from")])
    page = await history.page(tx, tx.tenant_id, since, until, data.after or (BEGINNING, UUID(int=0)), data.limit)
    versions = await history.policies(tx, tx.tenant_id)
    job = Job(
        draft=data.document,
        settings=data.settings,
        live={row["version"]: (row["document"], row["settings"]) for row in versions},
        zone=(await runtime.reference.tenant(tx.tenant_id)).zone,
        policies=[
            {"section": row["document"].get("calendar"), "published_at": row["published_at"].isoformat()}
            for row in versions
        ],
        published=[
            {
                **row,
                "published_at": row["published_at"].isoformat(),
                "announced_through": None if row["announced_through"] is None else row["announced_through"].isoformat(),
            }
            for row in await history.calendars(tx, tx.tenant_id)
        ],
        until=now,
    )
    workers: Workers = runtime.parts.setdefault(WORKERS, Workers())
    return Trialled(result=await workers.run(job, page.cases, draft.currency), next=page.last)


ROUTE_HANDLERS = [backtest_policy]

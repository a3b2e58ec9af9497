"""One case: reading it, what may be done with it, and doing it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from services.routing import commands, parts
from services.routing.api.views import AllowedView, CaseView, EntryAnswer, Language, case_view, summary
from services.routing.domain.acting import in_part
from services.routing.domain.allowing import ask, candidates
from services.routing.repository import assignments, cases
from services.routing.writing import Writing
from shared.auth import Caller, Role, requires
from shared.database import Tx
from shared.engine.case import replay
from shared.engine.explaining import explain_clocks, explain_penalty
from shared.engine.model import SYSTEM, Entry, Standing
from shared.errors import InvalidError, NotFoundError, NotYetError, UnavailableError
from shared.idempotency import once
from shared.service import Runtime
from shared.time_source import now_in

ACTORS: tuple[Role, ...] = ("admin", "supervisor", "handler", "integration")
READERS: tuple[Role, ...] = (*ACTORS, "auditor")
POLL_SECONDS = 0.05

Acting = Annotated[
    str | None, QueryParameter(name="as", max_length=120, description="one of the caller's own roles or units")
]
IfMatch = Annotated[
    str | None, HeaderParameter(name="If-Match", description="the version last seen; another one is 412")
]


class EntryCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An act to be entered. Free text goes to the vault first; `data.text_id` refers to it.

    as: one of the caller's own roles or units, to act in it alone; default: all of them.
    """

    kind: Annotated[str, msgspec.Meta(max_length=40)]
    data: dict[str, Any] = {}
    as_: Annotated[str, msgspec.Meta(max_length=120)] | None = msgspec.field(default=None, name="as")


@get("/v1/cases/{case_id:uuid}", guards=[requires(*READERS)], operation_id="get_case")
async def get_case(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    explain: Annotated[
        Language | None, QueryParameter(description="explain every due instant and penalty: en or zh")
    ] = None,
    at: Annotated[datetime | None, QueryParameter(description="how it stood at this instant (RFC 3339)")] = None,
    wait: Annotated[
        float, QueryParameter(ge=0, le=10, description="seconds to wait for a complaint just stored")
    ] = 0.0,
) -> Response[CaseView]:
    """A case with its timeline and its standing: state, clocks, penalties, what is owed by whom."""
    until = asyncio.get_running_loop().time() + wait
    while True:
        async with runtime.db.api_tx(caller.tenant_id) as tx:
            view = await _view(runtime, tx, caller, case_id, explain, at)
        if view is not None:
            return Response(view, headers={"ETag": commands.etag(view.as_of_seq)})
        if asyncio.get_running_loop().time() >= until:
            raise NotFoundError()
        await asyncio.sleep(POLL_SECONDS)


async def _view(
    runtime: Runtime[Any], tx: Tx, caller: Caller, case_id: UUID, explain: Language | None, at: datetime | None
) -> CaseView | None:
    stored = await cases.read(tx, tx.tenant_id, case_id)
    if stored is None:
        return None
    now = max(await now_in(tx), stored.changed_at)
    timeline = stored.timeline
    if at is not None:
        if at.tzinfo is None:
            raise InvalidError("`at` needs an offset, such as 2026-03-03T12:00:00+08:00.")
        now = at.astimezone(UTC)
        timeline = tuple(entry for entry in timeline if entry.at <= now)
        if not timeline:
            raise NotFoundError("The case had not been received by then.")
    try:
        policies = await parts.of(runtime).desk.policies(tx.tenant_id, stored)
        calendars = await runtime.reference.calendars(tx.tenant_id)
    except NotYetError as not_yet:
        raise UnavailableError(
            "Reference data for this case are still on their way.", retry_after_seconds=1
        ) from not_yet
    case = replay(policies, timeline, calendars, policy_version=stored.policy_version, case_kind=stored.kind)
    standing = case.standing(now)
    explanations = (
        None
        if explain is None
        else [*explain_clocks(case, explain), *(explain_penalty(case, each, explain) for each in standing.penalties)]
    )
    assigned = await assignments.of_case(tx, tx.tenant_id, case_id)
    shown = msgspec.structs.replace(stored, timeline=timeline, version=timeline[-1].seq)
    return case_view(
        shown, standing, case.policy, [each for each in assigned if each.seq <= shown.version], caller, explanations
    )


@get("/v1/cases/{case_id:uuid}/allowed", guards=[requires(*READERS)], operation_id="get_allowed")
async def get_allowed(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    tx: NamedDependency[Tx],
    acting_as: Acting = None,
) -> AllowedView:
    """What the caller may enter now, and for the rest which rule refuses it. What depends on an entry's data shows when it is sent."""
    stored = await cases.read(tx, tx.tenant_id, case_id)
    if stored is None:
        raise NotFoundError()
    now = max(await now_in(tx), stored.changed_at)
    desk = parts.of(runtime).desk
    case = replay(
        await desk.policies(tx.tenant_id, stored),
        stored.timeline,
        await runtime.reference.calendars(tx.tenant_id),
        policy_version=stored.policy_version,
        case_kind=stored.kind,
    )
    person = await commands.acting_person(desk, tx, caller, acting_as, now)
    by = in_part(person, case.scope.complaint)
    probe = Entry(seq=stored.version + 1, kind="commented", at=now, by=SYSTEM)
    items = list(ask(case, by, candidates(case.policy), probe))
    return AllowedView(case_id=case_id, as_of_seq=stored.version, state=case.state, actor=by, items=items)


@post("/v1/cases/{case_id:uuid}/entries", guards=[requires(*ACTORS)], status_code=201, operation_id="append_entry")
async def append_entry(
    case_id: FromPath[UUID],
    data: JSONBody[EntryCommand],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    if_match: IfMatch = None,
) -> Response[bytes]:
    """Enter an act. Refused by the policy: 409 or 403 `refused-by-policy` with rule, clause and reason, and nothing changes."""
    desk = parts.of(runtime).desk
    headers: dict[str, str] = {}

    async def act(tx: Tx) -> Response[bytes]:
        async def enter() -> EntryAnswer:
            writing = await commands.opened(desk, tx, case_id, if_match)
            entry = await commands.command(desk, writing, caller, data.kind, data.data, data.as_)
            standing = await desk.save(writing)
            answer = entry_answer(writing, entry, standing)
            headers["ETag"] = commands.etag(answer.version)
            return answer

        return await once(request, tx, enter, headers=headers)

    return await commands.in_transaction(runtime, caller, act)


def entry_answer(writing: Writing, entry: Entry, standing: Standing) -> EntryAnswer:
    return EntryAnswer(
        case_id=writing.case_id,
        seq=entry.seq,
        kind=entry.kind,
        at=entry.at,
        version=writing.timeline[-1].seq,
        followed_by=[each.seq for each in writing.added if each.seq > entry.seq],
        standing=summary(standing, writing.assigned_to or writing.assignment),
    )


ROUTE_HANDLERS = [get_case, get_allowed, append_entry]

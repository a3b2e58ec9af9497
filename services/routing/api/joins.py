"""Merging, splitting and linking complaints: several cases written in one transaction."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from services.routing import commands, parts
from services.routing.api.cases import IfMatch, entry_answer
from services.routing.api.views import EntryAnswer
from services.routing.domain.joining import strictest
from services.routing.repository.cases import NewCase
from services.routing.writing import Desk, Writing
from shared.auth import Caller, Role, requires
from shared.database import Tx
from shared.engine.model import Actor, Entry
from shared.errors import ConflictError, InvalidError, NotFoundError
from shared.idempotency import once
from shared.ids import derived_id
from shared.service import Runtime

JOINERS: tuple[Role, ...] = ("admin", "supervisor", "handler")
MOST_PARTS = 10
Short = Annotated[str, msgspec.Meta(max_length=120)]


class CannotJoinError(ConflictError):
    slug = "cannot-join"
    title = "These cases cannot be joined."


class Merge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`into`: the case that goes on; the one in the path ends."""

    into: UUID
    as_: Short | None = msgspec.field(default=None, name="as")


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the complaint becomes a case of its own; what is not said is as in the complaint."""

    kind: Short | None = None
    category: Short | None = None
    severity: Short | None = None
    respondent: dict[str, Short] | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    parts: Annotated[list[Part], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]
    as_: Short | None = msgspec.field(default=None, name="as")


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    to: UUID
    as_: Short | None = msgspec.field(default=None, name="as")


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """`case`: the one in the path. `others`: those that were written with it."""

    case: EntryAnswer
    others: list[EntryAnswer]


@post("/v1/cases/{case_id:uuid}/merges", guards=[requires(*JOINERS)], status_code=201, operation_id="merge_case")
async def merge(
    case_id: FromPath[UUID],
    data: JSONBody[Merge],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    if_match: IfMatch = None,
) -> Response[bytes]:
    """Go on with another complaint instead of this one. For each limit that runs in both the earlier due instant holds."""
    desk = parts.of(runtime).desk

    async def enter(tx: Tx) -> Joined:
        ending, lasting = await _both(desk, tx, case_id, data.into, if_match)
        deadlines = {
            rule: due.isoformat()
            for rule, due in strictest(each.case.standing(each.now) for each in (ending, lasting)).items()
        }
        for each in (ending, lasting):
            each.case = each.replayed()
        by = await commands.actor_for(desk, ending, caller, data.as_)
        merged = await desk.add(
            lasting, "merged", by, {"case_id": str(case_id), "number": ending.number, "deadlines": deadlines}
        )
        ended = await desk.add(
            ending, "merged", by, {"case_id": str(data.into), "into": str(data.into), "number": lasting.number}
        )
        assert merged is not None
        assert ended is not None
        return Joined(
            case=entry_answer(ending, ended, await desk.save(ending)),
            others=[entry_answer(lasting, merged, await desk.save(lasting))],
        )

    return await _once(runtime, caller, request, enter)


@post("/v1/cases/{case_id:uuid}/links", guards=[requires(*JOINERS)], status_code=201, operation_id="link_case")
async def link(
    case_id: FromPath[UUID],
    data: JSONBody[Link],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    if_match: IfMatch = None,
) -> Response[bytes]:
    """Note on two complaints that they belong together; both go on."""
    desk = parts.of(runtime).desk

    async def enter(tx: Tx) -> Joined:
        one, other = await _both(desk, tx, case_id, data.to, if_match)
        by = await commands.actor_for(desk, one, caller, data.as_)
        linked = await desk.add(one, "linked", by, {"linked_to": str(data.to)})
        back = await desk.add(other, "linked", by, {"linked_to": str(case_id)})
        assert linked is not None
        assert back is not None
        return Joined(
            case=entry_answer(one, linked, await desk.save(one)),
            others=[entry_answer(other, back, await desk.save(other))],
        )

    return await _once(runtime, caller, request, enter)


@post("/v1/cases/{case_id:uuid}/splits", guards=[requires(*JOINERS)], status_code=201, operation_id="split_case")
async def split(
    case_id: FromPath[UUID],
    data: JSONBody[Split],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    if_match: IfMatch = None,
) -> Response[bytes]:
    """Make parts of a complaint cases of their own. They were received when it was; its running deadlines hold where earlier."""
    desk = parts.of(runtime).desk

    async def enter(tx: Tx) -> Joined:
        whole = await commands.opened(desk, tx, case_id, if_match)
        if not whole.is_complaint or whole.case.state == "merged":
            raise CannotJoinError("Only a complaint that has not been merged can be split.")
        by = await commands.actor_for(desk, whole, caller, data.as_)
        deadlines = {rule: due.isoformat() for rule, due in strictest([whole.case.standing(whole.now)]).items()}
        whole.case = whole.replayed()
        ids = [derived_id("split", tx.tenant_id, case_id, whole.next_seq, place) for place in range(len(data.parts))]
        done = await desk.add(whole, "split", by, {"parts": [str(each) for each in ids]})
        assert done is not None
        others = []
        for place, (part_id, part) in enumerate(zip(ids, data.parts, strict=True), start=1):
            others.append(await _part(desk, tx, whole, by, part, part_id, place, deadlines))
        return Joined(case=entry_answer(whole, done, await desk.save(whole)), others=others)

    return await _once(runtime, caller, request, enter)


async def _part(
    desk: Desk, tx: Tx, whole: Writing, by: Actor, part: Part, part_id: UUID, place: int, deadlines: dict[str, str]
) -> EntryAnswer:
    first = whole.timeline[0]
    number = f"{whole.number}-{place}"
    given = {name: value for name, value in msgspec.to_builtins(part).items() if value is not None}
    received = Entry(seq=1, kind="received", at=first.at, by=first.by, data={**first.data, **given, "number": number})
    new = NewCase(
        case_id=part_id,
        kind="complaint",
        policy_version=whole.policy_version,
        received_at=first.at,
        number=number,
        source=whole.source,
        silent=whole.silent,
    )
    writing = await desk.begin_new(tx, new, received)
    assert writing is not None  # its id is derived from a line that did not exist before
    entry = await desk.add(
        writing,
        "split",
        by,
        {"case_id": str(whole.case_id), "number": whole.number, "deadlines": deadlines},
        checked=False,
    )
    assert entry is not None
    return entry_answer(writing, entry, await desk.save(writing))


async def _both(desk: Desk, tx: Tx, one_id: UUID, other_id: UUID, if_match: str | None) -> tuple[Writing, Writing]:
    """Open two complaints in the order of their ids, whichever is named first."""
    if one_id == other_id:
        raise InvalidError("A case cannot be joined with itself.")
    found: dict[UUID, Writing] = {}
    for each in sorted((one_id, other_id)):
        found[each] = await commands.opened(desk, tx, each, if_match if each == one_id else None)
    one, other = found[one_id], found[other_id]
    if not one.is_complaint or not other.is_complaint:
        raise NotFoundError()
    for writing in (one, other):
        if writing.case.state == "merged":
            raise CannotJoinError("One of them was merged already.", case_id=str(writing.case_id))
    return one, other


async def _once(runtime: Runtime[Any], caller: Caller, request: Request[Any, Any, Any], enter: Any) -> Response[bytes]:
    headers: dict[str, str] = {}

    async def act(tx: Tx) -> Response[bytes]:
        async def answer() -> Joined:
            joined: Joined = await enter(tx)
            headers["ETag"] = commands.etag(joined.case.version)
            return joined

        return await once(request, tx, answer, headers=headers)

    return await commands.in_transaction(runtime, caller, act)


ROUTE_HANDLERS = [merge, link, split]

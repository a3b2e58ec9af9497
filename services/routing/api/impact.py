"""What a draft policy would do to open complaints, shown before it is published."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from services.routing import moving, parts
from services.routing.domain.moving import MovedClock
from services.routing.repository import cases
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import FieldError, InvalidError, NotFoundError
from shared.policy.compiling import compile_policy
from shared.policy.problems import PolicyError
from shared.service import Runtime
from shared.time_source import now_in

PAGE = 200


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`after`: go on behind this case; `next` of the answer before."""

    document: dict[str, Any]
    settings: dict[str, Any] = {}
    effect: Literal["keep", "from_now", "retroactive"] = "from_now"
    after: UUID | None = None


class MovedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A complaint whose deadlines or standing the draft changes."""

    case_id: UUID
    number: str
    state: str
    clocks: tuple[MovedClock, ...]
    parts: tuple[str, ...]


class Impact(msgspec.Struct, frozen=True, kw_only=True):
    """`looked_at`: open complaints on this page. `items`: those among them that stand otherwise under the draft. `follows`: whether all of
    them go on under the new version, so that what they have not come to yet goes by it too. `next`: to go on with, None at the end.
    """

    effect: str
    follows: bool
    looked_at: int
    items: list[MovedCase]
    next: UUID | None


class BadDraftError(InvalidError):
    slug = "policy-invalid"
    title = "The policy cannot work as it is written."


@post(
    "/v1/cases:impact",
    guards=[requires("admin", "supervisor")],
    status_code=200,
    opt={"body_bytes": 600_000},
    operation_id="preview_impact",
)
async def preview(
    data: JSONBody[Draft],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    tx: NamedDependency[Tx],
) -> Impact:
    """Which open complaints a draft would move, with old and new due instants. Nothing is stored."""
    try:
        version = await runtime.reference.current_version(tx.tenant_id) + 1
    except NotFoundError:
        version = 1
    try:
        draft = compile_policy(data.document, data.settings, version)
    except PolicyError as refused:
        raise BadDraftError(
            errors=[FieldError(f"/document{each.path}", each.message, each.suggestion) for each in refused.problems]
        ) from None
    now = await now_in(tx)
    desk = parts.of(runtime).desk
    calendars = await moving.calendars_with(runtime.reference, tx.tenant_id, draft, now)
    ids = await cases.open_cases(tx, tx.tenant_id, ("complaint",), data.after or UUID(int=0), PAGE + 1)
    items = []
    for case_id in ids[:PAGE] if data.effect != "keep" else []:
        stored = await cases.read(tx, tx.tenant_id, case_id)
        if stored is None:
            continue
        found = await moving.effect_of_policy(
            desk, tx.tenant_id, stored, draft, data.effect, calendars, max(now, stored.changed_at)
        )
        if found:
            items.append(
                MovedCase(
                    case_id=case_id, number=stored.number, state=stored.state, clocks=found.clocks, parts=found.parts
                )
            )
    return Impact(
        effect=data.effect,
        follows=data.effect != "keep" and await moving.has_other_rules(runtime.reference, tx.tenant_id, draft),
        looked_at=len(ids[:PAGE]),
        items=items,
        next=ids[PAGE - 1] if len(ids) > PAGE and data.effect != "keep" else None,
    )


ROUTE_HANDLERS = [preview]

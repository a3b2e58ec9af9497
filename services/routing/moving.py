"""Publications that reach open cases: what they would do, and doing it, a batch of cases at a time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import structlog

from services.routing.domain.moving import Difference, difference, moved_clocks
from services.routing.refreshing import set_aside
from services.routing.repository import cases, moves
from services.routing.repository.cases import Stored
from services.routing.repository.moves import Move
from services.routing.writing import Desk, Writing
from shared.database import Database, Tx
from shared.engine.calendar import CalendarBook, Revision
from shared.engine.case import LoopError, fold
from shared.engine.model import SYSTEM, Entry
from shared.engine.rules import CompiledPolicy
from shared.errors import NotFoundError
from shared.policy.cel.problems import EvaluationError
from shared.policy.schema import Policy
from shared.reference import Reference
from shared.telemetry import describe

log = structlog.get_logger()

_SAID_ONLY = ("title", "description", "regime", "messages", "reports", "guidance", "by_design_not", "incomplete")
"""Sections that change nothing about how a case stands."""


async def effect_of_policy(
    desk: Desk,
    tenant_id: UUID,
    stored: Stored,
    draft: CompiledPolicy,
    effect: str,
    calendars: CalendarBook,
    now: datetime,
) -> Difference:
    """Return what going on under `draft` would change about a case at `now`."""
    policies = await desk.policies(tenant_id, stored)
    present = await desk.reference.calendars(tenant_id)
    before = fold(policies, stored.timeline, present, now, policy_version=stored.policy_version, case_kind=stored.kind)
    changed = Entry(
        seq=stored.version + 1,
        kind="policy_changed",
        at=now,
        by=SYSTEM,
        data={"version": draft.version, "effect": effect},
    )
    after = fold(
        {**policies, draft.version: draft},
        [*stored.timeline, changed],
        calendars,
        now,
        policy_version=stored.policy_version,
        case_kind=stored.kind,
    )
    return difference(before, after)


async def calendars_with(reference: Reference, tenant_id: UUID, draft: CompiledPolicy, now: datetime) -> CalendarBook:
    """Return the tenant's calendars as they will be with the draft's: a calendar that it changes gets a new edition from now on."""
    book = await reference.calendars(tenant_id)
    try:
        present = (await reference.current_policy(tenant_id)).document.calendar.calendars
    except NotFoundError:
        present = {}
    for name, spec in draft.document.calendar.calendars.items():
        if present.get(name) != spec:
            book = book.with_revision(name, Revision(published_at=now, spec=spec))
    return book


async def has_other_rules(reference: Reference, tenant_id: UUID, draft: CompiledPolicy) -> bool:
    try:
        return differ(await reference.current_policy(tenant_id), draft)
    except NotFoundError:
        return True


def differ(one: CompiledPolicy, other: CompiledPolicy) -> bool:
    """Whether a case may come to stand otherwise under the other version: now, or when it gets to a rule that has changed."""
    return dict(one.settings) != dict(other.settings) or _rules(one.document) != _rules(other.document)


def _rules(document: Policy) -> list[object]:
    return [getattr(document, name) for name in Policy.__struct_fields__ if name not in _SAID_ONLY]


async def round_of_moves(desk: Desk, db: Database, batch: int) -> bool:
    """Work off one batch of each tenant's oldest publication; whether any got on."""
    async with db.worker_tx(UUID(int=0)) as tx:
        found = await moves.open_moves(tx, 100)
    got_on = False
    for tenant_id, move_id in found:
        with set_aside("moves", tenant_id):
            got_on |= await _batch(desk, db, tenant_id, move_id, batch)
    return got_on


async def _batch(desk: Desk, db: Database, tenant_id: UUID, move_id: UUID, batch: int) -> bool:
    async with db.worker_tx(tenant_id) as tx:
        move = await moves.lock(tx, tenant_id, move_id)
        if move is None:
            return False
        if move.cause == "policy":
            assert move.policy_version is not None
            await desk.reference.policy(tenant_id, move.policy_version)  # without it no case could be moved
            ids = await cases.open_cases(tx, tenant_id, ("complaint", "duty"), move.after_case, batch)
        else:
            ids = await cases.moved_by_calendar(tx, tenant_id, move.after_case, batch)
        moved = 0
        for case_id in ids:
            try:
                async with tx.transaction():
                    moved += await _move(desk, tx, move, case_id)
            except (EvaluationError, LoopError, LookupError, TypeError, ValueError) as error:
                # One case that cannot be folded must not keep the publication from the others.
                log.error("case_not_moved", tenant_id=str(tenant_id), case_id=str(case_id), **describe(error))
        if ids:
            await moves.advance(tx, tenant_id, move_id, ids[-1], len(ids), moved)
        if len(ids) < batch:
            await moves.finish(tx, tenant_id, move_id)
    return True


async def _move(desk: Desk, tx: Tx, move: Move, case_id: UUID) -> bool:
    """Whether the publication moves the case; if so it is entered."""
    writing = await desk.begin(tx, case_id)
    if writing is None or not await _reach(desk, writing, move):
        return False
    await desk.save(writing)
    return True


async def _reach(desk: Desk, writing: Writing, move: Move) -> bool:
    """Enter the publication in a case that it moves; whether it does."""
    if move.cause == "policy":
        assert move.policy_version is not None
        if writing.policy.version >= move.policy_version:
            return False  # received under it, or moved on by a later one
        published = await desk.reference.policy(writing.tenant_id, move.policy_version)
        if not differ(writing.policy, published):
            return False
        data = {"version": move.policy_version, "effect": move.effect}
        return (
            await desk.add(writing, "policy_changed", SYSTEM, data, key=f"policy:{move.policy_version}", checked=False)
            is not None
        )
    data = {"name_of_calendar": move.calendar, "version": move.revision}
    before = writing.replayed().standing(writing.now)
    trial = writing.replayed()
    trial.apply(writing.entry("calendar_changed", SYSTEM, dict(data)))
    if not moved_clocks(before, trial.standing(writing.now)):
        return False
    key = f"calendar:{move.calendar}:{move.revision}"
    return await desk.add(writing, "calendar_changed", SYSTEM, dict(data), key=key, checked=False) is not None

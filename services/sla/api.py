"""HTTP edge: clocks, penalties and their explanations, the ledger, announcements. Decode, call, encode."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Struct

from services.sla import repository
from services.sla.folding import TICKS, Folding
from services.sla.repository import Watched
from shared.auth import Caller, requires
from shared.database import Tx
from shared.engine.case import Case
from shared.engine.explaining import Explanation, explain_clocks, explain_penalty
from shared.engine.model import ClockView, CounterView, EffectView, PenaltyView, Problem
from shared.errors import InvalidError, NotFoundError
from shared.messages import LIVE
from shared.service import Runtime

READERS: Final = ("admin", "supervisor", "handler", "auditor", "integration")
Limit = Annotated[int, QueryParameter(ge=1, le=500)]
Word = Annotated[str | None, QueryParameter(max_length=120)]


class Clocks(Struct, frozen=True):
    """The clocks of a case as of `now`; `as_of_seq` is the last line of the timeline that has arrived here."""

    case_id: UUID
    as_of_seq: int
    now: datetime
    next_at: datetime | None
    clocks: tuple[ClockView, ...]


class Penalties(Struct, frozen=True):
    case_id: UUID
    as_of_seq: int
    now: datetime
    penalties: tuple[PenaltyView, ...]
    counters: tuple[CounterView, ...]


class Explanations(Struct, frozen=True):
    case_id: UUID
    as_of_seq: int
    now: datetime
    policy_version: int
    clocks: list[Explanation]
    penalties: list[Explanation]
    problems: tuple[Problem, ...]


class LedgerRow(Struct, frozen=True):
    posting_id: UUID
    case_id: UUID
    rule: str
    party: str
    kind: str
    state: str | None
    currency: str
    difference_minor: int
    month: str
    posted_at: datetime
    penalty: PenaltyView


class Ledger(Struct, frozen=True):
    rows: list[LedgerRow]
    next_cursor: UUID | None


class Balance(Struct, frozen=True):
    party: str
    month: str
    kind: str
    currency: str
    balance_minor: int
    rows: int


class Balances(Struct, frozen=True):
    balances: list[Balance]


class Announcement(Struct, frozen=True):
    case_id: UUID
    effect: EffectView
    late: bool
    made_at: datetime
    withdrawn_at: datetime | None


class Announcements(Struct, frozen=True):
    announcements: list[Announcement]
    next_cursor: str | None


async def _folded(runtime: Runtime[Any], tx: Tx, caller: Caller, case_id: UUID) -> tuple[Watched, Case, datetime]:
    """The case as of the last tick. Not found only where nothing of it is known here; it may still be on its way from intake."""
    watched = await repository.watched(tx, caller.tenant_id, case_id)
    if watched is None or not watched.timeline:
        raise NotFoundError("No such case is known here; one that was stored a moment ago may still be on its way.")
    ticks: dict[UUID, datetime] = runtime.parts.get(TICKS, {})
    folded = await Folding(runtime.reference, caller.tenant_id).fold(watched)
    tenant = await runtime.reference.tenant(caller.tenant_id)
    now = ticks.get(caller.tenant_id if tenant.sandbox else LIVE, watched.timeline[-1].at)
    return watched, folded, max(now, watched.timeline[-1].at)


@get("/v1/cases/{case_id:uuid}/clocks", guards=[requires(*READERS)], operation_id="get_clocks")
async def clocks(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Clocks:
    """Every run of every clock of a case, with its due instant and state."""
    _, folded, now = await _folded(runtime, tx, caller, case_id)
    standing = folded.standing(now)
    return Clocks(case_id, standing.seq, now, standing.next_at, standing.clocks)


@get("/v1/cases/{case_id:uuid}/penalties", guards=[requires(*READERS)], operation_id="get_penalties")
async def penalties(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Penalties:
    """What is imposed on whom in a case, and what its counters say."""
    _, folded, now = await _folded(runtime, tx, caller, case_id)
    standing = folded.standing(now)
    return Penalties(case_id, standing.seq, now, standing.penalties, standing.counters)


@get("/v1/cases/{case_id:uuid}/explanations", guards=[requires(*READERS)], operation_id="get_explanations")
async def explanations(
    case_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    lang: FromQuery[Literal["en", "zh"]] = "en",
) -> Explanations:
    """Why each due instant and each amount is what it is, step by step."""
    _, folded, now = await _folded(runtime, tx, caller, case_id)
    standing = folded.standing(now)
    return Explanations(
        case_id,
        standing.seq,
        now,
        standing.policy_version,
        explain_clocks(folded, lang),
        [explain_penalty(folded, view, lang) for view in standing.penalties],
        standing.problems,
    )


@get("/v1/ledger", guards=[requires("admin", "supervisor", "auditor")], operation_id="get_ledger")
async def ledger(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    party: Word = None,
    month: Word = None,
    case_id: FromQuery[UUID | None] = None,
    cursor: FromQuery[UUID | None] = None,
    limit: Limit = 100,
) -> Ledger:
    """Rows of the penalty ledger, oldest first."""
    rows = await repository.ledger(tx, caller.tenant_id, party, month, case_id, cursor, limit)
    found = [
        LedgerRow(
            row["posting_id"],
            row["case_id"],
            row["rule"],
            row["party"],
            row["kind"],
            row["state"],
            row["currency"],
            row["difference_minor"],
            row["month"],
            row["posted_at"],
            msgspec.json.decode(row["penalty"], type=PenaltyView),
        )
        for row in rows
    ]
    return Ledger(found, found[-1].posting_id if len(found) == limit else None)


@get(
    "/v1/ledger/balances", guards=[requires("admin", "supervisor", "auditor")], summary="What each party owes, by month"
)
async def balances(
    caller: NamedDependency[Caller], tx: NamedDependency[Tx], party: Word = None, month: Word = None
) -> Balances:
    """What each party owes, by month and kind."""
    rows = await repository.balances(tx, caller.tenant_id, party, month)
    return Balances([Balance(**dict(row)) for row in rows])


@get("/v1/announcements", guards=[requires(*READERS)], operation_id="get_announcements")
async def announcements(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    case_id: FromQuery[UUID | None] = None,
    kind: Word = None,
    cursor: FromQuery[str | None] = None,
    limit: Limit = 100,
) -> Announcements:
    """What the system did by itself, newest first."""
    rows = await repository.announcements(tx, caller.tenant_id, case_id, kind, _before(cursor), limit)
    found = [
        Announcement(
            row["case_id"],
            repository.effect_of(row),
            row["late"],
            row["made_at"],
            row["withdrawn_at"],
        )
        for row in rows
    ]
    last = found[-1] if len(found) == limit else None
    return Announcements(
        found, None if last is None else f"{last.effect.at.isoformat()}|{last.case_id}|{last.effect.key}"
    )


def _before(cursor: str | None) -> tuple[datetime, UUID, str] | None:
    if cursor is None:
        return None
    at, _, rest = cursor.partition("|")
    case_id, _, key = rest.partition("|")
    try:
        return datetime.fromisoformat(at), UUID(case_id), key
    except ValueError:
        raise InvalidError("The cursor is none that this list gave.") from None


HANDLERS = [clocks, penalties, explanations, ledger, balances, announcements]

"""HTTP edge: statistics, reports, facts and exports. Decode, read, encode; no rules.

All of it may lag behind what was just stored: every answer says with `as_of_seq` how far it goes, and an unknown case is an empty answer,
not 404.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream
from msgspec import Struct

from services.reporting import repository
from services.reporting.domain import exporting
from services.reporting.domain.rollups import DIMENSIONS, WHOLE
from services.reporting.domain.telling import StoredFact
from services.reporting.loops import Rebuilt, rebuild
from services.reporting.repository import Filter, Place
from services.reporting.settings import ReportingSettings
from shared.auth import Caller, requires
from shared.database import Tx
from shared.engine.facts import FactClock, FactPenalty, Figure, Tally, parse_period, period_at
from shared.engine.periods import Period
from shared.engine.rules import CompiledPolicy, ReportRule
from shared.errors import InvalidError, MalformedError, NotFoundError
from shared.service import Runtime
from shared.time_source import now_in

BEGINNING: Final[Place] = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))

_READERS: Final = ("admin", "supervisor", "auditor")
DateFrom = Annotated[date | None, QueryParameter(name="from", description="first day of receipt, in the tenant's zone")]
DateTo = Annotated[date | None, QueryParameter(name="to", description="day after the last day of receipt")]
Word = Annotated[str | None, QueryParameter(max_length=120)]


class TooMuchError(InvalidError):
    slug = "too-much-to-count"
    title = "More complaints than one answer may count; ask for a shorter time."


class BadCursorError(MalformedError):
    slug = "bad-cursor"
    title = "The cursor is not one that a page has given."


class BadPeriodError(InvalidError):
    slug = "bad-period"
    title = "The period cannot be read."


# --- statistics


class Counts(Struct, frozen=True, kw_only=True):
    """Complaints by what became of them; `on_time` met a limit and broke none, `late` broke one, what has neither is undecided."""

    received: int
    accepted: int
    declined: int
    assigned: int
    on_time: int
    late: int
    escalated: int
    escalations: int
    closed: int
    fines: dict[str, int]  # by currency, minor units


class Amount(Struct, frozen=True, kw_only=True):
    """What the ledger has posted."""

    kind: str
    currency: str
    amount_minor: int


class Messages(Struct, frozen=True, kw_only=True):
    channel: str
    state: str
    count: int


class Statistics(Counts, frozen=True, kw_only=True):
    """Figures of the complaints received in `[from, to)`. In `by`, the part "" is what is not known (yet)."""

    from_: date | None = msgspec.field(name="from")
    to: date | None
    as_of_seq: int  # how many entries of complaints' timelines the figures cover, of all times
    behind: int  # cases with news that is not counted yet, 10 000 at most
    amounts: list[Amount]
    messages: list[Messages]
    by: dict[str, dict[str, Counts]]


@get("/v1/statistics", guards=[requires(*_READERS)], operation_id="get_statistics")
async def get_statistics(tx: NamedDependency[Tx], from_: DateFrom = None, to: DateTo = None) -> Statistics:
    """How many complaints were received, handled, late, escalated and closed, and what was imposed."""
    found = await repository.sums(tx, tx.tenant_id, [WHOLE, *DIMENSIONS], from_, to)
    whole = found.get((WHOLE, ""), {})
    by: dict[str, dict[str, Counts]] = {dimension: {} for dimension in DIMENSIONS}
    for (dimension, part), measures in found.items():
        if dimension != WHOLE:
            by[dimension][part] = _counts(measures)
    return Statistics(
        **msgspec.structs.asdict(_counts(whole)),
        from_=from_,
        to=to,
        as_of_seq=await repository.covered(tx, tx.tenant_id),
        behind=await repository.count_stale(tx, tx.tenant_id),
        amounts=[
            Amount(kind=kind, currency=currency, amount_minor=minor)
            for kind, currency, minor in _split(whole, "amount")
        ],
        messages=[
            Messages(channel=channel, state=state, count=number) for channel, state, number in _split(whole, "messages")
        ],
        by=by,
    )


def _counts(measures: dict[str, int]) -> Counts:
    fines = {currency: minor for kind, currency, minor in _split(measures, "amount") if kind == "fine"}
    known = {name: measures.get(name, 0) for name in Counts.__struct_fields__ if name != "fines"}
    return Counts(**known, fines=fines)


def _split(measures: dict[str, int], name: str) -> list[tuple[str, str, int]]:
    """Return the measures called `<name>:<one>:<other>`."""
    found = [(measure.split(":"), amount) for measure, amount in measures.items() if measure.startswith(f"{name}:")]
    return [(one, other, amount) for (_, one, other), amount in found]


# --- reports


class ReportView(Struct, frozen=True, kw_only=True):
    """A row of the policy's reports."""

    row: str
    clause: str | list[str] | None
    title: str | dict[str, str]
    value: str
    period: str
    period_of: str
    by: list[str]
    entries: list[str]
    target: str | None


class Reports(Struct, frozen=True, kw_only=True):
    policy_version: int | None  # None: no policy has been published, or it is still on its way
    items: list[ReportView]


class Report(Struct, frozen=True, kw_only=True):
    row: str
    period: str
    policy_version: int
    as_of_seq: int
    behind: int
    figures: list[Figure]


@get("/v1/reports", guards=[requires(*_READERS)], operation_id="list_reports")
async def list_reports(caller: NamedDependency[Caller], runtime: NamedDependency[Runtime[Any]]) -> Reports:
    """The report rows that the present policy defines."""
    try:
        policy = await runtime.reference.current_policy(caller.tenant_id)
    except NotFoundError:
        return Reports(policy_version=None, items=[])
    titles = [row.title for row in policy.document.reports]
    return Reports(
        policy_version=policy.version,
        items=[
            ReportView(
                row=rule.row,
                clause=rule.clause,
                title=titles[int(rule.path.rpartition("/")[2])],
                value=rule.value,
                period=rule.period,
                period_of="entry" if rule.entries else rule.period_of,
                by=list(rule.by),
                entries=list(rule.entries),
                target=rule.target,
            )
            for rule in policy.reports
        ],
    )


@get("/v1/reports/{row:str}", guards=[requires(*_READERS)], operation_id="get_report")
async def get_report(
    row: FromPath[str],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    period: Annotated[
        str | None, QueryParameter(max_length=30, description="2026-03, 2026-Q1, 2026-H1, 2026, …")
    ] = None,
    clause: Word = None,
    each: Annotated[bool, QueryParameter(description="each of the row's own periods within `period`")] = False,
) -> Report:
    """The figures of one row for a period, by default the present one of the row's own length."""
    policy = await runtime.reference.current_policy(tx.tenant_id)
    rules = [rule for rule in policy.reports if rule.row == row and _has_clause(rule, clause)]
    if not rules:
        raise NotFoundError("The policy defines no such report row.")
    zone = ZoneInfo((await runtime.reference.tenant(tx.tenant_id)).zone)
    now = await now_in(tx)
    wanted = _wanted_period(period, rules[0], now, zone)
    start_at, end_at = wanted.bounds(zone)
    only = None if each else wanted
    tallies = [Tally(rule, zone, now, only=only, settings=policy.settings) for rule in rules]
    by_receipt = all(rule.period_of == "received" and not rule.entries for rule in rules)
    after = (start_at, UUID(int=0)) if by_receipt else BEGINNING
    which = Filter(received_before=end_at, touched_since=start_at)
    await _count(tx, runtime.settings, tallies, rules, which, after)
    figures = [figure for tally in tallies for figure in tally.figures() if _lies_in(figure, wanted)]
    return Report(
        row=row,
        period=wanted.name,
        policy_version=policy.version,
        as_of_seq=await repository.covered(tx, tx.tenant_id),
        behind=await repository.count_stale(tx, tx.tenant_id),
        figures=figures,
    )


async def _count(
    tx: Tx,
    settings: ReportingSettings,
    tallies: Sequence[Tally],
    rules: Sequence[ReportRule],
    which: Filter,
    after: Place,
) -> None:
    """Show every fact within reach to the tallies, a page at a time."""
    kinds = sorted({trigger.partition(":")[0] for rule in rules for trigger in rule.entries})
    counted = 0
    async for facts in repository.pages(tx, tx.tenant_id, which, after, settings.page_rows):
        counted += len(facts)
        if counted > settings.report_rows:
            raise TooMuchError(f"At most {settings.report_rows} are counted.", limit=settings.report_rows)
        entries = await repository.entries_of(tx, tx.tenant_id, facts, kinds) if kinds else {}
        for stored in facts:
            told = tuple(entries.get(stored.case_id, ()))
            fact = msgspec.structs.replace(stored.body, entries=told) if told else stored.body
            for tally in tallies:
                tally.add(fact)


def _has_clause(rule: ReportRule, clause: str | None) -> bool:
    return clause is None or clause == rule.clause or (isinstance(rule.clause, list) and clause in rule.clause)


def _wanted_period(text: str | None, rule: ReportRule, now: datetime, zone: ZoneInfo) -> Period:
    if text is None:
        return period_at(now, rule.period, zone, rule.first_month)
    try:
        return parse_period(text)
    except ValueError as error:
        raise BadPeriodError(str(error)) from None


def _lies_in(figure: Figure, wanted: Period) -> bool:
    found = parse_period(figure.period)
    return wanted.start_on <= found.start_on and found.end_on <= wanted.end_on


# --- facts


class FactView(Struct, frozen=True, kw_only=True):
    """One case. Own fields that are restricted are left out for callers who may not see personal data."""

    case_id: UUID
    case_kind: str
    number: str
    as_of_seq: int
    received_at: datetime
    handled_at: datetime | None
    resolved_at: datetime | None
    closed_at: datetime | None
    assigned_at: datetime | None
    due_at: datetime | None
    kind: str | None
    category: str | None
    severity: str | None
    priority: str | int | None
    outcome: str | None
    channel: str | None
    source: str | None
    state: str | None
    accepted: bool | None
    decline_reason: str | None
    anonymous: bool
    complainant_type: str | None
    respondent: dict[str, Any]
    handler: dict[str, Any]
    fields: dict[str, Any]
    rating: str | None
    clocks: dict[str, str]
    runs: list[FactClock]
    breached: list[str]
    on_time: bool
    late: bool
    escalated: int
    rounds: int
    good_reason: bool
    fines_minor: int
    penalties: list[FactPenalty]
    facts: dict[str, Any]


class FactPage(Struct, frozen=True, kw_only=True):
    items: list[FactView]
    next_cursor: str | None
    as_of_seq: int
    behind: int


@get("/v1/facts", guards=[requires(*_READERS)], operation_id="list_facts")
async def list_facts(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    from_: DateFrom = None,
    to: DateTo = None,
    case_id: Annotated[UUID | None, QueryParameter()] = None,
    case_kind: Word = None,
    kind: Word = None,
    category: Word = None,
    severity: Word = None,
    channel: Word = None,
    unit: Word = None,
    state_: Annotated[str | None, QueryParameter(name="state", max_length=120)] = None,
    outcome: Word = None,
    late: Annotated[bool | None, QueryParameter()] = None,
    cursor: Annotated[str | None, QueryParameter(max_length=200)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
) -> FactPage:
    """One row for each case, by receipt; `next_cursor` leads to the next page."""
    zone = ZoneInfo((await runtime.reference.tenant(tx.tenant_id)).zone)
    after, before = _reach(from_, to, zone)
    if cursor is not None:
        after = max(after, _place(cursor))
    which = Filter(
        received_before=before,
        case_id=case_id,
        case_kind=case_kind,
        kind=kind,
        category=category,
        severity=severity,
        channel=channel,
        unit=unit,
        state=state_,
        outcome=outcome,
        late=late,
    )
    facts = await repository.page(tx, tx.tenant_id, which, after, limit)
    fields = await _visible_fields(runtime, caller)
    last = facts[-1] if len(facts) == limit else None
    return FactPage(
        items=[_view(stored, fields) for stored in facts],
        next_cursor=_cursor((last.received_at, last.case_id)) if last else None,
        as_of_seq=await repository.covered(tx, tx.tenant_id),
        behind=await repository.count_stale(tx, tx.tenant_id),
    )


def _reach(from_: date | None, to: date | None, zone: ZoneInfo) -> tuple[Place, datetime | None]:
    """Return the place after which the days `[from, to)` begin, and the instant before which they end."""
    start = BEGINNING if from_ is None else (_midnight(from_, zone), UUID(int=0))
    return start, None if to is None else _midnight(to, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    try:
        return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    except OverflowError:
        raise BadPeriodError(f"{day} is out of reach.") from None


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _place(cursor: str) -> Place:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        received_at, case_id = msgspec.json.decode(text, type=tuple[datetime, UUID])
        return received_at.astimezone(UTC), case_id
    except (msgspec.DecodeError, binascii.Error, ValueError, OverflowError):
        raise BadCursorError() from None


async def _visible_fields(runtime: Runtime[Any], caller: Caller) -> list[str]:
    """Return the names of the tenant's own fields that the caller may see: those the present policy knows, unless it hides them."""
    try:
        policy: CompiledPolicy = await runtime.reference.current_policy(caller.tenant_id)
    except NotFoundError:
        return []
    declared = policy.document.vocabulary.fields
    hides = not caller.sees_personal_data
    return [name for name, field in declared.items() if not field.personal and not (field.restricted and hides)]


def _view(stored: StoredFact, visible: Sequence[str]) -> FactView:
    row = stored.body
    known = {name: getattr(row, name) for name in FactView.__struct_fields__ if name in type(row).__struct_fields__}
    known |= {
        "fields": {name: row.fields[name] for name in visible if name in row.fields},
        "runs": list(row.runs),
        "breached": list(row.breached),
        "penalties": list(row.penalties),
    }
    return FactView(
        case_id=stored.case_id,
        number=stored.number,
        as_of_seq=stored.seq,
        received_at=stored.received_at,
        **known,
    )


# --- exports


@get("/v1/exports/facts.csv", guards=[requires(*_READERS)], operation_id="export_facts", media_type="text/csv")
async def export_facts(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    from_: DateFrom = None,
    to: DateTo = None,
    bom: Annotated[bool, QueryParameter(description="begin with a byte order mark, for spreadsheets")] = False,
) -> Stream:
    """The complaints as CSV (RFC 4180, UTF-8). Cells that a spreadsheet might run have an apostrophe before them."""
    settings: ReportingSettings = runtime.settings
    zone = ZoneInfo((await runtime.reference.tenant(tx.tenant_id)).zone)
    after, before = _reach(from_, to, zone)
    which = Filter(received_before=before, case_kind="complaint")
    if await repository.exceeds(tx, tx.tenant_id, after[0], before, settings.export_rows):
        raise TooMuchError(f"At most {settings.export_rows} are exported.", limit=settings.export_rows)
    fields = await _visible_fields(runtime, caller)
    as_of_seq = await repository.covered(tx, tx.tenant_id)

    async def lines() -> AsyncIterator[bytes]:
        """Each page in a transaction of its own: a slow reader holds no connection."""
        yield (exporting.BOM.encode() if bom else b"") + exporting.to_csv([exporting.heading(fields)])
        place = after
        while True:
            async with runtime.db.api_tx(caller.tenant_id) as page_tx:
                facts = await repository.page(page_tx, caller.tenant_id, which, place, settings.page_rows)
            if not facts:
                return
            yield exporting.to_csv(exporting.line(stored, fields) for stored in facts)
            place = (facts[-1].received_at, facts[-1].case_id)

    headers = {
        "Content-Disposition": 'attachment; filename="facts.csv"',
        "X-Content-Type-Options": "nosniff",
        "Recourse-As-Of-Seq": str(as_of_seq),
    }
    return Stream(lines(), media_type="text/csv; charset=utf-8", headers=headers)


# --- counting anew


@post(
    "/v1/ops/reporting/tenants/{tenant_id:uuid}/rebuild",
    guards=[requires("operator")],
    status_code=200,
    operation_id="rebuild_facts",
)
async def rebuild_facts(tenant_id: FromPath[UUID], runtime: NamedDependency[Runtime[Any]]) -> Rebuilt:
    """Make the tenant's facts and sums again from what was told, and say what differed: all zeros when all is well."""
    await runtime.reference.tenant(tenant_id)
    return await rebuild(runtime.db, tenant_id, runtime.settings.fact_batch)


routes: Final = (get_statistics, list_reports, get_report, list_facts, export_facts, rebuild_facts)

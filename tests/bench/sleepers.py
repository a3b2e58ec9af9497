"""Sleeping cases, loaded straight into the schemas: a million that nothing will happen to, and those whose time has come.

Only those that fall due have a timeline. They follow six of the ready-made templates, stand before one of their own instants (a warning, a
limit, a further step), and have been told and posted what came before it, as the engine itself says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import msgspec
from msgspec import Struct

from services.routing.domain.columns import columns
from services.sla.domain.ledger import digest_of as penalty_digest
from services.sla.domain.ledger import owed_minor
from services.sla.domain.standing import digest_of as standing_digest
from shared.engine.calendar import CalendarBook
from shared.engine.case import Case, replay
from shared.engine.model import SYSTEM, Actor, Entry, Standing
from shared.engine.rules import CompiledPolicy
from shared.messages.intake import Limits
from shared.policy.compiling import compile_policy
from shared.policy.documents import parse
from shared.policy.template_files import text_of
from shared.reference import book_of

BY_CALENDAR: Final = ("R02", "R07", "R20", "R37")  # limits in days and working days: most fall on the end of a day
BY_AGREEMENT: Final = ("R06", "R25")  # limits that are agreed with the complainant: any instant
TENANTS_EACH: Final = 2
SHAPES_EACH: Final = 150  # different cases of a tenant, repeated under other ids
ZONE: Final = "Asia/Shanghai"
LONGEST_WALK: Final = 12


class Regime(Struct, kw_only=True):
    """One tenant and its rules."""

    tenant_id: UUID
    template: str
    document: dict[str, Any]
    policy: CompiledPolicy
    book: CalendarBook


class Shape(Struct, kw_only=True):
    """One case asleep: what is stored of it, and when it wakes."""

    tenant_id: UUID
    timeline: list[Entry]
    wake_at: datetime
    asleep: Standing
    digest: bytes


def regimes() -> list[Regime]:
    """Tenants, those by agreement last."""
    found = []
    published = datetime.now(UTC) - timedelta(days=400)
    for template in (*BY_CALENDAR, *BY_AGREEMENT):
        document = parse(text_of(template)).values
        policy = compile_policy(document, {}, 1)
        policies = [{"version": 1, "section": document.get("calendar"), "published_at": published}]
        for _ in range(TENANTS_EACH):
            found.append(
                Regime(
                    tenant_id=uuid4(),
                    template=template,
                    document=document,
                    policy=policy,
                    book=book_of(ZONE, policies, []),
                )
            )
    return found


def by_agreement(found: Sequence[Regime]) -> list[Regime]:
    return [regime for regime in found if regime.template in BY_AGREEMENT]


# -- shapes ----------------------------------------------------------------------------------------------------------------------------


def overdue(regime: Regime, now: datetime, number: int, chance: random.Random) -> Iterator[Shape]:
    """Cases before the last of their instants up to now; any of the last days, as after an interruption of sla."""
    while number:
        received_at = now - timedelta(seconds=chance.uniform(3 * 86_400, 14 * 86_400))
        agreed_at = now - timedelta(seconds=chance.uniform(1, 86_400))
        shape = _last_before(regime, _timeline(regime, received_at, agreed_at, chance), now)
        if shape is not None:
            number -= 1
            yield shape


def due_at(regime: Regime, at: datetime, chance: random.Random) -> Shape:
    """A case whose agreed date is this instant."""
    timeline = _timeline(regime, at - timedelta(seconds=chance.uniform(86_400, 5 * 86_400)), at, chance)
    case = replay({1: regime.policy}, timeline, regime.book)
    asleep = case.standing(at - timedelta(milliseconds=1))
    if asleep.next_at is None or abs(asleep.next_at - at) > timedelta(milliseconds=1):
        raise SystemExit(f"{regime.template} has nothing due at an agreed date any more")
    return _shape(regime, timeline, asleep.next_at, case, asleep)


def _timeline(regime: Regime, received_at: datetime, agreed_at: datetime, chance: random.Random) -> list[Entry]:
    categories = list(regime.document["vocabulary"].get("categories", {})) or [None]
    clerk = Actor(id="h1", roles=("handler",))
    received = {
        "channel": "phone",
        "category": chance.choice(categories),
        "respondent": {"staff": "s1", "unit": "office"},
        "handler": {"staff": "h1", "unit": "office"},
        "fields": {},
    }
    hour = timedelta(hours=1)
    lines: list[tuple[str, datetime, Actor, dict[str, Any]]] = [
        ("received", received_at, Actor(id="intake"), received),
        ("assigned", received_at, SYSTEM, {"unit": "office", "staff": "h1"}),
        ("accepted", received_at + hour, clerk, {"by": agreed_at.isoformat()}),
        ("agreed", received_at + 2 * hour, clerk, {"by": agreed_at.isoformat()}),
    ]
    return [Entry(seq=seq, kind=kind, at=at, by=by, data=data) for seq, (kind, at, by, data) in enumerate(lines, 1)]


def _last_before(regime: Regime, timeline: list[Entry], now: datetime) -> Shape | None:
    """The case right before its last own instant up to `now`; None when nothing is told then."""

    def at(instant: datetime) -> tuple[Case, Standing]:
        case = replay({1: regime.policy}, timeline, regime.book)
        return case, case.standing(instant)

    wake_at, instant = None, timeline[-1].at
    for _ in range(LONGEST_WALK):
        upcoming = at(instant)[1].next_at
        if upcoming is None or upcoming > now:
            break
        wake_at = instant = upcoming
    if wake_at is None:
        return None
    case, asleep = at(wake_at - timedelta(microseconds=1))
    if len(at(now)[1].effects) == len(asleep.effects):
        return None
    return _shape(regime, timeline, wake_at, case, asleep)


def _shape(regime: Regime, timeline: list[Entry], wake_at: datetime, case: Case, asleep: Standing) -> Shape:
    facts = {name: value for name, _, value in case.facts()}
    digest = standing_digest(asleep, facts)
    return Shape(tenant_id=regime.tenant_id, timeline=timeline, wake_at=wake_at, asleep=asleep, digest=digest)


# -- loading ---------------------------------------------------------------------------------------------------------------------------

TENANT = """
INSERT INTO {schema}.tenant (tenant_id, revision, slug, name, zone, sandbox, active, limits)
VALUES ($1, 1, $2, 'A tenant', $3, false, true, $4::text::jsonb)"""

POLICY = """
INSERT INTO {schema}.policy (tenant_id, version, document, settings, effect, published_by, published_at)
VALUES ($1, 1, $2::text::json, '{{}}', 'keep', 'admin', clock_timestamp() - interval '400 days')"""

SLEEPERS = """
INSERT INTO sla.watched_case (tenant_id, case_id, case_kind, policy_version, number, wake_at, folded_seq, folded_at, digest)
SELECT ($1::uuid[])[1 + n % cardinality($1::uuid[])], uuidv7(), 'complaint', 1, 'C-' || n,
       clock_timestamp() + interval '2 hours' + n % 9973 * interval '5 minutes', 4, clock_timestamp(), sha256(n::text::bytea)
  FROM generate_series($2::bigint, $3::bigint) AS n"""

# The cases that fall due wait beside the tables until `wake` puts them in.
WAITING = """
CREATE TABLE IF NOT EXISTS public.waiting_shape (
    shape integer, tenant_id uuid, wake_at timestamptz, seq integer, digest bytea, timeline json, told json, positions json);
CREATE TABLE IF NOT EXISTS public.waiting_case (shape integer, case_id uuid DEFAULT uuidv7())"""

CASES = """
INSERT INTO public.waiting_case (shape) SELECT shape FROM public.waiting_shape, generate_series(1, $1)"""

ENTRIES = """
INSERT INTO sla.timeline_entry (tenant_id, case_id, seq, entry)
SELECT s.tenant_id, c.case_id, e.seq, e.entry
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape),
       json_array_elements(s.timeline) WITH ORDINALITY AS e (entry, seq)"""

TOLD = """
INSERT INTO sla.announcement (tenant_id, case_id, key, rule, clause, kind, at, addressee, what, data, late, silent)
SELECT s.tenant_id, c.case_id, e ->> 'key', e ->> 'rule', e -> 'clause', e ->> 'kind', (e ->> 'at')::timestamptz, e ->> 'to', e ->> 'what',
       e -> 'data', false, false
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape),
       json_array_elements(s.told) AS e"""

POSITIONS = """
INSERT INTO sla.ledger_position (tenant_id, case_id, key, posted_minor, digest, penalty)
SELECT s.tenant_id, c.case_id, p ->> 'key', (p ->> 'posted_minor')::bigint, decode(p ->> 'digest', 'hex'), p -> 'penalty'
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape),
       json_array_elements(s.positions) AS p"""

WAKE = """
INSERT INTO sla.watched_case (tenant_id, case_id, case_kind, policy_version, number, wake_at, folded_seq, folded_at, digest, postings)
SELECT s.tenant_id, c.case_id, 'complaint', 1, 'D-' || c.shape, s.wake_at, s.seq, s.wake_at - interval '1 hour', s.digest,
       json_array_length(s.positions)
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape)
 ORDER BY s.wake_at"""

ROUTING_CASES = """
INSERT INTO routing."case" (tenant_id, case_id, kind, number, source, policy_version, current_policy_version, version, state, rank,
                            owner_unit, owner_staff, received_at, changed_at, due_at)
SELECT s.tenant_id, c.case_id, 'complaint', 'D-' || c.shape, 'api', 1, 1, s.seq, r.state, 50, 'office', 'h1', r.received_at, r.changed_at,
       r.due_at
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape)
  JOIN unnest($1::integer[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[])
       AS r (shape, state, received_at, changed_at, due_at) USING (shape)"""

ROUTING_ENTRIES = """
INSERT INTO routing.entry (tenant_id, case_id, seq, kind, at, by, data)
SELECT s.tenant_id, c.case_id, e.seq, e.entry ->> 'kind', (e.entry ->> 'at')::timestamptz, e.entry -> 'by', e.entry -> 'data'
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape),
       json_array_elements(s.timeline) WITH ORDINALITY AS e (entry, seq)"""

ROUTING_ASSIGNMENTS = """
INSERT INTO routing.assignment (tenant_id, assignment_id, case_id, seq, unit, staff_id, named, assigned_at)
SELECT s.tenant_id, uuidv7(), c.case_id, 2, 'office', 'h1', '2:assigned', clock_timestamp() - interval '1 hour'
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape)"""

ROUTING_WAKE = """
INSERT INTO routing.wake_up (tenant_id, case_id, wake_at, sandbox)
SELECT s.tenant_id, c.case_id, s.wake_at, false
  FROM public.waiting_case c
  JOIN public.waiting_shape s USING (shape)"""


async def put_regimes(root: asyncpg.Connection, found: Sequence[Regime]) -> None:
    """Tenants and policies, as sla and routing know them."""
    for schema in ("sla", "routing"):
        for regime in found:
            limits = msgspec.json.encode(Limits()).decode()
            await root.execute(TENANT.format(schema=schema), regime.tenant_id, regime.tenant_id.hex, ZONE, limits)
            document = msgspec.json.encode(regime.document).decode()
            await root.execute(POLICY.format(schema=schema), regime.tenant_id, document)


async def put_sleepers(dsn: str, found: Sequence[Regime], first: int, last: int) -> None:
    """Cases that sleep on while we measure, numbered first…last; over two connections, since there are two cores."""
    tenant_ids = [regime.tenant_id for regime in found]
    starts = iter(range(first, last + 1, 50_000))

    async def put() -> None:
        connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC"})
        try:
            for start in starts:
                await connection.execute(SLEEPERS, tenant_ids, start, min(start + 49_999, last))
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(put())


async def prepare(root: asyncpg.Connection, shapes: Sequence[Shape], copies: int) -> int:
    """Everything of the cases but the row that wakes them; returns how many there are."""
    await root.execute(WAITING)
    await root.execute("TRUNCATE public.waiting_shape, public.waiting_case")
    await root.copy_records_to_table(
        "waiting_shape", schema_name="public", records=[_record(number, shape) for number, shape in enumerate(shapes)]
    )
    await root.execute(CASES, copies)
    await root.execute("ANALYZE public.waiting_shape, public.waiting_case")
    for statement in (ENTRIES, TOLD, POSITIONS):
        await root.execute(statement)
    return len(shapes) * copies


async def wake(root: asyncpg.Connection) -> None:
    """Put the prepared cases on the list, all at once."""
    await root.execute(WAKE)


async def prepare_routing(root: asyncpg.Connection, shapes: Sequence[Shape]) -> None:
    """The prepared cases as routing has them, which it looks at when they fall due, too; nobody is assigned anew."""
    found = [columns(shape.asleep) for shape in shapes]
    async with root.transaction():
        await root.execute(
            ROUTING_CASES,
            list(range(len(shapes))),
            [each.state for each in found],
            [shape.timeline[0].at for shape in shapes],
            [shape.timeline[-1].at for shape in shapes],
            [each.due_at for each in found],
        )
        for statement in (ROUTING_ENTRIES, ROUTING_ASSIGNMENTS, ROUTING_WAKE):
            await root.execute(statement)


def _record(number: int, shape: Shape) -> tuple[Any, ...]:
    positions = [
        {"key": view.key, "posted_minor": owed_minor(view), "digest": penalty_digest(view).hex(), "penalty": view}
        for view in shape.asleep.penalties
    ]
    return (
        number,
        shape.tenant_id,
        shape.wake_at,
        shape.timeline[-1].seq,
        shape.digest,
        msgspec.json.encode(shape.timeline).decode(),
        msgspec.json.encode(shape.asleep.effects).decode(),
        msgspec.json.encode(positions).decode(),
    )

"""I8: the figures of reports against a recount of what the other services have stored and told."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any, Final
from uuid import UUID

from services.audit.look import Look
from services.audit.told import UNTOLD

Cell = tuple[UUID, date, str, str, str]  # tenant, day, dimension, part, measure

CASES: Final = """
SELECT c.tenant_id, c.case_id, c.kind, c.version, e.at
  FROM routing."case" c
  LEFT JOIN routing.entry e ON e.tenant_id = c.tenant_id AND e.case_id = c.case_id AND e.seq = 1"""

FACTS: Final = """
SELECT tenant_id, case_id, case_kind, seq, day, number
  FROM reporting.fact
 WHERE seq > 0"""

ROLLUP: Final = """
SELECT tenant_id, day, dimension, part, measure, sum(amount)::bigint AS amount, count(*) AS n
  FROM reporting.rollup
 GROUP BY tenant_id, day, dimension, part, measure"""

# The sums from what each fact says that it adds.
OF_FACTS: Final = """
WITH whole AS (
    SELECT f.tenant_id, f.day, 'all' AS dimension, '' AS part, m.key AS measure, m.value::bigint AS amount
      FROM reporting.fact f, jsonb_each_text(f.counted -> 'measures') AS m
     WHERE f.seq > 0
     UNION ALL
    SELECT f.tenant_id, f.day, 'all', '', m.key, m.value::bigint
      FROM reporting.fact f, jsonb_each_text(f.counted -> 'totals') AS m
     WHERE f.seq > 0
     UNION ALL
    SELECT f.tenant_id, f.day, d.name, coalesce(f.counted -> 'parts' ->> d.name, ''), m.key, m.value::bigint
      FROM reporting.fact f, jsonb_each_text(f.counted -> 'measures') AS m,
           unnest(ARRAY['category', 'channel', 'kind', 'outcome', 'severity', 'state', 'unit']) AS d (name)
     WHERE f.seq > 0)
SELECT tenant_id, day, dimension, part, measure, sum(amount)::bigint AS amount
  FROM whole
 GROUP BY tenant_id, day, dimension, part, measure
HAVING sum(amount) <> 0"""

STANDINGS: Final = """
SELECT case_id, body ->> 'state' AS state
  FROM reporting.standing"""

LEDGER: Final = """
SELECT tenant_id, posting_id, case_id, kind, currency, difference_minor
  FROM sla.ledger_posting"""

POSTINGS: Final = """
SELECT tenant_id, posting_id, case_id, kind, currency, difference_minor
  FROM reporting.posting"""

ANNOUNCEMENTS: Final = """
SELECT tenant_id, case_id, key, withdrawn_at IS NOT NULL AS withdrawn
  FROM sla.announcement"""

REPORTED_ANNOUNCEMENTS: Final = """
SELECT tenant_id, case_id, key, is_withdrawn AS withdrawn
  FROM reporting.announcement"""

DELIVERIES: Final = """
SELECT tenant_id, delivery_id, case_id, channel, state
  FROM notify.delivery"""

REPORTED_DELIVERIES: Final = """
SELECT tenant_id, delivery_id, case_id, channel, state, at
  FROM reporting.delivery"""


async def check(look: Look) -> None:
    days = await _facts(look)
    expected: Counter[Cell] = Counter()
    await _cases(look, days, expected)
    await _amounts(look, days, expected)
    await _announcements(look)
    await _messages(look, days, expected)
    await _rollup(look, expected)


async def _facts(look: Look) -> dict[UUID, date]:
    """Every case has a fact and every fact a case. Returns the day to which each case counts, in the tenant's zone."""
    cases = {row["case_id"]: row for row in await look.rows(CASES)}
    days: dict[UUID, date] = {}
    for case_id, row in cases.items():
        tenant = look.tenants.get(row["tenant_id"])
        if tenant is None or row["at"] is None:
            continue
        counted_on = look.day(tenant.tenant_id, row["at"])
        if counted_on is None:
            _note(look, tenant.tenant_id, f"no day can be counted in the zone {tenant.zone}", tenant.tenant_id)
        else:
            days[case_id] = counted_on
    facts: dict[UUID, Any] = {}
    for row in await look.rows(FACTS):
        facts[row["case_id"]] = row
        look.findings.looked_at(1)
        case = cases.get(row["case_id"])
        if case is None:
            if _is_ours(look, row["case_id"]):
                _note(look, row["case_id"], "a fact of no case", row["tenant_id"], is_extra=True)
            continue
        day = days.get(row["case_id"])
        if day is not None and row["day"] != day and _is_ours(look, row["case_id"]):
            _note(look, row["case_id"], f"is counted on {row['day']} instead of {day}", row["tenant_id"])
        if row["seq"] != case["version"] and not look.findings.has("I12", row["case_id"]):
            _note(look, row["case_id"], f"the fact covers {row['seq']} lines of {case['version']}", row["tenant_id"])
    for case_id, row in cases.items():
        if case_id not in facts and _is_ours(look, case_id):
            _note(look, case_id, "has no fact", row["tenant_id"])
    return days


async def _cases(look: Look, days: dict[UUID, date], expected: Counter[Cell]) -> None:
    """Complaints by day and state; the state is what sla said last."""
    states = {row["case_id"]: row["state"] for row in await look.rows(STANDINGS)}  # what is told no more
    states |= {case_id: standing.state for case_id, standing in look.told.standings.items()}
    for row in await look.rows(CASES):
        state = states.get(row["case_id"])
        day = days.get(row["case_id"])
        if row["kind"] != "complaint" or day is None:
            continue
        tenant_id = row["tenant_id"]
        expected[tenant_id, day, "all", "", "received"] += 1
        expected[tenant_id, day, "all", "", "entries"] += row["version"]
        if state is not None:
            expected[tenant_id, day, "state", state, "received"] += 1


async def _amounts(look: Look, days: dict[UUID, date], expected: Counter[Cell]) -> None:
    """Amounts as the ledger has posted and told them."""
    rows = {row["posting_id"]: tuple(row) for row in await look.rows(LEDGER)}
    for posting_id, told in look.told.posted.items():
        each = told[0]
        rows[posting_id] = (
            each.tenant_id,
            posting_id,
            each.case_id,
            each.kind,
            each.currency,
            each.difference_minor,
        )
    kept = {row["posting_id"]: tuple(row) for row in await look.rows(POSTINGS)}
    for posting_id in rows.keys() | kept.keys():
        look.findings.looked_at(1)
        ours, theirs = rows.get(posting_id), kept.get(posting_id)
        if look.findings.has("I4", posting_id):
            continue
        if ours != theirs:
            of: Any = ours or theirs
            what = "reporting has not" if theirs is None else "the ledger has not" if ours is None else "they differ in"
            _note(look, posting_id, f"{what} this posting", of[0], is_extra=ours is None)
    for tenant_id, posting_id, case_id, kind, currency, minor in rows.values():
        if case_id in days and (posting_id in look.told.posted or not look.findings.has("I4", posting_id)):
            day = days[case_id]
            expected[tenant_id, day, "all", "", f"amount:{kind}:{currency}"] += minor


async def _announcements(look: Look) -> None:
    """Effects, which make escalations: as they were told."""
    rows = {
        (row["case_id"], row["key"]): (row["tenant_id"], row["withdrawn"]) for row in await look.rows(ANNOUNCEMENTS)
    }
    for place, told in look.told.announced.items():
        rows[place] = (told[0].tenant_id, any(each.withdrawn for each in told))
    for row in await look.rows(REPORTED_ANNOUNCEMENTS):
        look.findings.looked_at(1)
        place = (row["case_id"], row["key"])
        known = rows.pop(place, None)
        if known != (row["tenant_id"], row["withdrawn"]) and _is_ours(look, row["case_id"]):
            what = "an effect that nobody told" if known is None else "an effect that was told otherwise"
            _note(look, f"{place[0]} {place[1]}", what, row["tenant_id"], is_extra=known is None)
    for (case_id, key), (tenant_id, _) in rows.items():
        if not look.findings.has("I4", f"{case_id} {key}") and _is_ours(look, case_id):
            _note(look, f"{case_id} {key}", "reporting has not this effect", tenant_id)


async def _messages(look: Look, days: dict[UUID, date], expected: Counter[Cell]) -> None:
    """Deliveries by day, channel and state."""
    rows: dict[UUID, tuple[UUID, UUID | None, str, str]] = {}
    for delivery_id, told in look.told.delivered.items():
        rows[delivery_id] = (told.tenant_id, told.case_id, told.channel, told.state)
    for row in await look.rows(DELIVERIES):
        delivery_id = row["delivery_id"]
        is_doubtful = any(look.findings.has(check, delivery_id) for check in ("I5", "I7"))
        if row["state"] in UNTOLD or is_doubtful:
            continue
        rows[delivery_id] = (row["tenant_id"], row["case_id"], row["channel"], row["state"])
    kept: dict[UUID, tuple[UUID, UUID | None, str, str]] = {}
    for row in await look.rows(REPORTED_DELIVERIES):
        delivery_id = row["delivery_id"]
        kept[delivery_id] = (row["tenant_id"], row["case_id"], row["channel"], row["state"])
        if delivery_id not in rows and not look.is_kept(row["tenant_id"], row["at"]):
            rows[delivery_id] = kept[delivery_id]  # it was sent so long ago that nobody else knows
    for delivery_id in rows.keys() | kept.keys():
        look.findings.looked_at(1)
        ours, theirs = rows.get(delivery_id), kept.get(delivery_id)
        if ours == theirs or delivery_id in look.misplaced or look.findings.has("I5", delivery_id):
            continue
        of: Any = ours or theirs
        what = "reporting has not" if theirs is None else "notify has not" if ours is None else "they differ in"
        _note(look, delivery_id, f"{what} this delivery", of[0], is_extra=ours is None)
    for tenant_id, case_id, channel, state in rows.values():
        if case_id is not None and case_id in days:
            expected[tenant_id, days[case_id], "all", "", f"messages:{channel}:{state}"] += 1


async def _rollup(look: Look, expected: Counter[Cell]) -> None:
    """The sums, against the recount where there is one, and against the facts throughout."""
    if look.misplaced:
        return  # whose it is, is the finding; sums of two tenants follow from it
    kept: dict[Cell, int] = {}
    for row in await look.rows(ROLLUP):
        kept[_cell(row)] = row["amount"]
        if row["n"] > 1:
            _note(look, _name(_cell(row)), "stands there twice", row["tenant_id"], is_extra=True)
    of_facts = {_cell(row): row["amount"] for row in await look.rows(OF_FACTS)}
    for cell in kept.keys() | of_facts.keys():
        look.findings.looked_at(1)
        _compare(look, cell, kept.get(cell, 0), of_facts.get(cell, 0), "facts")
    if any(look.findings.has(check, case_id) for case_id in _counted(look) for check in ("I1", "I2", "I12", "I15")):
        return  # what is counted is itself in doubt
    for cell in kept.keys() | expected.keys():
        if _is_recounted(cell):
            look.findings.looked_at(1)
            _compare(look, cell, kept.get(cell, 0), expected[cell], "recount")


def _counted(look: Look) -> set[UUID]:
    return {complaint.complaint_id for complaint in look.complaints} | look.told.received.keys() | look.answered.keys()


def _is_recounted(cell: Cell) -> bool:
    _, _, dimension, _, measure = cell
    if dimension == "state":
        return measure == "received"
    return dimension == "all" and (measure in ("received", "entries") or measure.startswith(("amount:", "messages:")))


def _compare(look: Look, cell: Cell, found: int, expected: int, by: str) -> None:
    if found != expected:
        _note(look, _name(cell), f"{found} instead of {expected}, by the {by}", cell[0], is_extra=found > expected)


def _cell(row: Any) -> Cell:
    return row["tenant_id"], row["day"], row["dimension"], row["part"], row["measure"]


def _name(cell: Cell) -> str:
    tenant_id, day, dimension, part, measure = cell
    return f"{tenant_id} {day} {dimension}={part} {measure}"


def _is_ours(look: Look, case_id: UUID) -> bool:
    return case_id not in look.misplaced and not any(look.findings.has(check, case_id) for check in ("I1", "I2", "I15"))


def _note(look: Look, subject: object, what: str, tenant_id: UUID, *, is_extra: bool = False) -> None:
    look.findings.add("I8", subject, what, tenant_id=tenant_id, is_extra=is_extra, may_pass=True)

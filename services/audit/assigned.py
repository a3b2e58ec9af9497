"""I3: every assignment is the one that the timeline, or sla's standing, names; none is missing between the first and the active one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from services.audit.look import Look

NAMING: Final = frozenset({"assigned", "transferred", "returned"})
"""Entries that name an assignee."""

SYSTEM: Final = "system"
NOBODY: Final = "nobody"
NOBODYS_ROLE: Final = "supervisor"
"""Whose a complaint is that nothing names anybody for."""

AHEAD: Final = timedelta(minutes=5)

ROWS: Final = """
SELECT a.tenant_id, a.case_id, a.seq, a.unit, a.role, a.staff_id, a.part, a.in_place_of, a.rule, a.named, a.assigned_at,
       a.ended_at, a.active, e.kind, e.at, e.data, e.key, e.by ->> 'id' AS by
  FROM routing.assignment a
  LEFT JOIN routing.entry e ON e.tenant_id = a.tenant_id AND e.case_id = a.case_id AND e.seq = a.seq
 ORDER BY a.tenant_id, a.case_id, a.assigned_at, a.ended_at NULLS LAST"""

STAFF: Final = """
SELECT s.tenant_id, s.staff_id, s.roles, s.unit, s.changed_at, t.sandbox, coalesce(t.created_at > $1, false) AS is_young
  FROM routing.staff_member s
  LEFT JOIN intake.tenant t ON t.tenant_id = s.tenant_id"""


class _Owner(Struct):
    """Whom sla's rules name."""

    rule: str
    seq: int
    unit: str | None = None
    role: str | None = None
    staff: str | None = None
    as_: str | None = None


class _Standing(Struct):
    owner: _Owner | None = None


class _Staff:
    """What members of staff are and have been, by tenant and id."""

    def __init__(self, look: Look, rows: Sequence[Any]) -> None:
        self._look = look
        self._now = {(row["tenant_id"], row["staff_id"]): row for row in rows}

    def is_known(self, tenant_id: UUID, staff_id: str) -> bool:
        return (tenant_id, staff_id) in self._now

    def served(self, tenant_id: UUID, staff_id: str, names: Sequence[str], at: datetime) -> bool:
        """Whether somebody had one of these roles or units at this instant, or may have had it: what was told is kept for a week."""
        place = (tenant_id, staff_id)
        now = self._now.get(place)
        if now is None:
            return False  # a person the staff data do not know is never chosen, only named
        if not names or {*now["roles"], now["unit"], *self._look.told.served.get(place, ())} & {*names}:
            return True
        return not now["is_young"] and (now["sandbox"] or now["changed_at"] > at)


async def check(look: Look) -> None:
    staff = _Staff(look, await look.rows(STAFF, look.retained_from))
    cases: dict[UUID, list[Any]] = defaultdict(list)
    for row in await look.rows(ROWS):
        cases[row["case_id"]].append(row)
    for case_id, rows in cases.items():
        look.findings.looked_at(len(rows))
        if not _is_ours(look, case_id):
            continue
        fault = next(_faults(rows, staff, look.clocks.get(rows[0]["tenant_id"], look.now + AHEAD)), None)
        if fault is not None:
            look.findings.add("I3", case_id, fault, tenant_id=rows[0]["tenant_id"])
            continue
        active = next((row for row in rows if row["active"]), None)
        if active is not None:
            fault = _differs(look, active)
            if fault is not None:
                look.findings.add("I3", case_id, fault, tenant_id=active["tenant_id"], may_pass=True)


def _is_ours(look: Look, case_id: UUID) -> bool:
    return case_id not in look.misplaced and not any(
        look.findings.has(each, case_id) for each in ("I1", "I2", "I3", "I12", "I13", "I14", "I15")
    )


def _faults(rows: Sequence[Any], staff: _Staff, now: datetime) -> Iterator[str]:
    """Say what is wrong with the assignments of a case, in their order."""
    if rows[-1]["assigned_at"] > now:
        yield "is assigned from an instant that has not come yet"
    for row in rows:
        if row["at"] is None or row["assigned_at"] < row["at"]:
            yield "is assigned before its timeline says so"
        elif row["active"] != (row["ended_at"] is None) or (
            row["ended_at"] is not None and row["ended_at"] < row["assigned_at"]
        ):
            yield "an assignment that ends, and does not"
        elif row["in_place_of"] is not None and not staff.is_known(row["tenant_id"], row["in_place_of"]):
            yield "somebody stands in for nobody"
        elif not _is_named(row, staff):
            yield "is assigned to somebody else than is named"
    if rows[0]["seq"] > 1 and rows[0]["by"] != SYSTEM:  # when a complaint comes, nobody has done anything yet
        yield "its first assignment is missing"
    for before, after in pairwise(rows):
        if before["ended_at"] != after["assigned_at"]:
            yield "an assignment is missing, or there is one too many"
    if not rows[-1]["active"] and any(row["active"] for row in rows):
        yield "a former assignment is the active one"


def _is_named(row: Any, staff: _Staff) -> bool:
    """Whether the row says what the key of its naming says."""
    named, data = row["named"], row["data"]
    if named == NOBODY:
        return row["rule"] is None and (row["unit"], row["role"]) == (None, NOBODYS_ROLE)
    if named == f"{row['seq']}:{row['kind']}":  # an entry
        if row["kind"] not in NAMING or not isinstance(data, dict):
            return False
        is_rules = (row["key"] or "").startswith("route:")  # the entry says what the rule has chosen
        if is_rules or not any(data.get(name) for name in ("unit", "role", "staff")):
            # Else one name, whose meaning depends on the staff of that time; or back to whoever had it before.
            return not is_rules or all(
                data.get(name, row[to]) == row[to] for name, to in (("unit", "unit"), ("staff", "staff_id"))
            )
        if row["rule"] is not None:
            return False
        wanted = (data.get("unit"), data.get("role"), data.get("staff"))
    else:  # a rule of the policy
        rest = named.removeprefix(f"{row['seq']}:{row['rule']}:")
        if rest == named:
            return False
        found = _parted(rest, row)
        if found is None:
            return False
        wanted = found
    unit, role, person = wanted
    if role != row["role"] or (unit is not None and unit != row["unit"]):
        return False
    taken = row["in_place_of"] or row["staff_id"]
    if taken is None or taken == person:
        return True
    if person is not None and unit is None and role is None:
        return False
    tenant_id, at = row["tenant_id"], row["assigned_at"]
    names = [name for name in (unit, role) if name is not None]
    return staff.served(tenant_id, taken, names, at) and (
        unit is not None or row["unit"] is None or staff.served(tenant_id, taken, [row["unit"]], at)
    )


def _parted(rest: str, row: Any) -> tuple[str | None, str | None, str | None] | None:
    """Take `unit:role:staff` apart; any of them may be named None, and may hold a colon."""
    for unit in (row["unit"], None):
        for role in (row["role"], None):
            start = f"{unit}:{role}:"
            if rest.startswith(start):
                person = rest.removeprefix(start)
                return unit, role, None if person == "None" else person
    return None


def _differs(look: Look, row: Any) -> str | None:
    """Say how the active assignment differs from what sla says of the case and what its timeline has said since."""
    standing = look.told.standings.get(row["case_id"])
    if standing is None:
        return None
    try:
        owner = msgspec.json.decode(standing.body, type=_Standing).owner
    except msgspec.MsgspecError:
        return None
    floor = 0 if owner is None else owner.seq
    naming = [
        line["entry"]
        for place in range(standing.seq, floor, -1)
        if (line := look.told.lines.get((row["case_id"], place))) is not None
        and line["entry"]["kind"] in NAMING
        and (
            line["entry"]["kind"] == "returned"
            or any(line["entry"]["data"].get(name) for name in ("unit", "role", "staff", "to"))
        )
    ]
    if naming:
        latest = f"{naming[0]['seq']}:{naming[0]['kind']}"
        return None if row["named"] == latest else f"is assigned by {row['named']}, and {latest} is named"
    expected: tuple[Any, ...]
    if owner is None:
        expected = (NOBODY, None, None)
    else:
        named = f"{owner.seq}:{owner.rule}:{owner.unit}:{owner.role}:{owner.staff}"
        expected = (named, owner.rule or None, owner.as_)
    found = (row["named"], row["rule"], row["part"])
    return None if found == expected else f"is assigned by {found}, and {expected} is named"

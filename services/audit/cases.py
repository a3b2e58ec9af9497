"""Cases: who has them (I3), what wakes them and what they bring about (I4), their timelines (I12) and their states (I13)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from services.audit.look import LIVE, Look
from services.audit.told import Standing

OVERDUE: Final = timedelta(seconds=30)
SOON: Final = timedelta(microseconds=1)
"""A limit that is met at its instant is broken this much later."""

NOT_OWED: Final = frozenset({"needs_decision", "waived", "void"})

ASSIGNMENTS: Final = """
SELECT c.tenant_id, c.case_id, count(a.assignment_id) AS n
  FROM routing."case" c
  LEFT JOIN routing.assignment a ON a.tenant_id = c.tenant_id AND a.case_id = c.case_id AND a.active
 WHERE c.kind = 'complaint'
 GROUP BY c.tenant_id, c.case_id"""

WATCHED: Final = """
SELECT c.tenant_id, c.case_id, c.kind, c.version, w.case_id IS NOT NULL AS is_watched, w.wake_at, w.folded_seq, w.folded_at, w.error,
       r.wake_at AS routing_wake_at
  FROM routing."case" c
  LEFT JOIN sla.watched_case w ON w.tenant_id = c.tenant_id AND w.case_id = c.case_id
  LEFT JOIN routing.wake_up r ON r.tenant_id = c.tenant_id AND r.case_id = c.case_id"""

TICKS: Final = """
SELECT tenant_id, at
  FROM sla.tick"""

ANNOUNCEMENTS: Final = """
SELECT tenant_id, case_id, key, rule, kind, at, addressee, withdrawn_at IS NOT NULL AS withdrawn, made_at
  FROM sla.announcement"""

KEYS_TWICE: Final = """
SELECT tenant_id, case_id, key, count(*) AS n
  FROM routing.entry
 WHERE key IS NOT NULL
 GROUP BY tenant_id, case_id, key
HAVING count(*) > 1"""

LEDGER: Final = """
SELECT coalesce(p.tenant_id, s.tenant_id) AS tenant_id, coalesce(p.case_id, s.case_id) AS case_id, coalesce(p.key, s.key) AS key,
       p.posted_minor AS position, s.posted AS posted
  FROM sla.ledger_position p
  FULL JOIN (SELECT tenant_id, case_id, key, sum(difference_minor)::bigint AS posted
               FROM sla.ledger_posting
              GROUP BY tenant_id, case_id, key) s
    ON s.tenant_id = p.tenant_id AND s.case_id = p.case_id AND s.key = p.key"""

# A posting bears its tenant's time, which says nothing about whether its message is still kept.
POSTINGS: Final = """
SELECT p.tenant_id, p.posting_id, p.case_id, p.difference_minor, coalesce(c.stored_at > $1, false) AS is_kept
  FROM sla.ledger_posting p
  LEFT JOIN routing."case" c ON c.tenant_id = p.tenant_id AND c.case_id = p.case_id"""

EFFECT_KEYS: Final = """
SELECT tenant_id, complaint_id, key
  FROM intake.receipt
 WHERE key LIKE 'effect:%'"""

TIMELINES: Final = """
SELECT c.tenant_id, c.case_id, c.kind, c.version, count(e.seq) AS n, count(DISTINCT e.seq) AS places,
       coalesce(min(e.seq), 0) AS first, coalesce(max(e.seq), 0) AS last,
       count(*) FILTER (WHERE e.kind = 'received') AS received,
       bool_or(e.kind = 'received' AND e.seq > 1) AS received_late
  FROM routing."case" c
  LEFT JOIN routing.entry e ON e.tenant_id = c.tenant_id AND e.case_id = c.case_id
 GROUP BY c.tenant_id, c.case_id, c.kind, c.version"""

BACKWARDS: Final = """
SELECT tenant_id, case_id, seq
  FROM (SELECT tenant_id, case_id, seq, at, lag(at) OVER (PARTITION BY tenant_id, case_id ORDER BY seq) AS before
          FROM routing.entry) AS lines
 WHERE at < before"""

HOMELESS: Final = """
SELECT e.tenant_id, e.case_id, count(*) AS n
  FROM routing.entry e
 WHERE NOT EXISTS (SELECT FROM routing."case" c WHERE c.tenant_id = e.tenant_id AND c.case_id = e.case_id)
 GROUP BY e.tenant_id, e.case_id"""

# The tail of a timeline that somebody has been told and that is not there.
BEYOND: Final = """
SELECT t.tenant_id, t.case_id, max(t.seq) AS seq, c.version
  FROM (SELECT tenant_id, case_id, seq FROM sla.timeline_entry
         UNION
        SELECT tenant_id, case_id, seq FROM notify.entry
         UNION
        SELECT tenant_id, case_id, seq FROM reporting.entry) AS t
  JOIN routing."case" c ON c.tenant_id = t.tenant_id AND c.case_id = t.case_id
 GROUP BY t.tenant_id, t.case_id, c.version
HAVING max(t.seq) > c.version"""

STATES: Final = """
SELECT tenant_id, case_id, kind, version, policy_version, current_policy_version, state, closed, outcome, class_kind, category, severity,
       priority, respondent, due_at, breached_at, provisional, owner_unit, owner_role, owner_staff
  FROM routing."case"
 WHERE kind <> 'subject'"""

OWNERS: Final = """
SELECT c.tenant_id, c.case_id
  FROM routing."case" c
  JOIN routing.assignment a ON a.tenant_id = c.tenant_id AND a.case_id = c.case_id AND a.active
 WHERE c.kind = 'complaint'
 GROUP BY c.tenant_id, c.case_id
HAVING NOT bool_or((a.unit, a.role, a.staff_id) IS NOT DISTINCT FROM (c.owner_unit, c.owner_role, c.owner_staff))"""

# Requests as the timeline says them: asked, decided, and none that was decided and still waits.
REQUESTS: Final = """
SELECT e.tenant_id, e.case_id
  FROM routing.entry e
 WHERE e.kind IN ('approval_requested', 'extension_requested')
   AND NOT EXISTS (
       SELECT FROM routing.approval a WHERE a.tenant_id = e.tenant_id AND a.case_id = e.case_id AND a.seq = e.seq)
 UNION
SELECT a.tenant_id, a.case_id
  FROM routing.approval a
  LEFT JOIN routing.entry e ON e.tenant_id = a.tenant_id AND e.case_id = a.case_id AND e.seq = a.seq
  LEFT JOIN routing.entry d ON d.tenant_id = a.tenant_id AND d.case_id = a.case_id AND d.seq = a.decided_seq
 WHERE (a.kind, a.step, a.requested_by, a.requested_at) IS DISTINCT FROM
       (CASE e.kind WHEN 'approval_requested' THEN 'approval' WHEN 'extension_requested' THEN 'extension' END,
        e.data ->> 'step', e.by ->> 'id', e.at)
    OR (a.decided_seq, a.decided_by, a.decided_at) IS DISTINCT FROM (d.seq, d.by ->> 'id', d.at)
    OR a.decision IS DISTINCT FROM
       CASE WHEN d.kind IN ('approved', 'extended') THEN 'approved' WHEN d.kind = 'rejected' THEN 'rejected'
            WHEN d.kind IS NOT NULL THEN 'withdrawn' END
 UNION
SELECT a.tenant_id, a.case_id
  FROM routing.approval a
  JOIN routing.entry d ON d.tenant_id = a.tenant_id AND d.case_id = a.case_id AND d.seq > a.seq
 WHERE a.decision IS NULL
   AND ((d.kind IN ('approved', 'rejected') AND (d.data ->> 'step' IS NULL OR a.step IS NULL OR d.data ->> 'step' = a.step))
        OR (d.kind = 'extended' AND a.kind = 'extension'))
   AND NOT EXISTS (
       SELECT FROM routing.approval o WHERE o.tenant_id = a.tenant_id AND o.case_id = a.case_id AND o.decided_seq = d.seq)"""

REPORTED: Final = """
SELECT s.tenant_id, s.case_id, s.seq, s.now, s.message_id, s.body ->> 'state' AS state, (s.body ->> 'closed')::boolean AS closed,
       EXISTS (SELECT FROM routing."case" c WHERE c.tenant_id = s.tenant_id AND c.case_id = s.case_id) AS is_of_case
  FROM reporting.standing s"""

TIMERS: Final = """
SELECT p.tenant_id, p.version, clock ->> 'id' AS id
  FROM intake.policy p
 CROSS JOIN LATERAL json_array_elements(CASE json_typeof(p.document -> 'clocks') WHEN 'array' THEN p.document -> 'clocks' ELSE '[]' END)
       AS clock
 WHERE clock ->> 'kind' = 'timer'"""


async def check(look: Look) -> None:
    await _assignments(look)
    await _timelines(look)
    await _states(look)
    await _wake_ups(look)
    await check_effects(look)


async def check_effects(look: Look) -> None:
    """What sla has brought about: each effect has one row and was told once, and the ledger is the sum of its rows."""
    await _effects(look)
    await _ledger(look)


async def _assignments(look: Look) -> None:
    for row in await look.rows(ASSIGNMENTS):
        look.findings.looked_at(1)
        if row["n"] != 1 and _is_ours(look, row["case_id"]):
            look.findings.add(
                "I3",
                row["case_id"],
                f"{row['n']} active assignments",
                tenant_id=row["tenant_id"],
                is_extra=row["n"] > 1,
                may_pass=row["n"] == 0,
            )


def _is_ours(look: Look, case_id: UUID) -> bool:
    """Whether a case is one at all: what lies with the wrong tenant, or should not be there, is counted as that alone."""
    return case_id not in look.misplaced and not any(look.findings.has(check, case_id) for check in ("I1", "I2", "I15"))


# -- I12 -----------------------------------------------------------------------------------------------------------------------


async def _timelines(look: Look) -> None:
    for row in await look.rows(TIMELINES):
        look.findings.looked_at(1)
        if not _is_ours(look, row["case_id"]):
            continue
        fault = _fault(row)
        if fault is not None:
            look.findings.add(
                "I12", row["case_id"], fault, tenant_id=row["tenant_id"], is_extra=row["n"] > row["version"]
            )
    for row in await look.rows(BACKWARDS):
        if _is_ours(look, row["case_id"]):
            look.findings.add("I12", row["case_id"], f"line {row['seq']} goes back in time", tenant_id=row["tenant_id"])
    for row in await look.rows(HOMELESS):
        if _is_ours(look, row["case_id"]):
            look.findings.add("I12", row["case_id"], f"{row['n']} lines of no case", tenant_id=row["tenant_id"])
    for row in await look.rows(BEYOND):
        if _is_ours(look, row["case_id"]):
            what = f"line {row['seq']} was told, and the last is {row['version']}"
            look.findings.add("I12", row["case_id"], what, tenant_id=row["tenant_id"])


def _fault(row: Any) -> str | None:
    if row["n"] == 0:
        return "no line at all"
    if row["n"] != row["places"]:
        return f"{row['n']} lines at {row['places']} places"
    if (row["first"], row["last"], row["n"]) != (1, row["version"], row["version"]):
        return f"{row['n']} lines from {row['first']} to {row['last']}, and the version is {row['version']}"
    if row["kind"] == "complaint" and (row["received"] != 1 or row["received_late"]):
        return f"received {row['received']} times, or not in line 1"
    return None


# -- I13 -----------------------------------------------------------------------------------------------------------------------


async def _states(look: Look) -> None:
    async for case_id, tenant_id, what, may_pass in _differences(look):
        look.findings.looked_at(1)
        if what and _is_ours(look, case_id) and not look.findings.has("I12", case_id):
            look.findings.add("I13", case_id, what, tenant_id=tenant_id, may_pass=may_pass)


async def _differences(look: Look) -> Any:
    """Yield (case, tenant, what differs or nothing, whether it may pass)."""
    for row in await look.rows(OWNERS):
        yield row["case_id"], row["tenant_id"], "is shown with another owner than it is assigned to", False
    for row in await look.rows(REQUESTS):
        yield row["case_id"], row["tenant_id"], "its requests are not what its timeline says", False
    timers = await _timers(look)
    for row in await look.rows(STATES):
        standing = look.told.standings.get(row["case_id"])
        if standing is None:
            continue
        differing = dict(_columns(row, standing, timers))
        what = ", ".join(f"{name}: {value}" for name, value in differing.items())
        yield row["case_id"], row["tenant_id"], f"routing differs from sla in {what}" if what else "", True
    reported = await look.rows(REPORTED)
    for case_id in look.told.standings.keys() - {row["case_id"] for row in reported}:
        yield case_id, look.told.standings[case_id].tenant_id, "reporting keeps no standing", True
    for row in reported:
        standing = look.told.standings.get(row["case_id"])
        if standing is None and not row["is_of_case"]:
            yield row["case_id"], row["tenant_id"], "reporting keeps the standing of no case", False
        if standing is not None:
            latest = (standing.seq, standing.now, standing.message_id, standing.state, standing.closed)
            kept = (row["seq"], row["now"], row["message_id"], row["state"], row["closed"])
            yield row["case_id"], row["tenant_id"], "" if kept == latest else "reporting keeps another standing", True


async def _timers(look: Look) -> frozenset[tuple[UUID, int, str]]:
    """Clocks that act by themselves, which nobody owes anything, by tenant, version and id."""
    return frozenset((row["tenant_id"], row["version"], row["id"]) for row in await look.rows(TIMERS))


def _columns(row: Any, standing: Standing, timers: frozenset[tuple[UUID, int, str]]) -> Iterator[tuple[str, str]]:
    """Yield the columns of a case that differ from its standing."""
    named = standing.classified
    owed = [
        clock
        for clock in standing.clocks
        if clock["stopped_at"] is None and (standing.tenant_id, standing.policy_version, clock["rule"]) not in timers
    ]
    expected = {
        "version": standing.seq,
        "current_policy_version": standing.policy_version,
        "state": standing.state,
        "closed": standing.closed,
        "outcome": standing.outcome,
        "class_kind": named.get("kind"),
        "category": named.get("category"),
        "severity": named.get("severity"),
        "priority": None if named.get("priority") is None else str(named["priority"]),
        "respondent": named.get("respondent"),
        "due_at": _earliest(owed, "running", "due_at"),
        "breached_at": _earliest(owed, "breached", "breached_at"),
        "provisional": any(
            clock["provisional"] and clock["state"] in ("running", "paused") for clock in standing.clocks
        ),
    }
    for name, value in expected.items():
        if row[name] != value:
            yield name, f"{row[name]} instead of {value}"


def _earliest(clocks: list[dict[str, Any]], state: str, which: str) -> datetime | None:
    instants = [
        datetime.fromisoformat(clock[which]) for clock in clocks if clock["state"] == state and clock[which] is not None
    ]
    return min(instants, default=None)


# -- I4 ------------------------------------------------------------------------------------------------------------------------


async def _wake_ups(look: Look) -> None:
    ticks = {row["tenant_id"]: row["at"] for row in await look.rows(TICKS)}
    for row in await look.rows(WATCHED):
        look.findings.looked_at(1)
        if not _is_ours(look, row["case_id"]):
            continue
        fault = _sleeps_badly(look, row, ticks)
        if fault is not None:
            look.findings.add("I4", row["case_id"], fault, tenant_id=row["tenant_id"], may_pass=True)


def _sleeps_badly(look: Look, row: Any, ticks: Mapping[UUID, datetime]) -> str | None:
    """Say what is wrong with the wake-ups of a case, if anything is."""
    if not row["is_watched"]:
        return "sla has no wake-up for it"
    if row["error"] is not None:
        return "sla cannot fold it"
    tenant = look.tenants.get(row["tenant_id"])
    is_sandbox = tenant is not None and tenant.sandbox
    # A live tenant's time is the database's, however long ago the last tick was told.
    overdue = look.now - OVERDUE
    sla_now = ticks.get(row["tenant_id"]) if is_sandbox else max(ticks.get(LIVE, overdue), overdue)
    sla_told = ticks.get(row["tenant_id"] if is_sandbox else LIVE)
    routing_now = look.clocks.get(row["tenant_id"]) if is_sandbox else overdue
    if row["wake_at"] is not None and sla_now is not None and row["wake_at"] <= sla_now:
        return f"was to wake at {row['wake_at']} in sla"
    if row["folded_at"] is not None and sla_told is not None and row["folded_at"] > sla_told:
        return f"sla has looked at it at {row['folded_at']}, and it is {sla_told} there"
    if row["kind"] == "subject":
        return None
    if row["folded_seq"] != row["version"] and not look.findings.has("I12", row["case_id"]):
        return f"sla has looked at {row['folded_seq']} lines of {row['version']}"
    if row["routing_wake_at"] is not None and routing_now is not None and row["routing_wake_at"] <= routing_now:
        return f"was to wake at {row['routing_wake_at']} in routing"
    if row["wake_at"] != row["routing_wake_at"]:
        return f"wakes at {row['wake_at']} in sla and at {row['routing_wake_at']} in routing"
    standing = look.told.standings.get(row["case_id"])
    if standing is None:
        return None
    if row["folded_at"] is None or row["folded_at"] < standing.now:
        return f"sla has looked at it at {row['folded_at']}, and said how it stands at {standing.now}"
    due = _earliest(standing.clocks, "running", "due_at")
    if due is None:
        return None
    if sla_now is not None and due + SOON <= sla_now:
        return f"a limit was over at {due} and has not been broken"
    if row["wake_at"] is None or row["wake_at"] > due + SOON:
        return f"a limit is over at {due}, and it wakes at {row['wake_at']}"
    return None


async def _effects(look: Look) -> None:
    """Every effect has one row and was told once; one that creates a complaint has created one."""
    rows: Counter[tuple[UUID, str]] = Counter()
    created = {row["key"] for row in await look.rows(EFFECT_KEYS)}
    for row in await look.rows(ANNOUNCEMENTS):
        look.findings.looked_at(1)
        place = (row["case_id"], row["key"])
        rows[place] += 1
        if not _is_ours(look, row["case_id"]):
            continue
        fault = None
        told = look.told.announced.get(place, [])
        made = [each for each in told if not each.withdrawn]
        if rows[place] > 1:
            fault = "has two rows"
        elif row["made_at"] > look.retained_from:
            if len(made) != 1:
                fault = f"was told {len(made)} times"
            elif row["withdrawn"] != (len(told) > 1) or len(told) > 2:
                fault = "is withdrawn here and not there"
            elif _effect(made[0].effect) != (row["rule"], row["kind"], row["at"], row["addressee"]):
                fault = "was told otherwise"
        if fault is not None:
            look.findings.add(
                "I4",
                f"{row['case_id']} {row['key']}",
                f"an effect {fault}",
                tenant_id=row["tenant_id"],
                is_extra=rows[place] > 1 or len(made) > 1,
            )
        key = f"effect:{row['case_id']}:{row['key']}"
        if row["kind"] == "created" and not row["withdrawn"] and len(key) <= 500 and key not in created:
            look.findings.add(
                "I4", key, "an effect has not created its complaint", tenant_id=row["tenant_id"], may_pass=True
            )
    for (case_id, key), told in look.told.announced.items():
        if (case_id, key) not in rows and _is_ours(look, case_id):
            look.findings.add(
                "I4", f"{case_id} {key}", "an effect was told and has no row", tenant_id=told[0].tenant_id
            )
    for row in await look.rows(KEYS_TWICE):
        if _is_ours(look, row["case_id"]):
            look.findings.add(
                "I4",
                f"{row['case_id']} {row['key']}",
                f"an effect has entered the timeline {row['n']} times",
                tenant_id=row["tenant_id"],
                is_extra=True,
            )


def _effect(effect: Mapping[str, Any]) -> tuple[str, str, datetime, str | None]:
    return effect["rule"], effect["kind"], datetime.fromisoformat(effect["at"]), effect["to"]


async def _ledger(look: Look) -> None:
    """What stands in the ledger is the sum of its rows, each of which was told once, and what the standing says is owed."""
    owed: dict[tuple[UUID, str], Any] = {}
    for case_id, standing in look.told.standings.items():
        for penalty in standing.penalties:
            minor = penalty.get("amount_minor")
            is_owed = penalty.get("state") not in NOT_OWED and minor is not None
            owed[case_id, penalty["key"]] = minor if is_owed else 0
    for row in await look.rows(LEDGER):
        look.findings.looked_at(1)
        position, posted = row["position"], row["posted"]
        expected = owed.get((row["case_id"], row["key"]), position)
        if position == posted == expected or not _is_ours(look, row["case_id"]):
            continue
        look.findings.add(
            "I4",
            f"{row['case_id']} {row['key']}",
            f"the ledger stands at {position}, its rows come to {posted}, {expected} is owed",
            tenant_id=row["tenant_id"],
            is_extra=abs(posted or 0) > abs(expected or 0),
        )
    rows: dict[UUID, list[Any]] = defaultdict(list)
    for row in await look.rows(POSTINGS, look.retained_from):
        rows[row["posting_id"]].append(row)
        told = look.told.posted.get(row["posting_id"], [])
        same = [each for each in told if each.difference_minor == row["difference_minor"]]
        is_told = (len(told), len(same)) == (1, 1) or not (told or row["is_kept"])
        if (len(rows[row["posting_id"]]) > 1 or not is_told) and _is_ours(look, row["case_id"]):
            look.findings.add(
                "I4",
                row["posting_id"],
                f"a row of the ledger was told {len(told)} times",
                tenant_id=row["tenant_id"],
                is_extra=True,
            )
    for posting_id, told in look.told.posted.items():
        if posting_id not in rows and _is_ours(look, told[0].case_id):
            look.findings.add(
                "I4", posting_id, "a row of the ledger was told and is not there", tenant_id=told[0].tenant_id
            )

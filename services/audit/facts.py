"""I8: the fact of each case, made again from its timeline, from what sla said of it last and from the effects that stand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from services.audit.copies import instant
from services.audit.look import Look

FACTS: Final = """
SELECT *
  FROM reporting.fact
 WHERE seq > 0"""

# What reporting keeps of the others, for what is told no more.
POSTINGS: Final = """
SELECT case_id, posting_id AS key, kind, currency, difference_minor
  FROM reporting.posting"""

DELIVERIES: Final = """
SELECT case_id, delivery_id AS key, channel, state
  FROM reporting.delivery
 WHERE case_id IS NOT NULL"""

EFFECTS: Final = """
SELECT case_id, key, effect
  FROM reporting.announcement
 WHERE NOT is_withdrawn"""

PARTS: Final = ("category", "channel", "kind", "outcome", "severity", "state")
COLUMNS: Final = ("kind", "category", "severity", "channel", "state", "outcome")
ENDINGS: Final = frozenset({"closed", "archived", "declined", "withdrawn", "handed_over", "merged"})
JUDGING: Final = frozenset({"resolved", "closed", "reconsidered", "investigated", "corrected"})
"""Entries that may say what came of a complaint."""

WORST_FIRST: Final = ("breached", "met", "running", "paused", "fired")
GONE: Final = frozenset({"superseded", "cancelled"})

RUN: Final = ("rule", "clause", "state", "started_at", "due_at", "stopped_at", "name")
PENALTY: Final = ("clause", "party", "kind", "at", "amount_minor", "currency", "sanction", "points", "state")

USUAL: Final = {"rounds": 1, "case_kind": "complaint", "count": 1}
"""What a fact leaves out."""

Body = dict[str, Any]


async def check(look: Look) -> None:
    effects = await _effects(look)
    amounts, messages = await _amounts(look), await _messages(look)
    for row in await look.rows(FACTS):
        case_id = row["case_id"]
        look.findings.looked_at(1)
        if case_id in look.misplaced or any(
            look.findings.has(each, case_id) for each in ("I1", "I2", "I8", "I12", "I15")
        ):
            continue
        try:
            fault = _fault(look, row, effects[case_id], amounts[case_id], messages[case_id])
        except (AttributeError, KeyError, TypeError, ValueError):
            fault = "its form"  # what was told, or is kept, has another one altogether
        if fault:
            what = f"the fact differs from what was told in {fault}"
            look.findings.add("I8", case_id, what, tenant_id=row["tenant_id"], may_pass=True)


async def _effects(look: Look) -> dict[UUID, list[Mapping[str, Any]]]:
    """Effects that stand, by case: as they were told."""
    found: dict[UUID, list[Mapping[str, Any]]] = defaultdict(list)
    for (case_id, _), told in look.told.announced.items():
        if not any(each.withdrawn for each in told):
            found[case_id].append(told[0].effect)
    for row in await look.rows(EFFECTS):
        if (row["case_id"], row["key"]) not in look.told.announced:
            found[row["case_id"]].append(row["effect"])
    return found


async def _amounts(look: Look) -> dict[UUID, Counter[str]]:
    """What was posted, by case, kind and currency."""
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    for posted in look.told.posted.values():
        found[posted[0].case_id][f"amount:{posted[0].kind}:{posted[0].currency}"] += posted[0].difference_minor
    for row in await look.rows(POSTINGS):
        if row["key"] not in look.told.posted:
            found[row["case_id"]][f"amount:{row['kind']}:{row['currency']}"] += row["difference_minor"]
    return found


async def _messages(look: Look) -> dict[UUID, Counter[str]]:
    """How many messages are in which state, by case and channel."""
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    for told in look.told.delivered.values():
        if told.case_id is not None:
            found[told.case_id][f"messages:{told.channel}:{told.state}"] += 1
    for row in await look.rows(DELIVERIES):
        if row["key"] not in look.told.delivered:
            found[row["case_id"]][f"messages:{row['channel']}:{row['state']}"] += 1
    return found


def _fault(
    look: Look, row: Any, effects: Sequence[Mapping[str, Any]], amounts: Mapping[str, int], messages: Mapping[str, int]
) -> str:
    """Name what differs between a fact and what it should be; nothing where too little is told any more."""
    case_id = row["case_id"]
    lines = [look.told.lines.get((case_id, place)) for place in range(1, row["seq"] + 1)]
    timeline = [line["entry"] for line in lines if line is not None]
    if len(timeline) != len(lines):
        return ""
    told = look.told.standings.get(case_id)
    standing = None if told is None else msgspec.json.decode(told.body)
    first = lines[0] or {}
    body = _body(timeline, standing, effects, first["case_kind"], first.get("source") or None)
    kept = row["body"]
    differing = [f"body.{name}" for name in sorted(body.keys() | kept.keys()) if not _agree(name, body, kept)]
    tenant = look.tenants.get(row["tenant_id"])
    columns = {name: body.get(name) for name in COLUMNS} | {
        "unit": body["handler"].get("unit"),
        "case_kind": first["case_kind"],
        "number": first["number"],
        "received_at": instant(body["at"]),
        "last_at": max(_instants(body, timeline), default=None),
        "is_late": body["late"],
        "is_closed": body["closed_at"] is not None,
        "zone": None if tenant is None else tenant.zone,
    }
    differing += [name for name, value in columns.items() if row[name] != value]
    counted = _counted(body, row, amounts, messages)
    differing += [f"counted.{name}" for name, value in counted.items() if row["counted"].get(name) != (value or None)]
    return ", ".join(differing)


def _agree(name: str, body: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    usual = USUAL.get(name)
    mine, theirs = body.get(name, usual), kept.get(name, usual)
    return mine == theirs or not (mine or theirs) or _reduced(mine) == _reduced(theirs)


def _reduced(value: Any) -> Any:
    """A value as it can be compared: what says nothing is the same as nothing, and instants are the same in whatever zone."""
    if isinstance(value, dict):
        return {name: found for name, each in value.items() if (found := _reduced(each)) not in (None, "")}
    if isinstance(value, list | tuple):
        return [_reduced(each) for each in value]
    return (instant(value) or value) if isinstance(value, str) else value


def _instants(body: Body, timeline: Iterable[Mapping[str, Any]]) -> Iterator[datetime]:
    told = (body[name] for name in ("at", "handled_at", "resolved_at", "closed_at", "due_at"))
    return (found for found in map(instant, {*told, *(entry["at"] for entry in timeline)}) if found is not None)


def _counted(body: Body, row: Any, amounts: Mapping[str, int], messages: Mapping[str, int]) -> dict[str, Any]:
    """What a fact adds to the sums."""
    is_complaint = body["case_kind"] == "complaint"
    measures = {
        "received": 1,
        "accepted": int(body["accepted"] is True),
        "declined": int(body["accepted"] is False),
        "assigned": int(body["assigned_at"] is not None),
        "on_time": int(body["on_time"]),
        "late": int(body["late"]),
        "escalated": int(body["escalated"] > 0),
        "escalations": body["escalated"],
        "closed": int(body["closed_at"] is not None),
    }
    measures = {**(measures if is_complaint else {}), **amounts}
    parts = {name: body[name] for name in PARTS} | {"unit": body["handler"].get("unit")}
    totals = {**messages, **({"entries": row["seq"]} if is_complaint else {})}
    return {
        "day": str(row["day"]),
        "parts": {name: part for name, part in parts.items() if part} if measures else {},
        "measures": {name: number for name, number in measures.items() if number},
        "totals": {name: number for name, number in totals.items() if number},
    }


def _body(
    timeline: Sequence[Mapping[str, Any]],
    standing: Mapping[str, Any] | None,
    effects: Sequence[Mapping[str, Any]],
    case_kind: str,
    source: str | None,
) -> Body:
    """Return a fact with every field, empty ones among them."""
    said = _said(timeline)
    first = timeline[0]
    told = first["data"] if first["kind"] == "received" else {}
    person = told.get("complainant") or {}
    of: Mapping[str, Any] = standing or {}
    named = of.get("classified") or {}
    acceptance = of.get("acceptance")
    owner = of.get("owner")
    runs = [_run(clock) for clock in of.get("clocks", ()) if clock["state"] not in GONE]
    broken = [run for run in runs if run["state"] == "breached"]
    penalties = [_penalty(penalty) for penalty in of.get("penalties", ())]
    facts = of.get("facts") or {}
    is_closed = of["closed"] if standing else said["closed_at"] is not None
    rounds = facts.get("rounds")
    return {
        "at": first["at"],
        "handled_at": said["handled_at"],
        "resolved_at": said["resolved_at"],
        "closed_at": _closed_at(said, effects if standing else (), timeline) if is_closed else None,
        "assigned_at": said["assigned_at"] or (owner["at"] if owner else None),
        "due_at": min(
            (at for run in runs if run["state"] != "fired" and (at := run.get("due_at"))),
            key=datetime.fromisoformat,
            default=None,
        ),
        "case_kind": case_kind,
        "kind": named.get("kind") or told.get("kind"),
        "category": named.get("category") or told.get("category"),
        "severity": named.get("severity") or told.get("severity"),
        "priority": named.get("priority") if standing else told.get("priority"),
        "outcome": of.get("outcome") if standing else said["outcome"],
        "channel": told.get("channel"),
        "source": source,
        "state": of.get("state"),
        "accepted": acceptance["accepted"] if acceptance else said["accepted"],
        "decline_reason": (None if acceptance["accepted"] else acceptance.get("reason"))
        if acceptance
        else said["declined"],
        "anonymous": bool(told.get("anonymous")),
        "respondent": _named(told.get("respondent"))
        | ({"name": named["respondent"]} if named.get("respondent") else {}),
        "handler": _handler(told, owner, said["assigned"]),
        "complainant_id": person.get("id"),
        "complainant_type": person.get("type"),
        "fields": {**(told.get("fields") or {}), **said["fields"]},
        "rating": said["rating"],
        "clocks": _worst(runs),
        "runs": runs,
        "breached": [name for run in broken for name in clauses(run.get("clause")) or [run["rule"]]],
        "on_time": any(run["state"] == "met" for run in runs) and not broken,
        "late": bool(broken),
        "escalated": said["escalated"] + (sum(each["kind"] == "escalated" for each in effects) if standing else 0),
        "rounds": rounds if isinstance(rounds, int) else said["rounds"],
        "good_reason": said["good_reason"],
        "fines_minor": sum(
            each.get("amount_minor") or 0
            for each in penalties
            if each["kind"] == "fine" and each.get("state") in (None, "correction")
        ),
        "penalties": penalties,
        "facts": facts,
        "seq": timeline[-1]["seq"],
    }


def _said(timeline: Iterable[Mapping[str, Any]]) -> Body:
    """What the entries alone say."""
    times: dict[str, str | None] = dict.fromkeys(("handled", "resolved", "closed", "ended", "assigned"))
    said: Body = {"assigned": {}, "accepted": None, "declined": None, "outcome": None, "rating": None, "fields": {}}
    said |= {"escalated": 0, "rounds": 1, "good_reason": False}
    for entry in timeline:
        kind, data, at = entry["kind"], entry["data"], entry["at"]
        if kind in ("resolved", "closed", "archived"):
            times["handled"] = times["handled"] or at
        if kind == "resolved":
            times["resolved"] = at
        elif kind in ("closed", "archived"):
            times["closed"] = times["closed"] or at
        elif kind == "reopened":
            times["closed"] = times["ended"] = None
            said["rounds"] += 1
        elif kind == "assigned":
            times["assigned"] = times["assigned"] or at
            said["assigned"] = {name: data[name] for name in ("unit", "staff", "head") if data.get(name)}
        elif kind == "accepted":
            said["accepted"], said["declined"] = True, None
        elif kind == "declined":
            said["accepted"], said["declined"] = False, data.get("reason")
        elif kind == "escalated":
            said["escalated"] += entry["key"] is None  # with a key it tells of an effect, which is counted by itself
        elif kind == "approved":
            said["good_reason"] = said["good_reason"] or data.get("step") == "good_reason"
        elif kind in ("surveyed", "followed_up"):
            said["rating"] = data.get("rating") or said["rating"]
        if kind in ENDINGS:
            times["ended"] = times["ended"] or at
        if kind in JUDGING and data.get("outcome"):
            said["outcome"] = data["outcome"]
        if type(data.get("round")) is int:
            said["rounds"] = max(said["rounds"], data["round"])
        if entry["seq"] > 1 and isinstance(data.get("fields"), dict):
            said["fields"] |= data["fields"]
    return said | {f"{name}_at": at for name, at in times.items()}


def _closed_at(said: Body, effects: Iterable[Mapping[str, Any]], timeline: Sequence[Mapping[str, Any]]) -> str | None:
    """When it was closed: by a person, by the system, or by another entry that ends a case."""
    ended: str | None = said["closed_at"]
    if ended is None:
        by_system = (each["at"] for each in effects if each["kind"] == "closed" and each.get("what") is None)
        ended = max(by_system, key=datetime.fromisoformat, default=said["ended_at"] or timeline[-1]["at"])
    return ended


def _named(of: Mapping[str, Any] | None) -> Body:
    return {name: value for name, value in (of or {}).items() if value is not None}


def _handler(told: Mapping[str, Any], owner: Mapping[str, Any] | None, assigned: Body) -> Body:
    """Who handles it: the last assignment, else who must act by the rules, else what was stated on receipt."""
    stated = _named(told.get("handler"))
    if assigned or owner is None:
        return stated | assigned
    by_rules = {"unit": owner.get("unit") or owner.get("role"), "staff": owner.get("staff")}
    return stated | {name: value for name, value in by_rules.items() if value}


def _worst(runs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    states: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for name in (*clauses(run.get("clause")), run["rule"]):
            states[name].append(run["state"])
    return {name: min(found, key=WORST_FIRST.index) for name, found in states.items()}


def _run(clock: Mapping[str, Any]) -> Body:
    return {name: clock.get(name) for name in RUN if name == "clause" or clock.get(name) is not None}


def _penalty(penalty: Mapping[str, Any]) -> Body:
    return {name: penalty.get(name) for name in PENALTY if name == "clause" or penalty.get(name) is not None}


def clauses(clause: Any) -> list[str]:
    return clause if isinstance(clause, list) else [clause] if clause else []

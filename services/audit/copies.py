"""Rows against the messages that say the same: what one service keeps of what itself or another has told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct

from services.audit.look import Look
from services.audit.told import UNTOLD

ENVELOPE: Final = frozenset({"message_id", "tenant_id", "traceparent", "at"})
PERSONAL: Final = "vault:"
NAMES: Final = UUID("5bb3dbd6-7d1c-5f44-9a3f-3c7a1b1f6f0e")
"""The namespace of ids that follow from what they stand for."""

Said = Mapping[str, Any]


class Kept(Struct, frozen=True, kw_only=True):
    """A table, and what was said of each of its rows.

    Args:
        check: the promise that is broken when they differ.
        name: the columns that name a row in a finding.
        said: returns what each column should hold, in the words of the message; None when nothing was said of this row.
        may_pass: a message under way may still change the row.
    """

    check: str
    table: str
    name: tuple[str, ...]
    said: Callable[[Look, Any], Said | None]
    may_pass: bool = False


async def check(look: Look) -> None:
    for kept in KEPT:
        for row in await look.rows(f"SELECT * FROM {kept.table}"):  # noqa: S608 - names of our own
            look.findings.looked_at(1)
            try:
                said = kept.said(look, row)
            except (AttributeError, KeyError, TypeError, ValueError):
                said = {kept.name[-1]: None}  # what was told, or is kept, has another form altogether
            if said is None:
                continue
            differing = [column for column, value in said.items() if not is_same(row[column], value)]
            if differing and _is_ours(look, row):
                look.findings.add(
                    kept.check,
                    " ".join(str(row[column]) for column in kept.name),
                    f"{kept.table} differs from what was told in {', '.join(differing)}",
                    tenant_id=row["tenant_id"],
                    may_pass=kept.may_pass,
                )


def _is_ours(look: Look, row: Any) -> bool:
    """Whether the row is judged here: not what lies with the wrong tenant, nor what should not be there at all."""
    ids = {value for value in row.values() if isinstance(value, UUID)}
    if ids & look.misplaced:
        return False
    case_id = row.get("case_id") or row.get("complaint_id")
    return not any(look.findings.has(each, case_id) for each in ("I1", "I2", "I12", "I15"))


def is_same(kept: Any, said: Any) -> bool:
    """Compare a value of a column with one of a message."""
    if kept is said or type(kept) is type(said):
        return bool(kept == said)
    if isinstance(kept, datetime):
        return instant(said) == kept
    if isinstance(kept, UUID):
        return str(kept) == str(said)
    return bool(kept == said)


def instant(said: Any) -> datetime | None:
    if isinstance(said, datetime):
        return said
    try:
        return datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None


# -- complaints and timelines ---------------------------------------------------------------------------------------------------


def _complaint(look: Look, row: Any) -> Said | None:
    said = look.told.received.get(row["complaint_id"])
    if said is None:
        return None
    data = said["entry"]["data"]
    return {
        "number": said["number"],
        "source": said["source"],
        "policy_version": said["policy_version"],
        "received_at": said["at"],
        "duplicate_of": said["duplicate_of"],
        "complainant_id": (data.get("complainant") or {}).get("id"),
        "words": words(data),
    }


def words(data: Mapping[str, Any]) -> dict[str, Any]:
    """By what complaints are compared with earlier ones: their class, the channel, the respondent, fields that are not personal."""
    found = {
        name: value
        for name, value in (data.get("fields") or {}).items()
        if not (isinstance(value, str) and value.startswith(PERSONAL))
    }
    found |= {f"respondent.{part}": name for part, name in (data.get("respondent") or {}).items()}
    named = ("kind", "category", "severity", "channel")
    return found | {name: data[name] for name in named if data.get(name) is not None}


def _case(look: Look, row: Any) -> Said | None:
    said = look.told.received.get(row["case_id"])
    if said is not None:
        more = {"duplicate_of": said["duplicate_of"], "received_at": said["entry"]["at"]}
    else:
        said, more = look.told.lines.get((row["case_id"], 1)), {}
    if said is None:
        return None
    found = {"kind": said["case_kind"], "silent": said["silent"], "policy_version": said["policy_version"], **more}
    if said["case_kind"] != "subject":
        found |= {"number": said["number"], "source": said["source"], "subject_key": None}
    return found if said["case_kind"] == "duty" else found | {"year": None}


def _entry(look: Look, row: Any) -> Said | None:
    said = look.told.lines.get((row["case_id"], row["seq"]))
    if said is None:
        return None
    return {name: said["entry"][name] for name in ("kind", "at", "by", "data", "counts", "key")}


def _line(column: str, *also: str) -> Callable[[Look, Any], Said | None]:
    """A copy of a line, with some of what its message says besides."""

    def said(look: Look, row: Any) -> Said | None:
        told = look.told.lines.get((row["case_id"], row["seq"]))
        return None if told is None else {column: told["entry"], **{name: told[name] for name in also}}

    return said


def _watched(look: Look, row: Any) -> Said | None:
    said = look.told.lines.get((row["case_id"], 1))
    return None if said is None else {name: said[name] for name in ("case_kind", "policy_version", "number", "silent")}


def _standing(look: Look, row: Any) -> Said | None:
    said = look.told.standings.get(row["case_id"])
    if said is None or said.message_id != row["message_id"]:
        return None
    return {"body": msgspec.json.decode(said.body)}


# -- effects and amounts --------------------------------------------------------------------------------------------------------


def _announcement(look: Look, row: Any) -> Said | None:
    said = next(
        (each for each in look.told.announced.get((row["case_id"], row["key"]), []) if not each.withdrawn), None
    )
    if said is None:
        return None
    same = {name: said.effect[name] for name in ("rule", "clause", "kind", "at", "what", "data", "silent")}
    return same | {"addressee": said.effect["to"], "late": said.late}


def _posting(look: Look, row: Any) -> Said | None:
    told = look.told.posted.get(row["posting_id"])
    if not told:
        return None
    same = {name: told[0].penalty[name] for name in ("key", "rule", "party", "kind", "state", "currency")}
    return same | {
        "case_id": told[0].case_id,
        "difference_minor": told[0].difference_minor,
        "month": told[0].month,
        "posted_at": told[0].at,
        "penalty": told[0].penalty,
    }


def _position(look: Look, row: Any) -> Said | None:
    last = look.told.imposed.get((row["case_id"], row["key"]))
    return None if last is None else {"penalty": last}


def _effect(look: Look, row: Any) -> Said | None:
    told = look.told.announced.get((row["case_id"], row["key"]), [])
    if not told:
        return None
    return {"effect": row["effect"] if any(row["effect"] == each.effect for each in told) else told[0].effect}


# -- messages to people ---------------------------------------------------------------------------------------------------------


def _event(look: Look, row: Any) -> Said | None:
    said = look.told.happened.get(row["event_id"])
    if said is None:
        return None
    body = {name: value for name, value in said.said.items() if name not in ENVELOPE}
    at = said.said["at"]
    what = body.get("entry") or body.get("effect") or {}
    return {
        "type": said.type,
        "case_id": body["case_id"],
        "number": body["number"],
        "at": what.get("at", at),
        "source": (body.get("effect") or body.get("penalty") or {}).get("key", ""),
        "body": body,
    }


def _delivery(look: Look, row: Any) -> Said | None:
    """What was told of a delivery since it entered its state."""
    said = look.told.delivered.get(row["delivery_id"])
    if said is None or row["state"] in UNTOLD or row["state"] != said.state:
        return None
    return {
        "rule": said.rule,
        "channel": said.channel,
        "audience": said.audience,
        "attempts": said.attempts,
        "reason": said.detail,
        "case_id": said.case_id,
        "round": row["round"] if _is_told(look, row) else None,
    }


def _is_told(look: Look, row: Any) -> bool:
    """Whether a delivery was told in this state of this round; the id of the message says so."""
    name = name_of("delivery", row["delivery_id"], row["state"], row["round"], row["attempts"])
    return ("notify", uuid5(NAMES, name)) in look.told.rows


def name_of(*parts: object) -> str:
    """What an id is made of."""
    return "".join(f"{len(str(part))}:{part}" for part in parts)


def _own_id(look: Look, row: Any) -> Said | None:
    """A delivery is one by what it tells, to whom and how; its id says all of that."""
    if row["rule"] == "test":
        return None
    parts = (row[name] for name in ("tenant_id", "event_id", "rule", "audience", "addressee", "channel"))
    return {"delivery_id": uuid5(NAMES, name_of("delivery", *parts))}


def _reported(look: Look, row: Any) -> Said | None:
    said = look.told.delivered.get(row["delivery_id"])
    return None if said is None else {"attempts": said.attempts, "at": said.at}


# -- reference data -------------------------------------------------------------------------------------------------------------


def _staff(look: Look, row: Any) -> Said | None:
    said = look.told.staff.get((row["tenant_id"], row["staff_id"]))
    if said is None:
        return None
    return {
        "revision": said["revision"],
        **{name: said["staff"][name] for name in ("roles", "unit", "active", "deputy")},
    }


def _copied_staff(look: Look, row: Any) -> Said | None:
    said = look.told.staff.get((row["tenant_id"], row["staff_id"]))
    return None if said is None else {**(_staff(look, row) or {}), "absent_until": said["staff"]["absent_until"]}


# -- facts ----------------------------------------------------------------------------------------------------------------------


def _fact(look: Look, row: Any) -> Said | None:
    """The columns of a fact say what its body says, and the body what was told."""
    body, counted = row["body"], row["counted"]
    line = look.told.lines.get((row["case_id"], 1))
    if row["seq"] == 0 or line is None:
        return None
    if not isinstance(body, dict) or not isinstance(counted, dict):
        return {name: kept if isinstance(kept, dict) else {} for name, kept in (("body", body), ("counted", counted))}
    named = {name: body.get(name) for name in ("kind", "category", "severity", "channel", "state", "outcome")}
    columns = named | {"unit": (body.get("handler") or {}).get("unit")}
    tenant = look.tenants.get(row["tenant_id"])
    return columns | {
        "seq": body.get("seq", 0),
        **_stands(look, row),
        "case_kind": line["case_kind"],
        "number": line["number"],
        "received_at": line["entry"]["at"],
        "is_late": body.get("late", False),
        "is_closed": body.get("closed_at") is not None,
        "day": row["day"] if str(row["day"]) == counted.get("day") else None,
        "zone": None if tenant is None else tenant.zone,
        "last_at": max(_instants(look, row["case_id"], row["seq"], body), default=None),
        "counted": counted if _adds(counted, columns, line["case_kind"]) else None,
        "body": body if _agrees(look, row["case_id"], line, body) else None,
    }


def _stands(look: Look, row: Any) -> Said:
    """What the standing says of the columns of a fact; it says nothing of what a rule has not classified."""
    standing = look.told.standings.get(row["case_id"])
    if standing is None or row["case_kind"] == "subject":
        return {}
    named = {name: standing.classified.get(name) for name in ("kind", "category", "severity")}
    return {name: value for name, value in named.items() if value is not None} | {
        "state": standing.state,
        "outcome": standing.outcome,
    }


def _instants(look: Look, case_id: UUID, seq: int, body: Mapping[str, Any]) -> Iterable[datetime]:
    told = (body.get(name) for name in ("at", "handled_at", "resolved_at", "closed_at", "due_at"))
    lines = (look.told.lines.get((case_id, place)) for place in range(1, seq + 1))
    every = (*told, *(line["entry"]["at"] for line in lines if line is not None))
    return (found for found in map(instant, every) if found is not None)


def _adds(counted: Mapping[str, Any], columns: Mapping[str, Any], case_kind: str) -> bool:
    """Whether a fact is counted under the parts that its columns name."""
    if set(counted) - {"day", "parts", "measures", "totals"}:
        return False
    parts = {name: part for name, part in columns.items() if part}
    return case_kind != "complaint" or counted.get("parts", {}) == parts


def _agrees(look: Look, case_id: UUID, line: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether the body of a fact says what line 1 and the standing say."""
    data = line["entry"]["data"]
    if body.get("case_kind") != line["case_kind"] or instant(body.get("at")) != instant(line["entry"]["at"]):
        return False
    if line["case_kind"] != "complaint":
        return True
    if body.get("complainant_id") != (data.get("complainant") or {}).get("id") or body.get("source") != line["source"]:
        return False
    standing = look.told.standings.get(case_id)
    if standing is None:
        return True
    is_late = any(clock["state"] == "breached" for clock in standing.clocks)
    said = (body.get("state"), body.get("outcome"), body.get("late", False), body.get("closed_at") is not None)
    if said != (standing.state, standing.outcome, is_late, standing.closed):
        return False
    clocks = [_run(clock) for clock in standing.clocks]
    if any(_run(run) not in clocks for run in body.get("runs", [])):
        return False
    states = {
        (name, clock["state"]) for clock in standing.clocks for name in (clock["rule"], *_clauses(clock["clause"]))
    }
    late = {name for name, state in states if state == "breached"}
    return set(body.get("clocks", {}).items()) <= states and set(body.get("breached", [])) <= late


def _run(of: Mapping[str, Any]) -> tuple[Any, ...]:
    return of.get("rule"), of.get("state"), instant(of.get("due_at")), instant(of.get("started_at"))


def _clauses(clause: Any) -> list[str]:
    return clause if isinstance(clause, list) else [clause] if clause else []


KEPT: Final = (
    Kept(check="I13", table="intake.complaint", name=("complaint_id",), said=_complaint),
    Kept(check="I13", table='routing."case"', name=("case_id",), said=_case),
    Kept(check="I13", table="routing.entry", name=("case_id",), said=_entry),
    Kept(check="I13", table="sla.timeline_entry", name=("case_id",), said=_line("entry")),
    Kept(
        check="I13",
        table="notify.entry",
        name=("case_id",),
        said=_line("body", "case_kind", "policy_version", "number", "silent"),
    ),
    Kept(check="I13", table="reporting.entry", name=("case_id",), said=_line("body", "case_kind", "number", "source")),
    Kept(check="I13", table="sla.watched_case", name=("case_id",), said=_watched),
    Kept(check="I13", table="reporting.standing", name=("case_id",), said=_standing),
    Kept(check="I4", table="sla.announcement", name=("case_id", "key"), said=_announcement),
    Kept(check="I4", table="sla.ledger_posting", name=("posting_id",), said=_posting),
    Kept(check="I4", table="sla.ledger_position", name=("case_id", "key"), said=_position),
    Kept(check="I5", table="notify.event", name=("event_id",), said=_event),
    Kept(check="I7", table="notify.delivery", name=("delivery_id",), said=_own_id),
    Kept(check="I5", table="notify.delivery", name=("delivery_id",), said=_delivery),
    Kept(check="I8", table="reporting.announcement", name=("case_id", "key"), said=_effect),
    Kept(check="I8", table="reporting.delivery", name=("delivery_id",), said=_reported, may_pass=True),
    Kept(check="I8", table="reporting.fact", name=("case_id",), said=_fact, may_pass=True),
    Kept(check="I9", table="routing.staff_member", name=("tenant_id", "staff_id"), said=_staff),
    *(
        Kept(check="I9", table=f"{service}.staff", name=("tenant_id", "staff_id"), said=_copied_staff, may_pass=True)
        for service in ("intake", "sla", "notify", "reporting")
    ),
)

"""Rows against the messages that say the same: what one service keeps of what itself or another has told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
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

NEAR: Final = timedelta(minutes=125)

Said = Mapping[str, Any]


class Kept(Struct, frozen=True, kw_only=True):
    """A table, and what was said of each of its rows.

    Args:
        check: the promise that is broken when they differ.
        name: the columns that name a row in a finding.
        said: returns what each column should hold, in the words of the message; None when nothing was said of this row.
        may_pass: a message under way may still change the row.
        since: the column that says when a row was written, where each is told in the transaction that writes it.
    """

    check: str
    table: str
    name: tuple[str, ...]
    said: Callable[[Look, Any], Said | None]
    may_pass: bool = False
    since: str = ""


async def check(look: Look) -> None:
    await compare(look, KEPT)


async def compare(look: Look, tables: Iterable[Kept]) -> None:
    """Compare each row of these tables with what was told of it."""
    for kept in tables:
        for row in await look.rows(f"SELECT * FROM {kept.table}"):  # noqa: S608 - names of our own
            look.findings.looked_at(1)
            try:
                said = kept.said(look, row)
            except (AttributeError, KeyError, TypeError, ValueError):
                said = {kept.name[-1]: None}  # what was told, or is kept, has another form altogether
            if said is None:
                if kept.since and row[kept.since] > look.retained_from and _is_ours(look, row):
                    name = " ".join(str(row[column]) for column in kept.name)
                    what = f"{kept.table} holds what was never told"
                    look.findings.add("I9", name, what, tenant_id=row["tenant_id"], is_extra=True)
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
    if said is None and row["state"] not in UNTOLD and row["created_at"] > look.retained_from:
        return {"state": None}
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
        "sent_at": said.at if said.state == "sent" and not _is_near(row["sent_at"], said.at) else row["sent_at"],
    }


def _is_near(kept: datetime | None, told: datetime) -> bool:
    """Whether it is the instant that was told. The two are taken one after the other, between which somebody may set the clock right."""
    return kept is not None and abs(kept - told) <= NEAR


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


KEPT: Final = (
    Kept(check="I13", table="intake.complaint", name=("complaint_id",), said=_complaint, since="stored_at"),
    Kept(check="I13", table='routing."case"', name=("case_id",), said=_case),
    Kept(check="I13", table="routing.entry", name=("case_id",), said=_entry, since="written_at"),
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
)

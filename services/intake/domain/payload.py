"""What a call centre posts: our own canonical JSON, or its own form with a mapping that the source carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from services.intake.domain.complaint import Draft, Fault
from services.intake.domain.vocabulary import near
from shared.engine.calendar.localtime import is_known_zone

TARGETS: Final = (
    "channel", "kind", "category", "severity", "anonymous", "text", "subject", "language", "received_at", "reference",
    "complainant.type", "complainant.name", "complainant.phone", "complainant.email", "complainant.address",
    "complainant.language", "respondent.staff", "respondent.unit", "respondent.supervisor", "handler.staff",
    "handler.unit", "handler.head",
)  # fmt: skip
_POINTER = r"^(/[^/]{1,120}){1,10}$"
_TRUE: Final = frozenset({"true", "yes", "y", "1", "是"})


class Taken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one value comes from.

    at: JSON Pointer into the payload.
    value: the value itself, where the payload does not carry it, or carries null.
    values: what the sender's codes stand for; `*` is any other.
    time: how the payload writes an instant; a format of strptime is read in `zone`.
    """

    at: Annotated[str, Meta(pattern=_POINTER)] | None = None
    value: str | bool | None = None
    values: dict[str, str] | None = None
    time: Literal["rfc3339", "epoch_seconds", "epoch_milliseconds"] | str = "rfc3339"
    zone: str = "Asia/Shanghai"


class Mapped(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A payload of the sender's own form. Keys are canonical fields, `complainant.phone` or `fields.NAME`."""

    map: Annotated[dict[str, Taken], Meta(min_length=1, max_length=120)]


def mapping_faults(mapped: Mapped) -> tuple[Fault, ...]:
    """Return what is wrong with a mapping when it is saved, so that nothing is when a complaint comes."""
    faults: list[Fault] = []
    for target, taken in mapped.map.items():
        path = ("map", target)
        if target not in TARGETS and not re.fullmatch(r"fields\.[^\s.]{1,120}", target):
            faults.append(Fault(path, "a complaint has no such field", near(target, TARGETS)))
        if taken.at is None and taken.value is None:
            faults.append(Fault(path, "either `at` or `value` is needed"))
        if target == "received_at":
            faults += _time_faults(path, taken)
    return tuple(faults)


def _time_faults(path: tuple[str, ...], taken: Taken) -> list[Fault]:
    faults: list[Fault] = []
    if taken.time not in ("rfc3339", "epoch_seconds", "epoch_milliseconds"):
        try:
            datetime.strptime(datetime(2026, 3, 2, tzinfo=UTC).strftime(taken.time), taken.time)  # noqa: DTZ007 - a trial
        except ValueError:
            faults.append(Fault((*path, "time"), "this is no format of a time", "%Y-%m-%d %H:%M:%S"))
    if not is_known_zone(taken.zone):
        faults.append(Fault((*path, "zone"), "this is no IANA time zone", "Asia/Shanghai"))
    return faults


def mapped_draft(mapped: Mapped, payload: Any) -> Draft | tuple[Fault, ...]:
    """Return the draft that a payload of the sender's own form stands for, or its faults with pointers into that
    payload.
    """
    faults: list[Fault] = []
    draft: dict[str, Any] = {}
    for target, taken in mapped.map.items():
        value = taken.value if taken.at is None else _found(payload, taken.at)
        if value is None:
            value = taken.value
        if value is None or value == "":
            continue
        read = _read(target, taken, value)
        if isinstance(read, Fault):
            faults.append(read)
            continue
        parent, _, leaf = target.rpartition(".")
        (draft.setdefault(parent, {}) if parent else draft)[leaf] = read
    if faults:
        return tuple(faults)
    return draft_of(draft)


def draft_of(value: Mapping[str, Any]) -> Draft | tuple[Fault, ...]:
    """Return the draft that a mapping of plain values stands for, or the first fault of its form."""
    try:
        return msgspec.convert(value, Draft)
    except msgspec.ValidationError as error:
        return (form_fault(error),)


def form_fault(error: msgspec.ValidationError) -> Fault:
    """Return what the decoder found as a fault: it says what is expected and where, never what was there."""
    detail, _, place = str(error).partition(" - at `")
    path = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", place.rstrip("`").removeprefix("$"))
    return Fault(tuple(name or index for name, index in path), detail)


def origin(mapped: Mapped, fault: Fault) -> Fault:
    """Return a fault of the draft with the pointer that leads to its cause in the sender's payload."""
    for length in range(len(fault.path), 0, -1):
        taken = mapped.map.get(".".join(fault.path[:length]))
        if taken is not None and taken.at is not None:
            return Fault(tuple(taken.at.split("/")[1:]) + fault.path[length:], fault.detail, fault.suggestion)
    return fault


def _found(payload: Any, pointer: str) -> Any:
    """Follow a JSON Pointer; what is not there is None."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(payload, dict):
            payload = payload.get(key)
        elif isinstance(payload, list) and key.isascii() and key.isdigit() and len(key) < 6 and int(key) < len(payload):
            payload = payload[int(key)]
        else:
            return None
    return payload


def _read(target: str, taken: Taken, value: Any) -> Any:
    source = tuple(taken.at.split("/")[1:]) if taken.at else ("map", target)
    if taken.values is not None:
        code = str(value).lower() if isinstance(value, bool) else str(value)[:200]
        mapped = taken.values.get(code, taken.values.get("*"))
        if mapped is None:
            return Fault(source, "the source's mapping knows no such code", near(code, taken.values))
        value = mapped
    if target == "received_at":
        at = _instant(taken, value)
        return at if at is not None else Fault(source, f"this is no instant written as {taken.time}")
    if target == "anonymous":
        return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE
    if target.startswith("fields."):
        # Own fields are read by their type later; what JSON can say exactly is kept, a fraction becomes text.
        return str(value) if isinstance(value, float) else value
    if isinstance(value, (dict, list)):
        return Fault(source, "a single value is needed")
    return str(value)


def _instant(taken: Taken, value: Any) -> datetime | None:
    try:
        match taken.time:
            case "rfc3339":
                return datetime.fromisoformat(str(value)[:40])
            case "epoch_seconds":
                return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(str(value)[:13]))
            case "epoch_milliseconds":
                return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(str(value)[:16]))
            case form:
                at = datetime.strptime(str(value)[:60], form)  # noqa: DTZ007 - the zone is the source's, unless the text has one
                return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(taken.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

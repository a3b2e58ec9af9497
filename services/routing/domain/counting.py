"""What a subject's timeline says was counted before, and which counts a reversed decision takes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from shared.engine.calendar import Calendar
from shared.engine.model import CountStamp, Entry
from shared.engine.subjects import Item

_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_REVERSED_BY: Final = frozenset({"withdrawn", "reconsidered"})
_NOT_UPHELD: Final = frozenset({"not_upheld", "malicious", "withdrawn"})


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a `counted` entry of a subject. `on` is when it happened, which may be before the entry itself.

    `case_id` and `seq` name the line that was counted; (`rule`, `case_id`, `seq`) is counted once.
    """

    rule: str
    case_id: UUID
    seq: int
    on: datetime
    added: int
    count: int
    fires: bool
    times: int

    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def counted_entry(rule: str, case_id: UUID, seq: int, on: datetime, stamp: CountStamp) -> dict[str, Any]:
    return Counted(
        rule=rule,
        case_id=case_id,
        seq=seq,
        on=on,
        added=stamp.added,
        count=stamp.before + stamp.added,
        fires=stamp.fires,
        times=stamp.times,
    ).data()


def items(timeline: Iterable[Entry], rule: str) -> list[Item]:
    """Return what has been counted under a rule and not taken back since."""
    kept: dict[tuple[str, str, int], Item] = {}
    for entry in timeline:
        data = entry.data
        key = (str(data.get("rule")), str(data.get("case_id")), int(data.get("seq") or 0))
        if key[0] != rule:
            continue
        if entry.kind == "counted":
            counted = msgspec.convert(data, Counted, strict=False)
            kept[key] = Item(at=counted.on, added=counted.added, fired=counted.fires)
        elif entry.kind == "uncounted":
            kept.pop(key, None)
    return list(kept.values())


def counts_since(at: datetime, window: str, calendar: Calendar) -> datetime:
    """Return the instant before which nothing matters for a count at `at`."""
    if window == "ever" or window.startswith("opened:"):  # when a window opened depends on all before it
        return _BEGINNING
    return calendar.window_start(at, window)


def known_at(found: Iterable[Item], at: datetime, window: str, calendar: Calendar) -> list[Item]:
    """Return the items that count for something that happened at `at`.

    Somebody who was stamped later may have counted first. What shares the window then counts as earlier, so that of two that could both be
    the fourth one is; what lies in a later window stays out.
    """
    known = []
    for item in found:
        if item.at <= at:
            known.append(item)
        elif window == "ever" or calendar.window_start(item.at, window.removeprefix("opened:")) <= at:
            known.append(msgspec.structs.replace(item, at=at))
    return known


def subject_key(subject: str) -> str:
    return subject[:300]


def reverses(entry: Entry) -> bool:
    """Whether the entry takes back the decisions before it: the complaint is withdrawn, or a second look finds nothing to uphold."""
    if entry.kind not in _REVERSED_BY:
        return False
    return entry.kind == "withdrawn" or entry.data.get("outcome") in _NOT_UPHELD


def taken_back(timeline: Sequence[Entry], by: Entry) -> list[tuple[str, CountStamp, int]]:
    """Return (rule, stamp, seq) of every count that a reversing entry takes back.

    Decisions are taken back; that the complaint was received stays true. What an earlier reversal took back is not taken back again.
    """
    if not reverses(by):
        return []
    earlier = max((entry.seq for entry in timeline if entry.seq < by.seq and reverses(entry)), default=0)
    return [
        (rule, stamp, entry.seq)
        for entry in timeline
        if earlier < entry.seq < by.seq and entry.kind != "received"
        for rule, stamp in entry.counts.items()
    ]

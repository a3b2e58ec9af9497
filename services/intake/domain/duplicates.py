"""Which earlier complaint a new one repeats, by the policy's window and the words that must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from services.intake.domain.complaint import NormalisedComplaint
from shared.engine.amounts import parse_amount
from shared.policy.schema import Duplicates

_LENGTHS: Final = {
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "bh": timedelta(hours=1),
    "d": timedelta(days=1),
    "wd": timedelta(days=1),
    "w": timedelta(weeks=1),
    "mo": timedelta(days=31),
    "y": timedelta(days=366),
}


class Earlier(Struct, frozen=True, kw_only=True):
    """An earlier complaint of the same complainant, as far as duplicates are concerned."""

    complaint_id: UUID
    received_at: datetime
    duplicate_of: UUID | None
    words: dict[str, Any]


def words_of(complaint: NormalisedComplaint) -> dict[str, Any]:
    """Return what can be compared: the class, the channel, the respondent, own fields by their names."""
    respondent = {f"respondent.{part}": name for part, name in complaint.respondent.items()}
    stated = {
        "kind": complaint.kind,
        "category": complaint.category,
        "severity": complaint.severity,
        "channel": complaint.channel,
    }
    return complaint.fields | respondent | {word: value for word, value in stated.items() if value is not None}


def window_of(rule: Duplicates) -> timedelta:
    """Return how far back a repetition is looked for. Working days count as days here: a window says "recently", it is
    no limit.
    """
    return _length(rule.window)


@lru_cache(maxsize=1_000)
def _length(window: str) -> timedelta:
    amount = parse_amount(window)
    return amount.n * _LENGTHS.get(amount.unit, timedelta(days=1))


def duplicate_of(rule: Duplicates, words: Mapping[str, Any], at: datetime, earlier: Sequence[Earlier]) -> UUID | None:
    """Return the first complaint that a new one at `at` repeats, or None.

    All words that the rule names must agree, and at least one of them must be stated: two complaints of which nothing
        is known are not the same. A repetition of a repetition leads to the first. The window includes both its ends.
    """
    if not earlier:
        return None
    names = [name.removeprefix("complaint.").removeprefix("fields.") for name in rule.match]
    wanted = {name: words.get(name) for name in names}
    if all(value is None for value in wanted.values()):
        return None
    start = at - window_of(rule)
    found = [
        one
        for one in earlier
        if start <= one.received_at <= at and all(one.words.get(name) == value for name, value in wanted.items())
    ]
    if not found:
        return None
    first = min(found, key=lambda one: (one.received_at, one.complaint_id))
    return first.duplicate_of or first.complaint_id

"""Rollups: sums over facts by day, dimension and measure, kept up by the difference that one fact makes.

A fact remembers what it has added (`Counted`). When it changes, what it added is taken off and what it adds now is put
on, in the transaction that stores the fact: whatever comes twice or late, the rollup is the sum over the facts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, tzinfo
from typing import Final

from msgspec import Struct

from shared.engine.facts import FactRow

WHOLE: Final = "all"
"""The dimension that is not divided; its only part is the empty text."""

DIMENSIONS: Final = ("category", "channel", "kind", "outcome", "severity", "state", "unit")
MEASURES: Final = (
    "received",
    "accepted",
    "declined",
    "assigned",
    "on_time",
    "late",
    "escalated",
    "escalations",
    "closed",
)
ENTRIES: Final = "entries"
"""Measure of the whole alone: how many entries of timelines the sums cover."""

Key = tuple[date, str, str, str]  # day, dimension, part, measure


class Counted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one fact adds: each measure once to the whole and once to each part; `totals` to the whole alone."""

    day: date
    parts: dict[str, str] = {}  # dimension → part; the empty text: not known
    measures: dict[str, int] = {}
    totals: dict[str, int] = {}


def counted(
    row: FactRow, zone: tzinfo, amounts: Mapping[tuple[str, str], int], messages: Mapping[tuple[str, str], int]
) -> Counted:
    """Return what a fact adds to the day on which its case began, in the tenant's zone.

    Args:
        amounts: by (kind of penalty, currency), minor units as the ledger has posted them.
        messages: by (channel, state), how many deliveries.
    """
    if row.at is None:
        raise ValueError("a fact that has not begun adds nothing")
    measures = _of_complaint(row) if row.case_kind == "complaint" else {}
    measures |= {f"amount:{kind}:{currency}": minor for (kind, currency), minor in amounts.items()}
    totals = {f"messages:{channel}:{state}": number for (channel, state), number in messages.items()}
    if row.case_kind == "complaint":
        totals[ENTRIES] = row.seq
    return Counted(
        day=row.at.astimezone(zone).date(),
        parts={name: part for name, part in _parts(row).items() if part} if measures else {},
        measures={name: measures[name] for name in sorted(measures) if measures[name]},
        totals={name: totals[name] for name in sorted(totals) if totals[name]},
    )


def _of_complaint(row: FactRow) -> dict[str, int]:
    return {
        "received": row.count,
        "accepted": row.count * (row.accepted is True),
        "declined": row.count * (row.accepted is False),
        "assigned": row.count * (row.assigned_at is not None),
        "on_time": row.count * row.on_time,
        "late": row.count * row.late,
        "escalated": row.count * (row.escalated > 0),
        "escalations": row.escalated,
        "closed": row.count * (row.closed_at is not None),
    }


def _parts(row: FactRow) -> dict[str, str | None]:
    return {
        "category": row.category,
        "channel": row.channel,
        "kind": row.kind,
        "outcome": row.outcome,
        "severity": row.severity,
        "state": row.state,
        "unit": row.handler.get("unit"),
    }


def cells(of: Counted) -> dict[Key, int]:
    """Return what is added, by the key of the rollup."""
    day = of.day
    sums = {(day, WHOLE, "", name): amount for name, amount in {**of.measures, **of.totals}.items()}
    if of.measures:
        places = ((dimension, of.parts.get(dimension, "")) for dimension in DIMENSIONS)
        sums |= {(day, *place, name): amount for place in places for name, amount in of.measures.items()}
    return sums


def differences(changes: Iterable[tuple[Counted | None, Counted | None]]) -> dict[Key, int]:
    """Return what these changes of facts, (before, after) each, add to the rollup: by key, in order, without zeros."""
    sums: Counter[Key] = Counter()
    for before, after in changes:
        if before == after:
            continue
        if before is not None:
            sums.subtract(cells(before))
        if after is not None:
            sums.update(cells(after))
    return {key: sums[key] for key in sorted(sums) if sums[key]}

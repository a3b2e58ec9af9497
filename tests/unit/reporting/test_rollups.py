"""Rollups kept up by differences are the sums over the facts, whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reporting.domain.rollups import DIMENSIONS, WHOLE, Counted, Key, cells, counted, differences
from shared.engine.facts import FactRow

SHANGHAI = ZoneInfo("Asia/Shanghai")
NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
MARCH_2 = date(2026, 3, 2)


def a_row(**values: Any) -> FactRow:
    return FactRow(**{"at": NINE, "seq": 1, **values})


def added_by(row: FactRow) -> Counted:
    return counted(row, SHANGHAI, {}, {})


@pytest.mark.parametrize(
    ("row", "measures"),
    [
        (a_row(), {"received": 1}),
        (a_row(accepted=True), {"received": 1, "accepted": 1}),
        (a_row(accepted=False), {"received": 1, "declined": 1}),
        (a_row(assigned_at=NINE, on_time=True), {"received": 1, "assigned": 1, "on_time": 1}),
        (a_row(late=True, escalated=3), {"received": 1, "late": 1, "escalated": 1, "escalations": 3}),
        (a_row(closed_at=NINE), {"received": 1, "closed": 1}),
    ],
)
def test_a_complaint_adds_what_it_is(row: FactRow, measures: dict[str, int]) -> None:
    assert added_by(row).measures == measures


def test_the_day_is_that_of_the_tenant() -> None:
    evening = datetime(2026, 3, 2, 16, 30, tzinfo=UTC)  # 00:30 on the 3rd in Shanghai

    assert added_by(a_row(at=evening)).day == date(2026, 3, 3)
    assert counted(a_row(at=evening), ZoneInfo("America/Lima"), {}, {}).day == MARCH_2


def test_measures_count_once_in_each_dimension_and_totals_in_the_whole_alone() -> None:
    row = a_row(seq=4, category="billing", channel="phone", handler={"unit": "u1"})

    sums = cells(counted(row, SHANGHAI, {("fine", "CNY"): 5_000}, {("sms", "delivered"): 2}))

    assert sums[MARCH_2, WHOLE, "", "received"] == 1
    assert sums[MARCH_2, WHOLE, "", "entries"] == 4
    assert sums[MARCH_2, WHOLE, "", "messages:sms:delivered"] == 2
    assert sums[MARCH_2, "category", "billing", "amount:fine:CNY"] == 5_000
    assert sums[MARCH_2, "unit", "u1", "received"] == 1
    assert sums[MARCH_2, "severity", "", "received"] == 1
    assert (MARCH_2, "category", "billing", "entries") not in sums
    assert {dimension for _, dimension, _, measure in sums if measure == "received"} == {WHOLE, *DIMENSIONS}


def test_a_duty_or_a_subject_adds_money_and_no_complaint() -> None:
    row = a_row(case_kind="duty", accepted=True, closed_at=NINE, handler={"unit": "u1"})

    added = counted(row, SHANGHAI, {("fine", "CNY"): 200}, {})

    assert added.measures == {"amount:fine:CNY": 200}
    assert added.totals == {}
    assert cells(added_by(row)) == {}


def test_a_difference_takes_off_the_former_and_puts_on_the_new() -> None:
    before = added_by(a_row(category="billing"))
    after = added_by(a_row(seq=2, category="service", accepted=True))

    changes = differences([(before, after)])

    assert changes[MARCH_2, "category", "billing", "received"] == -1
    assert changes[MARCH_2, "category", "service", "received"] == 1
    assert changes[MARCH_2, WHOLE, "", "accepted"] == 1
    assert changes[MARCH_2, WHOLE, "", "entries"] == 1
    assert (MARCH_2, WHOLE, "", "received") not in changes
    assert list(changes) == sorted(changes)


def test_what_stays_the_same_makes_no_difference() -> None:
    same = added_by(a_row(category="billing", late=True))

    assert differences([(same, added_by(a_row(category="billing", late=True)))]) == {}


_parts = st.sampled_from(["a", "b", None])
_rows = st.builds(
    FactRow,
    at=st.sampled_from([NINE, datetime(2026, 3, 9, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)]),
    seq=st.integers(1, 9),
    case_kind=st.sampled_from(["complaint", "complaint", "duty"]),
    category=_parts,
    channel=_parts,
    severity=_parts,
    state=_parts,
    accepted=st.sampled_from([True, False, None]),
    late=st.booleans(),
    on_time=st.booleans(),
    escalated=st.integers(0, 3),
    closed_at=st.sampled_from([None, NINE]),
)
_amounts = st.dictionaries(
    st.tuples(st.sampled_from(["fine", "deduction"]), st.sampled_from(["CNY", "EUR"])), st.integers(-500, 500)
)
_changes = st.lists(st.tuples(st.integers(0, 4), _rows, _amounts), max_size=30)


@given(_changes, st.data())
def test_the_rollup_is_the_sum_over_the_facts_however_changes_come(
    changes: list[tuple[int, FactRow, dict[tuple[str, str], int]]], data: st.DataObject
) -> None:
    """Changes are applied in batches of any size, some of them twice; the recount knows nothing of differences."""
    rollup: Counter[Key] = Counter()
    facts: dict[int, Counted] = {}
    waiting = [(case, counted(row, SHANGHAI, amounts, {})) for case, row, amounts in changes]
    while waiting:
        size = data.draw(st.integers(1, len(waiting)))
        batch = dict(waiting[:size])  # several changes of one fact in a batch are one change
        repeats = data.draw(st.booleans())
        waiting = waiting[size:]
        for _ in range(1 + repeats):
            rollup.update(differences((facts.get(case), after) for case, after in batch.items()))
            facts |= batch

    recount: Counter[Key] = Counter()
    for fact in facts.values():
        recount.update(cells(fact))
    assert {key: amount for key, amount in rollup.items() if amount} == {
        key: amount for key, amount in recount.items() if amount
    }


@given(st.lists(st.tuples(st.uuids(), _rows), max_size=10, unique_by=lambda pair: pair[0]))
def test_every_dimension_adds_up_to_the_whole(rows: list[tuple[UUID, FactRow]]) -> None:
    sums = differences((None, added_by(row)) for _, row in rows)
    by_dimension: Counter[tuple[date, str, str]] = Counter()
    for (day, dimension, _, measure), amount in sums.items():
        by_dimension[day, dimension, measure] += amount

    for (day, dimension, measure), amount in by_dimension.items():
        if measure != "entries":
            assert amount == by_dimension[day, WHOLE, measure], dimension

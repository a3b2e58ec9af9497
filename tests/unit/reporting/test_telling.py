"""A fact is made from what was told, as far as it is known without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from services.reporting.domain.telling import StoredFact, Told, fact_of, row_of, without_gap
from shared.engine.facts import fact
from shared.engine.model import (
    AcceptanceView,
    Actor,
    ClassView,
    ClockView,
    EffectView,
    Entry,
    PenaltyView,
    RouteView,
    Standing,
)
from shared.ids import new_id
from shared.messages import StandingChanged

SHANGHAI = ZoneInfo("Asia/Shanghai")
NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)
CASE = UUID("018f0000-0000-7000-8000-000000000001")


def an_entry(seq: int, kind: str = "commented", **data: Any) -> Entry:
    return Entry(seq=seq, kind=kind, at=NINE + timedelta(hours=seq), by=Actor(id="clerk"), data=data)


def a_standing(**changes: Any) -> StandingChanged:
    values: dict[str, Any] = {
        "message_id": new_id(),
        "tenant_id": new_id(),
        "at": NINE,
        "case_id": CASE,
        "case_kind": "complaint",
        "seq": 1,
        "now": NINE,
        "state": "open",
        "closed": False,
        "classified": ClassView(category="billing"),
        "outcome": None,
        "acceptance": AcceptanceView(accepted=True, at=NINE),
        "clocks": (),
        "penalties": (),
    }
    return StandingChanged(**{**values, **changes})


def told(**values: Any) -> Told:
    return Told(case_id=CASE, **values)


def stored(case: Told) -> StoredFact:
    found = fact_of(case, SHANGHAI, "Asia/Shanghai")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("seqs", "known"), [([], []), ([2, 3], []), ([1], [1]), ([1, 2, 4], [1, 2]), ([1, 2, 3], [1, 2, 3])]
)
def test_only_what_has_no_gap_before_it_counts(seqs: list[int], known: list[int]) -> None:
    assert [entry.seq for entry in without_gap([an_entry(seq) for seq in seqs])] == known


def test_there_is_no_fact_before_the_first_entry() -> None:
    assert fact_of(told(standing=a_standing(), entries=[an_entry(2)]), SHANGHAI, "Asia/Shanghai") is None


def test_the_fact_says_how_far_it_goes() -> None:
    found = stored(told(entries=[an_entry(1, "received"), an_entry(2), an_entry(4)]))

    assert (found.seq, found.last_at) == (2, NINE + timedelta(hours=2))


def test_a_limit_that_ends_later_than_the_last_entry_is_within_reach() -> None:
    due_at = NINE + timedelta(days=30)
    clock = ClockView(
        rule="reply",
        run=0,
        part=0,
        clause="R09.21",
        name=None,
        state="running",
        started_at=NINE,
        anchor_at=NINE,
        due_at=due_at,
    )

    assert stored(told(entries=[an_entry(1, "received")], standing=a_standing(clocks=(clock,)))).last_at == due_at


def test_the_stored_row_leaves_its_entries_out() -> None:
    found = stored(told(entries=[an_entry(1, "received", channel="phone")], number="20260302-0001", source="api"))

    assert found.body.entries == ()
    assert (found.number, found.channel, found.body.source) == ("20260302-0001", "phone", "api")


def test_derived_figures_of_the_policy_are_taken_over() -> None:
    row = row_of(told(entries=[an_entry(1, "received")], standing=a_standing(facts={"rounds": 3, "liability": "none"})))

    assert row is not None
    assert (row.rounds, row.facts) == (3, {"rounds": 3, "liability": "none"})


def test_the_service_and_the_simulator_make_the_same_row() -> None:
    """What sla tells in messages, put together, gives the row that a fold of the same case gives."""
    entries = [
        an_entry(1, "received", channel="phone"),
        an_entry(2, "accepted"),
        an_entry(3, "resolved", outcome="upheld"),
    ]
    clock = ClockView(
        rule="reply",
        run=0,
        part=0,
        clause="R09.21",
        name=None,
        state="breached",
        started_at=NINE,
        anchor_at=NINE,
        due_at=NINE,
    )
    effect = EffectView(key="e1", rule="reply", clause="R09.21", kind="escalated", at=NINE, to="leader")
    penalty = PenaltyView(key="p1", rule="late", clause="R09.36", party="s1", kind="fine", at=NINE, amount_minor=5_000)
    owner = RouteView(rule="r1", clause=None, unit="centre", at=NINE)
    standing = Standing(
        seq=3,
        now=NINE,
        policy_version=1,
        state="resolved",
        closed=False,
        acceptance=AcceptanceView(accepted=True, at=NINE),
        classified=ClassView(category="billing"),
        outcome="upheld",
        routing=(owner,),
        clocks=(clock,),
        effects=(effect,),
        penalties=(penalty,),
        counters=(),
        problems=(),
        next_at=NINE,
        owner=owner,
    )
    message = a_standing(
        seq=3, state="resolved", outcome="upheld", clocks=(clock,), penalties=(penalty,), owner=owner, routing=(owner,)
    )
    case = told(entries=entries, standing=message, effects=[effect], source="api")

    assert row_of(case) == fact(entries, standing, source="api")


def test_a_stored_row_reads_back_as_it_was() -> None:
    found = stored(told(entries=[an_entry(1, "received", fields={"loss_cny": "1.00"})], standing=a_standing()))

    again = msgspec.json.decode(msgspec.json.encode(found), type=StoredFact)

    assert again == found

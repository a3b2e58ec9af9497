"""What holds for every timeline: of three templates, however people act, whenever anybody looks."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from services.sla.domain.ledger import Position, owed_minor, postings
from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec, readd
from shared.engine.case import fold, replay
from shared.engine.explaining import steps_of
from shared.engine.model import Actor, ClockView, Entry, PenaltyView, Standing
from shared.policy.compiling import compile_policy
from shared.policy.template_files import document_of
from tests.unit.engine.timelines import START, after, book_of, cases, gaps, live, plain, policy_of, stand

CLERK = Actor(id="clerk")
MICROSECOND = timedelta(microseconds=1)
thorough = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@thorough
@given(cases, gaps)
def test_replay_gives_what_was_seen_live(case: tuple[str, list[Entry]], gap: timedelta) -> None:
    regime, timeline = case
    now = after(timeline, gap)
    going = live(regime)
    for place, entry in enumerate(timeline):
        going.apply(entry)
        following = timeline[place + 1].at if place + 1 < len(timeline) else now
        if following > entry.at:  # somebody looks between two entries, as services do
            going.standing(entry.at + (following - entry.at) / 2)
    assert plain(going.standing(now)) == plain(stand(regime, timeline, now))


@thorough
@given(cases, gaps, st.randoms(use_true_random=False))
def test_order_and_repetition_of_delivery_change_nothing(
    case: tuple[str, list[Entry]], gap: timedelta, random: Any
) -> None:
    regime, timeline = case
    now = after(timeline, gap)
    delivered = [*timeline, *random.choices(timeline, k=3)]
    random.shuffle(delivered)
    encoded = [msgspec.json.encode(entry) for entry in delivered]
    kept = {entry.seq: entry for entry in (msgspec.json.decode(one, type=Entry) for one in encoded)}
    again = [kept[seq] for seq in sorted(kept)]
    assert plain(stand(regime, again, now)) == plain(stand(regime, timeline, now))


@thorough
@given(cases, gaps, gaps)
def test_looking_twice_is_looking_once_later(
    case: tuple[str, list[Entry]], first: timedelta, second: timedelta
) -> None:
    regime, timeline = case
    now1 = after(timeline, first)
    now2 = now1 + second
    going = replay({1: policy_of(regime)}, timeline, book_of(regime))
    going.standing(now1)
    assert plain(going.standing(now2)) == plain(stand(regime, timeline, now2))


@thorough
@given(cases, gaps)
def test_every_explanation_re_adds_to_its_due_instant(case: tuple[str, list[Entry]], gap: timedelta) -> None:
    regime, timeline = case
    going = replay({1: policy_of(regime)}, timeline, book_of(regime))
    going.standing(after(timeline, gap))
    for runs in going.runs.values():
        for run in runs:
            if steps := steps_of(run):
                assert readd(steps).until == run.due_at
            else:  # only measured, agreed, or moved by hand
                assert run.amount is None or run.due_at is None or run.part


@thorough
@given(cases, gaps)
def test_effects_have_keys_of_their_own_that_stay(case: tuple[str, list[Entry]], gap: timedelta) -> None:
    regime, timeline = case
    whole = stand(regime, timeline, after(timeline, gap)).effects
    keys = [effect.key for effect in whole]
    assert len(set(keys)) == len(keys)
    for place in range(1, len(timeline)):
        if timeline[place].at > timeline[place - 1].at:  # all that one instant brings comes together
            known = stand(regime, timeline[:place], timeline[place].at - MICROSECOND).effects
            assert list(known) == list(whole[: len(known)])


@thorough
@given(cases, gaps)
def test_rules_have_no_problem_with_well_typed_data(case: tuple[str, list[Entry]], gap: timedelta) -> None:
    regime, timeline = case
    assert stand(regime, timeline, after(timeline, gap)).problems == ()


@thorough
@given(cases, gaps)
def test_the_next_instant_is_the_first_at_which_anything_changes(case: tuple[str, list[Entry]], gap: timedelta) -> None:
    regime, timeline = case
    now = after(timeline, gap)
    standing = stand(regime, timeline, now)
    until = now + timedelta(days=20) if standing.next_at is None else standing.next_at - MICROSECOND
    assume(until > now)
    assert at_rest(stand(regime, timeline, until)) == at_rest(standing)


def at_rest(standing: Standing) -> Any:
    """A standing without what goes on by itself: the instant of the look, and the days late of each clock up to it."""
    values = plain(standing)
    del values["now"]
    for clock in values["clocks"]:
        clock["data"].pop("overdue_days", None)
    return values


# -- ledger ----------------------------------------------------------------------------------------------------------------------------


def post(views: tuple[PenaltyView, ...], book: dict[str, Position]) -> int:
    """Post what the views call for, and return how many rows that took."""
    rows = postings(views, book)
    for row in rows:
        before = book.get(row.key)
        assert row.posted_minor == (before.posted_minor if before else 0) + row.difference_minor
        book[row.key] = Position(row.posted_minor, row.digest, row.penalty)
    return len(rows)


@thorough
@given(cases, gaps, st.lists(st.tuples(st.integers(1, 13), gaps), max_size=4))
def test_the_ledger_balances_to_what_is_owed_whatever_came_before(
    case: tuple[str, list[Entry]], gap: timedelta, looks: list[tuple[int, timedelta]]
) -> None:
    regime, timeline = case
    book: dict[str, Position] = {}
    for length, wait in [*looks, (len(timeline), gap)]:  # in any order: an entry may have been taken back meanwhile
        part = timeline[:length]
        views = stand(regime, part, after(part, wait)).penalties
        post(views, book)
        assert sum(one.posted_minor for one in book.values()) == sum(owed_minor(view) for view in views)
        assert post(views, book) == 0


# -- pauses ----------------------------------------------------------------------------------------------------------------------------

WEEK = CalendarSection(
    calendars={"default": CalendarSpec(hours={"mon-fri": ["08:30-12:00", "13:30-17:30"], "sat": ["09:00-12:00"]})}
)
LIMITS = ("90min", "30h", "12bh", "5wd", "9d", "2w")


def paused_policy(amount: str) -> Any:
    return compile_policy(
        {
            "policy": 1,
            "title": "A policy",
            "clocks": [
                {
                    "id": "answer",
                    "start": "received",
                    "stop": "replied",
                    "within": amount,
                    "pauses": [{"from": "materials_requested", "to": "supplemented"}],
                }
            ],
        },
        calendar=WEEK,
    )


PAUSED = {amount: paused_policy(amount) for amount in LIMITS}


@thorough
@given(st.sampled_from(LIMITS), st.integers(0, 60 * 24 * 20), st.integers(0, 60 * 24 * 20), st.integers(0, 60 * 24 * 6))
def test_a_pause_moves_the_due_instant_by_exactly_its_working_length(
    amount: str, begun: int, waited: int, rested: int
) -> None:
    start = START + timedelta(minutes=begun)
    since = start + timedelta(minutes=waited)
    until = since + timedelta(minutes=rested)
    entries = [
        Entry(seq=seq, kind=kind, at=at, by=CLERK)
        for seq, (kind, at) in enumerate(
            [("received", start), ("materials_requested", since), ("supplemented", until)], 1
        )
    ]
    book = CalendarBook.of(WEEK)
    calendar = book.at(None, start, start)
    policies = {1: PAUSED[amount]}
    (before,) = fold(policies, entries[:1], book, start).clocks
    after_rest = fold(policies, entries, book, until).clocks[-1]
    assert before.due_at is not None
    assert after_rest.due_at is not None
    if since > before.due_at:
        assert after_rest.due_at == before.due_at  # what is late does not rest
    elif amount.endswith(("min", "0h")):
        assert after_rest.due_at - before.due_at == until - since
    elif amount.endswith("bh"):
        moved = calendar.working_time(before.due_at, after_rest.due_at)
        assert moved == calendar.working_time(since, until)
    elif amount.endswith("wd"):
        moved_days = calendar.working_days_between(before.due_at, after_rest.due_at)
        assert moved_days == calendar.working_days_between(since, until)
    else:
        dates = [calendar.local(at).date() for at in (before.due_at, after_rest.due_at, since, until)]
        assert dates[1] - dates[0] == dates[3] - dates[2]


# -- another version from now on -----------------------------------------------------------------------------------------------------------


def with_other_limits(regime: str, factor: int, shorter: bool) -> Any:
    """The template with every literal limit in days or hours multiplied or divided."""

    def changed(text: Any) -> Any:
        if isinstance(text, list):
            return [{**case, "is": changed(case["is"])} if isinstance(case, dict) else case for case in text]
        digits = "" if not isinstance(text, str) else text[: len(text) - len(text.lstrip("0123456789"))]
        if not digits:
            return text
        number = max(1, int(digits) // factor) if shorter else int(digits) * factor
        return f"{number}{text[len(digits) :]}"

    values: Any = deepcopy(document_of(regime).values)
    for clock in values["clocks"]:
        if clock.get("within") is not None:
            clock["within"] = changed(clock["within"])
    return compile_policy(values, version=2)


OTHERS: dict[tuple[str, int, bool], Any] = {}


def other(regime: str, factor: int, shorter: bool) -> Any:
    key = (regime, factor, shorter)
    if key not in OTHERS:
        OTHERS[key] = with_other_limits(*key)
    return OTHERS[key]


def by_run(clocks: tuple[ClockView, ...]) -> dict[tuple[str, int], list[ClockView]]:
    found: dict[tuple[str, int], list[ClockView]] = {}
    for view in clocks:
        found.setdefault((view.rule, view.run), []).append(view)
    return found


@thorough
@given(cases, gaps, st.sampled_from([2, 5]), st.booleans())
def test_a_new_version_from_now_on_moves_nothing_breached_and_nothing_into_the_past(
    case: tuple[str, list[Entry]], gap: timedelta, factor: int, shorter: bool
) -> None:
    regime, timeline = case
    at = after(timeline, gap)
    change = Entry(
        seq=len(timeline) + 1, kind="policy_changed", at=at, by=CLERK, data={"version": 2, "effect": "from_now"}
    )
    policies = {1: policy_of(regime), 2: other(regime, factor, shorter)}
    before = by_run(fold(policies, timeline, book_of(regime), at).clocks)
    standing = fold(policies, [*timeline, change], book_of(regime), at)
    assert standing.policy_version == 2
    for key, parts in by_run(standing.clocks).items():
        old, new = before[key][-1], parts[-1]
        if old.breached_at is not None or old.state not in ("running", "paused"):
            assert (new.due_at, new.breached_at, new.part) == (old.due_at, old.breached_at, old.part)
        elif new.due_at != old.due_at:
            assert new.due_at is not None
            assert new.due_at > at
            assert new.policy_version == 2
            assert [view.state for view in parts[:-1]] == ["superseded"] * (len(parts) - 1)


def test_a_new_version_moves_something_at_all() -> None:
    """So that the property above is about something."""
    moved = 0
    for regime in ("R03", "R09"):
        timeline = [Entry(seq=1, kind="received", at=START, by=CLERK, data={"channel": "phone"})]
        change = Entry(
            seq=2,
            kind="policy_changed",
            at=START + timedelta(hours=1),
            by=CLERK,
            data={"version": 2, "effect": "from_now"},
        )
        policies = {1: policy_of(regime), 2: other(regime, 5, False)}
        now: datetime = change.at
        moved += sum(view.part for view in fold(policies, [*timeline, change], book_of(regime), now).clocks)
    assert moved > 0

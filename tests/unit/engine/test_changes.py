"""What changes under a running case: announced days, deadlines of merged complaints, other versions, time that was missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from shared.engine.calendar import CalendarBook, CalendarSection, CalendarSpec, Revision
from shared.engine.case import Case, fold
from shared.engine.model import Actor, ClockView, Entry, Standing
from shared.engine.rules import CompiledPolicy
from shared.policy.compiling import compile_policy

CLERK = Actor(id="clerk")
CHINA = timezone(timedelta(hours=8))
Line = tuple[str, str, Mapping[str, Any]]
PLAIN = CalendarBook.of(CalendarSection())


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=CHINA).astimezone(UTC)


def a_policy(version: int = 1, **sections: Any) -> CompiledPolicy:
    return compile_policy({"policy": 1, "title": "A policy", **sections}, version=version)


def lines(*given: Line) -> list[Entry]:
    return [
        Entry(seq=seq, kind=kind, at=at(when), by=CLERK, data=dict(data))
        for seq, (when, kind, data) in enumerate(given, 1)
    ]


def stand(
    policies: list[CompiledPolicy], timeline: list[Entry], now: str, book: CalendarBook = PLAIN, first: int = 1
) -> Standing:
    return fold({one.version: one for one in policies}, timeline, book, at(now), policy_version=first)


def of(standing: Standing, rule: str) -> list[ClockView]:
    return [view for view in standing.clocks if view.rule == rule]


# -- days that are announced later -----------------------------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {"clocks": [{"id": "answer", "start": "received", "stop": "replied", "within": "61wd"}]}
THIS_YEAR = Revision(published_at=at("2026-01-01"), spec=CalendarSpec(announced_through=date(2026, 12, 31)))
NEXT_YEAR = Revision(
    published_at=at("2026-11-10 09:00"),
    spec=CalendarSpec(holidays=["2027-01-01/2027-01-03"], announced_through=date(2027, 12, 31)),
)
ANNOUNCED = CalendarBook("Asia/Shanghai", {"default": [THIS_YEAR, NEXT_YEAR]})
BEGUN: Line = ("2026-10-08 10:00", "received", {})
TOLD: Line = ("2026-11-10 09:05", "calendar_changed", {})


def test_a_provisional_due_time_is_computed_again_once_its_days_are_announced() -> None:
    policy = a_policy(**ANSWER)
    before = stand([policy], lines(BEGUN), "2026-11-01", ANNOUNCED)
    assert [(view.due_at, view.provisional) for view in before.clocks] == [(at("2027-01-01 18:00"), True)]
    told = stand([policy], lines(BEGUN, TOLD), "2026-11-11", ANNOUNCED)
    assert [(view.part, view.state, view.due_at, view.provisional) for view in told.clocks] == [
        (0, "superseded", at("2027-01-01 18:00"), True),
        (1, "running", at("2027-01-04 18:00"), False),
    ]


def test_the_same_announcement_told_again_moves_nothing() -> None:
    policy = a_policy(**ANSWER)
    again: Line = ("2026-11-12 09:00", "calendar_changed", {})
    once = stand([policy], lines(BEGUN, TOLD), "2026-11-20", ANNOUNCED)
    twice = stand([policy], lines(BEGUN, TOLD, again), "2026-11-20", ANNOUNCED)
    assert twice.clocks == once.clocks


def test_an_announcement_that_leaves_the_due_time_makes_it_certain() -> None:
    sections: dict[str, Any] = {"clocks": [{"id": "answer", "start": "received", "within": "64wd"}]}
    same = Revision(published_at=NEXT_YEAR.published_at, spec=CalendarSpec(announced_through=date(2027, 12, 31)))
    book = CalendarBook("Asia/Shanghai", {"default": [THIS_YEAR, same]})
    (view,) = stand([a_policy(**sections)], lines(BEGUN, TOLD), "2026-11-11", book).clocks
    assert (view.part, view.provisional) == (0, False)


def test_an_announcement_does_not_touch_what_is_late_or_done() -> None:
    sections: dict[str, Any] = {
        "clocks": [
            {"id": "late", "start": "received", "within": "2wd"},
            {"id": "done", "start": "received", "stop": "replied", "within": "61wd"},
        ]
    }
    replied: Line = ("2026-10-09 10:00", "replied", {})
    standing = stand([a_policy(**sections)], lines(BEGUN, replied, TOLD), "2026-11-11", ANNOUNCED)
    assert [(view.rule, view.state, view.part) for view in standing.clocks] == [
        ("done", "met", 0),
        ("late", "breached", 0),
    ]


# -- merged and split --------------------------------------------------------------------------------------------------------------------

TWO: dict[str, Any] = {
    "clocks": [
        {"id": "answer", "start": "received", "stop": "replied", "within": "10d"},
        {"id": "verify", "start": "received", "stop": "investigated", "within": "4d"},
    ]
}


def test_of_merged_complaints_each_clock_keeps_the_strictest_deadline() -> None:
    for kind in ("merged", "split"):
        deadlines = {"answer": at("2026-03-06 12:00").isoformat(), "verify": at("2026-03-20 12:00").isoformat()}
        standing = stand(
            [a_policy(**TWO)],
            lines(("2026-03-02 10:00", "received", {}), ("2026-03-03 10:00", kind, {"deadlines": deadlines})),
            "2026-03-04",
        )
        assert of(standing, "answer")[-1].due_at == at("2026-03-06 12:00")
        assert [view.part for view in of(standing, "verify")] == [0]
        assert of(standing, "verify")[0].due_at == at("2026-03-06 23:59:59")


def test_a_deadline_that_was_taken_over_can_be_missed() -> None:
    deadlines = {"answer": at("2026-03-06 12:00").isoformat()}
    standing = stand(
        [a_policy(**TWO)],
        lines(("2026-03-02 10:00", "received", {}), ("2026-03-03 10:00", "merged", {"deadlines": deadlines})),
        "2026-03-06 12:01",
    )
    assert of(standing, "answer")[-1].breached_at == at("2026-03-06 12:00")


def test_a_complaint_that_went_into_another_owes_nothing_more() -> None:
    standing = stand(
        [a_policy(**TWO)],
        lines(("2026-03-02 10:00", "received", {}), ("2026-03-03 10:00", "merged", {"into": "c2"})),
        "2026-03-20",
    )
    assert (standing.state, standing.closed) == ("merged", True)
    assert {view.state for view in standing.clocks} == {"cancelled"}


# -- other versions ----------------------------------------------------------------------------------------------------------------------


def warning(within: str, version: int) -> CompiledPolicy:
    steps = [{"after": "0h", "do": [{"kind": "escalated", "to": "head"}]}]
    return a_policy(
        version,
        organisation={"roles": {"head": ""}},
        clocks=[{"id": "answer", "start": "received", "stop": "replied", "within": within, "steps": steps}],
    )


def test_a_retroactive_change_says_nothing_of_what_is_past() -> None:
    change: Line = ("2026-03-10 09:00", "policy_changed", {"version": 2, "effect": "retroactive"})
    timeline = lines(("2026-03-02 10:00", "received", {}), change)
    versions = [warning("20d", 1), warning("2d", 2)]
    standing = stand(versions, timeline, "2026-03-11")
    assert [(one.at, one.silent, one.policy_version) for one in standing.effects] == [
        (at("2026-03-04 23:59:59"), True, 2)
    ]
    assert of(standing, "answer")[0].state == "breached"


def test_a_retroactive_change_speaks_of_what_is_still_to_come() -> None:
    change: Line = ("2026-03-03 09:00", "policy_changed", {"version": 2, "effect": "retroactive"})
    standing = stand(
        [warning("20d", 1), warning("2d", 2)], lines(("2026-03-02 10:00", "received", {}), change), "2026-03-11"
    )
    assert [(one.at, one.silent) for one in standing.effects] == [(at("2026-03-04 23:59:59"), False)]


def test_the_part_that_another_version_ends_is_shown_as_it_was() -> None:
    change: Line = ("2026-03-03 09:00", "policy_changed", {"version": 2, "effect": "from_now"})
    standing = stand(
        [warning("20d", 1), warning("5d", 2)], lines(("2026-03-02 10:00", "received", {}), change), "2026-03-04"
    )
    assert [(view.part, view.amount, view.policy_version) for view in standing.clocks] == [(0, "20d", 1), (1, "5d", 2)]


def test_from_now_on_a_limit_that_would_have_passed_stays() -> None:
    change: Line = ("2026-03-10 09:00", "policy_changed", {"version": 2, "effect": "from_now"})
    standing = stand(
        [warning("20d", 1), warning("2d", 2)], lines(("2026-03-02 10:00", "received", {}), change), "2026-03-11"
    )
    assert [(view.part, view.due_at, view.policy_version) for view in standing.clocks] == [
        (0, at("2026-03-22 23:59:59"), 1)
    ]


def test_what_a_later_version_reads_was_kept_under_the_earlier() -> None:
    reads = a_policy(
        2,
        clocks=[
            {
                "id": "answer",
                "start": "resolved",
                "within": "2d",
                "when": 'last["responded"].data.unit == "desk" && "report" in collected.documents',
            }
        ],
    )
    timeline = lines(
        ("2026-03-02 10:00", "received", {}),
        ("2026-03-02 11:00", "responded", {"unit": "desk", "documents": ["report"]}),
        ("2026-03-03 09:00", "policy_changed", {"version": 2, "effect": "from_now"}),
        ("2026-03-03 10:00", "resolved", {}),
    )
    standing = stand([a_policy(), reads], timeline, "2026-03-04")
    assert [view.rule for view in standing.clocks] == ["answer"]


# -- time that nobody looked ---------------------------------------------------------------------------------------------------------------

LADDER: dict[str, Any] = {
    "organisation": {"roles": {"head": "", "director": ""}},
    "clocks": [
        {
            "id": "answer",
            "start": "received",
            "stop": "replied",
            "within": "24h",
            "steps": [
                {"before": "4h", "do": [{"kind": "warned", "to": "head"}]},
                {"after": "0h", "do": [{"kind": "escalated", "to": "head"}]},
                {"after": "48h", "do": [{"kind": "escalated", "to": "director"}]},
            ],
        },
        {"id": "second", "start": "breach:answer", "within": "12h"},
    ],
    "actions": [
        {"id": "tell", "on": "breach:second", "after": "6h", "do": [{"kind": "notified", "to": "director"}]},
        {"id": "end", "on": "action:tell", "do": [{"kind": "closed"}]},
    ],
}


def test_after_a_downtime_every_effect_of_a_chain_bears_the_instant_it_was_due() -> None:
    policy = a_policy(**LADDER)
    timeline = lines(("2026-03-02 10:00", "received", {}))
    expected = [
        ("warned", "head", at("2026-03-03 06:00")),
        ("escalated", "head", at("2026-03-03 10:00")),
        ("notified", "director", at("2026-03-04 04:00")),
        ("closed", None, at("2026-03-04 04:00")),
        ("escalated", "director", at("2026-03-05 10:00")),
    ]
    late = stand([policy], timeline, "2026-04-01")
    assert [(one.kind, one.to, one.at) for one in late.effects] == expected
    awake = Case({1: policy}, PLAIN)
    awake.apply(timeline[0])
    for hour in range(1, 24 * 30):
        awake.standing(timeline[0].at + timedelta(hours=hour))
    assert awake.standing(late.now) == late


# -- the very instant ----------------------------------------------------------------------------------------------------------------------


def test_what_is_done_in_the_instant_it_is_due_is_in_time() -> None:
    policy = a_policy(**LADDER)
    received: Line = ("2026-03-02 10:00", "received", {})
    due = at("2026-03-03 10:00")
    in_time = stand([policy], lines(received, ("2026-03-03 10:00", "replied", {})), "2026-03-04")
    assert [(view.rule, view.state) for view in in_time.clocks] == [("answer", "met")]
    assert [one.kind for one in in_time.effects] == ["warned"]
    replied = Entry(seq=2, kind="replied", at=due + timedelta(microseconds=1), by=CLERK)
    late = stand([policy], [*lines(received), replied], "2026-03-04")
    assert of(late, "answer")[0].breached_at == due


def test_at_the_due_instant_itself_nothing_is_late_yet() -> None:
    policy = a_policy(**LADDER)
    timeline = lines(("2026-03-02 10:00", "received", {}))
    assert of(stand([policy], timeline, "2026-03-03 10:00"), "answer")[0].state == "running"
    just_after = fold({1: policy}, timeline, PLAIN, at("2026-03-03 10:00") + timedelta(microseconds=1))
    assert of(just_after, "answer")[0].state == "breached"


def test_a_timer_acts_after_the_entries_of_its_instant() -> None:
    policy = a_policy(
        clocks=[{"id": "silence", "kind": "timer", "start": "proposed", "cancel": "disagreed", "within": "24h"}],
        actions=[{"id": "agree", "on": "fired:silence", "do": [{"kind": "deemed"}]}],
    )
    received: Line = ("2026-03-02 10:00", "received", {})
    proposed: Line = ("2026-03-02 11:00", "proposed", {})
    silent = stand([policy], lines(received, proposed), "2026-03-03 11:00")
    assert [(one.kind, one.at) for one in silent.effects] == [("deemed", at("2026-03-03 11:00"))]
    answered = stand([policy], lines(received, proposed, ("2026-03-03 11:00", "disagreed", {})), "2026-03-05")
    assert answered.effects == ()

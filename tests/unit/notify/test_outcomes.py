"""What follows from an attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify.domain.budgets import PER_NUMBER, Budget, take
from services.notify.domain.cloud_events import is_pattern, is_wanted
from services.notify.domain.masking import masked_email, masked_phone
from services.notify.domain.messages import Channel
from services.notify.domain.numbers import Mobile, mobile
from services.notify.domain.outcomes import WAITS, Next, Result, after, backoff, of_status

CHANNELS: list[Channel] = ["sms", "email", "webhook"]


def step(
    result: Result, *, attempts: int = 1, unknown: int = 0, can_ask: bool = True, channel: Channel = "sms"
) -> Next:
    return after(result, channel=channel, attempts=attempts, unknown=unknown, can_ask=can_ask, chance=0.5)


def test_what_is_taken_over_is_sent() -> None:
    assert step(Result(outcome="accepted")) == Next("sent")


def test_what_is_refused_is_dead_with_the_reason() -> None:
    assert step(Result(outcome="refused", detail="http_400")) == Next("dead", "http_400")


def test_an_unknown_outcome_is_tried_again_where_the_receiver_can_be_asked() -> None:
    for attempts in range(1, 8):
        assert step(Result(outcome="unknown"), attempts=attempts, unknown=attempts).state == "queued"


def test_an_unknown_outcome_is_sent_again_once_where_nobody_can_be_asked() -> None:
    first = step(Result(outcome="unknown"), unknown=1, can_ask=False, channel="email")
    second = step(Result(outcome="unknown"), attempts=2, unknown=2, can_ask=False, channel="email")
    assert first.state == "queued"
    assert second == Next("dead", "outcome_unknown")


def test_a_certain_failure_does_not_count_as_unknown() -> None:
    assert step(Result(outcome="unavailable"), attempts=5, unknown=1, can_ask=False, channel="email").state == "queued"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_delivery_dies_after_its_last_attempt(channel: Channel) -> None:
    last = len(WAITS[channel]) + 1
    assert step(Result(outcome="unavailable"), attempts=last - 1, channel=channel).state == "queued"
    assert step(Result(outcome="unavailable"), attempts=last, channel=channel) == Next(
        "dead", f"no_success_after_{last}_attempts"
    )


@given(attempts=st.integers(1, 6), chance=st.floats(0, 1, exclude_max=True))
def test_waits_are_spread_around_the_table(attempts: int, chance: float) -> None:
    wait = backoff("sms", attempts, chance)
    assert wait is not None
    base = WAITS["sms"][attempts - 1]
    assert timedelta(seconds=base * 0.5) <= wait <= timedelta(seconds=base * 1.5)


def test_a_receiver_may_ask_for_a_longer_wait_but_not_for_ever() -> None:
    asked = step(Result(outcome="unavailable", retry_after=timedelta(minutes=5)))
    endless = step(Result(outcome="unavailable", retry_after=timedelta(days=400)))
    assert asked.wait == timedelta(minutes=5)
    assert endless.wait == timedelta(hours=6)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, "accepted") for status in (200, 202, 204)),
        *((status, "refused") for status in (100, 301, 302, 307, 400, 401, 404, 409, 410, 422)),
        *((status, "unavailable") for status in (408, 425, 429, 503)),
        *((status, "unknown") for status in (500, 502, 504)),
    ],
)
def test_statuses(status: int, outcome: str) -> None:
    assert of_status(status).outcome == outcome
    assert of_status(status).gone == (status == 410)


AT = datetime(2026, 11, 20, 9, tzinfo=UTC)


def test_the_fourth_message_to_a_number_within_ten_minutes_waits_until_the_first_is_ten_minutes_old() -> None:
    used: list[datetime] = []
    for minute in (0, 1, 2):
        used, wait = take(used, AT + timedelta(minutes=minute), PER_NUMBER)
        assert wait is None
    used, wait = take(used, AT + timedelta(minutes=3), PER_NUMBER)
    assert wait == AT + timedelta(minutes=10)
    assert len(used) == 3
    used, wait = take(used, wait, PER_NUMBER)
    assert wait is None


@given(st.lists(st.integers(0, 3600), max_size=60), st.integers(1, 5))
def test_no_stretch_of_the_window_ever_holds_more_than_the_limit(seconds: list[int], limit: int) -> None:
    budget = Budget(scope="number", limit=limit, window=timedelta(minutes=10))
    used: list[datetime] = []
    sent: list[datetime] = []
    for at in (AT + timedelta(seconds=second) for second in sorted(seconds)):
        used, wait = take(used, at, budget)
        if wait is None:
            sent.append(at)
        else:
            assert wait > at
    for at in sent:
        assert sum(1 for other in sent if at - budget.window < other <= at) <= limit


@pytest.mark.parametrize(
    ("number", "countries", "result"),
    [
        ("+8613800001111", ["CN"], Mobile("+8613800001111", "+861380000")),
        ("+8613800001111", [], Mobile("+8613800001111", "+861380000")),
        ("+447400123456", ["CN"], "country_not_allowed"),
        ("+447400123456", ["CN", "GB"], Mobile("+447400123456", "+44740012")),
        ("+861065529988", ["CN"], "number_landline"),
        ("+449098790000", [], "number_premium"),
        ("+33899123456", [], "number_premium"),
        ("13800001111", ["CN"], "number_malformed"),
        ("+86138", ["CN"], "number_malformed"),
        ("+٨٦١٣٨٠٠٠٠١١١١", ["CN"], "number_malformed"),
        ("+86138０００01111", ["CN"], "number_malformed"),
        ("", [], "number_malformed"),
        ("+8613800001111\n", ["CN"], Mobile("+8613800001111", "+861380000")),
    ],
)
def test_numbers_that_may_be_written_to(number: str, countries: list[str], result: Mobile | str) -> None:
    assert mobile(number, countries) == result


def test_numbers_of_one_range_share_their_prefix() -> None:
    prefixes = {
        found.prefix for tail in range(0, 10_000, 7) if isinstance(found := mobile(f"+861380000{tail:04}", []), Mobile)
    }
    assert prefixes == {"+861380000"}


def test_masks_hide_what_could_be_used() -> None:
    assert masked_phone("+8613800001111") == "+86138****1111"
    assert masked_phone("12345") == "****"
    assert masked_email("wang.fang@example.org") == "w****@example.org"
    assert masked_email("nonsense") == "****"


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([], True),
        (["*"], True),
        (["routing.v1.entry.appended"], True),
        (["routing.*"], True),
        (["routing.v1.*"], True),
        (["step:callback"], True),
        (["sla.*"], False),
        (["closed", "step"], True),
        (["closed"], False),
        (["rout.*"], False),
    ],
)
def test_event_filters(filters: list[str], wanted: bool) -> None:
    assert is_wanted(filters, ["routing.v1.entry.appended", "step", "step:callback"]) is wanted


def test_what_is_a_filter() -> None:
    assert all(
        is_pattern(text) for text in ("*", "sla.*", "sla.v1.announcement.made", "effect:escalated", "step:call_back")
    )
    assert not any(is_pattern(text) for text in ("", "**", "Sla", "sla.*.made", "a b", "x" * 200, "a\n"))

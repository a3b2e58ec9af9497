"""When a message that nobody has taken yet is on its way, and when it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from services.audit.notices import Attempt, _fault
from services.audit.sources import LONGEST_PAUSE

NOW = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
LOOK: Any = SimpleNamespace(now=NOW, clocks={}, longest_pause=LONGEST_PAUSE)


@pytest.mark.parametrize(
    ("outcomes", "reason", "wakes_in", "is_on_its_way"),
    [
        (["unavailable"], "", timedelta(minutes=1), True),
        (["unavailable", "unknown"], "", timedelta(hours=20), True),
        ([], "", timedelta(minutes=1), False),  # nobody has called, so nobody was told to call later
        ([], "contact_unavailable", timedelta(minutes=1), True),  # whoever knows the address did not answer
        ([None], "", timedelta(minutes=1), False),  # the caller has died, and another takes over soon
        ([None], "contact_unavailable", timedelta(minutes=1), True),  # … and was put off
        ([], "contact_unavailable", timedelta(0), False),
        (["unavailable"], "", timedelta(0), False),
        (["unavailable"], "", LONGEST_PAUSE, False),
        (["accepted"], "contact_unavailable", timedelta(minutes=1), False),
    ],
)
def test_a_pause_after_a_call_in_vain_is_no_loss(
    outcomes: list[str | None], reason: str, wakes_in: timedelta, is_on_its_way: bool
) -> None:
    ids = {"tenant_id": uuid4(), "delivery_id": uuid4()}
    attempts = [Attempt(**ids, attempt=place, key=uuid4(), outcome=each) for place, each in enumerate(outcomes, 1)]
    row = {**ids, "state": "queued", "reason": reason, "is_queued": True, "wake_at": NOW + wakes_in, "held_until": None}
    assert _fault(LOOK, row, attempts) == (None if is_on_its_way else ("is queued", True))


def test_where_pauses_are_short_a_long_one_is_a_loss() -> None:
    ids = {"tenant_id": uuid4(), "delivery_id": uuid4()}
    attempts = [Attempt(**ids, attempt=1, key=uuid4(), outcome="unavailable")]
    row = {
        **ids,
        "state": "queued",
        "reason": "",
        "is_queued": True,
        "wake_at": NOW + timedelta(minutes=2),
        "held_until": None,
    }
    look: Any = SimpleNamespace(now=NOW, clocks={}, longest_pause=timedelta(minutes=1))
    assert _fault(look, row, attempts) == ("is queued", True)

"""Named places where a crash would hurt most, and a way to crash there.

`RECOURSE_FAIL_POINT=relay.published:2` ends the process at its second visit to that place, without any cleaning up. Without the
variable a place costs a comparison.
"""

from __future__ import annotations

import os

EXIT_CODE = 137  # as after SIGKILL

POINTS = frozenset(
    (
        "api.begun",  # the request's transaction has begun
        "api.commit",  # everything is written, nothing is committed
        "api.committed",  # committed, not answered
        "worker.commit",
        "worker.committed",
        "idempotency.stored",  # the answer is kept with what was done, nothing is committed
        "relay.leads",  # the lock is ours, nothing has been compared
        "relay.repaired",  # what the stream lacks is to be published again, nothing is
        "relay.picked",  # rows are read, nothing is published
        "relay.published",  # published, not marked
        "relay.marked",
        "consumer.taken",  # messages are in hand, nothing is begun
        "consumer.claimed",  # the inbox has them, nothing is handled
        "consumer.handled",  # effects and inbox are written, nothing is committed
        "consumer.applied",  # the transaction has ended, nothing is acknowledged
        "consumer.acknowledged",
        "consumer.buried",  # in the dead letters, not yet forgotten by the server
        "intake.stored",  # complaints are written, nothing is committed; where it is armed, none goes in one call
        "intake.kept",  # committed, and nobody has been answered
        "routing.written",  # lines, assignment and messages are written, nothing is committed
        "routing.ticked",  # the tick is written, and not noted as told
        "sla.entered",  # a line is kept, and its case not yet looked at
        "sla.claimed",  # due cases are locked, nothing is folded
        "sla.folded",  # cases are folded and amounts posted; announcements, the next wake-up and messages are not written
        "sla.told",  # everything is written with its messages, nothing is committed
        "notify.stored",  # deliveries are written, nothing is committed
        "notify.claimed",  # a delivery is ours to send, nothing is written
        "notify.attempted",  # the attempt is written, nobody has been called
        "notify.called",  # the provider has answered, nothing is recorded
        "notify.recorded",  # the outcome is written, nothing is committed
        "reporting.claimed",  # notes are off the queue, no fact is made
        "reporting.stored",  # facts and sums are written, nothing is committed
    )
)


def _armed(setting: str) -> tuple[str, int] | None:
    name, _, visit = setting.partition(":")
    if not name:
        return None
    if name not in POINTS:
        raise ValueError(f"RECOURSE_FAIL_POINT names no known place: {name}")
    return name, int(visit or 1)


_armed_at = _armed(os.environ.get("RECOURSE_FAIL_POINT", ""))
_visits = 0


def arm(setting: str) -> None:
    """As the variable does at start; for a process that is forked off to crash."""
    global _armed_at, _visits
    _armed_at, _visits = _armed(setting), 0


def is_armed(*names: str) -> bool:
    """Whether the process may end at one of these places: what would take a shorter way past them goes by."""
    return _armed_at is not None and _armed_at[0] in names


def reach(name: str) -> None:
    """Say that the process has come to a place; it may end here."""
    if _armed_at is not None and _armed_at[0] == name:
        _visit()


def _visit() -> None:
    global _visits
    _visits += 1
    if _armed_at is not None and _visits >= _armed_at[1]:
        os._exit(EXIT_CODE)

"""What an audit finds: one line each, under the promise that is broken."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from msgspec import Struct

CHECKS: Final = {
    "I1": "complaints that were answered 2xx and are missing",
    "I2": "two complaints for one key, or a complaint without its key",
    "I3": "complaints with no active assignment, or several",
    "I4": "wake-ups that are missing or have not happened, effects that are missing or doubled",
    "I5": "messages that nobody has taken",
    "I6": "messages that were taken too often",
    "I7": "messages under more than one key",
    "I8": "figures of reports that differ from a recount",
    "I9": "messages between services that were not published, or not applied",
    "I10": "keys that were answered in two ways",
    "I11": "senders who never got their answer",
    "I12": "timelines with a gap",
    "I13": "stored states that differ from what follows from the timeline",
    "I14": "what belongs to one tenant and lies with another",
    "I15": "what was refused and has left something",
}
MOST_DETAILS: Final = 200


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    subject: the id it is about, or a name that stays the same from one look to the next.
    is_extra: something is there that should not be, or too often; else it is missing or differs.
    may_pass: messages under way may still put it right; it counts if they do not within the patience of the audit.
    """

    check: str
    subject: str
    what: str
    tenant_id: UUID | None = None
    is_extra: bool = False
    may_pass: bool = False


class Looked(Struct, frozen=True, kw_only=True):
    """One look: how long it took, and what was left to wait for after it.

    stages: seconds for each part of it; a part that was not looked at again is not named.
    awaits: findings that may pass, by check; `examples`: some of them.
    """

    seconds: float
    stages: dict[str, float]
    awaits: dict[str, int] = {}
    examples: list[str] = []


class Verdict(Struct, frozen=True, kw_only=True):
    """What `recourse audit` prints. `compared`: how many comparisons were made, so that an audit of nothing is seen to be one."""

    ok: bool
    checks: dict[str, int]
    details: list[Finding]
    compared: int
    looks: list[Looked] = []


class Findings:
    """Collects findings, each once, and counts what was looked at.

    stage: the part of the look that is being made; `stage_of` tells by which part something was found.
    seconds: how long each part took.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.stage = ""
        self.stage_of: dict[tuple[str, str], str] = {}
        self.seconds: dict[str, float] = {}
        self._found: dict[tuple[str, str], Finding] = {}

    def looked_at(self, number: int) -> None:
        self.compared += number

    def add(
        self,
        check: str,
        subject: object,
        what: str,
        *,
        tenant_id: UUID | None = None,
        is_extra: bool = False,
        may_pass: bool = False,
    ) -> None:
        """Note a finding; a second one about the same subject under the same check adds nothing."""
        key = (check, str(subject))
        before = self._found.get(key)
        if before is None or (before.may_pass and not may_pass):
            self._found[key] = Finding(
                check=check,
                subject=key[1],
                what=what,
                tenant_id=tenant_id,
                is_extra=is_extra,
                may_pass=may_pass,
            )
            self.stage_of[key] = self.stage

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Make a part of the look."""
        self.stage, began = name, time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began, 2)

    def has(self, check: str, subject: object) -> bool:
        return (check, str(subject)) in self._found

    def all(self) -> list[Finding]:
        return list(self._found.values())


def verdict(found: list[Finding], compared: int, looks: list[Looked]) -> Verdict:
    """Count findings by check."""
    counted = Counter(finding.check for finding in found)
    order = {check: place for place, check in enumerate(CHECKS)}
    details = sorted(found, key=lambda each: (order[each.check], each.subject))
    return Verdict(
        ok=not found,
        checks={check: counted[check] for check in CHECKS},
        details=details[:MOST_DETAILS],
        compared=compared,
        looks=looks,
    )

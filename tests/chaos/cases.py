"""The cases, in the order in which they are run."""

from __future__ import annotations

from tests.chaos.frame import Case
from tests.chaos.kills import Kills


def gate() -> list[Case]:
    return [Kills()]


def long() -> list[Case]:
    return gate()

"""The cases, in the order in which they are run.

The auditor looks at everything that a stack has come to hold, so those with much load come late; and those that mostly wait
come first, while others go on aside.
"""

from __future__ import annotations

from tests.chaos.clocks import Clocks
from tests.chaos.fail_points import FailPoints
from tests.chaos.flood import Flood
from tests.chaos.frame import Case
from tests.chaos.full import DiskFull
from tests.chaos.kills import Kills
from tests.chaos.links import Links
from tests.chaos.model import Model
from tests.chaos.overdue import Overdue
from tests.chaos.poison import Poison
from tests.chaos.power import PowerCuts
from tests.chaos.streams import StreamsLost, StreamsOlder


def all_cases() -> list[Case]:
    return [
        PowerCuts("nats"),
        PowerCuts("postgres"),
        DiskFull("nats"),
        DiskFull("postgres"),
        StreamsLost(),
        StreamsOlder(),
        Links(),
        Poison(),
        Flood(),
        FailPoints(),
        Kills(),
        Clocks(),
        Model(),  # aside, these two
        Overdue(),
    ]

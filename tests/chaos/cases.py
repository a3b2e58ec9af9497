"""The cases, in the order in which they are run."""

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


def gate() -> list[Case]:
    return [
        Kills(),
        FailPoints(),
        PowerCuts("nats"),
        PowerCuts("postgres"),
        StreamsLost(),
        StreamsOlder(),
        Links(),
        DiskFull("nats"),
        DiskFull("postgres"),
        Poison(),
        Flood(),
        Model(),
        Overdue(),
        Clocks(),
    ]


def long() -> list[Case]:
    return gate()

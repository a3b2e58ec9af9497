"""What routing keeps for itself while it runs, in one value that edges ask the runtime for."""

from __future__ import annotations

from typing import Any

import msgspec

from services.routing.contacts import ContactBox
from services.routing.roster import Roster
from services.routing.settings import RoutingSettings
from services.routing.writing import Desk
from shared.service import Runtime

_NAME = "routing"


class Ticking:
    """Whether a tick is to come soon, so that nobody who writes need ask for it."""

    def __init__(self) -> None:
        self.is_coming = False


class Parts(msgspec.Struct, frozen=True):
    desk: Desk
    ticking: Ticking
    roster: Roster
    contacts: ContactBox


def make(runtime: Runtime[RoutingSettings]) -> Parts:
    """Make the parts and leave them with the runtime."""
    settings = runtime.settings
    roster = Roster()
    ticking = Ticking()

    def on_written(in_sandbox: bool, is_due_soon: bool) -> None:
        if in_sandbox:
            runtime.wake("test-clocks")
        elif is_due_soon or not ticking.is_coming:
            runtime.wake("ticks")

    parts = Parts(
        desk=Desk(runtime.reference, roster, on_written),
        ticking=ticking,
        roster=roster,
        contacts=ContactBox(str(settings.master_key), str(settings.master_key_previous or "")),
    )
    runtime.parts[_NAME] = parts
    return parts


def of(runtime: Runtime[Any]) -> Parts:
    parts: Parts = runtime.parts[_NAME]
    return parts

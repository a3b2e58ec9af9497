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


class Parts(msgspec.Struct, frozen=True):
    desk: Desk
    roster: Roster
    contacts: ContactBox


def make(runtime: Runtime[RoutingSettings]) -> Parts:
    """Make the parts and leave them with the runtime."""
    settings = runtime.settings
    roster = Roster()

    def on_written(in_sandbox: bool) -> None:
        runtime.wake("test-clocks" if in_sandbox else "ticks")

    parts = Parts(
        desk=Desk(runtime.reference, roster, on_written),
        roster=roster,
        contacts=ContactBox(str(settings.master_key), str(settings.master_key_previous or "")),
    )
    runtime.parts[_NAME] = parts
    return parts


def of(runtime: Runtime[Any]) -> Parts:
    parts: Parts = runtime.parts[_NAME]
    return parts

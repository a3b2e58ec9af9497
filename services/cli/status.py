"""`recourse status`: whether everything works, and what to do if not."""

from __future__ import annotations

from services.cli.client import Access, ask_for_status
from services.cli.output import NOT_WELL, say, say_json


def status(*, access: Access | None = None, json: bool = False) -> int:
    """Say of every service whether it works, what is impaired, and what to do. Exit code 1 when one is not ready.

    Args:
        json: print the same as JSON.
    """
    access = access or Access()
    _, found = ask_for_status(access, "GET", "/readyz", keyless=True)
    services = found.get("services", [found])
    well = bool(found.get("ready"))
    if json:
        say_json({"url": access.address, **found})
        return 0 if well else NOT_WELL
    for service in services:
        notes = [*service.get("reasons", []), *service.get("notes", [])]
        state = "ready" if service["ready"] else "NOT READY"
        say(f"{service['service']:<10} {state}{', impaired' if service['ready'] and notes else ''}")
        for each in notes:
            say(f"{'':<10}   {each['what']} {each['do']}")
    return 0 if well else NOT_WELL

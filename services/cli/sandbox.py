"""`recourse sandbox …`: the test clock of a sandbox tenant."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from services.cli.client import Access, ask
from services.cli.output import NOT_WELL, CommandError, say, say_json

WAIT_SECONDS = 60

app = App(name="sandbox", help="Test clocks of sandbox tenants. Needs a key of the tenant.")


@app.command
def clock(*, access: Access | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Say where the test clock stands.

    Args:
        json: print it as JSON.
    """
    found = ask(access or Access(), "GET", "/v1/sandbox/clock")
    if json:
        say_json(found)
    else:
        say(found["now"] + (f", on its way to {found['target']}" if found["target"] else ""))


@app.command
def advance(
    by: str | None = None,
    /,
    *,
    to: str | None = None,
    access: Access | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Move the test clock on, from one due instant to the next, and wait until all that falls due is done and told.

    Needs the administrator's key.

    Args:
        by: an amount of time on the tenant's calendar: 3wd (working days), 36h, 2w.
        to: an instant instead (RFC 3339), such as 2026-12-01T09:00:00+08:00.
        json: print the operation as JSON.
    """
    if (by is None) == (to is None):
        raise CommandError("Say either by how much, as in `recourse sandbox advance 3wd`, or --to which instant.", 2)
    access = access or Access()
    body = {"by": by} if by is not None else {"to": to}
    found: dict[str, Any] = ask(access, "POST", "/v1/sandbox/clock:advance", body=body)
    path = f"/v1/sandbox/clock/operations/{found['operation_id']}"
    found = ask(access, "GET", path, wait=WAIT_SECONDS)
    if json:
        say_json(found)
    elif found["state"] == "done":
        say(f"The clock stands at {found['target']}; {found['steps']} due instants were gone through.")
    else:
        say(f"The clock is still on its way to {found['target']}; waiting for {' and '.join(found['waiting_for'])}.")
    return 0 if found["state"] == "done" else NOT_WELL

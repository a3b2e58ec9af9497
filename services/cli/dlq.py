"""`recourse dlq …`: messages that were given up, in every service."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from cyclopts import App, Parameter

from services.cli.client import Access, ask, ask_for_status, refusal
from services.cli.output import CommandError, say, say_json, table
from shared.embedded.access import SERVICES

Service = Literal["intake", "routing", "sla", "notify", "reporting"]
State = Literal["dead", "retry", "done", "discarded", "any"]
Flag = Annotated[bool, Parameter(negative="")]

app = App(name="dlq", help="Dead letters: messages that were given up. Needs the operator's key.")


@app.command(name="list")
def list_(
    *,
    service: Service | None = None,
    state: State = "dead",
    tenant: UUID | None = None,
    limit: int = 100,
    access: Access | None = None,
    json: Flag = False,
) -> None:
    """Messages that were given up, newest first, with the reason.

    Args:
        service: of one service only.
        state: dead, waiting for their retry, done, discarded, or any.
        tenant: of one tenant only.
        limit: at most so many of each service.
        json: print them as JSON.
    """
    access = access or Access()
    found: list[dict[str, Any]] = []
    for name in [service] if service else SERVICES:
        page = ask(access, "GET", f"/v1/ops/{name}/dead-letters", state=state, tenant_id=tenant, limit=limit)
        found += [{"service": name, **each} for each in page["items"]]
    if json:
        say_json(found)
        return
    if not found:
        say("There are none.")
        return
    rows = [
        (
            each["dead_letter_id"],
            each["consumer"],
            each["state"],
            each["reason"],
            each["attempts"],
            each["dead_at"][:19],
        )
        for each in found
    ]
    say(table(("ID", "CONSUMER", "STATE", "REASON", "TRIES", "SINCE"), rows))


@app.command
def show(letter: UUID, /, *, access: Access | None = None, json: Flag = False) -> None:
    """One of them, with its body and its error.

    Args:
        letter: its id, as `recourse dlq list` shows it.
        json: print it as JSON.
    """
    service, found = _find(access or Access(), letter)
    if json:
        say_json({"service": service, **found})
        return
    for name, value in found["letter"].items():
        say(f"{name:<16}{value}")
    say()
    say(found["body"])


@app.command
def retry(
    letter: UUID | None = None,
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", negative="")] = False,
    access: Access | None = None,
    json: Flag = False,
) -> None:
    """Have a message applied again, within a second or two; or all that are dead.

    Args:
        letter: its id.
        every: everything that is dead.
        json: print how many, as JSON.
    """
    access = access or Access()
    if (letter is None) == (not every):
        raise CommandError("Name one message, or say --all.", 2)
    if letter is None:
        count = sum(ask(access, "POST", f"/v1/ops/{name}/dead-letters/retry")["count"] for name in SERVICES)
    else:
        service, _ = _find(access, letter)
        count = ask(access, "POST", f"/v1/ops/{service}/dead-letters/{letter}/retry")["count"]
    _counted(count, "tried again", json)


@app.command
def discard(letter: UUID, /, *, access: Access | None = None, json: Flag = False) -> None:
    """Give a message up for good.

    Args:
        letter: its id.
        json: print how many, as JSON.
    """
    access = access or Access()
    service, _ = _find(access, letter)
    _counted(ask(access, "POST", f"/v1/ops/{service}/dead-letters/{letter}/discard")["count"], "discarded", json)


def _counted(count: int, what: str, json: bool) -> None:
    if json:
        say_json({"count": count})
    else:
        say(f"{count} {what}.")


def _find(access: Access, letter: UUID) -> tuple[str, dict[str, Any]]:
    """Return the service that has it; an id does not say which."""
    for service in SERVICES:
        status, found = ask_for_status(access, "GET", f"/v1/ops/{service}/dead-letters/{letter}")
        if status == 200:
            return service, found
        if status != 404:
            raise CommandError(refusal(status, found))
    raise CommandError(f"No service has a dead letter {letter}.")

"""`recourse migrate` and `recourse operator-key`: what is done once to a database that is not a local stack's."""

from __future__ import annotations

import asyncio
import os

from services.cli.output import CommandError, note, say, say_json


def migrate(*, json: bool = False) -> None:
    """Bring every service's schema up to date; safe to run again, and from several places at once.

    RECOURSE_SUPERUSER_URL leads to the database as a superuser; RECOURSE_DATABASE_PASSWORD_<ROLE> are the passwords that the
    roles (intake_api, intake_worker, …) are given.

    Args:
        json: print what was applied as JSON.
    """
    from shared.embedded.environment import database_roles
    from shared.migrations import migrate_all

    dsn = os.environ.get("RECOURSE_SUPERUSER_URL")
    if not dsn:
        raise CommandError("RECOURSE_SUPERUSER_URL is not set: the address of the database as a superuser.")
    names = {role: f"RECOURSE_DATABASE_PASSWORD_{role.upper()}" for role in database_roles()}
    passwords = {role: os.environ[name] for role, name in names.items() if os.environ.get(name)}
    try:
        applied = asyncio.run(migrate_all(dsn, passwords))
    except OSError as outage:
        raise CommandError(f"PostgreSQL does not answer at the address in RECOURSE_SUPERUSER_URL: {outage}.") from None
    if json:
        say_json(applied)
        return
    for service, done in applied.items():
        say(f"{service}: {', '.join(done) if done else 'up to date'}")


def operator_key(*, json: bool = False) -> None:
    """Make the operator's credential and print its key: once, since it is stored nowhere.

    Needs intake's settings in the environment, as `recourse serve intake` does. `recourse up` does this by itself.

    Args:
        json: print it as JSON.
    """
    from services.stack import new_operator_key

    key = asyncio.run(new_operator_key(os.environ))
    if key is None:
        raise CommandError("There is an operator's key already; it was shown when it was made.")
    if json:
        say_json({"operator_key": key})
    else:
        note("The operator's key, shown once:")
        say(key)

"""The command line: `recourse …`.

Exit codes: 0 done; 1 done, and what was looked at is not well (a service not ready, a check that failed); 2 the command was
not understood; 3 it could not be done, for the reason that stands in one sentence on stderr; 130 interrupted.

Commands are imported when they are called, so `recourse --help` costs nothing. A group of commands is a module with an `app`,
named in `GROUPS`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App

from services.cli.output import NOT_DONE, CommandError, note, sentence_of
from shared import VERSION

COMMANDS: Final = {
    "up": ("services.cli.up:up", "Run everything on this machine: PostgreSQL, NATS, the five services, one address."),
    "demo": ("services.cli.demo:demo", "Watch four organisations' complaints go through, and an audit at the end."),
    "audit": ("services.cli.audit:audit", "Whether what was promised is so: compares every store with every other."),
    "status": ("services.cli.status:status", "Whether everything works, and what to do if not."),
    "serve": ("services.cli.serve:serve", "Run one service, or the gateway, as the environment sets it up."),
    "migrate": ("services.cli.migrate:migrate", "Bring the database up to date."),
    "operator-key": ("services.cli.migrate:operator_key", "Make the operator's key, once."),
}
GROUPS: Final = {
    "tenant": ("services.cli.tenant:app", "Tenants: create, list."),
    "sandbox": ("services.cli.sandbox:app", "Test clocks of sandbox tenants."),
    "dlq": ("services.cli.dlq:app", "Dead letters: messages that were given up."),
    "policy": ("services.cli.policy:app", "Policies: check, try, publish."),
}

app = App(
    name="recourse",
    version=VERSION,
    help="Complaint handling by each organisation's own rules.",
    help_epilogue="Exit codes: 0 done, 1 done but not well, 2 not understood, 3 could not be done, 130 interrupted.",
    default_parameter=None,
)
for _name, (_target, _help) in {**COMMANDS, **GROUPS}.items():
    app.command(_target, name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        result = app(arguments, result_action="return_value")
    except CommandError as error:
        note(str(error))
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stdout = None  # whoever read us has gone; there is nobody to flush to
        return 0
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        note(sentence)
        return NOT_DONE
    return result if isinstance(result, int) else 0

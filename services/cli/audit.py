"""`recourse audit`: whether what was promised is so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from services.cli.output import NOT_WELL, CommandError, say, say_json_line

Flag = Annotated[bool, Parameter(negative="")]


def audit(
    *,
    dsn: str,
    nats: str,
    journal: Path | None = None,
    provider: Path | None = None,
    secrets: Path | None = None,
    patience: float = 30.0,
    json: Flag = False,
) -> int:
    """Compare what was answered, stored, told, sent and counted, in every store, and count what does not agree.

    It changes nothing and shares no code with the services. Exit code 1 when anything was found.

    Args:
        dsn: the database, as its superuser: row-level security would hide what lies with the wrong tenant.
        nats: NATS, as the operator.
        journal: what the senders wrote down: every attempt and every answer, as JSON lines.
        provider: what the other side took: SMS, e-mails, webhooks, as JSON lines.
        secrets: the folder with the keys that wrap all others, to see whether what is sealed opens; unless given, they are looked for
            beside the server's files.
        patience: seconds that what is under way is given before it counts.
        json: print one line of JSON.
    """
    return asyncio.run(_audit(dsn, nats, journal, provider, secrets, patience, json=json))


async def _audit(
    dsn: str,
    nats: str,
    journal: Path | None,
    provider: Path | None,
    secrets: Path | None,
    patience: float,
    *,
    json: bool,
) -> int:
    import asyncpg
    import msgspec
    from nats.errors import Error as NatsError

    from services.audit.auditing import audit as compare
    from services.audit.findings import CHECKS
    from services.audit.journal import read_journal
    from services.audit.provider import read_record
    from services.audit.sources import Evidence

    evidence = Evidence(
        dsn=dsn,
        nats=nats,
        lines=lambda: None if journal is None else read_journal(journal),
        record=lambda: None if provider is None else read_record(provider),
        secrets=secrets,
    )
    try:
        verdict = await compare(evidence, patience=patience)
    except msgspec.MsgspecError as error:
        raise CommandError(f"The journal or the record cannot be read: {error}.") from None
    except (OSError, NatsError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise CommandError(f"The audit could not be made: {type(error).__name__}: {error}") from None
    if json:
        say_json_line(verdict)
        return 0 if verdict.ok else NOT_WELL
    _print(verdict, CHECKS)
    return 0 if verdict.ok else NOT_WELL


def _print(verdict: Any, names: dict[str, str]) -> None:
    for check, number in verdict.checks.items():
        say(f"{check:<4} {number:>6}  {names[check]}")
    for finding in verdict.details:
        say(f"{finding.check:<4} {finding.subject}: {finding.what}")
    say(f"{verdict.compared} comparisons: {'all agree' if verdict.ok else 'NOT ALL AGREE'}.")

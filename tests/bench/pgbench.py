"""PostgreSQL's own benchmark against the server that the services use: what the machine could do if there were nothing but rows."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg

from shared.embedded.postgres import programs

CLIENTS: Final = 16
ATTEMPTS: Final = 5  # where the disk stands still for as long as a whole look
_RATE: Final = re.compile(rb"tps = ([0-9.]+)")
_NONE: Final = b"transactions actually processed: 0\n"

PLAIN_TABLE: Final = """
CREATE TABLE IF NOT EXISTS public.plain (
    id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), body jsonb NOT NULL)"""

PLAIN_INSERT: Final = (
    "INSERT INTO public.plain (id, body) VALUES (uuidv7(), "
    """'{"channel": "phone", "category": "attitude", "note": "%s"}');\n""" % ("x" * 700)
)
"""One row of some 0.8 KB with one index: the calibration."""


async def per_second(dsn: str, script: Path, seconds: int, clients: int = CLIENTS) -> float:
    """Transactions a second that pgbench makes of a script, prepared, over so many connections. RuntimeError when it makes none."""
    attempt = 1
    while True:
        code, said, complaints = await _run(dsn, script, seconds, clients)
        found = _RATE.search(said)
        if code == 0 and found is not None:
            return float(found[1])
        if code != 0 or _NONE not in said or attempt == ATTEMPTS:
            raise RuntimeError(f"pgbench ({code}): {(complaints or said).decode(errors='replace')[:600]}")
        attempt += 1


async def _run(dsn: str, script: Path, seconds: int, clients: int) -> tuple[int | None, bytes, bytes]:
    """Return the exit code of pgbench and what it said."""
    address = urlsplit(dsn)
    process = await asyncio.create_subprocess_exec(
        programs() / "pgbench",
        *("--no-vacuum", "--protocol=prepared", f"--client={clients}", "--jobs=2", f"--time={seconds}"),
        *("--host", address.hostname or "", "--port", str(address.port), "--username", address.username or ""),
        *("--file", str(script), address.path.lstrip("/")),
        env={"PGPASSWORD": unquote(address.password or "")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds + 30):
            said, complaints = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process.returncode, said, complaints


async def analyzed(*dsns: str) -> None:
    """Count the rows, as autovacuum does within a minute: a database that is some seconds old knows nothing about its tables."""
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("ANALYZE")
        finally:
            await connection.close()

"""Where an audit reads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from msgspec import Struct

from services.audit.journal import Line
from services.audit.provider import Taken

LONGEST_PAUSE: Final = timedelta(hours=30)
"""Between two calls of a receiver, by all that notify says of its pauses."""


class Evidence(Struct, frozen=True, kw_only=True):
    """Args:
    dsn: of the superuser, since row-level security would hide what lies with the wrong tenant.
    nats: the operator's address.
    lines: reads the journal; it is read anew at each look. None: there is no journal.
    record: reads what the other side took. None: there is no record.
    secrets: the folder with the keys that wrap all others. None: they are looked for where the server's files lie.
    longest_pause: so long may a message that was called for in vain wait for the next call; less where the pauses are scaled down.
    """

    dsn: str
    nats: str
    lines: Callable[[], list[Line] | None] = lambda: None
    record: Callable[[], list[Taken] | None] = lambda: None
    secrets: Path | None = None
    longest_pause: timedelta = LONGEST_PAUSE

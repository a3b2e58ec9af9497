"""Where an audit reads."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from services.audit.journal import Line
from services.audit.provider import Taken


class Evidence(Struct, frozen=True, kw_only=True):
    """Args:
    dsn: of the superuser, since row-level security would hide what lies with the wrong tenant.
    nats: the operator's address.
    lines: reads the journal; it is read anew at each look. None: there is no journal.
    record: reads what the other side took. None: there is no record.
    """

    dsn: str
    nats: str
    lines: Callable[[], list[Line] | None] = lambda: None
    record: Callable[[], list[Taken] | None] = lambda: None

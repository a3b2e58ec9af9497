"""The journal of whoever sends: a line before each attempt, a line for each answer, on the disk before anything else happens.

The journal and not the database is the truth: what it says was answered 2xx must be there, what it says was refused must not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

import msgspec
from msgspec import Struct

Source = Literal["api", "webhook", "smtp", "csv", "entry", "act"]
"""Ways in: four for complaints; `entry` is a line of a timeline that somebody enters, `act` any other request with a key."""


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the journal.

    Args:
        what: `attempt`: about to be sent. `answer`: what came back. An attempt without an answer is open.
        key: what makes two requests the same: Idempotency-Key, webhook-id, Message-ID; of a table its Idempotency-Key.
        request: tells two requests under one key apart, such as a hash of the body; a repeat bears the same.
        bound: what a repeat under the key is compared with, where the sender knows it: SHA-256 of "POST /path?query", a new line and the
            body; of a webhook, of the body.
        status: of HTTP, or the code of SMTP.
        problem: the last part of the problem's type.
        answer: a hash of the answer's body, where a repeat must get the very same.
        stored, refused: complaints of a table that were and were not stored.
    """

    what: Literal["attempt", "answer"]
    at: datetime
    tenant_id: UUID
    source: Source
    key: str
    request: str = ""
    bound: str = ""
    status: int = 0
    problem: str = ""
    case_id: UUID | None = None
    number: str | None = None
    seq: int | None = None
    answer: str = ""
    stored: int = 1
    refused: int = 0


class JournalFile:
    """Writes lines. Each is on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


class Witness:
    """Writes down one request: `attempt` before it is sent, each time, `answer` when one has come, each time."""

    def __init__(self, write: Callable[[Line], None], tenant_id: UUID, source: Source, key: str) -> None:
        self._write = write
        self._tenant_id = tenant_id
        self._source: Source = source
        self._key = key
        self._request = ""
        self._bound = ""

    def attempt(self, content: bytes = b"", *, bound: str = "") -> None:
        """Note that `content` is about to be sent: it tells two requests under one key apart."""
        self._bound = bound
        self._request = hashlib.sha256(content).hexdigest()[:32] if content else ""
        self._write(self._line("attempt"))

    def answer(self, status: int, content: bytes = b"", *, stored: int = 1, refused: int = 0) -> None:
        """Note an answer, with the ids that its body names."""
        try:
            body = msgspec.json.decode(content, type=_Answer) if content else _Answer()
        except msgspec.MsgspecError:
            body = _Answer()
        self._write(
            msgspec.structs.replace(
                self._line("answer"),
                status=status,
                problem=body.type.rpartition("/")[2] if status >= 400 else "",
                case_id=body.case_id or body.id,
                number=body.number,
                seq=body.seq,
                answer=hashlib.sha256(content).hexdigest() if content else "",
                stored=stored,
                refused=refused,
            )
        )

    def _line(self, what: Literal["attempt", "answer"]) -> Line:
        return Line(
            what=what,
            at=datetime.now(UTC),
            tenant_id=self._tenant_id,
            source=self._source,
            key=self._key,
            request=self._request,
            bound=self._bound,
        )


class _Answer(Struct):
    """What the journal wants of an answer's body, be it a receipt, an entry or a problem."""

    type: str = ""
    id: UUID | None = None
    case_id: UUID | None = None
    number: str | None = None
    seq: int | None = None


def read_journal(path: Path) -> list[Line]:
    """Return the lines of a journal. One that was cut off by the death of its writer at the end of the file was never acted upon.

    Raises msgspec.MsgspecError for any other line that is none.
    """
    decoder = msgspec.json.Decoder(Line)
    lines = path.read_bytes().split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    found = [decoder.decode(line) for line in whole if line.strip()]
    if rest.strip():
        with contextlib.suppress(msgspec.MsgspecError):
            found.append(decoder.decode(rest))
    return found


class Asked(Struct, kw_only=True):
    """One request, however often it was sent."""

    tenant_id: UUID
    source: Source
    key: str
    request: str
    bound: str
    first_at: datetime
    attempts: int = 0
    answers: list[Line] = []

    @property
    def good(self) -> list[Line]:
        return [line for line in self.answers if 200 <= line.status < 300]

    @property
    def is_stored(self) -> bool:
        return bool(self.good)

    @property
    def is_refused(self) -> bool:
        """Whether the last word was that it is not taken."""
        return not self.is_stored and bool(self.answers) and is_refusal(self.answers[-1])

    @property
    def is_refused_for_good(self) -> bool:
        """Whether nothing of it may be there: no attempt can have been taken before the refusal."""
        if not self.is_refused:
            return False
        last = self.answers[-1]
        is_its_own_fault = last.status in (400, 413, 415, 422) or self.source == "smtp"
        return is_its_own_fault or not self.is_open

    @property
    def is_open(self) -> bool:
        """Whether some attempt got no answer that says what became of it."""
        settled = sum(1 for line in self.answers if line.status < 500 or self.source == "smtp")
        return self.attempts > settled


def is_refusal(line: Line) -> bool:
    """Whether an answer means "no", not "later". A 429 is taken for a no by whoever does not come again."""
    if line.source == "smtp":
        return line.status >= 500
    return 400 <= line.status < 500 and line.status not in (408, 425) and line.problem != "request-in-progress"


def requests(lines: Iterable[Line]) -> Iterator[Asked]:
    """Yield the requests of a journal, in the order in which they were first sent."""
    found: dict[tuple[UUID, str, str, str], Asked] = {}
    for line in lines:
        place = (line.tenant_id, line.source, line.key, line.request)
        asked = found.get(place)
        if asked is None:
            asked = found[place] = Asked(
                tenant_id=line.tenant_id,
                source=line.source,
                key=line.key,
                request=line.request,
                bound=line.bound,
                first_at=line.at,
            )
        if line.what == "attempt":
            asked.attempts += 1
        else:
            asked.answers.append(line)
    yield from found.values()

"""What was sent and what was answered. It is kept by the senders, so it is the truth that the stores are compared with."""

from __future__ import annotations

from collections import Counter
from typing import Literal
from uuid import UUID

from msgspec import Struct

from services.audit.journal import JournalFile, Line, Witness
from services.audit.journal import Source as Way

Source = Literal["api", "webhook", "smtp", "csv"]


class Receipt(Struct, frozen=True, kw_only=True):
    """A complaint that was answered 2xx. Mail and tables are answered without the complaint's id."""

    source: Source
    complaint_id: UUID | None = None
    plan: str | None = None


class Journal:
    """One organisation's. Every complaint that is sent ends as a receipt or as a refusal; a repeat is neither.

    `lines` hold each attempt and each answer for the audit; they are in the file, too, if there is one.
    """

    def __init__(self, tenant_id: UUID, file: JournalFile | None = None) -> None:
        self.tenant_id = tenant_id
        self.lines: list[Line] = []
        self._file = file
        self.receipts: list[Receipt] = []
        self.refused: Counter[str] = Counter()
        self.refused_from: Counter[str] = Counter()
        self.repeats = 0
        self.wrong: list[str] = []  # answers that should have been others

    def witness(self, way: Way, key: str) -> Witness:
        """Return what writes down one request; one that is sent again has the same key."""
        return Witness(self._write, self.tenant_id, way, key)

    def _write(self, line: Line) -> None:
        if self._file is not None:
            self._file.write(line)
        self.lines.append(line)

    def stored(self, source: Source, complaint_id: UUID | None = None, plan: str | None = None) -> None:
        self.receipts.append(Receipt(source=source, complaint_id=complaint_id, plan=plan))

    def refuse(self, source: Source, reason: str) -> None:
        self.refused[reason] += 1
        self.refused_from[source] += 1

    def repeat(self, *, as_before: bool, what: str) -> None:
        """Note a repeat of what had been answered; it must get the answer of the first time."""
        self.repeats += 1
        if not as_before:
            self.wrong.append(f"a repeated {what} did not get the answer that was given")

    def expect_refusal(self, source: Source, reason: str, expected: str) -> None:
        self.refuse(source, reason)
        if reason != expected:
            self.wrong.append(f"{source}: refused as {reason}, and should have been as {expected}")

    @property
    def sent(self) -> int:
        return len(self.receipts) + self.refused.total()

    def sent_from(self, source: Source) -> int:
        return sum(receipt.source == source for receipt in self.receipts) + self.refused_from[source]

    def stored_from(self, source: Source) -> int:
        return sum(receipt.source == source for receipt in self.receipts)

    @property
    def ids(self) -> list[UUID]:
        return [receipt.complaint_id for receipt in self.receipts if receipt.complaint_id is not None]

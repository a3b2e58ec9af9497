"""What commands say: values on stdout, as text or as JSON; everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

T = TypeVar("T")

NOT_WELL: Final = 1
NOT_DONE: Final = 3

# Refusals that are sentences for people already. Named and not imported: what was raised has been imported by its raiser.
_SENTENCES: Final = {
    ("shared.embedded.errors", "LocalStackError"),
    ("shared.settings", "SettingsError"),
    ("shared.service", "StartError"),
    ("shared.migrations", "MigrationError"),
}


class CommandError(Exception):
    """The command cannot be done; the sentence says why and what to do."""

    def __init__(self, sentence: str, code: int = NOT_DONE) -> None:
        super().__init__(sentence)
        self.code = code


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell a person, or None for a bug, whose traceback is wanted."""
    if any((kind.__module__, kind.__name__) in _SENTENCES for kind in type(error).__mro__):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        found = [sentence_of(each) for each in error.exceptions]
        return next((sentence for sentence in found if sentence is not None), None)
    return None


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run something to its end in the faster event loop."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def say(text: str = "") -> None:
    """One line for the reader."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line of progress, or of what went wrong."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """One JSON document."""
    import msgspec

    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def say_json_line(value: Any) -> None:
    """One JSON document in one line."""
    import msgspec

    say(msgspec.json.encode(value).decode())


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with columns under their headings; wide characters count twice."""
    cells = [list(headings), *([("" if each is None else str(each)) for each in row] for row in rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(_padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def _width(text: str) -> int:
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))

"""What can be wrong with an expression: problems found at publish, and failures met while evaluating."""

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct


class Problem(Struct, frozen=True):
    """One thing wrong with (or doubtful about) an expression; line and column count from 1, in characters."""

    message: str
    line: int
    column: int
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.line}:{self.column}: {self.message}{hint}"


class ExpressionError(Exception):
    """The expression cannot be used; `problems` holds everything found, in the order of the text."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        super().__init__("; ".join(map(str, self.problems)))


class EvaluationError(Exception):
    """A well-typed expression met data it cannot work with: a missing value, a bad format, too long a list."""


def position(source: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both counted from 1."""
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def near_miss(word: str, words: Iterable[str]) -> str | None:
    """Return the known word that was most likely meant, or None when nothing is close."""
    known = list(words)
    by_folded = {candidate.casefold(): candidate for candidate in reversed(known)}
    close = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    if close:
        return by_folded[close[0]]
    starting = [candidate for candidate in known if len(word) >= 3 and candidate.casefold().startswith(word.casefold())]
    return starting[0] if len(starting) == 1 else None

"""What is wrong with a policy, and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct


class PolicyProblem(Struct, frozen=True, kw_only=True):
    """One finding. `path` is a JSON pointer into the document as written; line and column are there when the text was at hand."""

    path: str
    message: str
    severity: Literal["error", "warning"] = "error"
    code: str = "invalid"  # stable, kebab-case
    suggestion: str | None = None
    line: int | None = None
    column: int | None = None


class PolicyError(ValueError):
    """The policy cannot be used; `problems` holds everything found, in the order of the document."""

    def __init__(self, problems: Iterable[PolicyProblem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{one.path or '/'}: {one.message}" for one in self.problems[:5]))

"""Every type of problem is stable, said once, and documented in `docs/problems.md`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import services
import shared
from shared.errors import DomainError
from shared.problems import status_of

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "problems.md"
HEAD = """# Problems

Whatever is not answered as wished is answered with `application/problem+json` (RFC 9457): `type`, `title`, `status`, often
`detail`, and `errors` with an RFC 6901 `pointer` for each field that is wrong. Match on `type`: titles are for people. What is
refused leaves nothing behind. A `Retry-After` header says when the same request may succeed; send it with the same
`Idempotency-Key`. Made by `python -m tests.contract.test_problems`.

| type | status | title |
| --- | --- | --- |
"""


def kinds() -> dict[str, type[DomainError]]:
    """Every kind of refusal that any module declares, by slug."""
    for package in (shared, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    declared: dict[str, type[DomainError]] = {}
    waiting = list(DomainError.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(("shared.", "services.")) and "slug" in vars(kind):
            assert declared.setdefault(kind.slug, kind) is kind or declared[kind.slug].title == kind.title, (
                f"{kind.slug} means two things"
            )
    return declared


def document() -> str:
    rows = sorted((status_of(kind), slug, kind.title) for slug, kind in kinds().items())
    return HEAD + "".join(f"| `/problems/{slug}` | {status} | {title} |\n" for status, slug, title in rows)


def test_slugs_and_titles_have_their_form() -> None:
    for slug, kind in kinds().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug), slug
        assert kind.title.endswith("."), slug


def test_the_document_lists_every_type() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")

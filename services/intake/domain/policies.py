"""Publishing a policy: which document is meant, whether it can work, what it is called afterwards."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from shared.engine.rules import CompiledPolicy
from shared.policy.compiling import compile_policy
from shared.policy.documents import LARGEST, DocumentError, parse
from shared.policy.problems import PolicyError, PolicyProblem

_TEMPLATE = re.compile(r"[a-z][a-z0-9_]{2,80}")


def compiled(source: Mapping[str, Any] | str, settings: Mapping[str, Any], version: int) -> CompiledPolicy:
    """Return the policy ready to run; raises PolicyError with everything that is wrong with it."""
    if not isinstance(source, str) and len(msgspec.json.encode(source)) > LARGEST:
        raise PolicyError(
            [PolicyProblem(path="", message=f"a policy has at most {LARGEST // 1024} KB", code="document")]
        )
    return compile_policy(source, settings, version)


def values_of(source: Mapping[str, Any] | str) -> dict[str, Any]:
    """Return the document as plain values; raises PolicyError when it is no document."""
    if not isinstance(source, str):
        return dict(source)
    try:
        return parse(source).values
    except DocumentError as error:
        mark = error.mark
        line, column = (mark.line, mark.column) if mark is not None else (None, None)
        problem = PolicyProblem(path=error.pointer, message=error.message, code="document", line=line, column=column)
        raise PolicyError([problem]) from None


def fingerprint(document: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 by which two publications of the same rules are recognised."""
    return hashlib.sha256(msgspec.json.encode([document, settings], order="deterministic")).hexdigest()


@cache
def templates() -> tuple[str, ...]:
    """Return the names of the ready-made policies."""
    folder = resources.files("shared.policy").joinpath("templates")
    if not folder.is_dir():
        return ()
    return tuple(sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml")))


def template(name: str) -> str | None:
    """Return the text of a ready-made policy, or None when there is none of that name."""
    if not _TEMPLATE.fullmatch(name) or name not in templates():
        return None
    return resources.files("shared.policy").joinpath("templates", f"{name}.yaml").read_text(encoding="utf-8")

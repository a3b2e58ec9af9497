"""Publishing a policy: which document is meant, whether it can work, what it is called afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.policy import template_files
from shared.policy.documents import LARGEST, parse
from shared.policy.linting import lint
from shared.policy.problems import PolicyError, PolicyProblem


def checked(source: Mapping[str, Any] | str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[PolicyProblem]]:
    """Return the document as plain values, with what may not have been meant.

    Raises PolicyError with everything found when the policy can never work as it is written.
    """
    if not isinstance(source, str) and len(msgspec.json.encode(source)) > LARGEST:
        raise PolicyError(
            [PolicyProblem(path="", message=f"a policy has at most {LARGEST // 1024} KB", code="document")]
        )
    found = lint(source, settings)
    if found.errors:
        raise PolicyError(found.problems)
    return (parse(source).values if isinstance(source, str) else dict(source)), found.warnings


def fingerprint(document: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 by which two publications of the same rules are recognised."""
    return hashlib.sha256(msgspec.json.encode([document, settings], order="deterministic")).hexdigest()


def templates() -> tuple[str, ...]:
    """Return the names of the ready-made policies."""
    return tuple(template_files.names().values())


def template(name: str) -> str | None:
    """Return the text of a ready-made policy by its name, or its regime's; None when there is none."""
    for regime, file in template_files.names().items():
        if name in (file, regime):
            return template_files.text_of(regime)
    return None

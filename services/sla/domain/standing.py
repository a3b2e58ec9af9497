"""What tells two standings apart, whenever they were looked at."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from shared.engine.model import Standing

_encode = msgspec.json.Encoder().encode


def digest_of(standing: Standing, facts: dict[str, Any]) -> bytes:
    """Return the same 32 bytes as long as nothing of the case has changed that others are told of by its standing."""
    content = (
        standing.state,
        standing.closed,
        standing.acceptance,
        standing.classified,
        standing.outcome,
        standing.routing,
        standing.clocks,
        standing.penalties,
        standing.policy_version,
        facts,
    )
    return hashlib.sha256(_encode(content)).digest()

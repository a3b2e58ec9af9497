"""Requests that wait for a decision, read off the entries."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shared.engine.model import Entry

_REQUESTS: Final = {"approval_requested": "approval", "extension_requested": "extension"}
_DECISIONS: Final[dict[str, tuple[str | None, Literal["approved", "rejected"]]]] = {
    "approved": (None, "approved"),
    "rejected": (None, "rejected"),
    "extended": ("extension", "approved"),
}


class Requested(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    step: str | None


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about the latest open request; `kind` and `step` narrow it where the entry says them."""

    kind: str | None
    step: str | None
    decision: Literal["approved", "rejected"]


def requested(entry: Entry) -> Requested | None:
    kind = _REQUESTS.get(entry.kind)
    return None if kind is None else Requested(kind=kind, step=_step(entry))


def decided(entry: Entry) -> Decided | None:
    if entry.kind not in _DECISIONS:
        return None
    kind, decision = _DECISIONS[entry.kind]
    return Decided(kind=kind, step=_step(entry), decision=decision)


def _step(entry: Entry) -> str | None:
    step = entry.data.get("step")
    return step if isinstance(step, str) else None

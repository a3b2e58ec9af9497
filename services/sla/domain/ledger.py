"""The ledger follows the fold by differences: what a key amounts to now, less what has been posted for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from shared.engine.model import PenaltyView

NOT_OWED = frozenset({"needs_decision", "waived", "void"})


class Position(Struct, frozen=True):
    """What has been posted for one key so far."""

    posted_minor: int
    digest: bytes
    penalty: PenaltyView


class Posting(Struct, frozen=True):
    """One row to post, and the position it leads to."""

    key: str
    difference_minor: int
    posted_minor: int
    digest: bytes
    penalty: PenaltyView


def owed_minor(view: PenaltyView) -> int:
    """What the key amounts to in minor units: nothing while a person has still to decide, and nothing once waived."""
    if view.state in NOT_OWED or view.amount_minor is None:
        return 0
    return view.amount_minor


def postings(views: Iterable[PenaltyView], positions: Mapping[str, Position]) -> list[Posting]:
    """Everything that has to be posted so that the ledger says what the fold says.

    The same views against the positions they lead to give nothing, so any number of repetitions post once. A key that the fold no longer
    knows is reversed and stays in the ledger as void.
    """
    found = []
    now = {view.key: view for view in views}
    for key, view in now.items():
        before = positions.get(key)
        digest = digest_of(view)
        if before is not None and before.digest == digest:
            continue
        owed = owed_minor(view)
        found.append(Posting(key, owed - (before.posted_minor if before else 0), owed, digest, view))
    for key, before in positions.items():
        if key not in now and before.penalty.state != "void":
            void = msgspec.structs.replace(before.penalty, state="void", amount_minor=None)
            found.append(Posting(key, -before.posted_minor, 0, digest_of(void), void))
    return found


def digest_of(view: PenaltyView) -> bytes:
    """What tells two views of one key apart: everything but the version of the policy that computed them."""
    plain = msgspec.structs.replace(view, policy_version=0)
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).digest()

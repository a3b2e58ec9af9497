"""In which parts of the matter itself a person acts, besides their roles: as its handler, its respondent, the head of either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.engine.model import Actor

COMPLAINANT: Final = Actor(id="complainant", roles=("complainant",))
"""Who acts when a tenant's own system passes on what the complainant did."""

_PARTS: Final = (
    ("handler", "staff", ("handler",)),
    ("handler", "head", ("handler_head", "head")),
    ("respondent", "staff", ("respondent",)),
    ("respondent", "supervisor", ("respondent_supervisor", "supervisor")),
)


def in_part(actor: Actor, complaint: Mapping[str, Any]) -> Actor:
    """Return the actor with the parts that the person has in this complaint added to their roles."""
    parts = [
        name for party, key, names in _PARTS if (complaint.get(party) or {}).get(key) == actor.id for name in names
    ]
    if not parts:
        return actor
    return msgspec.structs.replace(actor, roles=tuple(dict.fromkeys((*actor.roles, *parts))))

"""Announcements: told once each under their key, withdrawn when what came later overtakes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from shared.engine.model import EffectView


class News(Struct, frozen=True):
    """What is to be told now; of what is withdrawn the keys."""

    made: list[EffectView]
    withdrawn: list[str]


def news(effects: Iterable[EffectView], told: Mapping[str, bool]) -> News:
    """What the fold says and nobody was told, and what was told and the fold no longer says.

    Args:
        told: what has been announced, by key; whether it was withdrawn.
    """
    now = {effect.key: effect for effect in effects}
    if not told:
        return News(list(now.values()), [])
    made = [effect for key, effect in now.items() if key not in told]
    withdrawn = [key for key, is_withdrawn in told.items() if key not in now and not is_withdrawn]
    return News(made, withdrawn)


def is_late(effect: EffectView, now: datetime, tolerance: timedelta) -> bool:
    """Whether the announcement comes later than it should have."""
    return now - effect.at > tolerance

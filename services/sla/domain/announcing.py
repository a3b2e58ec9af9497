"""Announcements: told once each under their key, withdrawn when what came later overtakes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from shared.engine.model import EffectView


class Told(Struct, frozen=True):
    """What has been announced under a key."""

    effect: EffectView
    withdrawn: bool


class News(Struct, frozen=True):
    """What is to be told now."""

    made: list[EffectView]
    withdrawn: list[EffectView]


def news(effects: Iterable[EffectView], told: Mapping[str, Told]) -> News:
    """What the fold says and nobody was told, and what was told and the fold no longer says."""
    now = {effect.key: effect for effect in effects}
    made = [effect for key, effect in now.items() if key not in told]
    withdrawn = [one.effect for key, one in told.items() if key not in now and not one.withdrawn]
    return News(made, withdrawn)


def is_late(effect: EffectView, now: datetime, tolerance: timedelta) -> bool:
    """Whether the announcement comes later than it should have."""
    return now - effect.at > tolerance

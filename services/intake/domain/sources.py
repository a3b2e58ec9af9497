"""A source of complaints: its settings, and the secrets with which a webhook is signed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

from msgspec import Meta, Struct

from services.intake.domain.complaint import Fault
from services.intake.domain.payload import TARGETS, Mapped, mapping_faults
from services.intake.domain.vocabulary import near

OLD_SECRET_LASTS: Final = timedelta(hours=24)
"""How long the former secret is still good after a rotation."""


class SourceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a source may set.

    map: of a webhook whose sender has a form of its own.
    columns: of a table with headings of its own; "" leaves a column out.
    takes_automatic: of an address to which a web form writes through a mailer.
    """

    map: Mapped | None = None
    columns: Annotated[dict[str, str], Meta(max_length=100)] = {}
    takes_automatic: bool = False


class Secret(Struct, frozen=True, kw_only=True):
    """A signing secret; `until` is the first instant at which it is no longer good, None for the present one."""

    secret: str
    until: datetime | None = None


def settings_faults(kind: str, settings: SourceSettings) -> tuple[Fault, ...]:
    """Return what is wrong with a source's settings when they are saved."""
    faults: list[Fault] = []
    if settings.map is not None:
        if kind != "webhook":
            faults.append(Fault(("map",), "only a webhook has a form of its own"))
        faults += (
            Fault(("map", *fault.path), fault.detail, fault.suggestion) for fault in mapping_faults(settings.map)
        )
    if settings.columns and kind != "csv":
        faults.append(Fault(("columns",), "only a table has columns"))
    for heading, target in settings.columns.items():
        if target and target not in TARGETS and not target.startswith("fields."):
            faults.append(Fault(("columns", heading), "a complaint has no such field", near(target, TARGETS)))
    if settings.takes_automatic and kind != "email":
        faults.append(Fault(("takes_automatic",), "only mail can be automatic"))
    return tuple(faults)


def good_secrets(secrets: Sequence[Secret], now: datetime) -> list[str]:
    """Return the secrets that are good now, the present one first."""
    return [each.secret for each in secrets if each.until is None or now < each.until]


def rotated(secrets: Sequence[Secret], fresh: str, now: datetime) -> list[Secret]:
    """Return the secrets after a rotation: the fresh one, and the former one for a day. An older one ends at once."""
    former = [Secret(secret=each.secret, until=now + OLD_SECRET_LASTS) for each in secrets if each.until is None]
    return [Secret(secret=fresh), *former]

"""Duties are kept by calendar year: which case an instant belongs to, and what its first line says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from shared.ids import derived_id


def year_of(at: datetime, zone: str) -> int:
    """Return the calendar year of an instant in the tenant's zone."""
    return at.astimezone(ZoneInfo(zone)).year


def start_of(year: int, zone: str) -> datetime:
    """Return the first instant of the year, aware UTC."""
    return datetime(year, 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def case_id_of(tenant_id: UUID, year: int) -> UUID:
    return derived_id("duty", tenant_id, year)


def first_line(year: int, zone: str) -> dict[str, Any]:
    """Return the data of the case's first entry: occurrences are on the agenda from the entry until the end of the year."""
    return {"year": year, "until": start_of(year + 1, zone).isoformat()}

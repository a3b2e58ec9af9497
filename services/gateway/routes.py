"""Whose path it is. The public paths of the services are disjoint, so the path alone decides."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

_NOUNS: Final = {
    "intake": (
        "calendars", "complainants", "complaints", "credentials", "hooks", "imports", "me", "policies", "sources",
        "tenants", "vault",
    ),
    "routing": ("approvals", "cases", "duties", "sandbox", "staff"),
    "sla": ("announcements", "ledger"),
    "notify": ("deliveries", "providers", "receipts", "webhooks"),
    "reporting": ("exports", "facts", "reports", "statistics"),
}  # fmt: skip
_OWNERS: Final = {noun: service for service, nouns in _NOUNS.items() for noun in nouns}
_OF_A_CASE: Final = {
    "texts": "intake",
    "clocks": "sla",
    "explanations": "sla",
    "penalties": "sla",
    "deliveries": "notify",
}
"""What is asked of one case belongs to whoever knows it; the case itself is routing's."""


class Route(Struct, frozen=True):
    """Who answers, and the form of the path under which requests are counted: few, whatever is asked."""

    service: str
    form: str


def route(path: str) -> Route | None:
    """Return whose path it is, or None for nobody's."""
    parts = path.split("/")
    if len(parts) < 3 or parts[0] or parts[1] != "v1":
        return None
    noun = parts[2].partition(":")[0]
    if noun == "ops":
        service = parts[3] if len(parts) > 3 else ""
        return Route(service, f"/v1/ops/{service}") if service in _NOUNS else None
    if noun == "cases" and len(parts) == 5 and parts[4] in _OF_A_CASE:
        return Route(_OF_A_CASE[parts[4]], f"/v1/cases/*/{parts[4]}")
    owner = _OWNERS.get(noun)
    return None if owner is None else Route(owner, f"/v1/{noun}")

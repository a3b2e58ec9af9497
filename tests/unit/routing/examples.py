"""A small policy, and timelines under it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NINE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # a Monday, 09:00 in Shanghai

SHOP: dict[str, Any] = {
    "policy": 1,
    "title": "A shop",
    "vocabulary": {
        "outcomes": {"goodwill": ""},
        "severities": {"light": "", "grave": ""},
        "fields": {
            "order": {"type": "text"},
            "loss": {"type": "money"},
            "branch": {"type": "name", "values": ["north", "south"]},
            "id_number": {"type": "text", "personal": True},
        },
        "steps": {"callback": "called back", "decision": "decided by the manager"},
        "data": {"own_word": "text"},
    },
    "organisation": {"units": {"desk": ""}, "roles": {"clerk": "", "manager": ""}},
    "routing": [{"id": "desk", "unit": "desk", "role": "clerk"}],
    "workflow": {
        "states": [{"on": "approved:decision", "state": "accepted"}],
        "gates": [{"id": "manager", "on": "closed", "by": ["manager"], "reason": "beyond_authority", "clause": "X.1"}],
    },
    "clocks": [
        {"id": "reply", "start": "received", "within": "3wd", "stop": "replied"},
        {"id": "close", "start": "received", "within": "10wd", "stop": "closed"},
    ],
}

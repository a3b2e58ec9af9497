"""What tenants' systems are sent: CloudEvents 1.0 in structured JSON, and which endpoint wants which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
MESSAGE_TYPE = "notify.v1.message.worded"
TEST_TYPE = "notify.v1.webhook.tested"

_PATTERN = re.compile(r"\*|[a-z][a-z0-9_.:]{0,119}(?:\.\*)?")


class CloudEvent(Struct, frozen=True, kw_only=True):
    """The envelope, in the field names of the specification; `tenantid` is an extension attribute."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str | None
    time: datetime
    datacontenttype: str
    tenantid: str
    data: dict[str, Any]


def event(
    kind: str, event_id: UUID, tenant_id: UUID, case_id: UUID | None, at: datetime, data: dict[str, Any]
) -> bytes:
    """Return the body that is signed and sent."""
    return msgspec.json.encode(
        CloudEvent(
            specversion="1.0",
            id=str(event_id),
            source=f"/tenants/{tenant_id}",
            type=kind,
            subject=None if case_id is None else f"cases/{case_id}",
            time=at,
            datacontenttype="application/json",
            tenantid=str(tenant_id),
            data=data,
        )
    )


def is_pattern(text: str) -> bool:
    """Whether a text is an event filter: `*`, a name, or a name's beginning with `.*`."""
    return _PATTERN.fullmatch(text) is not None


def is_wanted(filters: Sequence[str], names: Sequence[str]) -> bool:
    """Whether an endpoint with these filters wants an event of these names; no filter means everything.

    A name is the event's type (`routing.v1.entry.appended`) or one of its triggers (`replied`, `step:callback`,
    `effect:escalated`).
    """
    if not filters:
        return True
    return any(_matches(pattern, name) for pattern in filters for name in names)


def _matches(pattern: str, name: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1])
    return pattern == name

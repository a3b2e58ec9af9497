"""Subscribing the tenants of a run: a short regime, two of the staff, a webhook source, providers, an endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.chaos.frame import Tenancy, World

POLICY: Final = Path(__file__).with_name("policy.yaml").read_text(encoding="utf-8")
STAFF: Final = (("clerk.one", "clerk"), ("clerk.two", "clerk"), ("the.manager", "manager"))
PLENTY: Final = {"requests_per_second": 1000, "burst": 2000, "complaints_per_day": 1_000_000}


async def subscribe(world: World, count: int = 5, *, limits: dict[str, int] = PLENTY) -> None:
    """Add tenants to the world; the first has an endpoint that wants to hear everything."""
    first = len(world.tenants)
    made = await asyncio.gather(*(_subscribe(world, number, limits) for number in range(first, first + count)))
    world.tenants += made


async def _subscribe(world: World, number: int, limits: dict[str, int]) -> Tenancy:
    slug = f"chaos-{number}"
    body: dict[str, Any] = {"slug": slug, "name": slug, "language": "en", "limits": limits}
    created = await world.operator.post("/v1/tenants", body)
    admin = world.operator.with_key(created["admin_key"])
    await admin.post("/v1/policies:publish", {"document": POLICY, "reason": "The first version."})
    hook = await admin.post("/v1/sources", {"name": "calls", "kind": "webhook", "channel": "phone"})
    clerk = await admin.post("/v1/credentials", {"role": "handler", "name": "Clerk", "staff_id": "clerk.one"})
    systems = await admin.post("/v1/credentials", {"role": "integration", "name": "Own systems"})
    await admin.until_known()
    for staff_id, role in STAFF:
        member = {"roles": [role], "unit": "desk", "email": f"{staff_id}@{slug}.example"}
        await admin.put(f"/v1/staff/{staff_id}", member)
    await admin.post("/v1/providers", {"channel": "sms", "name": "SMS", "config": world.sms.config})
    await admin.post("/v1/providers", {"channel": "email", "name": "Mail", "config": world.email.config})
    if number == 0:
        endpoint = await admin.post("/v1/webhooks", {"url": world.webhook.url})
        world.webhook.secrets.append(endpoint["secret"])
    known = admin.with_key(clerk["key"])
    await known.until_known()
    return Tenancy(
        slug=slug,
        tenant_id=UUID(created["tenant"]["tenant_id"]),
        admin=admin,
        admin_key=created["admin_key"],
        systems=admin.with_key(systems["key"]),
        systems_key=systems["key"],
        clerk=known,
        hook_path=hook["source"]["path"],
        hook_secret=hook["secret"],
    )

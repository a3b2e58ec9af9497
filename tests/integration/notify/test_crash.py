"""The process really ends at the worst places, is started again, and each message has gone out once."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from services.notify.sinks import SmsSink, WebhookSink
from shared.fail_points import EXIT_CODE
from tests.integration.notify.world import PHONE, World
from tests.waiting import PATIENCE, until

POLICY: dict[str, Any] = {
    "policy": 1,
    "title": "sms",
    "messages": [
        {"id": "ack", "on": "received", "to": ["complainant"], "channel": ["sms"], "template": "{{ number }}"}
    ],
}


async def run_until_it_dies(world: World, point: str) -> int:
    """Run notify as a process of its own with a fail point; return how it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli",
        "serve",
        "notify",
        env={**os.environ, **world.environment(), "RECOURSE_FAIL_POINT": point},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        return await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_process_that_ends_at_the_worst_places_loses_and_repeats_nothing(
    world: World, sms: SmsSink, hook: WebhookSink
) -> None:
    tenant = await world.tenant(policy=POLICY)
    await tenant.sms_provider(sms)
    await tenant.endpoint(hook)
    tenant.reachable()
    await world.stop()
    complaint = tenant.complaint()
    await world.tell(complaint.first_entry())
    for point in ("notify.claimed", "notify.attempted", "notify.called"):
        assert await run_until_it_dies(world, f"{point}:1") == EXIT_CODE
        await world.root.execute("UPDATE delivery_queue SET wake_at = clock_timestamp()")  # the lease ends
    await world.start()

    async def told() -> bool:
        return len(await tenant.deliveries()) == 2

    await until(told)
    found = await tenant.quiet()
    assert {each["state"] for each in found} == {"sent"}
    assert [message.text for message in sms.to(PHONE)] == [complaint.number]
    assert sms.repeats == 0
    assert len(hook.events) == 1

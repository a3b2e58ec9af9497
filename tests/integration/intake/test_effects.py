from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import nats
import pytest
from nats.js.api import StreamConfig

from shared.engine.model import EffectView
from shared.ids import derived_id
from shared.messages.base import encode, subject_of
from shared.messages.intake import ComplaintReceived
from shared.messages.sla import AnnouncementMade
from tests.infra import Infra
from tests.integration.intake.world import World, messages
from tests.waiting import PATIENCE, until

OTHER_CASE = UUID(int=8)


def an_effect(tenant_id: UUID, key: str = "case|R1|1", **fields: Any) -> AnnouncementMade:
    values: dict[str, Any] = {"kind": "created", "what": "charges", "to": "u1", "data": {"channel": "phone"}} | fields
    withdrawn = values.pop("withdrawn", False)
    case_id = values.pop("case_id", UUID(int=7))
    effect = EffectView(key=key, rule="R1", clause="R03.9", at=datetime(2026, 3, 2, tzinfo=UTC), **values)
    return AnnouncementMade(
        message_id=uuid4(),
        tenant_id=tenant_id,
        at=effect.at,
        case_id=case_id,
        case_kind="complaint",
        effect=effect,
        withdrawn=withdrawn,
    )


async def tell(infra: Infra, *told: AnnouncementMade) -> None:
    """Publish as sla does."""
    client = await nats.connect(infra.nats_url("sla"), inbox_prefix=b"_INBOX_sla")
    try:
        js = client.jetstream(timeout=PATIENCE)
        await js.add_stream(StreamConfig(name="SLA", subjects=["sla.v1.>"]))
        for message in told:
            await js.publish(subject_of(message), encode(message), headers={"Nats-Msg-Id": str(message.message_id)})
    finally:
        await client.close()


async def test_an_effect_creates_one_complaint_however_often_it_is_told(
    world: World, streams: Infra, root: asyncpg.Connection
) -> None:
    tenant = await world.tenant()
    await tell(
        streams,
        an_effect(tenant.tenant_id, kind="escalated"),
        an_effect(tenant.tenant_id, "withdrawn", withdrawn=True),
        an_effect(tenant.tenant_id),
        an_effect(tenant.tenant_id),
        an_effect(tenant.tenant_id, "case|R1|2", silent=True),
        an_effect(tenant.tenant_id, case_id=OTHER_CASE),  # another case's effect may bear the same key
    )

    async def both() -> bool:
        return bool(await root.fetchval("SELECT count(*) = 3 FROM complaint"))

    await until(both)
    first, second = (await messages(streams, tenant.tenant_id, 6))[3:5]
    assert isinstance(first, ComplaintReceived)
    assert isinstance(second, ComplaintReceived)
    assert first.case_id == derived_id("complaint.created", tenant.tenant_id, UUID(int=7), "case|R1|1")
    assert (first.source, first.silent, second.silent) == ("effect", False, True)
    assert first.entry.by.id == "system"
    assert first.entry.data["category"] == "charges"
    assert first.entry.data["respondent"] == {"staff": "u1"}
    assert first.entry.data["reference"] == f"case:{UUID(int=7)}"
    applied = "SELECT count(*) FROM inbox WHERE consumer = 'intake-on-announcement'"

    async def all_applied() -> bool:
        return bool(await root.fetchval(applied) == 6)

    await until(all_applied)
    assert await root.fetchval("SELECT count(*) FROM complaint") == 3


async def test_a_complaint_that_does_not_fit_goes_to_the_dead_letters(
    world: World, streams: Infra, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.consuming.BACK_OFF", (0.05,))
    tenant = await world.tenant()
    await tell(streams, an_effect(tenant.tenant_id, data={"channel": "pigeon"}))

    async def dead() -> str | None:
        found: str | None = await root.fetchval("SELECT error FROM dead_letter")
        return found

    error = await until(dead)
    assert "/channel: the policy knows no such channel" in error
    assert await root.fetchval("SELECT count(*) FROM complaint") == 0

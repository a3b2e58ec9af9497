"""Copies of reference data: older revisions change nothing, readers see what has arrived, caches do not outlive it for long."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from shared.errors import NotFoundError, NotYetError
from shared.ids import new_id
from shared.messages import CalendarPublished, ClockTicked, PolicyPublished, StaffChanged, TenantChanged
from shared.messages.base import LIVE, Message
from shared.messages.intake import Limits
from shared.messages.routing import Staff
from shared.reference import book_of
from shared.service import Service
from tests.stack import NOW, Stack
from tests.waiting import until

POLICY = {"policy": 1, "title": "A policy", "calendar": {"zone": "Asia/Shanghai", "calendars": {"default": {}}}}


def a_tenant_changed(tenant_id: UUID, revision: int = 1, **changes: Any) -> TenantChanged:
    values = {"slug": "acme", "name": "Acme", "zone": "Asia/Shanghai", "sandbox": False, "active": True, **changes}
    return TenantChanged(message_id=new_id(), tenant_id=tenant_id, at=NOW, revision=revision, **values)


async def give(service: Service, *messages: Message) -> None:
    """Apply messages as their consumer would."""
    reference = service.runtime.reference
    handlers = {kind: handler for consumer in reference.consumers("sla") for kind, handler in consumer.handlers.items()}
    for message in messages:
        async with service.runtime.db.worker_tx(message.tenant_id) as tx:
            await handlers[type(message)](message, tx)


@pytest.fixture
async def sla(stack: Stack) -> Any:
    async with stack.service("sla") as service:
        yield service


async def test_the_newest_revision_of_a_tenant_counts_in_whatever_order_they_come(sla: Service) -> None:
    tenant_id = uuid4()
    with pytest.raises(NotFoundError):
        await sla.runtime.reference.tenant(tenant_id)
    await give(
        sla,
        a_tenant_changed(tenant_id, 2, name="New", limits=Limits(burst=7)),
        a_tenant_changed(tenant_id, 1, name="Old"),
    )
    tenant = await sla.runtime.reference.tenant(tenant_id)
    assert (tenant.name, tenant.revision, tenant.limits.burst, tenant.zone) == ("New", 2, 7, "Asia/Shanghai")
    await give(sla, a_tenant_changed(tenant_id, 3, name="Newest"))
    assert (await sla.runtime.reference.tenant(tenant_id)).name == "Newest"


async def test_all_tenants_can_be_gone_through(sla: Service) -> None:
    ids = {uuid4() for _ in range(7)}
    await give(sla, *(a_tenant_changed(tenant_id) for tenant_id in ids))
    assert {tenant.tenant_id for tenant in await sla.runtime.reference.tenants()} == ids


async def test_a_policy_that_has_not_arrived_is_awaited_and_one_that_has_is_compiled_once(sla: Service) -> None:
    tenant_id = uuid4()
    reference = sla.runtime.reference
    with pytest.raises(NotYetError):
        await reference.policy(tenant_id, 1)
    with pytest.raises(NotFoundError):
        await reference.current_policy(tenant_id)
    published = PolicyPublished(
        message_id=new_id(),
        tenant_id=tenant_id,
        at=NOW,
        version=1,
        document=POLICY,
        settings={},
        effect="keep",
        published_by="li",
    )
    await give(sla, a_tenant_changed(tenant_id), published)
    policy = await reference.policy(tenant_id, 1)
    assert policy.version == 1
    assert await reference.current_policy(tenant_id) is policy
    await give(sla, msgspec.structs.replace(published, version=2))
    assert (await reference.current_policy(tenant_id)).version == 2
    assert await reference.policy(tenant_id, 1) is policy


async def test_a_calendar_published_by_itself_is_an_edition_of_the_policys(sla: Service) -> None:
    tenant_id = uuid4()
    reference = sla.runtime.reference
    with pytest.raises(NotYetError):
        await reference.calendars(tenant_id)
    await give(
        sla,
        a_tenant_changed(tenant_id),
        PolicyPublished(
            message_id=new_id(),
            tenant_id=tenant_id,
            at=NOW,
            version=1,
            document=POLICY,
            settings={},
            effect="keep",
            published_by="li",
        ),
    )
    assert (await reference.calendars(tenant_id)).zone == "Asia/Shanghai"
    await give(
        sla,
        CalendarPublished(
            message_id=new_id(),
            tenant_id=tenant_id,
            at=NOW + timedelta(days=1),
            name="default",
            revision=1,
            spec={"holidays": ["2026-12-24"]},
            announced_through="2027-12-31",
            moves_running=True,
        ),
    )
    book = await reference.calendars(tenant_id)
    editions = book._revisions["default"]
    assert [edition.moves_running for edition in editions] == [False, True]
    assert editions[1].spec.announced_through == date(2027, 12, 31)


def test_a_policy_that_leaves_a_calendar_as_it_was_makes_no_edition_of_it() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    same = {"zone": "Europe/Berlin", "calendars": {"default": {"holidays": ["2026-05-01"]}}}
    other = {"zone": "Europe/Berlin", "calendars": {"default": {"holidays": ["2026-05-01", "2026-05-02"]}, "night": {}}}
    rows = [
        {"section": section, "published_at": at + timedelta(days=day)}
        for day, section in enumerate((same, same, None, other))
    ]
    book = book_of("Asia/Shanghai", rows, [])
    assert book.zone == "Europe/Berlin"
    assert [edition.published_at for edition in book._revisions["default"]][1:] == [at + timedelta(days=3)]
    assert len(book._revisions["night"]) == 1


async def test_staff_are_ids_and_roles(sla: Service) -> None:
    tenant_id = uuid4()

    def changed(revision: int, **staff: Any) -> StaffChanged:
        return StaffChanged(
            message_id=new_id(), tenant_id=tenant_id, at=NOW, revision=revision, staff=Staff(staff_id="s-1", **staff)
        )

    await give(sla, changed(2, roles=("doctor", "head"), unit="ward"), changed(1, roles=("nurse",)))
    assert await sla.runtime.reference.staff(tenant_id) == (
        Staff(staff_id="s-1", roles=("doctor", "head"), unit="ward"),
    )
    await give(sla, changed(3, roles=("head",), active=False))
    [staff] = await sla.runtime.reference.staff(tenant_id)
    assert (staff.roles, staff.active) == (("head",), False)


async def test_a_sandboxs_tick_sets_its_clock_and_never_back_and_the_live_tick_sets_none(
    stack: Stack, sla: Service
) -> None:
    sandbox = uuid4()

    def tick(tenant_id: UUID, at: datetime) -> ClockTicked:
        return ClockTicked(message_id=new_id(), tenant_id=tenant_id, at=at)

    await give(sla, tick(sandbox, NOW), tick(sandbox, NOW - timedelta(hours=1)), tick(LIVE, NOW))
    assert await sla.runtime.time.now(sandbox) == NOW
    await give(sla, tick(sandbox, NOW + timedelta(days=3)))
    assert await sla.runtime.time.now(sandbox) == NOW + timedelta(days=3)
    assert await stack.root.fetchval("SELECT count(*) FROM sla.test_clock") == 1


async def test_reference_data_travels_from_its_owner_to_the_others(stack: Stack) -> None:
    tenant_id = uuid4()
    async with (
        stack.service("intake") as intake,
        stack.service("sla", lambda runtime: runtime.reference.consumers("sla")) as sla,
    ):
        await stack.tell(intake, a_tenant_changed(tenant_id))

        async def arrived() -> bool:
            try:
                return (await sla.runtime.reference.tenant(tenant_id)).slug == "acme"
            except NotFoundError:
                return False

        await until(arrived)

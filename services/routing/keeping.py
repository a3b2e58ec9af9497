"""The case that a tenant's duties of a year are kept in."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from services.routing.domain import years
from services.routing.repository import cases
from services.routing.repository.cases import NewCase
from services.routing.writing import Desk
from shared.database import Tx
from shared.engine.model import SYSTEM, Entry
from shared.errors import NotFoundError


async def duty_case(desk: Desk, tx: Tx, at: datetime) -> UUID | None:
    """Return the case of the year of `at`, made if need be; None when the present policy has no duties.

    A year's case begins with the year, or when it is first needed: duties of the past are nobody's any more.
    """
    tenant = await desk.reference.tenant(tx.tenant_id)
    year = years.year_of(at, tenant.zone)
    found = await cases.duty_case(tx, tx.tenant_id, year)
    if found is not None:
        return found
    try:
        policy = await desk.reference.current_policy(tx.tenant_id)
    except NotFoundError:
        return None
    if not policy.duties:
        return None
    case_id = years.case_id_of(tx.tenant_id, year)
    first = Entry(
        seq=1, kind="received", at=at, by=SYSTEM, data=years.first_line(year, tenant.zone), key=f"duty:{year}"
    )
    new = NewCase(
        case_id=case_id, kind="duty", policy_version=policy.version, received_at=at, number=f"duties-{year}", year=year
    )
    writing = await desk.begin_new(tx, new, first, at=at)
    if writing is not None:
        await desk.save(writing)
    return case_id

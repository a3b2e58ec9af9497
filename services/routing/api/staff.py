"""Staff: who they are, in which roles, where, and who stands in for them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.routing import parts
from services.routing.api.paging import LIMIT, MOST, cursor, place
from services.routing.contacts import Contact, ContactBox
from services.routing.domain.staffing import Absence, Member
from services.routing.repository import staff
from services.routing.repository.staff import StaffRow
from shared import outbox
from shared.auth import Caller, Role, requires
from shared.database import Tx
from shared.errors import FieldError, InvalidError, NotFoundError
from shared.ids import derived_id
from shared.messages.routing import Staff, StaffChanged
from shared.service import Runtime
from shared.time_source import now_in

READERS: tuple[Role, ...] = ("admin", "supervisor", "handler", "auditor")
CONTACT_READERS = frozenset({"admin", "supervisor"})
Name = Annotated[str, Meta(pattern=r"^[^\s=][^\n\x00]*$", max_length=120)]
_ID = re.compile(r"[^\s/=][^\s/]{0,119}")
_PHONE = re.compile(r"\+[1-9]\d{5,14}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")


class StaffData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member. `roles` and `unit` are names of the policy's organisation. What is left out is empty: the whole is replaced."""

    name: Annotated[str, Meta(max_length=200)] | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None
    phone: Annotated[str, Meta(max_length=20)] | None = None
    language: Annotated[str, Meta(max_length=35)] | None = None
    roles: Annotated[list[Name], Meta(max_length=50)] = []
    unit: Name | None = None
    deputy: Name | None = None
    absences: Annotated[list[Absence], Meta(max_length=100)] = []
    active: bool = True


class StaffView(msgspec.Struct, frozen=True, kw_only=True):
    """`contact` is there for admins and supervisors and for the person themselves."""

    staff_id: str
    roles: tuple[str, ...]
    unit: str | None
    deputy: str | None
    active: bool
    present: bool
    absences: tuple[Absence, ...]
    contact: Contact | None


class StaffPage(msgspec.Struct, frozen=True, kw_only=True):
    items: list[StaffView]
    next: str | None


@put("/v1/staff/{staff_id:str}", guards=[requires("admin")], operation_id="put_staff")
async def put_staff(
    staff_id: FromPath[str],
    data: JSONBody[StaffData],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[StaffView]:
    """Add a member of staff, or replace what is known of them."""
    errors = _mistakes(staff_id, data)
    if errors:
        raise InvalidError(errors=errors)
    box = parts.of(runtime).contacts
    contact = Contact(name=data.name, email=data.email, phone=data.phone, language=data.language)
    row = StaffRow(
        staff_id=staff_id,
        revision=await staff.next_revision(tx, tx.tenant_id),
        roles=tuple(dict.fromkeys(data.roles)),
        unit=data.unit,
        deputy=data.deputy,
        active=data.active,
        absences=tuple(sorted(data.absences, key=lambda absence: absence.start)),
        contact=None if contact == Contact() else box.seal(tx.tenant_id, staff_id, contact),
    )
    now = await now_in(tx)
    is_new = await staff.put(tx, tx.tenant_id, row)
    await _tell(tx, row, now)
    return Response(_view(row, caller, box, now), status_code=201 if is_new else 200)


@delete("/v1/staff/{staff_id:str}", guards=[requires("admin")], status_code=204, operation_id="delete_staff")
async def delete_staff(staff_id: FromPath[str], tx: NamedDependency[Tx]) -> None:
    """End somebody's membership: they get nothing more, their contact is erased, what they did stays under their id."""
    row = await staff.one(tx, tx.tenant_id, staff_id)
    if row is None:
        raise NotFoundError()
    ended = msgspec.structs.replace(
        row, revision=await staff.next_revision(tx, tx.tenant_id), roles=(), active=False, absences=(), contact=None
    )
    await staff.put(tx, tx.tenant_id, ended)
    await _tell(tx, ended, await now_in(tx))


@get("/v1/staff/{staff_id:str}", guards=[requires(*READERS)], operation_id="get_staff")
async def get_staff(
    staff_id: FromPath[str],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> StaffView:
    """One member of staff."""
    row = await staff.one(tx, tx.tenant_id, staff_id)
    if row is None:
        raise NotFoundError()
    return _view(row, caller, parts.of(runtime).contacts, await now_in(tx))


@get("/v1/staff", guards=[requires(*READERS)], operation_id="list_staff")
async def list_staff(
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    unit: Annotated[str | None, QueryParameter(max_length=120)] = None,
    role: Annotated[str | None, QueryParameter(max_length=120)] = None,
    inactive: Annotated[bool, QueryParameter(description="also former members")] = False,
    after: Annotated[str | None, QueryParameter(max_length=400)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MOST)] = LIMIT,
) -> StaffPage:
    """Staff by id."""
    start = place(after, str) if after else ""
    rows = await staff.page(tx, tx.tenant_id, start, limit + 1, with_inactive=inactive, unit=unit, role=role)
    now, box = await now_in(tx), parts.of(runtime).contacts
    return StaffPage(
        items=[_view(row, caller, box, now) for row in rows[:limit]],
        next=cursor(rows[limit - 1].staff_id) if len(rows) > limit else None,
    )


async def _tell(tx: Tx, row: StaffRow, now: datetime) -> None:
    """Tell ids and roles to the other services; names and contacts stay here."""
    member = Member(staff_id=row.staff_id, active=row.active, absences=row.absences)
    away = row.active and not member.is_present(now)
    until = member.absent_until(now) or (datetime(9999, 1, 1, tzinfo=UTC) if away else None)
    await outbox.add(
        tx,
        StaffChanged(
            message_id=derived_id("staff", tx.tenant_id, row.staff_id, row.revision),
            tenant_id=tx.tenant_id,
            at=now,
            revision=row.revision,
            staff=Staff(
                staff_id=row.staff_id,
                roles=row.roles,
                unit=row.unit,
                active=row.active,
                absent_until=until if away else None,
                deputy=row.deputy,
            ),
        ),
    )


def _view(row: StaffRow, caller: Caller, box: ContactBox, now: datetime) -> StaffView:
    shows = caller.role in CONTACT_READERS or caller.staff_id == row.staff_id
    contact = box.open(caller.tenant_id, row.staff_id, row.contact) if shows and row.contact is not None else None
    return StaffView(
        staff_id=row.staff_id,
        roles=row.roles,
        unit=row.unit,
        deputy=row.deputy,
        active=row.active,
        present=Member(staff_id=row.staff_id, active=row.active, absences=row.absences).is_present(now),
        absences=row.absences,
        contact=contact,
    )


def _mistakes(staff_id: str, data: StaffData) -> list[FieldError]:
    found = []
    if not _ID.fullmatch(staff_id):
        found.append(FieldError("", "a staff id has 1 to 120 characters without spaces and slashes"))
    if data.phone is not None and not _PHONE.fullmatch(data.phone):
        found.append(FieldError("/phone", "a phone number is E.164, such as +8613800138000"))
    if data.email is not None and not _EMAIL.fullmatch(data.email):
        found.append(FieldError("/email", "this is no e-mail address"))
    if data.deputy is not None and data.deputy == staff_id:
        found.append(FieldError("/deputy", "nobody is their own deputy"))
    for index, absence in enumerate(data.absences):
        if absence.start.tzinfo is None or (absence.end is not None and absence.end.tzinfo is None):
            found.append(FieldError(f"/absences/{index}", "instants need an offset"))
        elif absence.end is not None and absence.end <= absence.start:
            found.append(FieldError(f"/absences/{index}/end", "an absence ends after it starts"))
    return found


ROUTE_HANDLERS = [put_staff, delete_staff, get_staff, list_staff]

"""Complaints: taken one by one over the API, and read as they were received."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from services.intake.domain.complaint import ATTACHMENTS_BYTES, TEXT_LIMIT, Contact, Draft
from services.intake.domain.contacts import masked_email, masked_name, masked_phone
from services.intake.domain.texts import is_clean, normal
from services.intake.parts import parts_of
from services.intake.refusals import ErasedError
from services.intake.repository import complaints as rows
from services.intake.storing import Stored
from services.intake.taking import actor_of, take
from shared import idempotency
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import FieldError, ForbiddenError, InvalidError, NotFoundError
from shared.service import Runtime

_BODY: Final = 4 * TEXT_LIMIT + 2 * ATTACHMENTS_BYTES
_TAKERS: Final = ("admin", "supervisor", "handler", "integration")
_READERS: Final = ("admin", "supervisor", "handler", "auditor", "integration")


class Links(Struct, frozen=True, kw_only=True):
    self: str
    contact: str


class Receipt(Struct, frozen=True, kw_only=True):
    """The complaint is stored: committed, numbered, and never lost.

    duplicate_of: an earlier complaint of the same person that this one repeats, by the policy's window; both are kept.
    """

    id: UUID
    number: str
    received_at: datetime
    policy_version: int
    duplicate_of: UUID | None
    links: Links


class ContactView(Struct, frozen=True, kw_only=True):
    """How the complainant is reached; `masked`: enough to recognise, not enough to reach."""

    complaint_id: UUID
    number: str
    complainant_id: UUID
    masked: bool
    name: str | None
    phone: str | None
    email: str | None
    address: str | None
    language: str | None


class AccessRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why personal data are looked at; it is written down with who and what."""

    reason: Annotated[str, Meta(min_length=3, max_length=500)]


class NewText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A free text of an entry: a reply, a comment, a finding."""

    text: Annotated[str, Meta(min_length=1, max_length=4 * TEXT_LIMIT)]
    kind: Literal["complaint", "reply", "comment", "finding", "reason", "supplement", "record"] = "comment"


class TextReference(Struct, frozen=True, kw_only=True):
    """What an entry refers to the text by."""

    text_id: UUID


@post(
    "/v1/complaints",
    guards=[requires(*_TAKERS)],
    status_code=201,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY, "express": True},
    operation_id="create_complaint",
)
async def create_complaint(
    data: JSONBody[Draft],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[Receipt]:
    """Take a complaint. `Idempotency-Key` is required: a retry with the same key and body gets the same answer."""
    key = idempotency.key_of(request, required=True)
    stored = await take(
        runtime,
        caller.tenant_id,
        data,
        key=f"api:{key}",
        request_sha256=await idempotency.request_sha256(request),
        source="api",
        by=await actor_of(runtime, caller.tenant_id, caller.staff_id),
    )
    return receipt(stored)


def receipt(stored: Stored) -> Response[Receipt]:
    """Return the answer to whoever sent a complaint; a repeat differs in one header only."""
    body = Receipt(
        id=stored.complaint_id,
        number=stored.number,
        received_at=stored.received_at,
        policy_version=stored.policy_version,
        duplicate_of=stored.duplicate_of,
        links=Links(self=f"/v1/cases/{stored.complaint_id}", contact=f"/v1/complaints/{stored.complaint_id}/contact"),
    )
    headers = {"Location": body.links.self}
    if stored.repeated:
        headers["Idempotent-Replayed"] = "true"
    return Response(body, status_code=201, headers=headers)


@get("/v1/complaints/{complaint_id:uuid}/contact", guards=[requires(*_READERS)], operation_id="get_contact")
async def get_contact(
    complaint_id: FromPath[UUID], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> ContactView:
    """How the complainant is reached, masked."""
    found, contact = await _contact(runtime, tx, complaint_id)
    return _view(found, masked(contact), is_masked=True)


@post(
    "/v1/complaints/{complaint_id:uuid}/contact/unmask",
    guards=[requires("admin", "supervisor", "handler", "auditor")],
    status_code=200,
    operation_id="unmask_contact",
)
async def unmask_contact(
    complaint_id: FromPath[UUID],
    data: JSONBody[AccessRequest],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> ContactView:
    """How the complainant is reached, in full. Needs the right to see personal data; the look is written down."""
    found, contact = await _contact(runtime, tx, complaint_id)
    check_right(caller)
    what = [name for name in Contact.__struct_fields__ if getattr(contact, name) is not None]
    await parts_of(runtime).vault.log_access(
        tx,
        caller,
        "unmask_contact",
        data.reason,
        what,
        case_id=complaint_id,
        complainant_id=found.complainant_id,
    )
    return _view(found, contact, is_masked=False)


@post(
    "/v1/cases/{case_id:uuid}/texts",
    guards=[requires(*_TAKERS)],
    status_code=201,
    operation_id="create_text",
)
async def create_text(
    case_id: FromPath[UUID],
    data: JSONBody[NewText],
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """Store a free text of a complaint; entries refer to it by the id that comes back."""
    text = normal(data.text).strip()
    if not text or len(text) > TEXT_LIMIT or not is_clean(text):
        raise InvalidError(
            errors=[FieldError("/text", f"1 to {TEXT_LIMIT} characters are needed, and none that is no text")]
        )

    async def act() -> TextReference:
        vault = parts_of(runtime).vault
        return TextReference(text_id=await vault.add_text(tx, case_id, data.kind, text, caller.actor_id))

    return await idempotency.once(request, tx, act, status=201)


def check_right(caller: Caller) -> None:
    if not caller.sees_personal_data:
        raise ForbiddenError("This needs a credential that may see personal data.")


def masked(contact: Contact) -> Contact:
    """Return the contact as those see it who may not reach the complainant."""
    return Contact(
        name=masked_name(contact.name) if contact.name else None,
        phone=masked_phone(contact.phone) if contact.phone else None,
        email=masked_email(contact.email) if contact.email else None,
        address="***" if contact.address else None,
        language=contact.language,
    )


async def _contact(runtime: Runtime[Any], tx: Tx, complaint_id: UUID) -> tuple[rows.FoundComplaint, Contact]:
    found = await rows.find(tx, tx.tenant_id, complaint_id)
    if found is None:
        raise NotFoundError()
    contact = await parts_of(runtime).vault.contact(tx, complaint_id)
    if contact is None:
        raise ErasedError()
    return found, contact


def _view(found: rows.FoundComplaint, contact: Contact, *, is_masked: bool) -> ContactView:
    return ContactView(
        complaint_id=found.complaint_id,
        number=found.number,
        complainant_id=found.complainant_id,
        masked=is_masked,
        name=contact.name,
        phone=contact.phone,
        email=contact.email,
        address=contact.address,
        language=contact.language,
    )


ROUTES: Final = (create_complaint, get_contact, unmask_contact, create_text)

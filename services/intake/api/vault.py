"""The vault: texts, attachments, who looked at them, and erasing a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from services.intake.api.complaints import AccessRequest, check_right
from services.intake.domain.complaint import Contact
from services.intake.domain.contacts import masked_name
from services.intake.parts import parts_of
from services.intake.repository import complaints as complaint_rows
from services.intake.repository import vault as rows
from services.intake.vault import Text, Vault
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import NotFoundError
from shared.service import Runtime

_READERS: Final = ("admin", "supervisor", "handler", "auditor", "integration")
_LAST: Final = UUID(int=2**128 - 1)
_NUMBERS = re.compile(r"\d(?:[\d \-]{5,}\d)")
# Kinds of text that are shown masked; an original, or a personal field, is not shown at all without a reason.
_SHOWN_MASKED: Final = frozenset(("complaint", "reply", "comment", "finding", "reason", "supplement", "record"))
_ADDRESSES = re.compile(r"[^\s@<>()（），,；;：:]+@[^\s@<>()（），,；;]+")


class TextsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts to be read: by their ids, or all of a case. Unmasked only with a reason and the right."""

    text_ids: Annotated[list[UUID], Meta(max_length=100)] = []
    case_id: UUID | None = None
    reason: Annotated[str, Meta(min_length=3, max_length=500)] | None = None


class TextView(Struct, frozen=True, kw_only=True):
    text_id: UUID
    case_id: UUID
    kind: str
    masked: bool
    text: str


class TextPage(Struct, frozen=True, kw_only=True):
    items: list[TextView]


class AttachmentView(Struct, frozen=True, kw_only=True):
    attachment_id: UUID
    name: str
    media_type: str
    bytes: int


class AttachmentPage(Struct, frozen=True, kw_only=True):
    items: list[AttachmentView]


class Erased(Struct, frozen=True, kw_only=True):
    """`already`: it had been done before; nothing was left to erase."""

    complainant_id: UUID
    already: bool


class AccessView(Struct, frozen=True, kw_only=True):
    """Who looked at what, and why."""

    access_id: UUID
    at: datetime
    credential_id: UUID
    staff_id: str | None
    act: str
    case_id: UUID | None
    complainant_id: UUID | None
    what: list[str]
    reason: str


class AccessPage(Struct, frozen=True, kw_only=True):
    items: list[AccessView]
    next: UUID | None


@post("/v1/vault/texts:read", guards=[requires(*_READERS)], status_code=200, operation_id="read_texts")
async def read_texts(
    data: JSONBody[TextsRequest],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> TextPage:
    """Read texts. Without a reason numbers and addresses in them are masked; with one, and the right, the look is
    written down.
    """
    vault = parts_of(runtime).vault
    if data.reason is not None:
        check_right(caller)
    found = await vault.texts_of_case(tx, data.case_id) if data.case_id is not None else []
    found += await vault.texts(
        tx, [text_id for text_id in data.text_ids if all(text_id != each.text_id for each in found)]
    )
    if not found:
        raise NotFoundError()
    if data.reason is not None:
        for case_id in dict.fromkeys(each.case_id for each in found):
            what = [str(each.text_id) for each in found if each.case_id == case_id]
            await vault.log_access(tx, caller, "read_texts", data.reason, what, case_id=case_id)
    if data.reason is None:
        return TextPage(items=await _masked(vault, tx, found))
    return TextPage(
        items=[
            TextView(text_id=each.text_id, case_id=each.case_id, kind=each.kind, masked=False, text=each.text)
            for each in found
        ]
    )


@get("/v1/complaints/{complaint_id:uuid}/attachments", guards=[requires(*_READERS)], operation_id="list_attachments")
async def list_attachments(
    complaint_id: FromPath[UUID], tx: NamedDependency[Tx], runtime: NamedDependency[Runtime[Any]]
) -> AttachmentPage:
    """What came with a complaint."""
    if await complaint_rows.find(tx, tx.tenant_id, complaint_id) is None:
        raise NotFoundError()
    return AttachmentPage(
        items=[
            AttachmentView(attachment_id=attachment_id, name=name, media_type=media_type, bytes=size)
            for attachment_id, name, media_type, size in await parts_of(runtime).vault.attachments(tx, complaint_id)
        ]
    )


@post(
    "/v1/complaints/{complaint_id:uuid}/attachments/{attachment_id:uuid}/read",
    guards=[requires("admin", "supervisor", "handler", "auditor")],
    status_code=200,
    operation_id="read_attachment",
)
async def read_attachment(
    complaint_id: FromPath[UUID],
    attachment_id: FromPath[UUID],
    data: JSONBody[AccessRequest],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Response[bytes]:
    """Get an attachment, for download only. Needs the right to see personal data; the look is written down."""
    vault = parts_of(runtime).vault
    name, media_type, content = await vault.attachment(tx, complaint_id, attachment_id)
    check_right(caller)
    await vault.log_access(tx, caller, "read_attachment", data.reason, [str(attachment_id)], case_id=complaint_id)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "X-Media-Type": media_type,
        },
    )


@delete(
    "/v1/complainants/{complainant_id:uuid}", guards=[requires("admin")], status_code=200, operation_id="erase_person"
)
async def erase_person(
    complainant_id: FromPath[UUID],
    caller: NamedDependency[Caller],
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
) -> Erased:
    """Erase a person for good: their key and everything it sealed. Their complaints stay, without them."""
    vault = parts_of(runtime).vault
    erased = await vault.erase(tx, complainant_id)
    if erased:
        await vault.log_access(tx, caller, "erase", "", [], complainant_id=complainant_id)
    return Erased(complainant_id=complainant_id, already=not erased)


@get("/v1/vault/accesses", guards=[requires("admin", "auditor")], operation_id="list_accesses")
async def list_accesses(
    tx: NamedDependency[Tx],
    runtime: NamedDependency[Runtime[Any]],
    before: Annotated[UUID | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
) -> AccessPage:
    """Who looked at personal data, the latest first."""
    vault = parts_of(runtime).vault
    found = await rows.accesses(tx, tx.tenant_id, before or _LAST, limit)
    items = [
        AccessView(
            access_id=row.access_id,
            at=row.at,
            credential_id=row.credential_id,
            staff_id=row.staff_id,
            act=row.act,
            case_id=row.case_id,
            complainant_id=row.complainant_id,
            what=row.what,
            reason=await vault.reason(tx, row.access_id, row.sealed_reason),
        )
        for row in found
    ]
    return AccessPage(items=items, next=found[-1].access_id if len(found) == limit else None)


async def _masked(vault: Vault, tx: Tx, found: Sequence[Text]) -> list[TextView]:
    contacts = {case_id: await vault.contact(tx, case_id) for case_id in dict.fromkeys(each.case_id for each in found)}
    views = []
    for each in found:
        shown = masked_text(each.text, contacts[each.case_id]) if each.kind in _SHOWN_MASKED else "***"
        views.append(TextView(text_id=each.text_id, case_id=each.case_id, kind=each.kind, masked=True, text=shown))
    return views


def masked_text(text: str, contact: Contact | None) -> str:
    """Return the text without the complainant's name and address, and without what looks like a number or an address."""
    if contact is not None and contact.name:
        text = text.replace(contact.name, masked_name(contact.name))
    if contact is not None and contact.address:
        text = text.replace(contact.address, "***")
    return _ADDRESSES.sub("***@***", _NUMBERS.sub("****", text))


ROUTES: Final = (read_texts, list_attachments, read_attachment, erase_person, list_accesses)

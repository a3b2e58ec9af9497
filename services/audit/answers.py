"""I10: what senders of complaints were answered is to the letter what a repeat would be answered; and what is kept for repeats of other
requests is what has come of them."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from services.audit.copies import instant
from services.audit.journal import Asked
from services.audit.look import Complaint, Look
from services.audit.streams import SERVICES

STATUS: Final = {"api": {201}, "webhook": {201}, "smtp": {250}, "csv": {200, 202}}
"""How each way in says that a complaint is stored; a table is taken at first, and its import says later what came of it."""

KEPT: Final = """
SELECT tenant_id, key, status, headers, body
  FROM {service}.idempotency_key"""

IMPORTS: Final = """
SELECT import_id, rows, encoding, created_at
  FROM intake.import"""

OPERATIONS: Final = """
SELECT operation_id, started_from, target
  FROM routing.clock_operation"""


class _Line(Struct):
    case_id: UUID
    seq: int
    kind: str
    at: datetime
    version: int


class _Import(Struct):
    import_id: UUID
    rows: int
    encoding: str
    created_at: datetime


class _Operation(Struct):
    operation_id: UUID
    started_from: datetime
    target: datetime


class _Text(Struct, forbid_unknown_fields=True):
    text_id: UUID


class _Joined(Struct):
    case: _Line


async def check(look: Look) -> None:
    _told(look)
    await _kept(look)


def _told(look: Look) -> None:
    """Compare statuses, and the hashes of bodies; the latter where any of them is one of those that we make."""
    complaints = {complaint.complaint_id: complaint for complaint in look.complaints}
    differing: list[Asked] = []
    fits = 0
    for asked in look.asked:
        if look.findings.has("I10", asked.key):
            continue
        for line in asked.good:
            look.findings.looked_at(1)
            statuses = STATUS.get(asked.source, {line.status})
            if line.status not in statuses or (asked.source != "csv" and line.stored != 1):
                what = f"was answered {line.status} for {line.stored}, as nobody is answered"
                look.findings.add("I10", asked.key, what, tenant_id=asked.tenant_id)
            complaint = complaints.get(line.case_id) if line.case_id is not None else None
            if complaint is None or asked.source not in STATUS or not line.answer or _is_in_doubt(look, complaint):
                continue
            if line.answer == _hash(complaint):
                fits += 1
            else:
                differing.append(asked)
    for asked in differing if fits else ():
        look.findings.add(
            "I10", asked.key, "was answered in other words than a repeat would be", tenant_id=asked.tenant_id
        )


def _hash(of: Complaint) -> str:
    """The hash of the receipt that the API describes."""
    case = f"/v1/cases/{of.complaint_id}"
    body = {
        "id": of.complaint_id,
        "number": of.number,
        "received_at": of.received_at,
        "policy_version": of.policy_version,
        "duplicate_of": of.duplicate_of,
        "links": {"self": case, "contact": f"/v1/complaints/{of.complaint_id}/contact"},
    }
    return hashlib.sha256(msgspec.json.encode(body)).hexdigest()


def _is_in_doubt(look: Look, of: Complaint) -> bool:
    return of.complaint_id in look.misplaced or any(
        look.findings.has(check, of.complaint_id) for check in ("I1", "I2", "I15")
    )


async def _kept(look: Look) -> None:
    imports = {row["import_id"]: row for row in await look.rows(IMPORTS)}
    operations = {row["operation_id"]: row for row in await look.rows(OPERATIONS)}
    for service in SERVICES:
        for row in await look.rows(KEPT.format(service=service)):
            look.findings.looked_at(1)
            said = _said(row["body"])
            doubtful: tuple[str, object] = ("I14", f"{service} {row['key']}")
            known: Any = None
            etag = None
            match said:
                case _Joined(case=line) | (_Line() as line):
                    status, etag = 201, f'"{line.version}"'
                    doubtful = ("I12", line.case_id)
                    told = look.told.lines.get((line.case_id, line.seq))
                    entry = None if told is None else told["entry"]
                    is_so = entry is None or (entry["kind"], instant(entry["at"])) == (line.kind, line.at)
                case _Import():
                    status, known = 202, imports.get(said.import_id)
                    doubtful = ("I1", said.import_id)
                    is_so = known is None or (known["rows"], known["encoding"], known["created_at"]) == (
                        said.rows,
                        said.encoding,
                        said.created_at,
                    )
                case _Operation():
                    status, known = 202, operations.get(said.operation_id)
                    doubtful = ("I4", said.operation_id)
                    is_so = known is None or (known["started_from"], known["target"]) == (
                        said.started_from,
                        said.target,
                    )
                case _Text():
                    status, is_so = 201, True
                case _:
                    continue
            is_so = is_so and row["status"] == status and (etag is None or row["headers"] == {"ETag": etag})
            is_in_doubt = look.findings.has(*doubtful) or look.findings.has("I14", f"{service} {row['key']}")
            if not (is_so or is_in_doubt):
                what = "a repeat would be answered what is not so"
                look.findings.add("I10", row["key"], what, tenant_id=row["tenant_id"])


def _said(body: bytes) -> Struct | None:
    for form in (_Line, _Joined, _Text, _Import, _Operation):
        try:
            found: Struct = msgspec.json.decode(body, type=form)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        return found
    return None

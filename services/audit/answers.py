"""I10: what senders of complaints were answered is to the letter what a repeat would be answered."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from services.audit.journal import Asked
from services.audit.look import Complaint, Look

STATUS: Final = {"api": 201, "webhook": 201, "smtp": 250}
"""How each way in says that a complaint is stored."""


async def check(look: Look) -> None:
    """Compare statuses, and the hashes of bodies; the latter where any of them is one of those that we make."""
    complaints = {complaint.complaint_id: complaint for complaint in look.complaints}
    differing: list[Asked] = []
    fits = 0
    for asked in look.asked:
        if asked.source not in STATUS or look.findings.has("I10", asked.key):
            continue
        for line in asked.good:
            look.findings.looked_at(1)
            if line.status != STATUS[asked.source] or line.stored != 1:
                what = f"was answered {line.status} for {line.stored}, and would be {STATUS[asked.source]} for 1"
                look.findings.add("I10", asked.key, what, tenant_id=asked.tenant_id)
            complaint = complaints.get(line.case_id) if line.case_id is not None else None
            if complaint is None or not line.answer or _is_in_doubt(look, complaint):
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

"""What was answered, against what is stored: I1, I2, I10, I11 and I15."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from services.audit.journal import Asked
from services.audit.look import Look, Receipt
from services.audit.streams import SERVICES
from services.audit.tenants import as_uuid

PATIENCE: Final = timedelta(seconds=60)
"""So long does a sender come again; within it there must be an answer."""

BODIED: Final = frozenset({200, 201, 202})
"""Answers of these kinds say something."""

MADE: Final = 201
"""What was made is named."""

SOURCES: Final = {"api": "api", "webhook": "webhook", "smtp": "email", "csv": "csv"}
"""What the journal calls a way in, and what intake calls it."""

CASES: Final = """
SELECT tenant_id, case_id, number, version
  FROM routing."case"
 WHERE kind = 'complaint'"""

ELSEWHERE: Final = """
SELECT tenant_id, case_id, 'sla' AS place FROM sla.watched_case WHERE case_kind = 'complaint'
 UNION
SELECT tenant_id, case_id, 'reporting' FROM reporting.fact WHERE case_kind = 'complaint' AND seq > 0"""

ALL_CASES: Final = """
SELECT case_id FROM routing."case"
 UNION
SELECT case_id FROM sla.watched_case"""

NUMBERS: Final = """
SELECT tenant_id, number, array_agg(id ORDER BY stored_at, id) AS ids
  FROM (SELECT tenant_id, number, complaint_id AS id, stored_at FROM intake.complaint
         UNION
        SELECT c.tenant_id, c.number, c.case_id, c.stored_at
          FROM routing."case" c
         WHERE c.kind = 'complaint'
           AND NOT EXISTS (SELECT FROM intake.complaint i
                            WHERE i.tenant_id = c.tenant_id AND i.complaint_id = c.case_id)) AS every
 GROUP BY tenant_id, number
HAVING count(*) > 1"""

TEXTS: Final = """
SELECT tenant_id, text_id AS id, case_id AS of, owner_id AS owner, 'a text' AS what FROM intake.free_text
 UNION ALL
SELECT tenant_id, attachment_id, complaint_id, owner_id, 'an attachment' FROM intake.attachment"""

OWNERS: Final = """
SELECT tenant_id, owner_id AS owner, 'a key of a person' AS what FROM intake.data_key
 UNION
SELECT tenant_id, complainant_id, 'a contact' FROM intake.contact_point"""

IDEMPOTENT: Final = """
SELECT tenant_id, key, status, body, encode(request_sha256, 'hex') AS request
  FROM {service}.idempotency_key"""

# What answers name by its id.
NAMEABLE: Final = """
SELECT tenant_id, case_id AS id FROM routing."case"
 UNION ALL
SELECT tenant_id, text_id FROM intake.free_text
 UNION ALL
SELECT tenant_id, import_id FROM intake.import
 UNION ALL
SELECT tenant_id, operation_id FROM routing.clock_operation"""

SPLIT: Final = """
SELECT tenant_id, data -> 'parts' AS parts
  FROM routing.entry
 WHERE kind = 'split'"""

ENTERED: Final = """
SELECT e.tenant_id, e.case_id, count(DISTINCT e.seq) AS n
  FROM routing.entry e
  JOIN routing."case" c ON c.tenant_id = e.tenant_id AND c.case_id = e.case_id AND c.kind = 'complaint'
 WHERE e.seq > 1 AND e.key IS NULL AND e.by ->> 'id' <> 'system' AND e.kind NOT IN ('linked', 'merged', 'split')
 GROUP BY e.tenant_id, e.case_id"""


async def check(look: Look) -> None:
    by_key = _receipts(look)
    altered = _answers(look, by_key)
    await _doubles(look, altered)
    _forgotten(look, by_key, altered)
    await _refused(look, by_key, altered)
    await _missing(look, _by_source(look))
    await _entries(look)
    await _acts(look)
    _patience(look)


def _receipts(look: Look) -> dict[tuple[UUID, str], Receipt]:
    """I2: a key stands for one complaint, and a complaint for one key. Returns the receipts by tenant and key."""
    found: dict[tuple[UUID, str], Receipt] = {}
    for receipt in look.receipts:
        look.findings.looked_at(1)
        before = found.setdefault((receipt.tenant_id, receipt.key), receipt)
        if before is not receipt:
            look.findings.add(
                "I2", receipt.key, "two complaints under one key", tenant_id=receipt.tenant_id, is_extra=True
            )
    return found


def _stored_key(asked: Asked, hooks: Mapping[str, str]) -> str:
    """The key under which intake would have stored a request."""
    if asked.source == "api":
        return f"api:{asked.key}"
    if asked.source == "webhook":
        return hooks.get(asked.key, f"hook::{asked.key}")
    return asked.key


def _hooks(look: Look) -> dict[str, str]:
    """Receipts of webhooks by the id that the sender gave; between them stands the source's id."""
    return {receipt.key.split(":", 2)[2]: receipt.key for receipt in look.receipts if receipt.key.startswith("hook:")}


def _answers(look: Look, by_key: Mapping[tuple[UUID, str], Receipt]) -> set[tuple[UUID, str]]:
    """I10: every answer under a key is the same, and is what is stored under it.

    Returns the tenants and keys of which that is not so: what else is wrong with them follows from it.
    """
    hooks = _hooks(look)
    altered: set[tuple[UUID, str]] = set()
    numbers = {complaint.complaint_id: complaint.number for complaint in look.complaints}
    for asked in look.asked:
        look.findings.looked_at(1)
        told = {(line.case_id, line.number, line.seq, line.answer) for line in asked.good}
        seen_good = False
        for line in asked.answers:
            if 200 <= line.status < 300:
                seen_good = True
            elif seen_good and line.status in (400, 404, 413, 415, 422) and asked.source != "smtp":
                told.add((None, None, None, f"refused {line.status}"))
        if len(told) > 1:
            look.findings.add(
                "I10", asked.key, f"{len(told)} different answers", tenant_id=asked.tenant_id, is_extra=True
            )
            continue
        if asked.source not in ("api", "webhook"):
            continue
        place = (asked.tenant_id, _stored_key(asked, hooks))
        receipt = by_key.get(place)
        if look.findings.has("I2", place[1]):
            continue  # which of the two it would be answered with, is chance
        if receipt is not None and asked.good and _is_bound_otherwise(asked, receipt.request):
            what = "a repeat would be refused: its key is bound to another request"
            look.findings.add("I10", asked.key, what, tenant_id=asked.tenant_id)
        for line in asked.good:
            if line.case_id is None or line.case_id in look.misplaced:
                continue
            if receipt is not None and receipt.complaint_id != line.case_id:
                altered.add(place)
                look.findings.add(
                    "I10",
                    asked.key,
                    f"was answered with {line.case_id}, and would be with {receipt.complaint_id}",
                    tenant_id=asked.tenant_id,
                )
            elif line.number is not None and numbers.get(line.case_id, line.number) != line.number:
                look.findings.add(
                    "I10",
                    asked.key,
                    f"was answered with number {line.number}, and would be with {numbers[line.case_id]}",
                    tenant_id=asked.tenant_id,
                )
    return altered


def _is_bound_otherwise(asked: Asked, kept: str) -> bool:
    """Whether a repeat would be taken for another request. A hash that is cut is none, which is told elsewhere."""
    return bool(asked.bound) and len(kept) == len(asked.bound) and kept != asked.bound


async def _doubles(look: Look, altered: set[tuple[UUID, str]]) -> None:
    """I2, beside the keys: numbers that were given twice, complaints with two keys or none."""
    hooks = _hooks(look)
    without = {
        line.case_id
        for asked in look.asked
        if (asked.tenant_id, _stored_key(asked, hooks)) in altered
        for line in asked.good
    }
    for row in await look.rows(NUMBERS):
        ids = [each for each in row["ids"] if each not in look.misplaced]
        for each in ids[1:]:
            if each not in without:
                look.findings.add(
                    "I2", each, f"has number {row['number']}, as another has", tenant_id=row["tenant_id"], is_extra=True
                )
    keys: dict[UUID, set[str]] = defaultdict(set)
    for receipt in look.receipts:
        keys[receipt.complaint_id].add(receipt.key)
    for complaint in look.complaints:
        look.findings.looked_at(1)
        case_id, mine = complaint.complaint_id, keys.get(complaint.complaint_id, set())
        if case_id in look.misplaced or case_id in without or look.findings.has("I2", case_id):
            continue
        if len(mine) > 1 and not any((complaint.tenant_id, key) in altered for key in mine):
            look.findings.add(
                "I2", case_id, f"{len(mine)} keys for one complaint", tenant_id=complaint.tenant_id, is_extra=True
            )


def _forgotten(look: Look, by_key: Mapping[tuple[UUID, str], Receipt], altered: set[tuple[UUID, str]]) -> None:
    """I2: what was answered is known by its key, so that a repeat does not store it again."""
    hooks = _hooks(look)
    kept = {each.complaint_id for each in look.complaints if each.stored_at > look.retained_from} - look.misplaced
    for asked in look.asked:
        place = (asked.tenant_id, _stored_key(asked, hooks))
        if asked.source not in ("api", "webhook") or place in by_key or place in altered:
            continue
        for line in asked.good:
            if line.case_id in kept:
                what = "its key is gone; a repeat would store it again"
                look.findings.add("I2", line.case_id, what, tenant_id=asked.tenant_id)
            elif line.case_id is None and asked.first_at > look.retained_from:
                what = "was answered 2xx, and nothing is stored under its key"
                look.findings.add("I1", f"{asked.source} {asked.key}", what, tenant_id=asked.tenant_id)


async def _refused(look: Look, by_key: Mapping[tuple[UUID, str], Receipt], altered: set[tuple[UUID, str]]) -> None:
    """I15: what was refused has left nothing; what is there, somebody has sent."""
    hooks = _hooks(look)
    taken = {(asked.tenant_id, asked.source, asked.key) for asked in look.asked if asked.is_stored or asked.is_open}
    asked_for: dict[UUID, set[str]] = defaultdict(set)
    journalled: set[UUID] = set()
    for asked in look.asked:
        if asked.source in SOURCES:
            journalled.add(asked.tenant_id)
        key = _stored_key(asked, hooks)
        asked_for[asked.tenant_id].add(key)
        if not asked.is_refused_for_good or (asked.tenant_id, asked.source, asked.key) in taken:
            continue
        look.findings.looked_at(1)
        receipt = by_key.get((asked.tenant_id, key)) if asked.source in ("api", "webhook") else None
        if receipt is not None:
            look.findings.add(
                "I15",
                receipt.complaint_id,
                f"stored under key {asked.key}, which was refused",
                tenant_id=asked.tenant_id,
                is_extra=True,
            )
    answered = look.answered
    by_complaint = {receipt.complaint_id: receipt.key for receipt in look.receipts}
    for complaint in look.complaints:
        case_id = complaint.complaint_id
        if case_id in look.misplaced or case_id in answered or look.findings.has("I2", case_id):
            continue
        stored_key = by_complaint.get(case_id)
        if stored_key is None:
            if complaint.stored_at > look.retained_from:
                look.findings.add(
                    "I15", case_id, "stored, and nobody's request", tenant_id=complaint.tenant_id, is_extra=True
                )
        elif (
            complaint.source in ("api", "webhook")
            and complaint.tenant_id in journalled
            and stored_key not in asked_for[complaint.tenant_id]
            and (complaint.tenant_id, stored_key) not in altered
        ):
            look.findings.add(
                "I15",
                case_id,
                f"stored under key {stored_key}, which the journal does not know",
                tenant_id=complaint.tenant_id,
                is_extra=True,
                may_pass=True,
            )
    await _leftovers(look)


def _by_source(look: Look) -> set[tuple[UUID, str]]:
    """I1 and I15 of mail and tables, whose answers name no complaint: as many are stored as were answered.

    Returns the tenants and sources of which some are missing.
    """
    short: set[tuple[UUID, str]] = set()
    stored: Counter[tuple[UUID, str]] = Counter((each.tenant_id, each.source) for each in look.complaints)
    answered: Counter[tuple[UUID, str]] = Counter()
    open_: set[tuple[UUID, str]] = set()
    for asked in look.asked:
        place = (asked.tenant_id, asked.source)
        if asked.source in ("smtp", "csv"):
            answered[place] += asked.good[-1].stored if asked.good else 0
            if asked.is_open and not asked.is_stored:
                open_.add(place)
        if asked.source in SOURCES:  # whoever keeps a journal of complaints has all of them there
            answered[asked.tenant_id, "smtp"] += 0
            answered[asked.tenant_id, "csv"] += 0
    for (tenant_id, source), expected in answered.items():
        look.findings.looked_at(1)
        found = stored[tenant_id, SOURCES[source]]
        if found < expected:
            short.add((tenant_id, SOURCES[source]))
        for which in range(found, expected):
            look.findings.add(
                "I1", f"{source} {tenant_id} {which}", f"{found} stored, {expected} answered", tenant_id=tenant_id
            )
        if (tenant_id, source) not in open_:
            for which in range(expected, found):
                look.findings.add(
                    "I15",
                    f"{source} {tenant_id} {which}",
                    f"{found} stored, {expected} answered",
                    tenant_id=tenant_id,
                    is_extra=True,
                    may_pass=True,
                )
    return short


async def _leftovers(look: Look) -> None:
    """I15: texts, files and persons that belong to no complaint; answers of refusals."""
    known = {complaint.complaint_id for complaint in look.complaints} | look.answered.keys()
    known |= {receipt.complaint_id for receipt in look.receipts}
    known |= {row["case_id"] for row in await look.rows(ALL_CASES)}
    people = known | {complaint.complainant_id for complaint in look.complaints}
    people |= set(_complainants(look.told.received.values()))
    for row in await look.rows(TEXTS):
        look.findings.looked_at(1)
        if row["of"] not in known and row["of"] not in look.misplaced:
            look.findings.add(
                "I15", row["id"], f"{row['what']} of no complaint", tenant_id=row["tenant_id"], is_extra=True
            )
    for row in await look.rows(OWNERS):
        if row["owner"] not in people and row["owner"] not in look.misplaced:
            look.findings.add(
                "I15", row["owner"], f"{row['what']} who has not complained", tenant_id=row["tenant_id"], is_extra=True
            )
    for service in SERVICES:
        for row in await look.rows(IDEMPOTENT.format(service=service)):
            if row["status"] >= 400:
                look.findings.add(
                    "I15",
                    f"{service} {row['key']}",
                    f"a refusal was stored as the answer ({row['status']})",
                    tenant_id=row["tenant_id"],
                    is_extra=True,
                )


def _complainants(received: Iterable[Mapping[str, object]]) -> Iterable[UUID]:
    """Who complained, as line 1 names them: also of complaints that are missing."""
    for message in received:
        entry = message.get("entry")
        data = entry.get("data") if isinstance(entry, dict) else None
        complainant = data.get("complainant") if isinstance(data, dict) else None
        if isinstance(complainant, dict) and isinstance(complainant.get("id"), str):
            yield UUID(complainant["id"])


async def _missing(look: Look, short: set[tuple[UUID, str]]) -> None:
    """I1: what was answered is in intake, and what is in intake is in routing."""
    complaints = {complaint.complaint_id for complaint in look.complaints}
    cases = {row["case_id"]: row["tenant_id"] for row in await look.rows(CASES)}
    receipts = {receipt.complaint_id: receipt.tenant_id for receipt in look.receipts}
    promised = receipts | {case_id: asked.tenant_id for case_id, asked in look.answered.items()}
    skipped = look.misplaced | {
        case_id
        for case_id in complaints | cases.keys() | promised.keys()
        if look.findings.has("I2", case_id) or look.findings.has("I15", case_id)
    }
    for case_id, tenant_id in promised.items():
        look.findings.looked_at(1)
        if case_id not in complaints and case_id not in skipped:
            look.findings.add("I1", case_id, "was answered 2xx and is not in intake", tenant_id=tenant_id)
    for complaint in look.complaints:
        look.findings.looked_at(1)
        case_id = complaint.complaint_id
        if case_id not in cases and case_id not in skipped:
            look.findings.add(
                "I1", case_id, "is stored and has not come to routing", tenant_id=complaint.tenant_id, may_pass=True
            )
    parts = await _parts(look)
    for case_id, tenant_id in parts.items():
        if case_id not in cases and case_id not in skipped:
            look.findings.add("I1", case_id, "a part of a complaint that was split is lost", tenant_id=tenant_id)
    elsewhere = {row["case_id"]: row["tenant_id"] for row in await look.rows(ELSEWHERE)}
    for case_id, tenant_id in {**look.told.received_of, **elsewhere, **cases}.items():
        if case_id in complaints or case_id in promised or case_id in skipped or case_id in parts:
            continue
        if (tenant_id, str(look.told.received.get(case_id, {}).get("source"))) in short:
            continue  # one of those that are missing
        look.findings.add("I15", case_id, "a case of no complaint that is stored", tenant_id=tenant_id, is_extra=True)


async def _parts(look: Look) -> dict[UUID, UUID]:
    """Cases that routing made of one complaint, which intake has not: whose they are, by id."""
    found: dict[UUID, UUID] = {}
    for line in look.told.lines.values():
        entry = line["entry"]
        if entry["kind"] == "split" and isinstance(entry["data"].get("parts"), list):
            found |= {as_uuid(str(part)): as_uuid(line["tenant_id"]) for part in entry["data"]["parts"]}
    for row in await look.rows(SPLIT):  # what was told long ago is told no more
        if isinstance(row["parts"], list):
            found |= {as_uuid(str(part)): row["tenant_id"] for part in row["parts"]}
    return found


async def _entries(look: Look) -> None:
    """I1 and I15 of acts on cases: what was entered is there, and no more was entered than was asked for."""
    versions = {row["case_id"]: row["version"] for row in await look.rows(CASES)}
    most: Counter[UUID] = Counter()
    journalled: set[UUID] = set()
    for asked in look.asked:
        if asked.source not in ("entry", "act"):
            continue
        if asked.source == "entry":
            journalled.add(asked.tenant_id)
        look.findings.looked_at(1)
        of = next((line.case_id for line in asked.answers if line.case_id is not None), None)
        if of is None:
            continue
        most[of] += int(asked.is_stored or asked.is_open)
        for line in asked.good:
            if line.seq is not None and line.seq > versions.get(of, line.seq):
                look.findings.add(
                    "I1", f"{of} {line.seq}", "a line that was answered 2xx is missing", tenant_id=asked.tenant_id
                )
    if journalled:
        for row in await look.rows(ENTERED):
            case_id = row["case_id"]
            if row["tenant_id"] in journalled and row["n"] > most[case_id] and case_id not in look.misplaced:
                look.findings.add(
                    "I15",
                    f"entries of {case_id}",
                    f"{row['n']} lines of people, {most[case_id]} were taken",
                    tenant_id=row["tenant_id"],
                    is_extra=True,
                    may_pass=True,
                )


async def _acts(look: Look) -> None:
    """I10 and I15 of other requests with a key: the stored answer is the one that was given; a refused one left none."""
    wanted = {(asked.tenant_id, asked.key): asked for asked in look.asked if asked.source in ("entry", "act", "csv")}
    stored = {(asked.tenant_id, asked.key) for asked in look.asked if asked.is_stored or asked.is_open}
    homes = await _homes(look)
    known: set[tuple[UUID, str]] = set()
    for service in SERVICES:
        for row in await look.rows(IDEMPOTENT.format(service=service)):
            known.add((row["tenant_id"], row["key"]))
            look.findings.looked_at(1)
            if any(homes.get(each, row["tenant_id"]) != row["tenant_id"] for each in _ids(row["body"])):
                what = "an answer that names what is another tenant's"
                look.findings.add("I14", f"{service} {row['key']}", what, tenant_id=row["tenant_id"])
                continue
            asked = wanted.get((row["tenant_id"], row["key"]))
            if (row["status"] in BODIED and not _is_readable(row["body"])) or (
                row["status"] == MADE and row["body"] == b"{}"
            ):
                what = "what a repeat would be answered with cannot be read"
                look.findings.add("I10", row["key"], what, tenant_id=row["tenant_id"])
            if asked is None:
                continue
            if asked.is_refused_for_good and (asked.tenant_id, asked.key) not in stored:
                look.findings.add(
                    "I15", asked.key, "an answer is stored under a key that was refused", tenant_id=asked.tenant_id
                )
            told = {line.answer for line in asked.good if line.answer}
            places = {line.seq for line in asked.good if line.seq is not None}
            statuses = {line.status for line in asked.good} if asked.source != "csv" else set()
            if (
                (told and told != {hashlib.sha256(row["body"]).hexdigest()})
                or statuses - {row["status"]}
                or places - _places(row["body"])
                or (asked.good and _is_bound_otherwise(asked, row["request"]))
            ):
                look.findings.add(
                    "I10", asked.key, "was answered otherwise than a repeat would be", tenant_id=asked.tenant_id
                )
    for place, asked in wanted.items():
        is_kept = asked.first_at > look.retained_from
        is_lost = any(look.findings.has("I1", f"{line.case_id} {line.seq}") for line in asked.good)
        is_elsewhere = any(look.findings.has("I14", f"{service} {asked.key}") for service in SERVICES)
        if asked.is_stored and is_kept and place not in known and not (is_lost or is_elsewhere):
            what = "its key is gone; a repeat would be done again"
            look.findings.add("I2", asked.key, what, tenant_id=asked.tenant_id)


async def _homes(look: Look) -> dict[UUID, UUID]:
    """Whose what an answer may name is."""
    return {row["id"]: row["tenant_id"] for row in await look.rows(NAMEABLE) if row["id"] not in look.misplaced}


class _Named(Struct):
    """The ids by which an answer names what was made."""

    id: UUID | None = None
    case_id: UUID | None = None
    text_id: UUID | None = None
    import_id: UUID | None = None
    operation_id: UUID | None = None


class _Placed(Struct):
    seq: int | None = None


def _is_readable(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def _places(body: bytes) -> set[int | None]:
    try:
        return {msgspec.json.decode(body, type=_Placed).seq}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return set()


def _ids(body: bytes) -> list[UUID]:
    try:
        named = msgspec.json.decode(body, type=_Named)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    return [each for each in msgspec.structs.astuple(named) if each is not None]


def _patience(look: Look) -> None:
    """I11: whoever comes again for a minute gets an answer."""
    for asked in look.asked:
        if asked.is_stored:
            first = min(line.at for line in asked.good)
            if first - asked.first_at > PATIENCE:
                look.findings.add(
                    "I11",
                    f"{asked.source} {asked.key}",
                    f"was answered after {(first - asked.first_at).total_seconds():.0f} s",
                    tenant_id=asked.tenant_id,
                )
        elif not asked.is_refused:
            look.findings.add(
                "I11",
                f"{asked.source} {asked.key}",
                f"{asked.attempts} attempts and no answer",
                tenant_id=asked.tenant_id,
                may_pass=True,
            )

"""The vault: what was said with a complaint is there, lies with its person, and nothing else lies there. I1 and I15.

What is sealed opens only with keys that no database holds (`seals` tries); an audit without them sees a sealed value that is missing,
cut, of the wrong length or copied from elsewhere, and not one whose bits were changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from services.audit.copies import PERSONAL
from services.audit.look import Look
from services.audit.tenants import as_uuid

SEALED_MORE: Final = 29
"""A byte for the version, twelve for the nonce, sixteen for the tag: so much longer is what is sealed."""

A_KEY: Final = SEALED_MORE + 32

# (table, column, what names the row, the length that is right, or NULL where many are; where the nonce begins)
SEALED: Final = (
    ("intake.complaint", "sealed_contact", "complaint_id", "NULL", 2),
    ("intake.free_text", "sealed", "text_id", "NULL", 2),
    ("intake.attachment", "sealed", "attachment_id", f"bytes + {SEALED_MORE}", 2),
    ("intake.attachment", "sealed_name", "attachment_id", "NULL", 2),
    ("intake.data_key", "wrapped_key", "owner_id", str(A_KEY), 2),
    ("intake.tenant_key", "wrapped_key", "tenant_id", str(A_KEY), 2),
    ("intake.tenant_key", "wrapped_index_key", "tenant_id", str(A_KEY), 2),
    ("intake.source", "sealed_secrets", "source_id", "NULL", 2),
    ("intake.access", "sealed_reason", "access_id", "NULL", 2),
    ("intake.import_chunk", "sealed", "import_id", "NULL", 2),
    ("routing.staff_member", "contact", "staff_id", "NULL", 1),
    ("notify.provider", "sealed", "provider_id", "NULL", 1),
    ("notify.endpoint", "sealed", "endpoint_id", "NULL", 1),
)

MALFORMED: Final = """
SELECT tenant_id, {name}::text AS name, '{table}' AS place
  FROM {table}
 WHERE {column} IS NOT NULL
   AND CASE WHEN length({column}) < {least} THEN true
            ELSE ({nonce} = 2 AND get_byte({column}, 0) <> 1) OR length({column}) <> coalesce({right}, length({column})) END"""

NONCES: Final = """
SELECT tenant_id, {name}::text AS name, substring({column} FROM {nonce} FOR 12) AS nonce, '{table}.{column}' AS place
  FROM {table}
 WHERE length({column}) >= {least}"""

COPIED: Final = """
SELECT array_agg(place || ' ' || name ORDER BY place, name) AS places, min(tenant_id::text)::uuid AS tenant_id
  FROM ({parts}) AS every
 GROUP BY nonce
HAVING count(*) > 1"""

COMPLAINTS: Final = """
SELECT c.tenant_id, c.complaint_id, c.complainant_id, c.source, c.sealed_contact IS NOT NULL AS has_contact,
       k.owner_id IS NOT NULL AS has_key, k.erased_at IS NOT NULL AS is_erased,
       EXISTS (SELECT FROM intake.tenant_key t WHERE t.tenant_id = c.tenant_id) AS has_tenant_key,
       EXISTS (SELECT FROM intake.contact_point p WHERE p.tenant_id = c.tenant_id AND p.complainant_id = c.complainant_id)
           AS is_known
  FROM intake.complaint c
  LEFT JOIN intake.data_key k ON k.tenant_id = c.tenant_id AND k.owner_id = c.complainant_id"""

TEXTS: Final = """
SELECT tenant_id, text_id AS id, case_id AS of, owner_id AS owner, kind, created_by
  FROM intake.free_text"""

FILES: Final = """
SELECT tenant_id, attachment_id AS id, complaint_id AS of, owner_id AS owner, 'attachment' AS kind, NULL AS created_by
  FROM intake.attachment"""

# A person's key, their contacts and who erased them.
PERSONS: Final = """
SELECT k.tenant_id, k.owner_id,
       CASE WHEN k.erased_at IS NULL AND k.wrapped_key IS NULL OR k.erased_at IS NOT NULL AND k.wrapped_key IS NOT NULL
                 THEN 'is erased, and is not'
            WHEN k.erased_at IS NOT NULL AND NOT EXISTS (
                 SELECT FROM intake.access a
                  WHERE a.tenant_id = k.tenant_id AND a.complainant_id = k.owner_id AND a.act = 'erase')
                 THEN 'is erased, and nobody has done it'
            WHEN k.erased_at IS NOT NULL AND EXISTS (
                 SELECT FROM intake.contact_point p WHERE p.tenant_id = k.tenant_id AND p.complainant_id = k.owner_id)
                 THEN 'is erased, and still known by a contact'
            WHEN NOT EXISTS (
                 SELECT FROM intake.tenant_key t WHERE t.tenant_id = k.tenant_id AND t.generation = k.generation)
                 THEN 'has a key of a generation that the tenant has not'
       END AS what
  FROM intake.data_key k"""

# Of complaints that were told of so long ago that it is told no more.
LINES: Final = """
SELECT case_id, seq, data
  FROM routing.entry
 WHERE case_id = ANY ($1)"""

ERASED_BY_NOBODY: Final = """
SELECT a.tenant_id, a.access_id
  FROM intake.access a
 WHERE (a.act = 'erase' AND NOT EXISTS (
           SELECT FROM intake.data_key k
            WHERE k.tenant_id = a.tenant_id AND k.owner_id = a.complainant_id AND k.erased_at IS NOT NULL))
    OR (a.act <> 'erase' AND a.case_id IS NULL AND a.complainant_id IS NULL AND cardinality(a.what) = 0)
    OR (a.complainant_id IS NOT NULL AND NOT EXISTS (
           SELECT FROM intake.data_key k WHERE k.tenant_id = a.tenant_id AND k.owner_id = a.complainant_id))
    OR (a.case_id IS NOT NULL AND NOT EXISTS (
           SELECT FROM intake.complaint c WHERE c.tenant_id = a.tenant_id AND c.complaint_id = a.case_id) AND NOT EXISTS (
           SELECT FROM routing."case" c WHERE c.tenant_id = a.tenant_id AND c.case_id = a.case_id))
    OR NOT EXISTS (
           SELECT FROM intake.credential c
            WHERE c.credential_id = a.credential_id AND c.staff_id IS NOT DISTINCT FROM a.staff_id)
    OR a.act NOT IN ('unmask_contact', 'read_texts', 'read_attachment', 'erase')
    OR (a.act = 'unmask_contact' AND NOT a.what <@ '{name,phone,email,address,language}')
    OR (a.case_id IS NOT NULL AND a.complainant_id IS NOT NULL AND EXISTS (
           SELECT FROM intake.complaint c
            WHERE c.tenant_id = a.tenant_id AND c.complaint_id = a.case_id AND c.complainant_id <> a.complainant_id))
    OR (a.act = 'read_texts' AND EXISTS (
           SELECT FROM intake.free_text t
            WHERE t.tenant_id = a.tenant_id AND t.text_id::text = ANY (a.what) AND t.case_id <> a.case_id))
    OR (a.act = 'read_attachment' AND EXISTS (
           SELECT FROM intake.attachment t
            WHERE t.tenant_id = a.tenant_id AND t.attachment_id::text = ANY (a.what) AND t.complaint_id <> a.case_id))"""

POINTS: Final = """
SELECT tenant_id, complainant_id
  FROM intake.contact_point
 WHERE kind NOT IN ('phone', 'email') OR length(blind) <> 32"""


async def check(look: Look) -> None:
    kept: dict[UUID, dict[UUID, Any]] = defaultdict(dict)
    for query in (TEXTS, FILES):
        for row in await look.rows(query):
            if row["id"] not in look.misplaced:
                kept[row["of"]][row["id"]] = row
    complaints = await look.rows(COMPLAINTS)
    untold = [row["complaint_id"] for row in complaints if row["complaint_id"] not in look.told.received]
    named = _named(look)
    for case_id, seq, data in await look.rows(LINES, untold) if untold else ():
        if isinstance(data, dict):
            named[case_id].update(_references(data, "complaint" if seq == 1 else ""))
    for row in complaints:
        look.findings.looked_at(1)
        case_id = row["complaint_id"]
        if case_id in look.misplaced or any(look.findings.has(each, case_id) for each in ("I2", "I15")):
            continue
        for what in _faults(row, named.get(case_id, {}), kept.get(case_id, {})):
            look.findings.add("I1", case_id, what, tenant_id=row["tenant_id"])
        by = (look.told.received.get(case_id, {}).get("entry", {}).get("by") or {}).get("id")
        for each in kept.get(case_id, {}).values():
            if by is not None and named.get(case_id, {}).get(each["id"]) and each["created_by"] not in (None, by):
                look.findings.add("I1", case_id, "a text is said to be somebody else's", tenant_id=row["tenant_id"])
            if each["kind"] in ("complaint", "attachment") and each["id"] not in named.get(case_id, {}):
                what = f"a {each['kind']} that the complaint does not name"
                look.findings.add("I15", each["id"], what, tenant_id=row["tenant_id"], is_extra=True)
    for row in await look.rows(PERSONS):
        owner = row["owner_id"]
        if row["what"] is not None and owner not in look.misplaced and not look.findings.has("I15", owner):
            look.findings.add("I1", owner, row["what"], tenant_id=row["tenant_id"])
    for query, what in ((ERASED_BY_NOBODY, "what is written down of a look was not so"), (POINTS, "is no contact")):
        for tenant_id, subject in await look.rows(query):
            if subject not in look.misplaced:
                look.findings.add("I1", subject, what, tenant_id=tenant_id)
    await _sealed(look)


async def _sealed(look: Look) -> None:
    for row in await look.rows("\nUNION ALL".join(MALFORMED.format(**place) for place in _places())):
        name = as_uuid(row["name"])
        if name not in look.misplaced and not look.findings.has("I15", name):
            look.findings.add("I1", row["name"], f"what is sealed in {row['place']} is cut", tenant_id=row["tenant_id"])


async def check_nonces(look: Look) -> None:
    """What is sealed was sealed for its place: no two values begin alike. For those that nobody could open."""
    parts = "\nUNION ALL".join(NONCES.format(**place) for place in _places())
    for row in await look.rows(COPIED.format(parts=parts)):
        names = {as_uuid(each.split()[1]) for each in row["places"]}
        is_known = len(names) < len(row["places"]) or any(
            look.findings.has(check, each) for each in names for check in ("I1", "I2", "I15")
        )
        if not (names & look.misplaced or is_known):
            look.findings.add("I1", row["places"][-1], "holds what is sealed elsewhere", tenant_id=row["tenant_id"])


def _places() -> list[dict[str, Any]]:
    return [
        {
            "table": table,
            "column": column,
            "name": name,
            "right": right,
            "nonce": nonce,
            "least": SEALED_MORE - 2 + nonce,
        }
        for table, column, name, right, nonce in SEALED
    ]


def _named(look: Look) -> dict[UUID, dict[UUID, str]]:
    """What timelines name of the vault, by case: texts and files, and the kinds they have."""
    found: dict[UUID, dict[UUID, str]] = defaultdict(dict)
    for case_id, received in look.told.received.items():
        data = received["entry"].get("data")
        found[case_id].update(_references(data, "complaint") if isinstance(data, dict) else ())
    for (case_id, seq), line in look.told.lines.items():
        data = line["entry"].get("data")
        if seq > 1 and isinstance(data, dict):
            found[case_id].update(_references(data, ""))
    return found


def _references(data: Mapping[str, Any], kind: str) -> Iterator[tuple[UUID, str]]:
    if data.get("text_id") is not None:
        yield as_uuid(str(data["text_id"])), kind
    for attachment in data.get("attachments") or ():
        yield as_uuid(str(attachment)), "attachment"
    fields = data.get("fields")
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if isinstance(value, str) and value.startswith(PERSONAL):
            yield as_uuid(value.removeprefix(PERSONAL)), name if kind else ""


def _faults(row: Any, named: Mapping[UUID, str], kept: Mapping[UUID, Any]) -> Iterator[str]:
    """Say what is lost of a complaint in the vault."""
    if not row["has_tenant_key"]:
        yield "the key of its tenant is lost"
    if not row["has_key"]:
        yield "the key of its person is lost"
    elif row["is_erased"]:
        if kept or row["has_contact"]:
            yield "its person is erased, and not what was said"
        return
    for each, kind in named.items():
        if each not in kept:
            yield f"its {kind or 'text'} is lost"
        elif kind and kept[each]["kind"] != kind:
            yield f"its {kind} is kept as {kept[each]['kind']}"
    if any(each["owner"] != row["complainant_id"] for each in kept.values()):
        yield "what was said lies under another person's key"
    if row["is_known"] and not row["has_contact"]:
        yield "how its person is reached is lost"
    if row["source"] == "email" and not any(each["kind"] == "original" for each in kept.values()):
        yield "the mail as it came is lost"

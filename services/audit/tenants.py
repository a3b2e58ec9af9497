"""I14: what belongs to one tenant and lies with another. Found in the catalogue of the database, so new tables are looked at, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from services.audit.look import LIVE, Look
from services.audit.streams import SERVICES, tenant_in

COLUMNS: Final = """
SELECT n.nspname AS schema, t.relname AS name, c.attname AS col, format_type(c.atttypid, NULL) AS type
  FROM pg_class t
  JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
 WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition
   AND n.nspname = ANY ($1)
   AND EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = t.oid AND o.attname = 'tenant_id' AND NOT o.attisdropped)
 ORDER BY 1, 2, 3"""

# Ids of people of ours or of another's choice: an operator acts in every tenant.
ANYBODYS: Final = frozenset({"credential_id", "proposed_by", "decided_by", "after_case"})

STRANGERS: Final = """
SELECT '{table}' AS place, tenant_id, count(*) AS n
  FROM {table}
 WHERE tenant_id <> ALL ($1::uuid[])
 GROUP BY tenant_id"""

MISPLACED: Final = """
SELECT id
  FROM (SELECT DISTINCT tenant_id, id FROM ({parts}) AS every (tenant_id, id, place)) AS homes
 WHERE id IS NOT NULL
 GROUP BY id
HAVING count(*) > 1"""

PLACES: Final = """
SELECT id, array_agg(DISTINCT place) AS places, count(DISTINCT tenant_id) AS tenants
  FROM ({parts}) AS every (tenant_id, id, place)
 WHERE id = ANY ($1)
 GROUP BY id"""

# What refers to its own kind in a text or in a body.
BODIES: Final = """
SELECT tenant_id, {col} ->> 'tenant_id' AS named, count(*) AS n
  FROM {table}
 WHERE json_typeof({col}::json) = 'object' AND {col} ->> 'tenant_id' <> tenant_id::text
 GROUP BY 1, 2"""

ADDRESSED: Final = """
SELECT d.delivery_id, d.tenant_id
  FROM notify.delivery d
  JOIN notify.endpoint e ON e.endpoint_id::text = d.addressee
 WHERE d.channel = 'webhook' AND e.tenant_id <> d.tenant_id"""

MAILBOXES: Final = """
SELECT m.token, m.owner_id
  FROM intake.mail_address m
  JOIN intake.source s ON s.source_id = m.source_id
 WHERE s.tenant_id <> m.owner_id"""


async def check(look: Look) -> None:
    """Fill `look.misplaced`; so this goes first."""
    columns = await look.rows(COLUMNS, list(SERVICES))
    known = [*look.tenants, LIVE]
    tables = list(dict.fromkeys(f'{row["schema"]}."{row["name"]}"' for row in columns))
    for row in await look.rows("\nUNION ALL".join(STRANGERS.format(table=table) for table in tables), known):
        look.findings.add(
            "I14",
            f"{row['place']} {row['tenant_id']}",
            f"{row['n']} rows of a tenant that does not exist",
            tenant_id=row["tenant_id"],
            is_extra=True,
        )
    look.findings.looked_at(len(tables))
    await _ids(look, columns)
    for row in columns:
        if row["type"] in ("json", "jsonb") and row["col"] == "body":
            table = f'{row["schema"]}."{row["name"]}"'
            for found in await look.rows(BODIES.format(table=table, col=row["col"])):
                look.findings.add(
                    "I14",
                    f"{table} {found['tenant_id']} {found['named']}",
                    f"{found['n']} bodies that name another tenant",
                    tenant_id=found["tenant_id"],
                )
    for row in await look.rows(ADDRESSED):
        look.misplaced.add(row["delivery_id"])
        look.findings.add(
            "I14", row["delivery_id"], "a delivery to another tenant's endpoint", tenant_id=row["tenant_id"]
        )
    for row in await look.rows(MAILBOXES):
        look.findings.add("I14", row["token"], "an address of another tenant's source", tenant_id=row["owner_id"])
    _messages(look)
    _answers(look)


async def _ids(look: Look, columns: Sequence[Any]) -> None:
    """No id lies with two tenants, in whatever tables it stands."""
    parts = [
        f'SELECT tenant_id, "{row["col"]}", \'{row["schema"]}.{row["name"]}\' FROM {row["schema"]}."{row["name"]}"'  # noqa: S608 - names of the catalogue
        for row in columns
        if row["type"] == "uuid" and row["col"] != "tenant_id" and row["col"] not in ANYBODYS
    ]
    every = "\nUNION ALL\n".join(parts)
    found = [row["id"] for row in await look.rows(MISPLACED.format(parts=every))]
    for row in await look.rows(PLACES.format(parts=every), found) if found else ():
        look.misplaced.add(row["id"])
        where = ", ".join(row["places"])
        look.findings.add("I14", row["id"], f"lies with {row['tenants']} tenants, in {where}", is_extra=True)


def _messages(look: Look) -> None:
    """Subject, body, row and stream agree on whose a message is."""
    for service, message_id, tenant_id in look.told.foreign:
        look.misplaced.add(message_id)
        look.findings.add(
            "I14", message_id, f"a message of {service} that names another tenant than its row", tenant_id=tenant_id
        )
    for service, stream in look.streams.items():
        for held in stream.messages:
            named = tenant_in(held.subject)
            if named is None:
                continue
            row = look.told.rows.get((service, as_uuid(held.message_id)))
            known = named in look.tenants or named == LIVE
            if not known and held.seq <= stream.last_seq:
                look.findings.add("I14", f"{service} {held.seq}", "a message of a tenant that does not exist")
            elif row is not None and row.tenant_id != named:
                look.findings.add(
                    "I14",
                    as_uuid(held.message_id),
                    f"published by {service} under another tenant than its row's",
                    tenant_id=row.tenant_id,
                )
        look.findings.looked_at(len(stream.messages))


def _answers(look: Look) -> None:
    """What was answered to one tenant lies with this tenant."""
    homes = {complaint.complaint_id: complaint.tenant_id for complaint in look.complaints}
    for case_id, asked in look.answered.items():
        home = homes.get(case_id)
        if home is not None and home != asked.tenant_id:
            look.misplaced.add(case_id)
            look.findings.add(
                "I14", case_id, f"was answered to {asked.tenant_id} and lies with {home}", tenant_id=asked.tenant_id
            )


def as_uuid(text: str) -> UUID:
    """The id, or the nil one for what is none."""
    try:
        return msgspec.convert(text, UUID)
    except msgspec.ValidationError:
        return LIVE

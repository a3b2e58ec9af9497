"""I13: when rows were written. None is of the future, or older than its tenant, or ended before it was begun.

What the database notes by its own clock is found in its catalogue, so new tables are looked at, too. Clocks are set right now and then:
so much is allowed for.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from services.audit.look import Look
from services.audit.streams import SERVICES

AHEAD: Final = timedelta(minutes=5)
BACK: Final = timedelta(minutes=65)
BETWEEN: Final = timedelta(minutes=125)
"""A clock may have been set forth between the two, and back."""

COLUMNS: Final = """
SELECT n.nspname || '."' || t.relname || '"' AS table, c.attname AS column
  FROM pg_attribute c
  JOIN pg_class t ON t.oid = c.attrelid AND t.relkind IN ('r', 'p') AND NOT t.relispartition
  JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = ANY ($1)
  JOIN pg_attrdef d ON d.adrelid = c.attrelid AND d.adnum = c.attnum
 WHERE pg_get_expr(d.adbin, d.adrelid) = 'clock_timestamp()'
   AND EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = t.oid AND o.attname = 'tenant_id' AND NOT o.attisdropped)
 ORDER BY 1, 2"""

# What is noted later, by the same clock: (table, when it began, when it came to an end).
ENDS: Final = (
    *((f'{service}."outbox"', "created_at", "published_at") for service in SERVICES),
    *((f'{service}."dead_letter"', "dead_at", "resolved_at") for service in SERVICES),
    ('intake."data_key"', "created_at", "erased_at"),
    ('intake."import"', "created_at", "done_at"),
    ('routing."move"', "created_at", "done_at"),
    ('routing."clock_operation"', "created_at", "done_at"),
    ('sla."announcement"', "made_at", "withdrawn_at"),
    ('notify."delivery"', "created_at", "ended_at"),
    ('notify."delivery_attempt"', "begun_at", "ended_at"),
    ('notify."settlement"', "begun_at", "rested_at"),
)


async def check(look: Look) -> None:
    columns: dict[str, list[str]] = defaultdict(list)
    for row in await look.rows(COLUMNS, list(SERVICES)):
        columns[row["table"]].append(row["column"])
    ends = {table: (start, end) for table, start, end in ENDS if table in columns}
    for table, (_, end) in ends.items():
        columns[table].append(end)
    parts = [_extremes(table, names, ends.get(table)) for table, names in columns.items()]
    for row in await look.rows("\nUNION ALL".join(parts)):
        look.findings.looked_at(1)
        table, tenant_id = row["place"].replace('"', ""), row["tenant_id"]
        tenant = look.tenants.get(tenant_id)
        since = None if tenant is None else tenant.created_at
        for name, first, last in zip(row["names"], row["first"], row["last"], strict=True):
            what = _fault(look, first, last, since)
            if what is not None and not _is_in_doubt(look, tenant_id):
                look.findings.add("I13", f"{table} {name} {tenant_id}", what, tenant_id=tenant_id)
        if row["backwards"] and not _is_in_doubt(look, tenant_id):
            what = f"{row['backwards']} rows came to their end before they began"
            look.findings.add("I13", f"{table} {tenant_id}", what, tenant_id=tenant_id)


def _extremes(table: str, names: list[str], ends: tuple[str, str] | None) -> str:
    finite = [f"nullif(nullif({name}, 'infinity'), '-infinity')" for name in names]
    named = ", ".join(f"'{name}'" for name in names)
    first = ", ".join(f"min({each})" for each in finite)
    last = ", ".join(f"max({each})" for each in finite)
    backwards = "0"
    if ends is not None:
        start, end = ends
        backwards = f"count(*) FILTER (WHERE {end} < {start} - interval '{BETWEEN.total_seconds()} seconds')"
    return f"""
SELECT '{table}' AS place, tenant_id, ARRAY[{named}] AS names, ARRAY[{first}] AS first, ARRAY[{last}] AS last, {backwards} AS backwards
  FROM {table}
 GROUP BY tenant_id"""  # noqa: S608 - names of the catalogue and of our own


def _fault(look: Look, first: datetime | None, last: datetime | None, since: datetime | None) -> str | None:
    if last is not None and last > look.now + AHEAD:
        return f"a row of {last}, which has not come yet"
    if first is not None and since is not None and first < since - BACK:
        return f"a row of {first}, and its tenant is of {since}"
    return None


def _is_in_doubt(look: Look, tenant_id: Any) -> bool:
    """Whether rows lie with the wrong tenant, which is that finding."""
    return bool(look.misplaced) or not isinstance(tenant_id, UUID)

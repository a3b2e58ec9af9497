"""I14: the database itself keeps tenants apart. Every table that has a tenant's rows shows a service those of its transaction's tenant, and
no service may look past that."""

from __future__ import annotations

from typing import Final

from services.audit.look import Look
from services.audit.streams import SERVICES

OPEN: Final = """
WITH kept AS (
    SELECT t.oid, n.nspname || '.' || t.relname AS place, t.relrowsecurity AND t.relforcerowsecurity AS is_on,
           (SELECT r.oid FROM pg_roles r WHERE r.rolname = n.nspname || '_api') AS api
      FROM pg_class t
      JOIN pg_namespace n ON n.oid = t.relnamespace
     WHERE t.relkind IN ('r', 'p') AND NOT t.relispartition AND n.nspname = ANY ($1)
       AND EXISTS (SELECT FROM pg_attribute c WHERE c.attrelid = t.oid AND c.attname = 'tenant_id' AND NOT c.attisdropped))
SELECT k.place, k.is_on, count(p.polname) AS policies,
       bool_or(coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) NOT LIKE '%app.tenant_id%') AS is_open
  FROM kept k
  LEFT JOIN pg_policy p ON p.polrelid = k.oid AND p.polpermissive AND (k.api = ANY (p.polroles) OR p.polroles = '{0}')
 GROUP BY k.place, k.is_on"""

MIGHTY: Final = """
SELECT rolname
  FROM pg_roles
 WHERE (rolsuper OR rolbypassrls) AND rolname ~ ('^(' || array_to_string($1::text[], '|') || ')_(api|worker)$')"""


async def check(look: Look) -> None:
    for row in await look.rows(OPEN, list(SERVICES)):
        look.findings.looked_at(1)
        if not row["is_on"] or not row["policies"] or row["is_open"]:
            look.findings.add("I14", row["place"], "shows every tenant's rows to its service")
    for row in await look.rows(MIGHTY, list(SERVICES)):
        look.findings.add("I14", row["rolname"], "may look past what keeps tenants apart")

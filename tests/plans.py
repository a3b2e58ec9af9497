"""How PostgreSQL would find rows for a statement, whatever its arguments are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg

PARTIAL_INDEXES = """
SELECT c.relname::text AS name
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indpred IS NOT NULL"""

_BY_TENANT_ALONE = re.compile(r"\(tenant_id = [^()]*\)")


async def read_widely(connection: asyncpg.Connection, statement: str) -> set[str]:
    """Return the tables of which the statement reads all rows, or all of a tenant.

    Args:
        connection: without a cache of statements. In a database that is new and empty, plans are as bad as they ever are.
    """
    partial = {row["name"] for row in await connection.fetch(PARTIAL_INDEXES)}
    return {node["Relation Name"] for node in await _plan(connection, statement) if _is_wide(node, partial)}


async def found_by(connection: asyncpg.Connection, statement: str) -> set[str]:
    """Return the indexes by which the statement finds rows; of one that has columns between those asked for, much may be read.

    Args:
        connection: as above.
    """
    return {node["Index Name"] for node in await _plan(connection, statement) if "Index Name" in node}


async def _plan(connection: asyncpg.Connection, statement: str) -> list[dict[str, Any]]:
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    arguments = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.execute(
        "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
    )  # the latter as services do
    await connection.execute(f"PREPARE asked AS {statement}")
    try:
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE asked{arguments}")
    finally:
        await connection.execute("DEALLOCATE asked")
    return list(_nodes(json.loads(row[0])[0]["Plan"], {}))


def _nodes(node: dict[str, Any], outer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node, with the type of the one that it feeds, and all that feed it."""
    yield {**node, "Feeds": outer.get("Node Type")}
    for inner in node.get("Plans", ()):
        yield from _nodes(inner, node)


def _is_wide(node: dict[str, Any], partial: set[str]) -> bool:
    if "Relation Name" not in node or node["Node Type"] == "ModifyTable":
        return False
    condition = node.get("Index Cond") or node.get("Recheck Cond") or ""
    if "Index Name" in node and not condition and node["Feeds"] != "Limit":  # of a partial one all rows are asked for
        return node["Index Name"] not in partial
    return node["Node Type"] == "Seq Scan" or _BY_TENANT_ALONE.fullmatch(condition) is not None

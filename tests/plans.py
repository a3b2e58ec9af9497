"""How PostgreSQL would find rows for a statement, whatever its arguments are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import asyncpg

_BY_TENANT_ALONE = re.compile(r"\(tenant_id = [^()]*\)")


async def read_widely(connection: asyncpg.Connection, statement: str) -> set[str]:
    """Return the tables of which the statement reads all rows, or all of a tenant.

    Args:
        connection: without a cache of statements. In a database that is new and empty, plans are as bad as they ever are.
    """
    count = max((int(number) for number in re.findall(r"\$(\d+)", statement)), default=0)
    arguments = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked AS {statement}")
    try:
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE asked{arguments}")
    finally:
        await connection.execute("DEALLOCATE asked")
    return {node["Relation Name"] for node in _nodes(json.loads(row[0])[0]["Plan"]) if _is_wide(node)}


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def _is_wide(node: dict[str, Any]) -> bool:
    if "Relation Name" not in node or node["Node Type"] == "ModifyTable":
        return False
    return node["Node Type"] == "Seq Scan" or _BY_TENANT_ALONE.fullmatch(node.get("Index Cond", "")) is not None

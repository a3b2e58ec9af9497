"""Complaints of a stretch of time with their timelines, a page at a time, and the policies and calendars they lived under."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.database import Tx
from shared.engine.model import Entry
from shared.policy.backtesting import History

PAGE = """
SELECT c.case_id, c.number, c.policy_version, c.received_at,
       (SELECT json_agg(json_build_object('seq', e.seq, 'kind', e.kind, 'at', e.at, 'by', e.by, 'data', e.data, 'counts', e.counts,
                                          'key', e.key) ORDER BY e.seq)
          FROM entry e
         WHERE e.tenant_id = c.tenant_id AND e.case_id = c.case_id)::text AS timeline
  FROM "case" c
 WHERE c.tenant_id = $1 AND c.kind = 'complaint' AND c.received_at >= $2 AND c.received_at < $3
   AND (c.received_at, c.case_id) > ($4, $5)
 ORDER BY c.received_at, c.case_id
 LIMIT $6"""
POLICIES = """
SELECT version, document, settings, published_at
  FROM policy
 WHERE tenant_id = $1
 ORDER BY version"""
CALENDARS = """
SELECT name, spec, announced_through, moves_running, published_at
  FROM calendar
 WHERE tenant_id = $1
 ORDER BY name, revision"""

_timeline = msgspec.json.Decoder(list[Entry])


class Page(msgspec.Struct, frozen=True):
    """Cases in the order of their receipt, and the place of the last."""

    cases: list[History]
    last: tuple[datetime, UUID] | None


async def page(
    tx: Tx, tenant_id: UUID, since: datetime, until: datetime, after: tuple[datetime, UUID], limit: int
) -> Page:
    rows = await tx.fetch(PAGE, tenant_id, since, until, *after, limit)
    cases = [
        History(str(row["case_id"]), row["number"], row["policy_version"], _timeline.decode(row["timeline"] or "[]"))
        for row in rows
    ]
    return Page(cases, (rows[-1]["received_at"], rows[-1]["case_id"]) if len(rows) == limit else None)


async def policies(tx: Tx, tenant_id: UUID) -> list[dict[str, Any]]:
    return [dict(row) for row in await tx.fetch(POLICIES, tenant_id)]


async def calendars(tx: Tx, tenant_id: UUID) -> list[dict[str, Any]]:
    return [dict(row) for row in await tx.fetch(CALENDARS, tenant_id)]

"""Tables of complaints that are being stored, in chunks that any replica may take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from shared.database import Tx

ADD = """
INSERT INTO import (tenant_id, import_id, source_id, state, encoding, columns, targets, channel, silent, rows, refused,
                    created_by, done_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE $4 WHEN 'done' THEN clock_timestamp() END)"""

ADD_CHUNKS = """
INSERT INTO import_chunk (tenant_id, import_id, place, sealed)
SELECT $1, $2, place, sealed
  FROM unnest($3::int[], $4::bytea[]) AS c (place, sealed)"""

ADD_FAULTS = """
INSERT INTO import_fault (tenant_id, import_id, row, place, column_name, detail, suggestion)
SELECT $1, $2, row, place, column_name, detail, suggestion
  FROM unnest($3::int[], $4::int[], $5::text[], $6::text[], $7::text[])
       AS f (row, place, column_name, detail, suggestion)"""

# One chunk of each tenant that has any, so that a large table of one delays nobody else's.
TENANTS_WITH_WORK = """
SELECT DISTINCT tenant_id
  FROM import_chunk
 WHERE not_before <= clock_timestamp()"""

TAKE_CHUNK = """
SELECT import_id, place, attempts, sealed
  FROM import_chunk
 WHERE tenant_id = $1 AND not_before <= clock_timestamp()
 ORDER BY import_id, place
 LIMIT 1
   FOR UPDATE SKIP LOCKED"""

POSTPONE_CHUNK = """
UPDATE import_chunk
   SET attempts = attempts + 1, not_before = clock_timestamp() + $4 * interval '1 second'
 WHERE tenant_id = $1 AND import_id = $2 AND place = $3"""

END_CHUNK = """
DELETE FROM import_chunk
 WHERE tenant_id = $1 AND import_id = $2 AND place = $3"""

COUNT = """
UPDATE import
   SET stored = stored + $3, repeated = repeated + $4, refused = refused + $5
 WHERE tenant_id = $1 AND import_id = $2"""

END = """
UPDATE import
   SET state = 'done', done_at = clock_timestamp()
 WHERE tenant_id = $1 AND import_id = $2 AND state = 'running'
   AND NOT EXISTS (SELECT FROM import_chunk WHERE tenant_id = $1 AND import_id = $2)"""

FIND = """
SELECT import_id, source_id, state, encoding, columns, targets, channel, silent, rows, stored, repeated, refused,
       created_by, created_at, done_at
  FROM import
 WHERE tenant_id = $1 AND import_id = $2"""

FAULTS = """
SELECT row, column_name, detail, suggestion
  FROM import_fault
 WHERE tenant_id = $1 AND import_id = $2 AND row > $3
 ORDER BY row, place
 LIMIT $4"""


class ImportRow(Struct, frozen=True, kw_only=True):
    import_id: UUID
    source_id: UUID | None
    state: str
    encoding: str
    columns: list[str]
    targets: list[str]
    channel: str | None
    silent: bool
    rows: int
    stored: int
    repeated: int
    refused: int
    created_by: str
    created_at: datetime
    done_at: datetime | None


class Chunk(Struct, frozen=True):
    import_id: UUID
    place: int
    attempts: int
    sealed: bytes


class FaultRow(Struct, frozen=True):
    row: int
    column: str
    detail: str
    suggestion: str


async def add(
    tx: Tx,
    tenant_id: UUID,
    import_id: UUID,
    *,
    source_id: UUID | None,
    encoding: str,
    columns: Sequence[str],
    targets: Sequence[str],
    channel: str | None,
    silent: bool,
    rows: int,
    refused: int,
    created_by: str,
    chunks: Sequence[bytes],
) -> None:
    state = "running" if chunks else "done"
    await tx.execute(
        ADD,
        tenant_id,
        import_id,
        source_id,
        state,
        encoding,
        list(columns),
        list(targets),
        channel,
        silent,
        rows,
        refused,
        created_by,
    )
    await tx.execute(ADD_CHUNKS, tenant_id, import_id, list(range(len(chunks))), list(chunks))


async def add_faults(tx: Tx, tenant_id: UUID, import_id: UUID, faults: Sequence[FaultRow]) -> None:
    """Add what is wrong with rows; several faults of one row keep their order."""
    places: list[int] = []
    seen: dict[int, int] = {}
    for fault in faults:
        seen[fault.row] = seen.get(fault.row, -1) + 1
        places.append(seen[fault.row])
    await tx.execute(
        ADD_FAULTS,
        tenant_id,
        import_id,
        [fault.row for fault in faults],
        places,
        [fault.column for fault in faults],
        [fault.detail for fault in faults],
        [fault.suggestion for fault in faults],
    )


async def tenants_with_work(tx: Tx) -> list[UUID]:
    return [row["tenant_id"] for row in await tx.fetch(TENANTS_WITH_WORK)]


async def take_chunk(tx: Tx, tenant_id: UUID) -> Chunk | None:
    row = await tx.fetchrow(TAKE_CHUNK, tenant_id)
    return Chunk(*row) if row is not None else None


async def postpone_chunk(tx: Tx, tenant_id: UUID, chunk: Chunk, seconds: float) -> None:
    await tx.execute(POSTPONE_CHUNK, tenant_id, chunk.import_id, chunk.place, seconds)


async def end_chunk(tx: Tx, tenant_id: UUID, chunk: Chunk, stored: int, repeated: int, refused: int) -> None:
    """Count what became of a chunk's rows, and end the import with its last chunk."""
    await tx.execute(COUNT, tenant_id, chunk.import_id, stored, repeated, refused)
    await tx.execute(END_CHUNK, tenant_id, chunk.import_id, chunk.place)
    await tx.execute(END, tenant_id, chunk.import_id)


async def find(tx: Tx, tenant_id: UUID, import_id: UUID) -> ImportRow | None:
    row = await tx.fetchrow(FIND, tenant_id, import_id)
    return ImportRow(**dict(row)) if row is not None else None


async def faults(tx: Tx, tenant_id: UUID, import_id: UUID, after_row: int, limit: int) -> list[FaultRow]:
    """Return faults of the rows after `after_row`, in their order."""
    return [FaultRow(*row) for row in await tx.fetch(FAULTS, tenant_id, import_id, after_row, limit)]

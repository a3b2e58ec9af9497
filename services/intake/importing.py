"""Importing a table: read at once, stored chunk by chunk, each row once, a bad row told and the others stored."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import structlog
from msgspec import Struct

from services.intake.domain.complaint import Draft, Fault, NormalisedComplaint
from services.intake.domain.normalising import normalise
from services.intake.domain.table import Table, TableFault, column_of, decoded, read_table, row_draft
from services.intake.parts import parts_of, settings_of
from services.intake.refusals import QuotaError, TableInvalidError
from services.intake.repository import imports as rows
from services.intake.repository.imports import Chunk, FaultRow, ImportRow
from services.intake.storing import IdentityRaceError, Lot, Offer, Outcome, Stored, store
from services.intake.taking import current_policy
from shared.database import Tx, is_outage
from shared.engine.model import SYSTEM
from shared.engine.rules import CompiledPolicy
from shared.errors import DomainError, FieldError, UnavailableError
from shared.ids import derived_id, new_id
from shared.messages.base import LIVE
from shared.policy.schema import Policy
from shared.reference import Tenant
from shared.service import Runtime
from shared.telemetry import describe
from shared.time_source import now_in

CHUNK_COLUMN: Final = "import_chunk.sealed"
_ATTEMPTS: Final = 8
_BACK_OFF: Final = (0.2, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0)

Row = tuple[int, tuple[str, ...]]


class Read(Struct, frozen=True):
    """A table as it came, and what is wrong with rows that could not be read."""

    table: Table
    encoding: str
    faults: tuple[TableFault, ...]


def read(content: bytes, policy: Policy, columns: dict[str, str]) -> Read:
    """Return the table; TableInvalidError when its headings or its encoding cannot be used at all."""
    found = decoded(content)
    if found is None:
        raise TableInvalidError("The table is neither UTF-8 nor GB18030.")
    text, encoding = found
    table, faults = read_table(text, policy, columns)
    if table is None:
        raise TableInvalidError(
            "The table's headings cannot be used.",
            errors=[
                FieldError(f"/{fault.row}/{fault.column}", fault.detail, fault.suggestion or None) for fault in faults
            ],
        )
    return Read(table, encoding, faults)


async def begin(
    runtime: Runtime[Any],
    tx: Tx,
    read_: Read,
    *,
    source_id: UUID | None,
    channel: str | None,
    silent: bool,
    created_by: str,
) -> UUID:
    """Put a table into the database, to be stored row by row; return the import's id."""
    import_id = new_id()
    keys = await parts_of(runtime).vault.keys(tx)
    size = settings_of(runtime).import_rows
    table = read_.table
    chunks = [table.rows[start : start + size] for start in range(0, len(table.rows), size)]
    spoilt = {fault.row for fault in read_.faults}
    await rows.add(
        tx,
        tx.tenant_id,
        import_id,
        source_id=source_id,
        encoding=read_.encoding,
        columns=table.columns,
        targets=table.targets,
        channel=channel,
        silent=silent,
        rows=len(table.rows) + len(spoilt),
        refused=len(spoilt),
        created_by=created_by,
        chunks=[
            keys.seal(CHUNK_COLUMN, f"{import_id}/{place}", msgspec.msgpack.encode(chunk))
            for place, chunk in enumerate(chunks)
        ],
    )
    faults = [FaultRow(fault.row, fault.column, fault.detail, fault.suggestion) for fault in read_.faults]
    await rows.add_faults(tx, tx.tenant_id, import_id, faults)
    return import_id


class Imports:
    """The loop that stores what was imported: one chunk of each tenant in turn."""

    def __init__(self, runtime: Runtime[Any]) -> None:
        self._runtime = runtime

    async def step(self) -> float | None:
        async with self._runtime.db.worker_tx(LIVE) as tx:
            waiting = await rows.tenants_with_work(tx)
        for tenant_id in waiting:
            await self._one(tenant_id)
        return 0 if waiting else None

    async def _one(self, tenant_id: UUID) -> None:
        chunk: Chunk | None = None
        try:
            tenant = await self._runtime.reference.tenant(tenant_id)
            policy = await current_policy(self._runtime, tenant_id)
            parts_of(self._runtime).storing.set_apart(tenant_id)  # a chunk locks the tenant's counters for longer
            async with self._runtime.db.worker_tx(tenant_id) as tx:
                chunk = await rows.take_chunk(tx, tenant_id)
                if chunk is None:
                    return
                await self._store(tx, tenant, policy, chunk)
        except (UnavailableError, IdentityRaceError, asyncpg.DeadlockDetectedError):
            return  # the chunk is where it was
        except Exception as error:
            structlog.get_logger().warning("import_failed", tenant_id=tenant_id, **describe(error))
            if chunk is None or is_outage(error):
                return
            await self._put_off(tenant_id, chunk, error)

    async def _store(self, tx: Tx, tenant: Tenant, policy: CompiledPolicy, chunk: Chunk) -> None:
        found = await rows.find(tx, tenant.tenant_id, chunk.import_id)
        assert found is not None
        keys = await parts_of(self._runtime).vault.keys(tx)
        plain = keys.unseal(CHUNK_COLUMN, f"{chunk.import_id}/{chunk.place}", chunk.sealed)
        lines = msgspec.msgpack.decode(plain, type=list[Row])
        now = await now_in(tx)
        offers: list[Offer] = []
        places: list[int] = []
        faults: list[FaultRow] = []
        for number, cells in lines:
            taken = self._complaint(tenant, policy, found, cells, now)
            if isinstance(taken, NormalisedComplaint):
                offers.append(self._offer(tenant, policy, found, number, cells, taken))
                places.append(number)
            else:
                faults += [
                    FaultRow(
                        number,
                        column_of(tuple(found.targets), tuple(found.columns), fault) or fault.pointer,
                        fault.detail,
                        fault.suggestion,
                    )
                    for fault in taken
                ]
        spoilt = len({fault.row for fault in faults})
        outcomes: list[Outcome] = []
        if offers:
            lot = Lot(tenant=tenant, keys=keys, offers=offers, counts_today=not found.silent)
            [outcomes] = await store(tx, [lot])
        stored = repeated = 0
        for number, outcome in zip(places, outcomes, strict=True):
            if not isinstance(outcome, Stored):
                if outcome.retry_after_seconds is not None or outcome.slug == "policy-changed":
                    self._runtime.reference.forget(tenant.tenant_id)
                    raise UnavailableError("Another transaction has the row, or the policy has changed.")
                faults.append(FaultRow(number, "", outcome.detail or outcome.title, ""))
                spoilt += 1
            elif outcome.repeated:
                repeated += 1
            else:
                stored += 1
        await rows.add_faults(tx, tenant.tenant_id, chunk.import_id, faults)
        await rows.end_chunk(tx, tenant.tenant_id, chunk, stored, repeated, spoilt)

    def _complaint(
        self, tenant: Tenant, policy: CompiledPolicy, found: ImportRow, cells: tuple[str, ...], now: datetime
    ) -> NormalisedComplaint | tuple[Fault, ...]:
        draft = row_draft(tuple(found.targets), cells, tenant.zone)
        if not isinstance(draft, Draft):
            return draft
        return normalise(
            draft,
            policy.document,
            now,
            region=settings_of(self._runtime).phone_region,
            channel=found.channel,
            from_text=True,
        )

    def _offer(
        self,
        tenant: Tenant,
        policy: CompiledPolicy,
        found: ImportRow,
        number: int,
        cells: tuple[str, ...],
        complaint: NormalisedComplaint,
    ) -> Offer:
        """A row with the sender's own number is the same complaint in whatever table it comes again."""
        if complaint.reference is not None:
            key = f"row:{found.source_id or 'any'}:{hashlib.sha256(complaint.reference.encode()).hexdigest()}"
        else:
            key = f"row:{found.import_id}:{number}"
        return Offer(
            key=key,
            request_sha256=hashlib.sha256(msgspec.msgpack.encode(cells)).digest(),
            complaint=complaint,
            policy=policy,
            source="csv",
            source_id=found.source_id,
            by=SYSTEM,
            complaint_id=derived_id("import.row", tenant.tenant_id, key),
            silent=found.silent,
        )

    async def _put_off(self, tenant_id: UUID, chunk: Chunk, error: Exception) -> None:
        """Try the chunk again later; after the last attempt say of its rows that they were not stored."""
        async with self._runtime.db.worker_tx(tenant_id) as tx:
            passing = isinstance(error, QuotaError)
            if passing or chunk.attempts < _ATTEMPTS:
                seconds = 3600.0 if passing else _BACK_OFF[min(chunk.attempts, len(_BACK_OFF) - 1)]
                await rows.postpone_chunk(tx, tenant_id, chunk, seconds)
                return
            keys = await parts_of(self._runtime).vault.keys(tx)
            plain = keys.unseal(CHUNK_COLUMN, f"{chunk.import_id}/{chunk.place}", chunk.sealed)
            lines = msgspec.msgpack.decode(plain, type=list[Row])
            said = _said(error)
            await rows.add_faults(
                tx, tenant_id, chunk.import_id, [FaultRow(number, "", said, "") for number, _ in lines]
            )
            await rows.end_chunk(tx, tenant_id, chunk, 0, 0, len(lines))


def _said(error: Exception) -> str:
    if isinstance(error, DomainError):
        return error.detail or error.title
    return "the row could not be stored"

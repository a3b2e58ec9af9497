"""Imports: a table of complaints, and the report of what became of each row."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from msgspec import Struct, convert

from services.intake.domain.sources import SourceSettings
from services.intake.importing import begin, read
from services.intake.refusals import TableInvalidError
from services.intake.repository import imports as rows
from services.intake.repository import sources
from services.intake.repository.imports import ImportRow
from services.intake.taking import current_policy
from shared import idempotency
from shared.auth import Caller, requires
from shared.database import Tx
from shared.errors import FieldError, InvalidError, NotFoundError, UnsupportedMediaError
from shared.service import Runtime

_BODY: Final = 10 * 1_048_576
_MEDIA: Final = frozenset(("text/csv", "text/tab-separated-values", "text/plain"))
LOOP: Final = "imports"


class Import(Struct, frozen=True, kw_only=True):
    """How far an import is. `rows` = stored + repeated + refused once its `state` is done."""

    import_id: UUID
    state: str
    encoding: str
    rows: int
    stored: int
    repeated: int
    refused: int
    silent: bool
    created_at: datetime
    done_at: datetime | None


class RowFault(Struct, frozen=True, kw_only=True):
    """What is wrong with one row. `row` counts as a spreadsheet does: the headings are row 1."""

    row: int
    column: str
    detail: str
    suggestion: str | None


class ImportReport(Import, frozen=True, kw_only=True):
    errors: list[RowFault]
    next: int | None  # row after which the next page begins


@post(
    "/v1/imports",
    guards=[requires("admin", "supervisor", "integration")],
    status_code=202,
    request_max_body_size=_BODY,
    opt={"body_bytes": _BODY, "body": "text/csv"},
    operation_id="create_import",
)
async def create_import(
    request: Request[Any, Any, Any],
    caller: NamedDependency[Caller],
    runtime: NamedDependency[Runtime[Any]],
    source: Annotated[str | None, QueryParameter(max_length=63)] = None,
    channel: Annotated[str | None, QueryParameter(max_length=120)] = None,
    silent: Annotated[bool, QueryParameter()] = False,
) -> Response[bytes]:
    """Import a table (text/csv; UTF-8 with or without byte order mark, GB18030). Rows are stored in the background.

    `source` names a csv source with headings of its own; `channel` says how complaints came that do not say so
    themselves;
    `silent` is for the past: effects are recorded, and nobody is told.
    """
    if request.content_type[0] not in _MEDIA:
        raise UnsupportedMediaError("Send the table as text/csv.")
    content = await request.body()
    policy = await current_policy(runtime, caller.tenant_id)
    async with runtime.db.api_tx(caller.tenant_id) as tx:
        found = await sources.by_name(tx, tx.tenant_id, source) if source is not None else None
        if source is not None and (found is None or found.kind != "csv" or not found.active):
            raise InvalidError(errors=[FieldError("/query/source", "there is no such csv source")])
        settings = convert(found.settings, SourceSettings) if found is not None else SourceSettings()
        read_ = read(content, policy.document, settings.columns)
        if not read_.table.rows and not read_.faults:
            raise TableInvalidError("The table has no rows.")

        async def act() -> Import:
            import_id = await begin(
                runtime,
                tx,
                read_,
                source_id=found.source_id if found is not None else None,
                channel=channel or (found.channel if found is not None else None),
                silent=silent,
                created_by=caller.actor_id,
            )
            row = await rows.find(tx, tx.tenant_id, import_id)
            assert row is not None
            return Import(**_figures(row))

        answer = await idempotency.once(request, tx, act, status=202)
        tx.after_commit(lambda: runtime.wake(LOOP))
    return answer


@get(
    "/v1/imports/{import_id:uuid}",
    guards=[requires("admin", "supervisor", "integration", "auditor")],
    operation_id="get_import",
)
async def get_import(
    import_id: FromPath[UUID],
    tx: NamedDependency[Tx],
    after_row: Annotated[int, QueryParameter(ge=0, le=2**31 - 1)] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 200,
) -> ImportReport:
    """How far an import is, and what is wrong with which row and column. Cells are not repeated."""
    row = await rows.find(tx, tx.tenant_id, import_id)
    if row is None:
        raise NotFoundError()
    faults = await rows.faults(tx, tx.tenant_id, import_id, after_row, limit)
    return ImportReport(
        **_figures(row),
        errors=[
            RowFault(row=each.row, column=each.column, detail=each.detail, suggestion=each.suggestion or None)
            for each in faults
        ],
        next=faults[-1].row if len(faults) == limit else None,
    )


def _figures(row: ImportRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Import.__struct_fields__}


ROUTES: Final = (create_import, get_import)

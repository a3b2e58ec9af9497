"""What reporting reads from the environment."""

from __future__ import annotations

from shared.settings import ServiceSettings


class ReportingSettings(ServiceSettings, frozen=True, kw_only=True):
    """A field `export_rows` is RECOURSE_EXPORT_ROWS, or RECOURSE_REPORTING_EXPORT_ROWS."""

    fact_batch: int = 100  # cases whose facts are made in one transaction
    fact_idle_seconds: float = 1.0  # between two looks for facts that another replica has left
    fact_patience_seconds: float = (
        0.5  # by which a line's or a delivery's fact waits for what follows it; a standing's never waits
    )
    page_rows: int = 500  # facts read at once for reports and exports
    report_rows: int = 200_000  # most facts that one report may count
    export_rows: int = 100_000  # most lines of one export

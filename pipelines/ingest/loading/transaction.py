"""One import = one transaction: its rows, its quarantine and its record land together or not at all.

Refuses a connection inside somebody else's transaction: a commit there would not be the import's own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from infra.clock import Clock
from infra.time_zones import require_time_zones
from pipelines.ingest.errors import IngestError
from pipelines.ingest.loading import load
from pipelines.ingest.loading.quarantine import write_report
from pipelines.ingest.loading.report import ImportReport

Progress = Callable[[str, int, int], None]
"""Called as (what, done, total) while an import works."""


def no_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def importing(
    connection: psycopg.Connection[Any],
    *,
    kind: str,
    source: str,
    parameters: Mapping[str, Any],
    data_dir: Path,
    clock: Clock,
) -> Iterator[ImportReport]:
    """Open an import; on leaving, write its record and its quarantine report and commit, on an exception nothing."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        # Inside somebody's transaction the import would be theirs to commit, and its temporary tables would outlive it.
        raise IngestError("An import needs a connection without an open transaction; commit or roll back first.")
    require_time_zones()
    report = ImportReport(uuid.uuid4())
    started_at = clock.now()
    file = data_dir / "quarantine" / f"{report.import_id}.csv"
    try:
        with connection.transaction():
            load.begin(connection)
            yield report
            connection.execute(
                "INSERT INTO duet.imports (import_id, kind, source, parameters, people_rows, interaction_rows, "
                "quarantined_rows, started_at, finished_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    report.import_id,
                    kind,
                    source,
                    json.dumps(dict(parameters)),
                    report.people.landed,
                    report.interactions.landed,
                    report.n_quarantined,
                    started_at,
                    clock.now(),
                ),
            )
            if report.n_quarantined:
                write_report(connection, report.import_id, file)
                report.quarantine_file = file
    except BaseException:
        # The report of an import that never happened would mislead.
        file.unlink(missing_ok=True)
        raise

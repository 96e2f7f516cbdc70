"""Rows that broke the contract, kept with file, line and reason: a table for queries and a CSV for people.

What JSON in Postgres cannot hold (NaN, infinity, NUL) is kept as text, and very long text is cut.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from feature_repo.contract.faults import MALFORMED
from pipelines.ingest.files.reading import Malformed
from pipelines.ingest.loading.copying import copy_table

_TARGET = sql.Identifier("duet", "quarantine")
_LONGEST_TEXT = 10_000


class Quarantine:
    """Where one import puts the rows of one file that break the contract."""

    def __init__(self, connection: psycopg.Connection[Any], import_id: UUID, file: str, tally: Counter[str]) -> None:
        self._connection = connection
        self.import_id = import_id
        self.file = file
        self._tally = tally

    def add_rows(self, table: Any, rows: NDArray[Any], lines: NDArray[Any], reasons: Sequence[str]) -> None:
        """Keep the `rows` (positions) of a source table."""
        if len(rows):
            self._add(lines[rows].tolist(), reasons, [_as_json(row) for row in _picked(table, rows)])

    def add_malformed(self, malformed: Sequence[Malformed]) -> None:
        """Keep lines that do not have the header's columns."""
        if malformed:
            texts = [_as_json({"text": found.text}) for found in malformed]
            self._add([found.line for found in malformed], [MALFORMED] * len(malformed), texts)

    def take_staged(self) -> None:
        """Move what the database found wrong out of `staged_faults`."""
        tallied = self._connection.execute(
            "WITH moved AS (DELETE FROM staged_faults RETURNING line, reason, content), "
            "kept AS (INSERT INTO duet.quarantine (import_id, file, line, reason, row) "
            "SELECT %s, %s, line, reason, content FROM moved) "
            "SELECT reason, count(*) FROM moved GROUP BY reason",
            (self.import_id, self.file),
        )
        self._tally.update(dict(tallied.fetchall()))

    def _add(self, lines: Sequence[int], reasons: Sequence[str], rows: Sequence[str]) -> None:
        n_rows = len(lines)
        table = pa.table(
            {
                "import_id": pa.array([str(self.import_id)] * n_rows),
                "file": pa.array([self.file] * n_rows),
                "line": pa.array(lines, pa.int64()),
                "reason": pa.array(reasons),
                "row": pa.array(rows),
            }
        )
        copy_table(self._connection, _TARGET, table)
        self._tally.update(reasons)


def _picked(table: Any, rows: NDArray[Any]) -> list[dict[str, Any]]:
    """Return some rows as they are; where one type cannot be picked or shown, that column is shown as text."""
    columns: dict[str, list[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            columns[name] = column.take(pa.array(rows)).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError):
            columns[name] = [_shown(column[int(row)]) for row in rows]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _shown(scalar: Any) -> Any:
    for show in (scalar.as_py, lambda: scalar.as_buffer().to_pybytes(), lambda: scalar.value):
        try:
            return show()
        except (AttributeError, ValueError, OverflowError):  # text that is no UTF-8, or a time outside of all calendars
            continue
    return f"a value of type {scalar.type} that cannot be shown"


def _as_json(row: dict[str, Any]) -> str:
    return json.dumps({_storable(name): _storable(value) for name, value in row.items()}, ensure_ascii=False)


def _storable(value: Any) -> Any:
    """Make a value something that jsonb accepts: it knows no NaN, no infinity and no NUL character."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {_storable(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return text[:_LONGEST_TEXT].replace("\x00", "\\x00")


def write_report(connection: psycopg.Connection[Any], import_id: UUID, path: Path) -> None:
    """Write the quarantined rows of one import as CSV; an old file of that name is replaced in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    query = sql.SQL(
        "COPY (SELECT file, line, reason, row FROM duet.quarantine WHERE import_id = {} "
        "ORDER BY file, line, quarantine_id) TO STDOUT (FORMAT csv, HEADER)"
    ).format(sql.Literal(str(import_id)))
    with partial.open("wb") as file, connection.cursor() as cursor, cursor.copy(query) as copy:
        for block in copy:
            file.write(block)
    partial.replace(path)

"""Import people and interactions from CSV or Parquet files of any size, in bounded memory and one transaction.

A file that is not what it claims to be is refused before anything is written; a row that breaks the contract is
quarantined and the others land. The same files again change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any

import psycopg

from feature_repo.contract.identities import LARGEST_EXACT
from infra.clock import Clock
from pipelines.ingest.columns.attributes import NumericColumns
from pipelines.ingest.columns.cleaning import clean_interactions, clean_people
from pipelines.ingest.columns.identities import people_in
from pipelines.ingest.columns.mapping import ColumnSource, Mapping
from pipelines.ingest.columns.resolution import close_to, left_over, resolve
from pipelines.ingest.errors import IngestError, RefusedFile
from pipelines.ingest.files.counting import IdCount, TimeCount
from pipelines.ingest.files.opening import open_source
from pipelines.ingest.files.parquet_types import check_types
from pipelines.ingest.files.reading import SourceFile
from pipelines.ingest.loading import load
from pipelines.ingest.loading.frames import PEOPLE
from pipelines.ingest.loading.quarantine import Quarantine
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.loading.transaction import Progress, importing, no_progress
from pipelines.ingest.messages import Contacts


def import_tables(
    connection: psycopg.Connection[Any],
    *,
    people: Path | None,
    interactions: Path | None,
    data_dir: Path,
    clock: Clock,
    mapping: Mapping | None = None,
    encoding: str | None = None,
    progress: Progress = no_progress,
) -> ImportReport:
    """Import either file or both; people first, so that interactions may name them.

    Raises:
        RefusedFile: a file is not what it claims to be or lacks a required column; nothing is written.
        RefusedMapping: the mapping does not fit the files; nothing is written.
    """
    if people is None and interactions is None:
        raise IngestError("There is nothing to import: give `--people`, `--interactions` or both.")
    mapping = mapping or Mapping()
    # Both files are opened, and so refused, before anything is staged.
    people_file = None if people is None else _PeopleFile(people, mapping, encoding)
    interactions_file = None if interactions is None else _InteractionsFile(interactions, mapping, encoding)
    source = ", ".join(path.name for path in (people, interactions) if path is not None)
    parameters = {
        "people": None if people is None else str(people),
        "interactions": None if interactions is None else str(interactions),
        "mapping": mapping.model_dump(mode="json", exclude_defaults=True),
    }
    with importing(
        connection, kind="tables", source=source, parameters=parameters, data_dir=data_dir, clock=clock
    ) as report:
        if people_file is not None:
            people_file.load(connection, report, clock, progress)
        if interactions_file is not None:
            interactions_file.load(connection, report, clock, progress)
    return report


class _PeopleFile:
    def __init__(self, path: Path, mapping: Mapping, encoding: str | None) -> None:
        self._file = _open(path, mapping, encoding)
        resolved = resolve(mapping.people, self._file.header, path)
        self._origins, self._extras = resolved.origins, resolved.left
        self._null_values = mapping.null_values
        self._notes = left_over(resolved, mapping.people, path)
        _require(self._origins, ("user_id",), self._file)

    def load(self, connection: psycopg.Connection[Any], report: ImportReport, clock: Clock, progress: Progress) -> None:
        counts, numeric, now = report.people, NumericColumns(), clock.now()
        times, ids = TimeCount(), IdCount()
        known = people_in(connection)
        quarantine = Quarantine(connection, report.import_id, self._file.path.name, counts.quarantined)
        for batch in self._file.batches():
            counts.read += batch.rows.num_rows + len(batch.malformed)
            quarantine.add_malformed(batch.malformed)
            cleaned = clean_people(
                batch.rows,
                batch.lines,
                self._origins,
                self._extras,
                now=now,
                numeric=numeric,
                known=known,
                times=times,
                null_values=self._null_values,
                ids=ids,
            )
            quarantine.add_rows(batch.rows, cleaned.bad, batch.lines, cleaned.reasons)
            load.stage_people(connection, cleaned.good)
            progress("people", self._file.position, self._file.size)
        columns = [name for name in PEOPLE.names if name in self._origins or name == "attributes"]
        progress("merging people", 0, 1)
        load.merge_people(connection, columns, now, counts)
        progress("merging people", 1, 1)
        quarantine.take_staged()
        report.notes += [*self._notes, *times.notes(), *ids.notes()]
        if load.largest_id(connection) > LARGEST_EXACT:
            report.notes.append(
                "Ids beyond 2^53 are there: JavaScript clients must read them as BigInt, because JSON rounds them; "
                "with `hash: true` new ids stay below."
            )
        without = load.claim_slots(connection, numeric.names())
        if without:
            report.notes.append(
                f"All 24 feature slots are taken: {', '.join(f'`{name}`' for name in without)} "
                "are kept as attributes but are no features."
            )


class _InteractionsFile:
    def __init__(self, path: Path, mapping: Mapping, encoding: str | None) -> None:
        self._file = _open(path, mapping, encoding)
        resolved = resolve(mapping.interactions, self._file.header, path)
        self._origins, self._rating = resolved.origins, resolved.rating
        self._null_values = mapping.null_values
        self._notes = left_over(resolved, mapping.interactions, path)
        decision = "kind" if self._rating is None else "rating"
        rated = {} if self._rating is None else {"rating": ColumnSource(column=self._rating.column)}
        _require({**self._origins, **rated}, ("actor_id", "target_id", decision, "occurred_at"), self._file)

    def load(self, connection: psycopg.Connection[Any], report: ImportReport, clock: Clock, progress: Progress) -> None:
        counts, times, ids, now = report.interactions, TimeCount(), IdCount(), clock.now()
        known = people_in(connection)
        quarantine = Quarantine(connection, report.import_id, self._file.path.name, counts.quarantined)
        for batch in self._file.batches():
            counts.read += batch.rows.num_rows + len(batch.malformed)
            quarantine.add_malformed(batch.malformed)
            cleaned = clean_interactions(
                batch.rows,
                batch.lines,
                self._origins,
                self._rating,
                now=now,
                known=known,
                times=times,
                null_values=self._null_values,
                ids=ids,
            )
            quarantine.add_rows(batch.rows, cleaned.bad, batch.lines, cleaned.reasons)
            load.stage_interactions(connection, cleaned.good)
            progress("interactions", self._file.position, self._file.size)
        progress("merging interactions", 0, 1)
        load.merge_interactions(connection, counts)
        progress("merging interactions", 1, 1)
        quarantine.take_staged()
        report.notes += [*self._notes, *times.notes(), *ids.notes()]
        if advice := Contacts.staged(connection, "staged_interactions").advice():
            report.notes.append(advice)


def _open(path: Path, mapping: Mapping, encoding: str | None) -> SourceFile:
    return open_source(
        path,
        encoding=encoding or mapping.encoding,
        delimiter=mapping.delimiter,
        quote=mapping.quote,
    )


def _require(origins: MappingType[str, ColumnSource], names: tuple[str, ...], file: SourceFile) -> None:
    path, taken = file.path, {source.column for source in origins.values()}
    for name in names:
        if name not in origins:
            close = [column for column in file.header if column not in taken and close_to(column, [name])]
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise RefusedFile(
                f"`{path.name}` has no column `{name}`; rename the column that holds it, or map it with `--mapping`."
                + hint
            )
    check_types(origins, file.types, path.name)

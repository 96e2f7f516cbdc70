"""Read an opened CSV or Parquet file as a stream of batches with line numbers, in bounded memory.

A single bad line never refuses the file; it comes out as `Malformed`. A quoted value that holds what looks like other
rows does, because those rows would be lost without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files.parquet_types import plain
from pipelines.ingest.files.swallowing import refuse_swallowed

BLOCK_BYTES = 8 << 20
_BATCH_ROWS = 131_072


@dataclass(frozen=True)
class Malformed:
    """A line whose number of columns is not the header's, or in which a quote is closed too early."""

    line: int
    text: str


@dataclass(frozen=True)
class Batch:
    """Some rows of a file; `lines` are 1-based physical lines (CSV) or rows (Parquet)."""

    rows: Any
    lines: NDArray[np.int64]
    malformed: list[Malformed] = field(default_factory=list)


@dataclass
class SourceFile:
    """An opened table; `position` of `size` says how far reading has come.

    `spelt` are the column names as the file has them, `types` those of Parquet columns, `bad_lines` rows with a stray
    quote, and `may_hold_rows` is what the mapping says of values that look like rows.
    """

    path: Path
    header: list[str]
    size: int
    position: int = 0
    encoding: str = "utf-8"
    delimiter: str = ","
    is_parquet: bool = False
    quotes: bool = True
    may_hold_rows: bool = False
    spelt: list[str] = field(default_factory=list)
    types: dict[str, Any] = field(default_factory=dict)
    bad_lines: dict[int, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Yield all rows in file order; raises RefusedFile when the file turns out unreadable."""
        try:
            yield from self._parquet_batches() if self.is_parquet else self._csv_batches()
        except (pa.ArrowInvalid, UnicodeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise RefusedFile(f"`{self.path.name}` cannot be read as {self._kind()}: {reason}") from error

    def _kind(self) -> str:
        return "Parquet" if self.is_parquet else f"CSV in {self.encoding}"

    def _parquet_batches(self) -> Iterator[Batch]:
        with open_parquet(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                lines = np.arange(self.position + 1, self.position + 1 + batch.num_rows, dtype=np.int64)
                self.position += batch.num_rows
                yield Batch(pa.table([plain(column) for column in batch.columns], names=self.header), lines)

    def _csv_batches(self) -> Iterator[Batch]:
        skipped: list[tuple[int, str]] = []

        def skip(row: Any) -> str:
            skipped.append((row.number, row.text))
            return "skip"

        with self.path.open("rb") as raw:
            reader = pcsv.open_csv(
                raw,
                read_options=pcsv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, encoding=self.encoding),
                parse_options=pcsv.ParseOptions(
                    delimiter=self.delimiter,
                    quote_char='"' if self.quotes else False,
                    newlines_in_values=self.quotes,
                    ignore_empty_lines=False,
                    invalid_row_handler=skip,
                ),
                convert_options=pcsv.ConvertOptions(
                    column_types=dict.fromkeys(self.spelt, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                    check_utf8=False,
                ),
            )
            # Row 1 is the header. A row spans one line more for each line break inside its quotes.
            counter = _LineCounter(next_row=2, next_line=2 + sum(name.count("\n") for name in self.spelt))
            for rows in reader:
                self.position = min(raw.tell(), self.size)
                batch = counter.number(pa.table(rows.columns, names=self.header), skipped)
                if self.quotes and not self.may_hold_rows:
                    refuse_swallowed(self.path.name, batch.rows, batch.lines, self.delimiter)
                batch = self._without_bad_lines(batch)
                if batch.rows.num_rows or batch.malformed:
                    yield batch
            rest = [counter.take(skipped) for _ in range(len(skipped))]
            if rest:
                yield Batch(_no_rows(self.header), np.zeros(0, dtype=np.int64), rest)
        self.position = self.size

    def _without_bad_lines(self, batch: Batch) -> Batch:
        """Move the rows in which a quote is closed too early to the malformed ones."""
        if not self.bad_lines or not batch.rows.num_rows:
            return batch
        bad = np.isin(batch.lines, np.fromiter(self.bad_lines, dtype=np.int64))
        if not bad.any():
            return batch
        found = [Malformed(int(line), self.bad_lines[int(line)]) for line in batch.lines[bad]]
        return Batch(batch.rows.filter(pa.array(~bad)), batch.lines[~bad], [*batch.malformed, *found])


@dataclass
class _LineCounter:
    next_row: int
    next_line: int

    def number(self, rows: Any, skipped: list[tuple[int, str]]) -> Batch:
        """Give each row its physical line; wholly empty lines are left out."""
        n_rows = rows.num_rows
        breaks = np.zeros(n_rows, dtype=np.int64)
        empty = np.ones(n_rows, dtype=bool)
        for column in rows.columns:
            counted = pc.fill_null(pc.count_substring(column, "\n"), 0)
            breaks += np.asarray(counted.to_numpy(), dtype=np.int64)
            empty &= np.asarray(column.is_null().to_numpy(), dtype=bool)
        lines = np.empty(n_rows, dtype=np.int64)
        malformed: list[Malformed] = []
        done = 0
        while done < n_rows:
            # The good rows up to the next malformed one stand without a gap.
            until = n_rows if not skipped else min(n_rows, done + skipped[0][0] - self.next_row)
            run = breaks[done:until]
            lines[done:until] = self.next_line + np.arange(until - done) + np.cumsum(run) - run
            self.next_line += until - done + int(run.sum())
            self.next_row += until - done
            done = until
            if skipped and skipped[0][0] == self.next_row and done < n_rows:
                malformed.append(self.take(skipped))
        while skipped and skipped[0][0] == self.next_row:
            malformed.append(self.take(skipped))
        if empty.any():
            rows = rows.filter(pa.array(~empty))
            lines = lines[~empty]
        return Batch(rows, lines, malformed)

    def take(self, skipped: list[tuple[int, str]]) -> Malformed:
        """Take the first skipped row, which is the next row of the file, off the list."""
        _, text = skipped.pop(0)
        taken = Malformed(self.next_line, text)
        self.next_line += 1 + text.count("\n")
        self.next_row += 1
        return taken


def open_parquet(path: Path) -> Any:
    """Open a Parquet file; old timestamps are counted in microseconds, because nanoseconds wrap around after 2262."""
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us")


def _no_rows(header: Sequence[str]) -> Any:
    return pa.table({name: pa.array([], pa.string()) for name in header})

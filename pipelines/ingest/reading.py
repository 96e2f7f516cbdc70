"""Open a CSV or Parquet file as a stream of batches with line numbers, in bounded memory.

A file that is not what it claims to be is refused before the first row: binary data called CSV, CSV called Parquet,
nothing but a header, a column named twice, bytes that are not the declared encoding. A single bad line never refuses
the file; it comes out as `Malformed`.
"""

from __future__ import annotations

import codecs
import csv
import io
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

_BLOCK_BYTES = 8 << 20
_BATCH_ROWS = 131_072
_SNIFF_BYTES = 64 << 10
_MAGIC = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\x1f\x8b": "gzip",
    b"%PDF": "a PDF",
    b"\x89PNG": "an image",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ARROW1": "Arrow IPC",
}


@dataclass(frozen=True)
class Malformed:
    """A line whose number of columns is not the header's."""

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
    """An opened table; `position` of `size` says how far reading has come."""

    path: Path
    header: list[str]
    size: int
    position: int = 0
    encoding: str = "utf-8"
    delimiter: str = ","
    is_parquet: bool = False
    null_values: Sequence[str] = ()
    has_odd_quotes: bool = False

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
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                lines = np.arange(self.position + 1, self.position + 1 + batch.num_rows, dtype=np.int64)
                self.position += batch.num_rows
                yield Batch(pa.table(batch), lines)

    def _csv_batches(self) -> Iterator[Batch]:
        skipped: list[tuple[int, str]] = []

        def skip(row: Any) -> str:
            skipped.append((row.number, row.text))
            return "skip"

        with self.path.open("rb") as raw:
            reader = pcsv.open_csv(
                raw,
                read_options=pcsv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES, encoding=self.encoding),
                parse_options=pcsv.ParseOptions(
                    delimiter=self.delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=False,
                    invalid_row_handler=skip,
                ),
                convert_options=pcsv.ConvertOptions(
                    column_types=dict.fromkeys(self.header, pa.string()),
                    null_values=["", *self.null_values],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=True,
                    check_utf8=False,
                ),
            )
            # Row 1 is the header. A row spans one line more for each line break inside its quotes.
            counter = _LineCounter(next_row=2, next_line=2)
            for rows in reader:
                self.position = min(raw.tell(), self.size)
                batch = counter.number(pa.table(rows), skipped)
                if batch.rows.num_rows or batch.malformed:
                    yield batch
            rest = [counter.take(skipped) for _ in range(len(skipped))]
            if rest:
                yield Batch(_no_rows(self.header), np.zeros(0, dtype=np.int64), rest)
            if self.has_odd_quotes and counter.last_breaks:
                # The parser lets an open quote swallow the rest of the file; those rows must not vanish unseen.
                line = counter.next_line - 1 - counter.last_breaks
                raise RefusedFile(f"`{self.path.name}` opens a quote in line {line} that is never closed.")
        self.position = self.size


@dataclass
class _LineCounter:
    next_row: int
    next_line: int
    last_breaks: int = 0

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
            self.last_breaks = int(run[-1]) if len(run) else self.last_breaks
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
        self.last_breaks = text.count("\n")
        self.next_line += 1 + self.last_breaks
        self.next_row += 1
        return taken


def _no_rows(header: Sequence[str]) -> Any:
    return pa.table({name: pa.array([], pa.string()) for name in header})


def open_source(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    null_values: Sequence[str] = (),
) -> SourceFile:
    """Open `path` as Parquet (by its name) or CSV; raises RefusedFile when it is neither, or has no rows."""
    if not path.is_file():
        raise RefusedFile(f"There is no file `{path}`.")
    with path.open("rb") as file:
        head = file.read(_SNIFF_BYTES)
    if not head.strip():
        raise RefusedFile(f"`{path.name}` is empty.")
    if path.suffix.lower() in {".parquet", ".pq"}:
        return _open_parquet(path, head)
    return _open_csv(path, head, encoding, delimiter, null_values)


def _open_parquet(path: Path, head: bytes) -> SourceFile:
    if not head.startswith(b"PAR1"):
        raise RefusedFile(f"`{path.name}` is called Parquet but is not; rename it if it is CSV.")
    try:
        with pq.ParquetFile(path) as file:
            header, n_rows = list(file.schema_arrow.names), file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise RefusedFile(f"`{path.name}` is damaged Parquet: {' '.join(str(error).split())}") from error
    _check_header(path, header)
    if n_rows == 0:
        raise RefusedFile(f"`{path.name}` has columns but no rows.")
    return SourceFile(path, header, size=n_rows, is_parquet=True)


def _open_csv(
    path: Path, head: bytes, encoding: str | None, delimiter: str | None, null_values: Sequence[str]
) -> SourceFile:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise RefusedFile(f"`{path.name}` is {name}, not CSV; export it as CSV or Parquet.")
    declared = encoding is not None
    encoding = _encoding(head, encoding)
    has_odd_quotes = _check_text(path, encoding, is_declared=declared)
    text = codecs.getincrementaldecoder(encoding)(errors="ignore").decode(head).removeprefix("\ufeff")
    n_control = sum(1 for character in text if character < " " and character not in "\t\r\n\f")
    if n_control > max(1, len(text)) * 0.01 + 2:
        raise RefusedFile(f"`{path.name}` holds binary data, not CSV.")
    delimiter = delimiter or _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = next(reader)
        has_rows = next(reader, None) is not None or path.stat().st_size > _SNIFF_BYTES
    except (csv.Error, StopIteration) as error:
        raise RefusedFile(f"`{path.name}` does not start with a line of column names.") from error
    _check_header(path, header)
    if not has_rows:
        raise RefusedFile(f"`{path.name}` has column names but no rows.")
    size = path.stat().st_size
    return SourceFile(
        path,
        header,
        size,
        encoding=encoding,
        delimiter=delimiter,
        null_values=null_values,
        has_odd_quotes=has_odd_quotes,
    )


def _check_header(path: Path, header: Sequence[str]) -> None:
    for name in header:
        if not name.strip():
            raise RefusedFile(f"`{path.name}` has a column without a name; name every column in its first line.")
        if header.count(name) > 1:
            raise RefusedFile(f"`{path.name}` has more than one column called `{name}`.")


def _encoding(head: bytes, declared: str | None) -> str:
    if declared is not None:
        try:
            return codecs.lookup(declared).name
        except LookupError as error:
            raise RefusedFile(f"`{declared}` is not an encoding; give e.g. `utf-8` or `latin-1`.") from error
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _check_text(path: Path, encoding: str, *, is_declared: bool) -> bool:
    """Decode the whole file once; return whether its number of double quotes is odd."""
    decoder = codecs.getincrementaldecoder(encoding)()
    n_bytes = n_quotes = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            try:
                n_quotes += decoder.decode(block, final=len(block) < _BLOCK_BYTES).count('"')
            except UnicodeDecodeError as error:
                hint = "" if is_declared else "; if it is an older export, pass `--encoding latin-1`"
                raise RefusedFile(f"`{path.name}` is not {encoding} at byte {n_bytes + error.start}{hint}.") from error
            n_bytes += len(block)
    return n_quotes % 2 == 1


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max((",", ";", "\t", "|"), key=first.count)

"""Open a CSV or Parquet file, and refuse before the first row what is not what it claims to be.

That is binary data called CSV, CSV called Parquet, nothing but a header, a column named twice, bytes that are not the
declared encoding, a quote that would swallow rows. Column names lose their outer blanks.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.ingest.errors import RefusedFile
from pipelines.ingest.files import reading
from pipelines.ingest.files.quoting import QuoteScan
from pipelines.ingest.files.reading import SourceFile

_SNIFF_BYTES = 64 << 10
_MAGIC = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"%PDF": "a PDF",
    b"\x89PNG": "an image",
    b"SQLite format 3": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ARROW1": "Arrow IPC",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
}
_TEXT_MAGIC = {
    "{": "JSON",
    "[{": "JSON",
    "[[": "JSON",
    "<?xml": "XML",
    "<!DOCTYPE": "a web page",
    "<html": "a web page",
}
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
_PARQUET = (".parquet", ".pq")
_BLANK = "\ufeff\u200b \t\r\n\xa0"


def open_source(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
) -> SourceFile:
    """Open `path` as Parquet (by its name) or CSV; raises RefusedFile when it is neither, or has no rows."""
    head = _head(path)
    if path.suffix.lower() in _PARQUET:
        return _open_parquet(path, head)
    return _open_csv(path, head, encoding, delimiter, quote=quote)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise RefusedFile(f"`{path}` is a folder; give one file, with all rows in it.")
        if path.exists() and not path.is_file():
            raise RefusedFile(f"`{path}` is a pipe or a device, and an import reads its file twice; save it first.")
        if not path.is_file():
            raise RefusedFile(f"There is no file `{path}`.")
        with path.open("rb") as file:
            head = file.read(_SNIFF_BYTES)
    except OSError as error:
        raise RefusedFile(f"`{path}` cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a name with a NUL character
        raise RefusedFile(f"{str(path)!r} is not the name of a file.") from error
    if not head.strip():
        raise RefusedFile(f"`{path.name}` is empty.")
    return head


def _open_parquet(path: Path, head: bytes) -> SourceFile:
    if not head.startswith(b"PAR1"):
        raise RefusedFile(f"`{path.name}` is called Parquet but is not; rename it if it is CSV.")
    try:
        with reading.open_parquet(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise RefusedFile(f"`{path.name}` is damaged Parquet: {' '.join(str(error).split())}") from error
    header = _checked_header(path, list(schema.names))
    if n_rows == 0:
        raise RefusedFile(f"`{path.name}` has columns but no rows.")
    types = dict(zip(header, schema.types, strict=True))
    return SourceFile(path, header, size=n_rows, is_parquet=True, types=types)


def _open_csv(
    path: Path,
    head: bytes,
    encoding: str | None,
    delimiter: str | None,
    *,
    quote: str | None,
) -> SourceFile:
    declared = encoding is not None
    encoding = _encoding(head, encoding)
    text = _decoded(head, encoding)
    _refuse_other_formats(path, head, text)
    n_control = sum(1 for character in text if character < " " and character not in "\t\r\n\f")
    is_binary = n_control > max(1, len(text)) * 0.01 + 2
    delimiter = delimiter or _delimiter(text)
    quotes = quote != "none"
    scan = QuoteScan(path.name, delimiter, reading.BLOCK_BYTES) if quotes and not is_binary else None
    _check_text(path, encoding, scan, is_declared=declared)
    if is_binary:
        raise RefusedFile(f"`{path.name}` holds binary data, not CSV.")
    spelt, has_rows = _first_row(path, head, encoding, delimiter, quotes=quotes)
    header = _checked_header(path, spelt)
    if not has_rows:
        raise RefusedFile(f"`{path.name}` has column names but no rows.")
    return SourceFile(
        path,
        header,
        path.stat().st_size,
        encoding=encoding,
        delimiter=delimiter,
        quotes=quotes,
        may_hold_rows=quote == "double",
        spelt=spelt,
        bad_lines={} if scan is None else scan.bad_lines,
    )


def _decoded(head: bytes, encoding: str) -> str:
    return codecs.getincrementaldecoder(encoding)(errors="ignore").decode(head).removeprefix("\ufeff")


def _first_row(path: Path, head: bytes, encoding: str, delimiter: str, *, quotes: bool) -> tuple[list[str], bool]:
    """Return the first row, reading on until it is whole, and whether the file goes on behind it."""
    size, limit = path.stat().st_size, max(reading.BLOCK_BYTES, len(head))
    while True:
        lines = io.StringIO(_decoded(head, encoding), newline="")
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
        try:
            spelt = next(reader)
        except (csv.Error, StopIteration) as error:
            raise RefusedFile(f"`{path.name}` does not start with a line of column names.") from error
        goes_on = lines.read(1) != ""
        if goes_on or len(head) >= size:
            return spelt, goes_on
        if len(head) >= limit:
            raise RefusedFile(
                f"The first line of `{path.name}` is longer than {limit:,} bytes; it should hold the column names only."
            )
        with path.open("rb") as file:
            head = file.read(min(2 * len(head), limit))


def _refuse_other_formats(path: Path, head: bytes, text: str) -> None:
    if head.startswith(b"PAR1"):
        raise RefusedFile(f"`{path.name}` is Parquet, not CSV; rename it to `{path.with_suffix('.parquet').name}`.")
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise RefusedFile(f"`{path.name}` is packed with {name}; unpack it first.")
    start = "".join(text.split())
    found = [name for magic, name in _MAGIC.items() if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(magic)]
    for name in found or [name for magic, name in _TEXT_MAGIC.items() if start.startswith(magic)]:
        raise RefusedFile(f"`{path.name}` is {name}, not CSV; export it as CSV or Parquet.")


def _checked_header(path: Path, spelt: Sequence[str]) -> list[str]:
    """Return the column names without outer blanks; raises RefusedFile for those that cannot be told apart."""
    header = [name.strip(_BLANK) for name in spelt]
    seen: set[str] = set()
    for name in header:
        if not name:
            raise RefusedFile(f"`{path.name}` has a column without a name; name every column in its first line.")
        if "\x00" in name:
            raise RefusedFile(f"`{path.name}` has a column name with a NUL character: {name!r}.")
        if name in seen:
            raise RefusedFile(f"`{path.name}` has more than one column called `{name}`.")
        seen.add(name)
    return header


def _encoding(head: bytes, declared: str | None) -> str:
    if declared is not None:
        try:
            "a".encode(declared)  # knows encodings of text only
            return codecs.lookup(declared).name
        except (LookupError, UnicodeError, ValueError) as error:
            raise RefusedFile(f"`{declared}` is not an encoding; give e.g. `utf-8` or `latin-1`.") from error
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _check_text(path: Path, encoding: str, scan: QuoteScan | None, *, is_declared: bool) -> None:
    """Decode the whole file once, and look at its quotes where it has any."""
    decoder = codecs.getincrementaldecoder(encoding)()
    n_bytes = 0
    with path.open("rb") as file:
        while block := file.read(reading.BLOCK_BYTES):
            try:
                text = decoder.decode(block, final=len(block) < reading.BLOCK_BYTES)
            except UnicodeDecodeError as error:
                if is_declared:
                    hint = ""
                elif encoding == "utf-16":
                    hint = "; it begins as UTF-16 does, so it was cut off or damaged: export it again"
                else:
                    hint = "; if it is an older export, pass `--encoding latin-1`"
                raise RefusedFile(f"`{path.name}` is not {encoding} at byte {n_bytes + error.start}{hint}.") from error
            if scan is not None:
                scan.feed(text if n_bytes else text.removeprefix("\ufeff"))
            n_bytes += len(block)
    if scan is not None:
        scan.close()


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max((",", ";", "\t", "|"), key=first.count)

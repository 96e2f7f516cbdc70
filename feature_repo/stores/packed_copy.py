"""Rows of real columns in and out of PostgreSQL by binary COPY, as numpy records.

Rows without nulls have a fixed size on the wire, so a block of them is decoded by one view of its bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from feature_repo.errors import MalformedFeatures

SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
MICROS_1970_TO_2000 = 946_684_800_000_000
BLOCK_ROWS = 20_000
SCALARS = {"int4": ">i4", "int8": ">i8", "timestamptz": ">i8", "bool": "?"}

Records = NDArray[np.void]


def scalar(name: str, kind: str) -> list[tuple[str, str]]:
    """Return the record fields of a scalar column that is never null."""
    return [(f"{name}:size", ">i4"), (name, SCALARS[kind])]


def reals(name: str, n: int) -> list[tuple[Any, ...]]:
    """Return the record fields of `n` adjacent real columns without nulls."""
    return [(name, [("size", ">i4"), ("value", ">f4")], (n,))]


def record(*columns: Sequence[tuple[Any, ...]]) -> np.dtype[np.void]:
    """Return the type of one COPY row."""
    return np.dtype([("n_fields", ">i2"), *(field for column in columns for field in column)])


def values_of(records: Records, name: str) -> NDArray[np.float32]:
    """Return adjacent real columns as float32[n, width]."""
    return np.asarray(records[name]["value"], dtype=np.float32)


def micros_of(records: Records, name: str) -> NDArray[np.int64]:
    """Return a timestamptz column as microseconds since 1970, int64[n]."""
    return np.asarray(records[name], dtype=np.int64) + MICROS_1970_TO_2000


def copy_in(cursor: psycopg.Cursor[Any], statement: sql.Composed, records: Records) -> None:
    """Send records to `copy ... from stdin (format binary)`."""
    with cursor.copy(statement) as copy:
        copy.write(SIGNATURE)
        for start in range(0, len(records), BLOCK_ROWS):
            copy.write(records[start : start + BLOCK_ROWS].tobytes())
        copy.write(TRAILER)


def entity_records(keys: Sequence[NDArray[np.int64]], micros: NDArray[np.int64]) -> Records:
    """Return records (row int4, keys int8 each, at timestamptz) for a temporary entity table."""
    names = [f"key_{position}" for position in range(len(keys))]
    kind = record(scalar("row", "int4"), *(scalar(name, "int8") for name in names), scalar("at", "timestamptz"))
    records = np.zeros(len(micros), dtype=kind)
    records["n_fields"] = len(keys) + 2
    records["row:size"] = 4
    records["row"] = np.arange(len(micros))
    for name, key in zip(names, keys, strict=True):
        records[f"{name}:size"] = 8
        records[name] = key
    records["at:size"] = 8
    records["at"] = micros - MICROS_1970_TO_2000
    return records


def copy_out(
    cursor: psycopg.Cursor[Any], query: sql.Composed, kind: np.dtype[np.void], block_rows: int = BLOCK_ROWS
) -> Iterator[Records]:
    """Yield the rows of `query` as records of `kind`, a block at a time; raises MalformedFeatures."""
    statement = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    with cursor.copy(statement) as copy:
        parts: list[bytes] = []
        for part in copy:
            parts.append(bytes(part))
            if len(parts) >= block_rows:
                yield from _decoded(parts, kind)
                parts = []
        yield from _decoded(parts, kind)


def _decoded(parts: list[bytes], kind: np.dtype[np.void]) -> Iterator[Records]:
    raw = b"".join(parts).removeprefix(SIGNATURE)
    if len(raw) % kind.itemsize == len(TRAILER):
        raw = raw.removesuffix(TRAILER)
    n, rest = divmod(len(raw), kind.itemsize)
    if not n and not rest:
        return
    records = np.frombuffer(raw, dtype=kind, count=n)
    if rest:
        raise MalformedFeatures(f"PostgreSQL sent rows that are not {kind.itemsize} bytes long each.")
    yield records

"""Write feature rows into the offline tables: binary COPY in bounded chunks, idempotent per instant.

A snapshot replaces whatever lies at its instant in one transaction, so a killed or repeated run leaves neither half
a snapshot nor two. Profiles are upserted: a person's row lies at the instant the person became known.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from psycopg import Connection, sql

from pipelines.features.aggregates import Snapshot

_HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
_TRAILER: Final = b"\xff\xff"
_POSTGRES_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, which Postgres counts from
_FLOAT4: Final = 700  # Postgres' type number of an array's elements
_COLUMNS: Final = sql.SQL("(user_id, event_timestamp, created_timestamp, values)")


def write_snapshot(
    connection: Connection[tuple[object, ...]], snapshot: Snapshot, now: pd.Timestamp, chunk_rows: int = 50_000
) -> int:
    """Replace the activity and reciprocity rows of the snapshot's instant; return how many rows were written."""
    stamps = np.full(snapshot.user_ids.size, int(snapshot.at.value) // 1_000, dtype=np.int64)
    parts = (("user_activity", snapshot.activity), ("user_reciprocity", snapshot.reciprocity))
    with connection.transaction(), connection.cursor() as cursor:
        for table, values in parts:
            name = sql.Identifier("features", table)
            cursor.execute(
                sql.SQL("delete from {} where event_timestamp = %s").format(name), (snapshot.at.to_pydatetime(),)
            )
            copy_in = sql.SQL("copy {} {} from stdin (format binary)").format(name, _COLUMNS)
            with cursor.copy(copy_in) as copy:
                for block in binary_rows(snapshot.user_ids, stamps, now, values, chunk_rows):
                    copy.write(block)
    return 2 * int(snapshot.user_ids.size)


def upsert_rows(
    connection: Connection[tuple[object, ...]],
    table: str,
    user_ids: npt.NDArray[np.int64],
    at_us: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    *,
    now: pd.Timestamp,
    chunk_rows: int = 50_000,
) -> int:
    """Write one row per person at that person's instant, replacing an equal stamp; return how many rows were sent."""
    name, staging = sql.Identifier("features", table), sql.Identifier(f"staged_{table}")
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(sql.SQL("create temporary table {} (like {}) on commit drop").format(staging, name))
        with cursor.copy(sql.SQL("copy {} {} from stdin (format binary)").format(staging, _COLUMNS)) as copy:
            for block in binary_rows(user_ids, at_us, now, values, chunk_rows):
                copy.write(block)
        cursor.execute(
            sql.SQL(
                "insert into {} {} select user_id, event_timestamp, created_timestamp, values from {} "
                "on conflict (user_id, event_timestamp) do update "
                "set values = excluded.values, created_timestamp = excluded.created_timestamp "
                "where {}.values is distinct from excluded.values"
            ).format(name, _COLUMNS, staging, name)
        )
        # A transaction nested in the caller's is a savepoint: `on commit drop` would come too late for a second call.
        cursor.execute(sql.SQL("drop table {}").format(staging))
    return int(user_ids.size)


def binary_rows(
    user_ids: npt.NDArray[np.int64],
    at_us: npt.NDArray[np.int64],
    now: pd.Timestamp,
    values: npt.NDArray[np.float32],
    chunk_rows: int,
) -> Iterator[bytes]:
    """Yield a binary COPY stream of fixed-width rows: no Python object is made per row."""
    width = values.shape[1]
    row = np.dtype([
        ("fields", ">i2"),
        ("id_bytes", ">i4"), ("id", ">i8"),
        ("at_bytes", ">i4"), ("at", ">i8"),
        ("created_bytes", ">i4"), ("created", ">i8"),
        ("array_bytes", ">i4"), ("array_header", ">i4", (5,)),
        ("elements", [("bytes", ">i4"), ("value", ">f4")], (width,)),
    ])  # fmt: skip
    created = int(now.value) // 1_000 - _POSTGRES_EPOCH_US
    yield _HEADER
    for start in range(0, user_ids.size, chunk_rows):
        part = slice(start, start + chunk_rows)
        block = np.zeros(user_ids[part].size, dtype=row)
        block["fields"] = 4
        block["id_bytes"] = block["at_bytes"] = block["created_bytes"] = 8
        block["id"] = user_ids[part]
        block["at"] = at_us[part] - _POSTGRES_EPOCH_US
        block["created"] = created
        block["array_bytes"] = 20 + 8 * width
        block["array_header"] = (1, 0, _FLOAT4, width, 1)  # dimensions, nulls, type, length, first index
        block["elements"]["bytes"] = 4
        block["elements"]["value"] = values[part]
        yield block.tobytes()
    yield _TRAILER

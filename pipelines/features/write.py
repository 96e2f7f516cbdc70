"""Write feature rows into the offline tables: binary COPY in bounded chunks, idempotent per instant.

A snapshot replaces whatever lies at its instant in one transaction, so a killed or repeated run leaves neither half
a snapshot nor two. Profiles keep their history: the first row of a person lies at the instant the person became known,
every edit adds one at the instant it was noticed, and what did not change is not written again.
"""

from collections.abc import Iterator
from datetime import datetime
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
MAX_PRUNED_ROWS: Final = 1_000_000  # per table and run: one statement stays a matter of seconds

# Newer than the newest row, even if two edits share an instant or the clock went back.
_CHANGED: Final = sql.SQL("""
    insert into {table} {columns}
    select staged.user_id,
           case when newest.user_id is null then staged.event_timestamp
                else greatest(staged.created_timestamp, newest.event_timestamp + interval '1 microsecond') end,
           staged.created_timestamp, staged.values
    from {staging} staged
    left join (select distinct on (user_id) user_id, event_timestamp, values from {table}
               order by user_id desc, event_timestamp desc) newest on newest.user_id = staged.user_id
    where newest.user_id is null or newest.values is distinct from staged.values
""")
_KNOWN_EARLIER: Final = sql.SQL("""
    insert into {table} {columns}
    select staged.user_id, staged.event_timestamp, staged.created_timestamp, oldest.values
    from {staging} staged
    join (select distinct on (user_id) user_id, event_timestamp, values from {table}
          order by user_id, event_timestamp) oldest on oldest.user_id = staged.user_id
    where staged.event_timestamp < oldest.event_timestamp
""")
# Vectors of a version with other columns can be neither joined nor told apart: the present ones stand in for them.
_OTHER_LAYOUT: Final = sql.SQL("""
    update {table} stored set values = staged.values, created_timestamp = staged.created_timestamp
    from {staging} staged
    where stored.user_id = staged.user_id and cardinality(stored.values) <> %(width)s
""")
_STALE: Final = sql.SQL("""
    delete from {table} where (user_id, event_timestamp) in (
        select stale.user_id, stale.event_timestamp from {table} stale
        where stale.event_timestamp < %(before)s and exists (
            select from {table} newer
            where newer.user_id = stale.user_id and newer.event_timestamp > stale.event_timestamp)
        limit %(max_rows)s)
""")


def write_snapshot(
    connection: Connection[tuple[object, ...]], snapshot: Snapshot, now: pd.Timestamp, chunk_rows: int = 50_000
) -> int:
    """Replace the activity and reciprocity rows of the snapshot's instant; return how many rows were written."""
    return _write(connection, snapshot, now, chunk_rows, everybody=True)


def write_people(
    connection: Connection[tuple[object, ...]], snapshot: Snapshot, now: pd.Timestamp, chunk_rows: int = 50_000
) -> int:
    """Replace the rows of these people at the snapshot's instant and nobody else's; return how many were written."""
    return _write(connection, snapshot, now, chunk_rows, everybody=False)


def _write(
    connection: Connection[tuple[object, ...]],
    snapshot: Snapshot,
    now: pd.Timestamp,
    chunk_rows: int,
    *,
    everybody: bool,
) -> int:
    stamps = np.full(snapshot.user_ids.size, int(snapshot.at.value) // 1_000, dtype=np.int64)
    parts = (("user_activity", snapshot.activity), ("user_reciprocity", snapshot.reciprocity))
    with connection.transaction(), connection.cursor() as cursor:
        for table, values in parts:
            name = sql.Identifier("features", table)
            cursor.execute(
                sql.SQL("delete from {} where event_timestamp = %(at)s {}").format(
                    name, sql.SQL("" if everybody else "and user_id = any (%(people)s)")
                ),
                {"at": snapshot.at.to_pydatetime(), "people": [] if everybody else snapshot.user_ids.tolist()},
            )
            copy_in = sql.SQL("copy {} {} from stdin (format binary)").format(name, _COLUMNS)
            with cursor.copy(copy_in) as copy:
                for block in binary_rows(snapshot.user_ids, stamps, now, values, chunk_rows):
                    copy.write(block)
    return 2 * int(snapshot.user_ids.size)


def append_changes(
    connection: Connection[tuple[object, ...]],
    table: str,
    user_ids: npt.NDArray[np.int64],
    at_us: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    *,
    now: pd.Timestamp,
    chunk_rows: int = 50_000,
) -> int:
    """Write a row per person whose values differ from the newest stored ones; return how many rows were written.

    A person without rows gets the first one at `at_us`; an edit is stamped `now`, so that it is newer online too and a
    join before it still sees the earlier row. Somebody known since before the oldest row has that row from then on.
    """
    name, staging = sql.Identifier("features", table), sql.Identifier(f"staged_{table}")
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(sql.SQL("create temporary table {} (like {}) on commit drop").format(staging, name))
        with cursor.copy(sql.SQL("copy {} {} from stdin (format binary)").format(staging, _COLUMNS)) as copy:
            for block in binary_rows(user_ids, at_us, now, values, chunk_rows):
                copy.write(block)
        written = 0
        for statement in (_CHANGED, _KNOWN_EARLIER):
            cursor.execute(statement.format(table=name, columns=_COLUMNS, staging=staging))
            written += cursor.rowcount
        cursor.execute(_OTHER_LAYOUT.format(table=name, staging=staging), {"width": values.shape[1]})
        # A transaction nested in the caller's is a savepoint: `on commit drop` would come too late for a second call.
        cursor.execute(sql.SQL("drop table {}").format(staging))
    return written


def prune_snapshots(
    connection: Connection[tuple[object, ...]], before: datetime, max_rows: int = MAX_PRUNED_ROWS
) -> int:
    """Delete activity and reciprocity rows older than `before`, but nobody's newest; return how many went.

    At most `max_rows` go from each table: whatever is left goes the next time.
    """
    pruned = 0
    with connection.transaction(), connection.cursor() as cursor:
        for table in ("user_activity", "user_reciprocity"):
            cursor.execute(
                _STALE.format(table=sql.Identifier("features", table)), {"before": before, "max_rows": max_rows}
            )
            pruned += cursor.rowcount
    return pruned


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

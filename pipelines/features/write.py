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

from feature_repo.layout import VIEWS
from feature_repo.stores.packed_copy import MICROS_1970_TO_2000, SIGNATURE, TRAILER, reals, record, scalar
from pipelines.features.aggregates import FeatureSnapshot

_LAYOUTS: Final = {layout.name: layout for layout in VIEWS}
MAX_PRUNED_ROWS: Final = 1_000_000  # per table and run: one statement stays a matter of seconds

# Newer than the newest row, even if two edits share an instant or the clock went back.
_CHANGED: Final = sql.SQL("""
    insert into {table} {columns}
    select staged.user_id,
           case when newest.user_id is null then staged.event_timestamp
                else greatest(staged.created_timestamp, newest.event_timestamp + interval '1 microsecond') end,
           staged.created_timestamp, {staged}
    from {staging} staged
    left join (select distinct on (user_id) * from {table}
               order by user_id desc, event_timestamp desc) newest on newest.user_id = staged.user_id
    where newest.user_id is null or row({newest}) is distinct from row({staged})
""")
_KNOWN_EARLIER: Final = sql.SQL("""
    insert into {table} {columns}
    select staged.user_id, staged.event_timestamp, staged.created_timestamp, {oldest}
    from {staging} staged
    join (select distinct on (user_id) * from {table}
          order by user_id, event_timestamp) oldest on oldest.user_id = staged.user_id
    where staged.event_timestamp < oldest.event_timestamp
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
    connection: Connection[tuple[object, ...]], snapshot: FeatureSnapshot, now: pd.Timestamp, chunk_rows: int = 50_000
) -> int:
    """Replace the activity and reciprocity rows of the snapshot's instant; return how many rows were written."""
    return _write(connection, snapshot, now, chunk_rows, everybody=True)


def write_people(
    connection: Connection[tuple[object, ...]], snapshot: FeatureSnapshot, now: pd.Timestamp, chunk_rows: int = 50_000
) -> int:
    """Replace the rows of these people at the snapshot's instant and nobody else's; return how many were written."""
    return _write(connection, snapshot, now, chunk_rows, everybody=False)


def _write(
    connection: Connection[tuple[object, ...]],
    snapshot: FeatureSnapshot,
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
            copy_in = sql.SQL("copy {} {} from stdin (format binary)").format(name, _columns(table))
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
        with cursor.copy(sql.SQL("copy {} {} from stdin (format binary)").format(staging, _columns(table))) as copy:
            for block in binary_rows(user_ids, at_us, now, values, chunk_rows):
                copy.write(block)
        written = 0
        for statement in (_CHANGED, _KNOWN_EARLIER):
            parts = {alias: _of(alias, table) for alias in ("staged", "newest", "oldest")}
            cursor.execute(statement.format(table=name, columns=_columns(table), staging=staging, **parts))
            written += cursor.rowcount
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
    kind = record(
        scalar("id", "int8"), scalar("at", "timestamptz"), scalar("created", "timestamptz"), reals("values", width)
    )
    yield SIGNATURE
    for start in range(0, user_ids.size, chunk_rows):
        part = slice(start, start + chunk_rows)
        block = np.zeros(user_ids[part].size, dtype=kind)
        block["n_fields"] = 3 + width
        block["id:size"] = block["at:size"] = block["created:size"] = 8
        block["id"] = user_ids[part]
        block["at"] = at_us[part] - MICROS_1970_TO_2000
        block["created"] = int(now.value) // 1_000 - MICROS_1970_TO_2000
        block["values"]["size"] = 4
        block["values"]["value"] = values[part]
        yield block.tobytes()
    yield TRAILER


def _features(table: str) -> list[sql.Identifier]:
    return [sql.Identifier(name) for name in _LAYOUTS[table].columns]


def _columns(table: str) -> sql.Composed:
    """Return the columns that are written, in brackets."""
    keys = map(sql.Identifier, ("user_id", "event_timestamp", "created_timestamp"))
    return sql.SQL("({})").format(sql.SQL(", ").join([*keys, *_features(table)]))


def _of(alias: str, table: str) -> sql.Composed:
    """Return the features of a table or an alias of one."""
    return sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), name) for name in _features(table))

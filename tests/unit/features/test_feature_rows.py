"""Feature rows reach Postgres whole, once, and unchanged to the bit."""

import numpy as np
import pandas as pd
import psycopg

from feature_repo.layout import ACTIVITY, RECIPROCITY
from pipelines.features.aggregates import Snapshot
from pipelines.features.write import upsert_rows, write_snapshot

NOW = pd.Timestamp("2026-02-01 12:00:00.123456", tz="UTC")


def add_people(connection: psycopg.Connection, *user_ids: int) -> None:
    for user_id in user_ids:
        connection.execute("insert into duet.users (user_id) values (%s) on conflict do nothing", (user_id,))


def snapshot(*user_ids: int, value: float) -> Snapshot:
    n = len(user_ids)
    activity = np.full((n, ACTIVITY.width), value, dtype=np.float32)
    activity[:, -1] = np.nan
    return Snapshot(
        pd.Timestamp("2026-01-15 06:30", tz="UTC"),
        np.array(user_ids, dtype=np.int64),
        activity,
        np.full((n, RECIPROCITY.width), -value, dtype=np.float32),
    )


def test_a_snapshot_is_written_exactly_and_replaces_its_instant(connection: psycopg.Connection) -> None:
    add_people(connection, 1, 2, 5_000_000_000)
    taken = snapshot(1, 2, 5_000_000_000, value=0.1)
    assert write_snapshot(connection, taken, NOW, chunk_rows=2) == 6
    rows = connection.execute(
        "select user_id, event_timestamp, created_timestamp, values from features.user_activity order by user_id"
    ).fetchall()
    assert [row[0] for row in rows] == [1, 2, 5_000_000_000]
    assert pd.Timestamp(rows[0][1]) == taken.at
    assert pd.Timestamp(rows[0][2]) == NOW
    np.testing.assert_array_equal(np.array(rows[0][3], dtype=np.float32), taken.activity[0])
    write_snapshot(connection, snapshot(2, value=7.0), NOW)
    again = connection.execute("select user_id, values[1] from features.user_reciprocity").fetchall()
    assert again == [(2, -7.0)]


def test_profiles_are_upserted_by_person_and_instant(connection: psycopg.Connection) -> None:
    add_people(connection, 1, 2)
    ids = np.array([1, 2], dtype=np.int64)
    at_us = np.array([1_700_000_000_000_000, 1_700_000_000_000_001], dtype=np.int64)
    for value in (1.5, 2.5, 2.5):
        values = np.full((2, 3), value, dtype=np.float32)
        assert upsert_rows(connection, "user_profile", ids, at_us, values, now=NOW) == 2
    rows = connection.execute("select user_id, values from features.user_profile order by 1").fetchall()
    assert rows == [(1, [2.5] * 3), (2, [2.5] * 3)]

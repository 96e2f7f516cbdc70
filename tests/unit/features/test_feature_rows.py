"""Feature rows reach Postgres whole, once, and unchanged to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg import sql

from feature_repo.layout import ACTIVITY, PROFILE, RECIPROCITY, Feature
from feature_repo.stores import tables
from pipelines.features.aggregates import FeatureSnapshot
from pipelines.features.assets import stale_before
from pipelines.features.write import append_changes, prune_snapshots, write_snapshot
from pipelines.results.store import StepResult

NOW = pd.Timestamp("2026-02-01 12:00:00.123456", tz="UTC")


def add_people(connection: psycopg.Connection, *user_ids: int) -> None:
    for user_id in user_ids:
        connection.execute("insert into duet.users (user_id) values (%s) on conflict do nothing", (user_id,))


def snapshot(*user_ids: int, value: float) -> FeatureSnapshot:
    n = len(user_ids)
    activity = np.full((n, ACTIVITY.width), value, dtype=np.float32)
    activity[:, -1] = np.nan
    return FeatureSnapshot(
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
        "select user_id, event_timestamp, created_timestamp, * from features.user_activity order by user_id"
    ).fetchall()
    assert [row[0] for row in rows] == [1, 2, 5_000_000_000]
    assert pd.Timestamp(rows[0][1]) == taken.at
    assert pd.Timestamp(rows[0][2]) == NOW
    np.testing.assert_array_equal(np.array(rows[0][6:], dtype=np.float32), taken.activity[0])
    write_snapshot(connection, snapshot(2, value=7.0), NOW)
    again = connection.execute("select user_id, matches_7d from features.user_reciprocity").fetchall()
    assert again == [(2, -7.0)]


KNOWN_US = np.array([1_700_000_000_000_000, 1_700_000_000_000_001], dtype=np.int64)
HOUR = pd.Timedelta(hours=1)


def append(connection: psycopg.Connection, *values: float, now: pd.Timestamp = NOW, earlier_us: int = 0) -> int:
    """Append a row of equal values for the people 1, 2, …"""
    ids = np.arange(1, len(values) + 1, dtype=np.int64)
    rows = np.repeat(np.array(values, dtype=np.float32)[:, None], PROFILE.width, axis=1)
    return append_changes(connection, "user_profile", ids, KNOWN_US[: len(values)] - earlier_us, rows, now=now)


def profiles(connection: psycopg.Connection) -> list[tuple[int, int, list[float]]]:
    """Return person, microseconds, and the first and last two features of every row."""
    return connection.execute(
        "select user_id, (extract(epoch from event_timestamp) * 1000000)::bigint, "
        "array[birth_day, interests_08, interests_09] "
        "from features.user_profile order by 1, 2"
    ).fetchall()


def test_a_changed_profile_gets_a_row_of_its_own_and_an_unchanged_one_none(connection: psycopg.Connection) -> None:
    add_people(connection, 1, 2)
    first = [(1, int(KNOWN_US[0]), [1.5] * 3), (2, int(KNOWN_US[1]), [2.5] * 3)]
    assert append(connection, 1.5, 2.5) == 2
    assert append(connection, 1.5, 2.5, now=NOW + HOUR) == 0
    assert profiles(connection) == first
    assert append(connection, 1.5, 9.0, now=NOW + HOUR) == 1
    assert profiles(connection) == [*first, (2, (NOW + HOUR).value // 1_000, [9.0] * 3)]
    # Back to what it was is a change too: only the newest row counts.
    assert append(connection, 1.5, 2.5, now=NOW + 2 * HOUR) == 1
    assert append(connection, 1.5, 2.5, now=NOW + 3 * HOUR) == 0


def test_a_missing_number_is_not_a_change(connection: psycopg.Connection) -> None:
    add_people(connection, 1)
    assert append(connection, float("nan")) == 1
    assert append(connection, float("nan"), now=NOW + HOUR) == 0


def test_a_change_is_newer_than_what_is_stored_even_if_the_clock_went_back(connection: psycopg.Connection) -> None:
    add_people(connection, 1)
    append(connection, 1.0)
    append(connection, 2.0, now=NOW)
    append(connection, 3.0, now=NOW - HOUR)
    assert [row[1:] for row in profiles(connection)][1:] == [
        (NOW.value // 1_000, [2.0] * 3),
        (NOW.value // 1_000 + 1, [3.0] * 3),
    ]


def test_somebody_known_for_longer_than_thought_gets_the_oldest_profile_from_then_on(
    connection: psycopg.Connection,
) -> None:
    add_people(connection, 1)
    append(connection, 1.0)
    assert append(connection, 2.0, now=NOW + HOUR, earlier_us=500) == 2
    assert profiles(connection) == [
        (1, int(KNOWN_US[0]) - 500, [1.0] * 3),
        (1, int(KNOWN_US[0]), [1.0] * 3),
        (1, (NOW + HOUR).value // 1_000, [2.0] * 3),
    ]


def test_a_new_feature_gets_its_column_once_and_its_default_in_every_row(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshot(connection, snapshot(1, value=2.0), NOW)
    connection.commit()
    grown = replace(ACTIVITY, features=(*ACTIVITY.features, Feature("superlikes_sent_7d", "New.", 0.5)))
    monkeypatch.setattr(tables, "VIEWS", (grown, RECIPROCITY))
    assert tables.add_missing_columns(connection) == ["user_activity:superlikes_sent_7d"]
    assert tables.add_missing_columns(connection) == []
    rows = connection.execute("select likes_sent_7d, superlikes_sent_7d from features.user_activity").fetchall()
    assert rows == [(2.0, 0.5)]
    connection.execute("alter table features.user_activity drop column superlikes_sent_7d")
    connection.commit()


def test_pruning_drops_what_no_join_can_see_but_never_the_newest_row(connection: psycopg.Connection) -> None:
    add_people(connection, 1, 2)
    for day, value in ((0, 1.0), (5, 2.0), (10, 3.0)):
        at = replace(snapshot(1, value=value), at=NOW + pd.Timedelta(days=day))
        write_snapshot(connection, at, NOW)
    write_snapshot(connection, replace(snapshot(2, value=7.0), at=NOW - HOUR), NOW)
    cutoff = NOW + pd.Timedelta(days=10)
    # Two old rows of person 1 in each of two tables; person 2 has nothing newer.
    assert prune_snapshots(connection, cutoff.to_pydatetime(), max_rows=1) == 2
    assert prune_snapshots(connection, cutoff.to_pydatetime()) == 2
    assert prune_snapshots(connection, cutoff.to_pydatetime()) == 0
    for table in ("user_activity", "user_reciprocity"):
        left = connection.execute(
            sql.SQL("select user_id, event_timestamp from {} order by 1").format(sql.Identifier("features", table))
        ).fetchall()
        assert left == [(1, cutoff), (2, NOW - HOUR)]


def test_what_training_may_look_back_on_is_not_stale(tmp_path: Path) -> None:
    as_of, t0 = NOW.to_pydatetime(), (NOW - pd.Timedelta(days=900)).to_pydatetime()
    pointer = StepResult(asset="interactions", digest="d", run_id="r", as_of=as_of)
    assert stale_before(pointer) == NOW - pd.Timedelta(days=400)
    assert stale_before(pointer.model_copy(update={"t0": t0})) == NOW - pd.Timedelta(days=1300)

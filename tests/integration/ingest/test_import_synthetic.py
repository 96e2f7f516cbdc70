"""The synthetic world in the database: complete, rebuilt from its record, never mixed with other people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from pipelines.evaluation.truth import truth_of_last_import
from pipelines.ingest.errors import RefusedWorld
from pipelines.ingest.loading.report import ImportReport
from pipelines.ingest.world.synthetic import World
from pipelines.ingest.world.world_import import import_synthetic
from tests.clocks import FixedClock
from tests.world_frames import interaction_chunks, users_frame


def load(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path, people: int = 300, **options: Any
) -> ImportReport:
    return import_synthetic(
        connection,
        people=people,
        seed=5,
        interactions_per_person=10,
        days=30,
        data_dir=tmp_path,
        clock=clock,
        **options,
    )


def shape_of_interactions(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    found = connection.execute(
        "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = 'duet.interactions'::regclass "
        "union all select indexname, indexdef from pg_indexes where tablename = 'interactions' order by 1, 2"
    ).fetchall()
    connection.commit()
    return found


def test_the_world_lands_whole_and_is_rebuilt_from_its_record(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    before = shape_of_interactions(connection)
    report = load(connection, clock, tmp_path)
    assert shape_of_interactions(connection) == before
    assert report.people.adds_up
    assert report.interactions.adds_up
    [(parameters, people_rows, interaction_rows)] = connection.execute(
        "select parameters, people_rows, interaction_rows from duet.imports"
    ).fetchall()
    world = World.generate(**parameters)
    assert parameters["until"] == datetime(2026, 6, 1, tzinfo=UTC).isoformat()
    expected = [
        event for events in world.event_chunks() for event in zip(events.actor + 1, events.target + 1, strict=True)
    ]
    assert (people_rows, interaction_rows) == (300, len(expected))
    found = connection.execute("select actor_id, target_id from duet.interactions").fetchall()
    assert sorted(found) == sorted(expected)
    row = connection.execute(
        "select gender, seeking, interests, attributes, birth_date, latitude from duet.users where user_id = 7"
    ).fetchone()
    truth = users_frame(world).set_index("user_id").loc[7]
    assert row is not None
    assert row[0] == truth["gender"]
    assert row[1] == list(truth["seeking"])
    assert row[2] == list(truth["interests"])
    assert "first_name" in row[3]
    assert row[4] == truth["birth_date"]
    assert row[5] == pytest.approx(truth["latitude"])
    slots = connection.execute("select count(*) from duet.attribute_slots").fetchone()
    assert slots == (7,)


def test_kinds_and_times_survive_the_binary_copy(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    load(connection, clock, tmp_path)
    [(parameters,)] = connection.execute("select parameters from duet.imports").fetchall()
    frames = [chunk.to_pandas() for chunk in interaction_chunks(World.generate(**parameters))]
    expected = sorted(
        (row.actor_id, row.target_id, row.kind, row.occurred_at.to_pydatetime())
        for frame in frames
        for row in frame.itertuples()
    )
    found = connection.execute("select actor_id, target_id, kind, occurred_at from duet.interactions").fetchall()
    assert sorted(found) == expected
    assert len({row[2] for row in found}) >= 4


def test_the_same_world_again_is_a_no_op_also_on_the_next_day(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    first = load(connection, clock, tmp_path)
    clock.advance(86_400)
    again = load(connection, clock, tmp_path)
    assert (again.people.landed, again.interactions.landed) == (0, 0)
    assert again.interactions.unchanged == first.interactions.new
    assert again.import_id == first.import_id
    assert "already there" in again.notes[0]


def test_a_world_is_refused_where_other_people_have_its_ids(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    connection.execute("insert into duet.users (user_id) values (20)")
    connection.commit()
    with pytest.raises(RefusedWorld, match="other people have some"):
        load(connection, clock, tmp_path)


def test_a_world_lands_beside_people_with_larger_ids(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    connection.execute("insert into duet.users (user_id) values (1000), (1001)")
    connection.execute(
        "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at) "
        "values (gen_random_uuid(), 1000, 1001, 'like', '2026-01-01')"
    )
    connection.commit()
    report = load(connection, clock, tmp_path)
    count = connection.execute("select count(*) from duet.interactions").fetchone()
    assert count == (report.interactions.new + 1,)


def test_a_window_that_ends_in_the_future_or_without_a_zone_is_refused(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    with pytest.raises(RefusedWorld, match="future"):
        load(connection, clock, tmp_path, until=datetime(2026, 7, 1, tzinfo=UTC))
    with pytest.raises(RefusedWorld, match="time zone"):
        load(connection, clock, tmp_path, until=datetime(2026, 5, 1))  # noqa: DTZ001 - the mistake under test


def test_event_ids_are_distinct_and_depend_on_the_seed() -> None:
    from pipelines.ingest.loading.bulk import _event_ids

    ids = _event_ids(100_000, 1, 0)
    assert len(np.unique(ids.view("V16"))) == 100_000
    assert np.array_equal(_event_ids(10, 1, 50), ids[50:60])
    assert not np.array_equal(_event_ids(10, 2, 0), ids[:10])


def test_the_truth_of_either_kind_of_world_is_rebuilt_from_its_record(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    load(connection, clock, tmp_path, world="self-selected")
    ids = np.arange(1, 301)
    truth = truth_of_last_import(connection, ids)
    [(parameters,)] = connection.execute("select parameters from duet.imports").fetchall()
    connection.commit()
    expected = World.generate(**parameters)
    assert parameters["world"] == "self-selected"
    assert truth is not None
    assert np.array_equal(truth(ids[:-1], ids[1:]), expected.like_probability(ids[:-1], ids[1:]))
    with pytest.raises(RefusedWorld, match="other people have some"):
        load(connection, clock, tmp_path, world="random-exposure")


def test_a_world_recorded_before_kinds_had_names_is_known_again(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    first = load(connection, clock, tmp_path)
    connection.execute("update duet.imports set parameters = parameters - 'world'")
    connection.commit()
    assert load(connection, clock, tmp_path).import_id == first.import_id


def test_a_world_that_begins_before_1970_is_refused(
    connection: psycopg.Connection[Any], clock: FixedClock, tmp_path: Path
) -> None:
    with pytest.raises(RefusedWorld, match="nothing is older than 1970"):
        load(connection, clock, tmp_path, until=datetime(1971, 1, 1, tzinfo=UTC))

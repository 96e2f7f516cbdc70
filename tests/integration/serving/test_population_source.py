import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg.rows import dict_row

from feature_repo.layout import ACTIVITY, PROFILE
from feature_repo.population.people import People
from feature_repo.population.traits import GivenTraits
from feature_repo.transforms import attribute_vectors, profile_vectors
from infra.db.postgres import connect
from infra.endpoints import Endpoints
from serving.errors import TooManyChanges
from serving.snapshots.fresh_changes import CLOCK_STEP, MAX_OVERLAP, FreshChanges
from serving.snapshots.population_source import PopulationSnapshot, advanced, load
from serving.snapshots.stored_likes import everybody
from tests.horizon import PATIENCE_S as OTHERS_S
from tests.horizon import until_all_was_seen
from tests.serving_world import GHENT, insert_people, insert_person, interact
from tests.waiting import until

LIKES_SENT = ACTIVITY.index("likes_sent_7d")
AGE_MIN = PROFILE.index("age_min")
ASKED = np.array([1, 3, 5, 99])


@pytest.fixture
def background(connection: psycopg.Connection[Any], endpoints: Endpoints) -> Any:
    insert_people(connection, 10)
    with connect(endpoints.database_url, autocommit=True) as own:
        yield own


class OnlyThree:
    """An online store that knows people 1 to 3."""

    def many(self, user_ids: NDArray[np.int64]) -> People:
        known = user_ids[user_ids <= 3]
        activity = ACTIVITY.default_rows(len(known))
        activity[:, LIKES_SENT] = 7
        return People.build(known, activity=activity)

    def filled_at(self) -> datetime | None:
        return datetime(2026, 6, 1, tzinfo=UTC)


def of(snapshot: PopulationSnapshot, user_id: int) -> People:
    position = snapshot.population.positions([user_id])
    return snapshot.population.rows(position[position >= 0])


def refresh(connection: psycopg.Connection[Any], snapshot: PopulationSnapshot) -> PopulationSnapshot:
    return FreshChanges().applied(connection, snapshot, thorough=False)


def test_everybody_visible_is_loaded_even_without_an_online_store(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("update duet.users set visible = false where user_id = 4")
    connection.commit()
    snapshot = load(background, None)
    assert len(snapshot.population) == 9
    assert not len(of(snapshot, 4))
    assert of(snapshot, 2).profile[0, PROFILE.index("latitude")] == pytest.approx(GHENT[0], abs=0.5)


def test_whatever_stands_in_a_row_is_read_as_its_column_would_be_by_itself(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("""
        update duet.users set birth_date = null, gender = null, seeking = '{}', age_min = null, latitude = null,
            longitude = null, max_distance_km = null, interests = '{}', bio = null, attributes = '{}' where user_id = 1
    """)
    connection.execute(
        """
        update duet.users set birth_date = '1899-12-31', gender = 'a "quoted" \\ name', seeking = '{woman,"a, b"}',
            age_max = 77, latitude = 0.1::real, longitude = -179.99, max_distance_km = 'NaN', bio = 'née',
            interests = '{chess,"Chess ","a {brace}",é}', created_at = '2026-01-02 03:04:05.678901+02',
            attributes = '{"fun": 0.1, "far": 1e400, "smokes": true, "job": "baker", "none": null,
                "motto": "a \\"quoted\\" \\n né\\u001f \\\\", "list": ["x", true], "more": 2.5,
                "beyond": -1e300}' where user_id = 2
        """
    )
    slots = {"fun": 0, "far": 1, "smokes": 2, "job": 3, "none": 4}
    connection.execute("delete from duet.attribute_slots")
    for slot in slots.items():
        connection.execute("insert into duet.attribute_slots (name, slot) values (%s, %s)", slot)
    connection.commit()
    with background.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select *, coalesce(length(bio), 0) as bio_length from duet.users order by 1").fetchall()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    population = load(background, None).population
    people = population.base
    told = GivenTraits.of(columns["user_id"], columns["attributes"], slots)
    order = np.lexsort((told.codes, told.user_ids))
    for traits in (population.traits, load(background, OnlyThree()).population.traits):  # as read here and by Postgres
        given = traits.given(people.user_ids)
        assert sorted(given.user_ids.tolist()) == told.user_ids[order].tolist()
        assert given.codes[np.lexsort((given.codes, given.user_ids))].tolist() == told.codes[order].tolist()
        assert {name: [one.tolist() for one in own] for name, own in given.numbers.items() if len(own[0])} == {
            "more": [[2], [2.5]]
        }
        assert (given.texts, given.flags) == ({"job", "motto"}, {"smokes"})
    assert people.user_ids.tolist() == columns["user_id"]
    np.testing.assert_array_equal(people.profile, profile_vectors(columns))
    np.testing.assert_array_equal(people.attributes, attribute_vectors(columns, slots))


def test_activity_comes_from_the_online_store_and_a_changed_profile_from_postgres(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("update duet.users set age_min = 33 where user_id = 2")
    connection.commit()
    snapshot = load(background, OnlyThree())
    assert of(snapshot, 2).activity[0, LIKES_SENT] == 7
    assert of(snapshot, 2).profile[0, AGE_MIN] == 33
    assert of(snapshot, 8).activity[0, LIKES_SENT] == 0
    assert snapshot.filled_at == datetime(2026, 6, 1, tzinfo=UTC)


def test_only_profiles_that_changed_after_the_online_store_was_filled_come_from_postgres(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("insert into features.user_profile values (1, now(), now() + interval '1 hour')")
    connection.execute("update duet.users set age_min = 33 where user_id = 2")
    connection.commit()
    assert np.isnan(of(load(background, OnlyThree()), 2).profile[0, AGE_MIN])


@pytest.mark.parametrize("update", [refresh, advanced], ids=["in place", "written anew"])
def test_an_update_brings_new_changed_and_hidden_people_and_keeps_activity(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], update: Any
) -> None:
    snapshot = load(background, OnlyThree())
    insert_person(connection, 77)
    connection.execute("""update duet.users set age_min = 44, attributes = '{"smoker": true}' where user_id = 3""")
    connection.execute("update duet.users set visible = false where user_id = 5")
    connection.commit()
    updated = update(background, snapshot)
    assert len(of(updated, 77)) == 1
    assert of(updated, 3).profile[0, AGE_MIN] == 44
    assert of(updated, 3).activity[0, LIKES_SENT] == 7
    assert updated.population.flags == {"smoker"}
    assert not len(of(updated, 5))
    assert len(of(snapshot, 5)) == 1  # requests that hold the old one see one state
    connection.execute("update duet.users set visible = true where user_id = 5")
    connection.commit()
    assert len(of(update(background, updated), 5)) == 1


@pytest.mark.parametrize("update", [refresh, advanced], ids=["in place", "written anew"])
def test_the_deleted_are_gone_and_may_come_back(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], update: Any
) -> None:
    snapshot = load(background, None)
    connection.execute("delete from duet.users where user_id = 6")
    connection.commit()
    without = update(background, snapshot)
    assert len(without.population) == 9
    assert not len(of(without, 6))
    insert_person(connection, 6)
    connection.commit()
    assert len(of(update(background, without), 6)) == 1


def test_deletions_are_remembered_for_a_week(connection: psycopg.Connection[Any]) -> None:
    connection.execute("delete from duet.deletions")
    connection.execute("insert into duet.deletions values (5, now() - interval '8 days'), (6, now())")
    insert_person(connection, 7)
    connection.execute("delete from duet.users where user_id = 7")
    connection.commit()
    assert connection.execute("select user_id from duet.deletions order by user_id").fetchall() == [(6,), (7,)]


def test_what_was_applied_is_not_read_again_although_each_look_overlaps_the_last(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    snapshot = load(background, None)
    changes = FreshChanges()
    connection.execute("update duet.users set age_min = 44 where user_id = 3")
    connection.commit()
    first = changes.applied(background, snapshot, thorough=False)
    assert changes.applied(background, first, thorough=False).population is first.population
    assert changes.applied(background, first, thorough=True).population is first.population
    connection.execute("update duet.users set age_min = 45 where user_id = 3")
    connection.commit()
    assert of(changes.applied(background, first, thorough=False), 3).profile[0, AGE_MIN] == 45


def test_more_changes_than_a_refresh_may_read_are_left_to_the_one_who_writes_anew(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    snapshot = load(background, None)
    connection.execute("update duet.users set age_min = 44")
    connection.commit()
    with pytest.raises(TooManyChanges, match="More than 9 people changed at once"):
        FreshChanges(max_changes=9).applied(background, snapshot, thorough=True)


def test_what_was_seen_when_everybody_was_read_is_not_a_change_however_fresh_it_is(
    background: psycopg.Connection[Any],
) -> None:
    until_all_was_seen(background)
    snapshot = load(background, None)
    assert FreshChanges(max_changes=0).applied(background, snapshot, thorough=True).population is snapshot.population


@pytest.mark.parametrize("update", [refresh, advanced], ids=["in place", "written anew"])
def test_a_change_that_was_still_being_written_is_brought_when_it_is_committed(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], endpoints: Endpoints, update: Any
) -> None:
    connection.execute("select 1")  # begins a transaction
    with connection.transaction():  # a savepoint has a transaction number of its own
        connection.execute("update duet.users set age_min = 44 where user_id = 3")
    with connect(endpoints.database_url, autocommit=True) as other:
        other.execute("update duet.users set age_min = 33 where user_id = 4")
    snapshot = update(background, load(background, None))
    assert np.isnan(of(snapshot, 3).profile[0, AGE_MIN])
    connection.commit()
    assert of(update(background, snapshot), 3).profile[0, AGE_MIN] == 44


def test_an_update_moves_updated_at_by_itself(connection: psycopg.Connection[Any]) -> None:
    insert_person(connection, 5)
    connection.commit()
    row = connection.execute("select updated_at from duet.users where user_id = 5").fetchone()
    connection.execute("update duet.users set visible = visible where user_id = 5")
    same = connection.execute("select updated_at from duet.users where user_id = 5").fetchone()
    connection.execute("update duet.users set visible = false where user_id = 5")
    moved = connection.execute("select updated_at from duet.users where user_id = 5").fetchone()
    connection.commit()
    assert row is not None
    assert moved is not None
    assert same == row
    assert moved[0] - row[0] > timedelta(0)


def test_the_latest_likes_of_everybody_are_loaded(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    interact(connection, 1, [2, 4, 6], "like")
    interact(connection, 3, 2, "superlike")
    interact(connection, 5, 2, "pass")
    likes = load(background, None).recent_likes
    assert likes.latest(ASKED, 3).tolist() == [[6, 4, 2], [2, -1, -1], [-1] * 3, [-1] * 3]


@pytest.mark.parametrize("update", [refresh, advanced], ids=["in place", "written anew"])
def test_likes_recorded_since_are_brought_by_an_update(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], update: Any
) -> None:
    interact(connection, 1, [2, 4], "like")
    snapshot = load(background, None)
    interact(connection, 3, 8, "like")
    connection.execute(
        "insert into duet.interactions (event_id, actor_id, target_id, kind, occurred_at)"
        " values (gen_random_uuid(), 1, 10, 'superlike', now())"
    )
    connection.commit()
    likes = update(background, snapshot).recent_likes
    assert likes.latest(ASKED, 4).tolist() == [[10, 4, 2, -1], [8, -1, -1, -1], [-1] * 4, [-1] * 4]


@pytest.mark.parametrize("update", [refresh, advanced], ids=["in place", "written anew"])
def test_likes_taken_back_since_are_forgotten_by_an_update(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], update: Any
) -> None:
    interact(connection, 1, [2, 4], "like")
    interact(connection, 3, [2, 4], "like")
    interact(connection, 4, 3, "block")
    snapshot = load(background, None)
    interact(connection, 1, [6, 8, 4], "unlike")
    interact(connection, 4, [7, 9, 3], "unblock")
    connection.commit()
    assert snapshot.recent_likes.latest(ASKED, 2).tolist() == [[4, 2], [4, 2], [-1] * 2, [-1] * 2]
    assert update(background, snapshot).recent_likes.latest(ASKED, 2).tolist() == [[2, -1], [2, -1], [-1] * 2, [-1] * 2]


def test_likes_read_in_blocks_are_those_read_at_once(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    rng = np.random.default_rng(4)
    for actor in range(1, 6):
        interact(connection, actor, [int(target) for target in rng.choice(np.arange(6, 11), 80)], "like")
    whole, blocks = everybody(background), everybody(background, block_likes=3, pages=1)
    assert whole.user_ids.tolist() == [1, 2, 3, 4, 5]
    assert (whole.liked >= 0).all()
    assert np.array_equal(whole.liked, blocks.liked)


def look(
    changes: FreshChanges,
    connection: psycopg.Connection[Any],
    snapshot: PopulationSnapshot,
    *,
    after: timedelta = timedelta(0),
    thorough: bool = False,
) -> PopulationSnapshot:
    """Look as if the last look had been made `after` it really was."""
    assert snapshot.read_at is not None
    return changes.applied(connection, replace(snapshot, read_at=snapshot.read_at + after), thorough=thorough)


@pytest.mark.parametrize("minutes", [0, 2, 30])
def test_a_change_is_in_doubt_for_as_long_as_it_takes_to_commit_and_then_it_is_known(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any], minutes: int
) -> None:
    changes, later = FreshChanges(), timedelta(minutes=minutes)
    seen = changes.applied(background, load(background, None), thorough=True)
    row = connection.execute("update duet.users set age_min = 44 where user_id = 3 returning updated_at").fetchone()
    assert row is not None
    seen = look(changes, background, look(changes, background, seen), after=later)
    assert seen.since is not None
    assert seen.since < row[0]
    connection.commit()
    seen = look(changes, background, seen, after=later)
    known = of(seen, 3).profile[0, AGE_MIN] == 44
    assert known == (timedelta(minutes=minutes) < MAX_OVERLAP)
    assert known or (seen.since is not None and seen.since < row[0])
    seen = look(changes, background, seen, after=later, thorough=True)
    assert of(seen, 3).profile[0, AGE_MIN] == 44


def test_once_nobody_writes_any_more_the_last_look_but_one_settles_what_came_before(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    changes = FreshChanges()
    seen = changes.applied(background, load(background, None), thorough=True)
    row = connection.execute("update duet.users set age_min = 44 where user_id = 3 returning updated_at").fetchone()
    assert row is not None
    connection.commit()

    def is_settled() -> bool:
        nonlocal seen
        seen = look(changes, background, seen)
        return seen.since is not None and seen.since >= row[0]

    until(is_settled, OTHERS_S)
    assert seen.since is not None
    assert seen.read_at is not None
    assert seen.since <= seen.read_at - CLOCK_STEP


def test_while_others_write_and_commit_late_all_that_is_not_in_doubt_is_known_as_it_is(
    connection: psycopg.Connection[Any],
    background: psycopg.Connection[Any],
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.snapshots.fresh_changes.SHORT_OVERLAP", timedelta(0))
    monkeypatch.setattr("serving.snapshots.fresh_changes.CLOCK_STEP", timedelta(0))
    ended = Event()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with connect(endpoints.database_url) as own:
            while not ended.is_set():
                for user_id in sorted(rng.choice(10, 2, replace=False).tolist()):
                    own.execute(
                        "update duet.users set age_min = %s, visible = %s where user_id = %s",
                        (int(rng.integers(18, 90)), bool(rng.random() < 0.9), user_id + 1),
                    )
                time.sleep(rng.random() ** 2)
                own.commit()

    changes, n_known = FreshChanges(), 0
    seen = changes.applied(background, load(background, None), thorough=True)
    with ThreadPoolExecutor(4) as writers, ExitStack() as at_last:
        at_last.callback(ended.set)
        written = [writers.submit(write, seed) for seed in range(4)]
        began = time.monotonic()
        while (lasted_s := time.monotonic() - began) < 4 or (n_known < 20 and lasted_s < OTHERS_S):
            seen = look(changes, background, seen)
            rows = background.execute(
                "select user_id, visible, age_min from duet.users where updated_at <= %s", (seen.since,)
            ).fetchall()
            for user_id, visible, age_min in rows:
                people = of(seen, user_id)
                assert bool(len(people)) == visible
                assert not visible or age_min is None or people.profile[0, AGE_MIN] == age_min
                n_known += age_min is not None
            time.sleep(0.05)
    assert [each.result() for each in written] == [None] * 4
    assert n_known >= 20

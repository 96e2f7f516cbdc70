from datetime import timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from feature_repo.layout import ACTIVITY, PROFILE
from feature_repo.people import People
from infra.endpoints import Endpoints
from infra.postgres import connect
from serving.population_source import Snapshot, load, refresh
from tests.serving_world import GHENT, insert_people, insert_person, interact

LIKES_SENT = ACTIVITY.index("likes_sent_7d")
AGE_MIN = PROFILE.index("age_min")


@pytest.fixture
def background(connection: psycopg.Connection[Any], endpoints: Endpoints) -> Any:
    insert_people(connection, 10)
    with connect(endpoints.database_url, autocommit=True) as own:
        yield own


def nobody(_: NDArray[np.int64]) -> People:
    return People.empty()


def only_three(user_ids: NDArray[np.int64]) -> People:
    known = user_ids[user_ids <= 3]
    activity = ACTIVITY.default_rows(len(known))
    activity[:, LIKES_SENT] = 7
    return People.build(known, activity=activity)


def of(snapshot: Snapshot, user_id: int) -> People:
    position = snapshot.population.positions([user_id])
    return snapshot.population.rows(position[position >= 0])


def test_everybody_visible_is_loaded_even_when_the_online_store_knows_nobody(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("update duet.users set visible = false where user_id = 4")
    connection.commit()
    snapshot = load(background, nobody)
    assert len(snapshot.population) == 9
    assert not len(of(snapshot, 4))
    assert of(snapshot, 2).profile[0, PROFILE.index("latitude")] == pytest.approx(GHENT[0], abs=0.5)


def test_activity_comes_from_the_online_store_and_a_changed_profile_from_postgres(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    connection.execute("update duet.users set age_min = 33 where user_id = 2")
    connection.commit()
    snapshot = load(background, only_three)
    assert of(snapshot, 2).activity[0, LIKES_SENT] == 7
    assert of(snapshot, 2).profile[0, AGE_MIN] == 33
    assert of(snapshot, 8).activity[0, LIKES_SENT] == 0


def test_a_refresh_brings_new_changed_and_hidden_people_and_keeps_activity(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    snapshot = load(background, only_three)
    insert_person(connection, 77)
    connection.execute("update duet.users set age_min = 44 where user_id = 3")
    connection.execute("update duet.users set visible = false where user_id = 5")
    connection.commit()
    refreshed, refilled = refresh(background, snapshot)
    assert not refilled
    assert len(of(refreshed, 77)) == 1
    assert of(refreshed, 3).profile[0, AGE_MIN] == 44
    assert of(refreshed, 3).activity[0, LIKES_SENT] == 7
    assert not len(of(refreshed, 5))
    assert len(of(snapshot, 5)) == 1  # requests that hold the old one see one state


def test_a_refilled_online_store_is_noticed(
    connection: psycopg.Connection[Any], background: psycopg.Connection[Any]
) -> None:
    snapshot = load(background, nobody)
    connection.execute("insert into features.user_profile values (1, now(), now(), '{1}')")
    connection.commit()
    assert refresh(background, snapshot)[1]


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
    likes = load(background, nobody).recent_likes
    assert likes.of(np.array([1, 3, 5, 99]), 2, but=4).tolist() == [[6, -1, 2], [2, -1, -1], [-1] * 3, [-1] * 3]

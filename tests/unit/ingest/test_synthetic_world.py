"""The synthetic world: deterministic, plausible, and never against anybody's hard preferences."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from feature_repo.population.people import People
from feature_repo.transforms import mutually_eligible, profile_vectors
from pipelines.ingest.errors import RefusedWorld
from pipelines.ingest.world.synthetic import CHUNK_PEOPLE, World
from tests.world_frames import interaction_chunks, users_frame

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
DECISIONS = ("like", "pass", "superlike")


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate(5_000, 7, interactions_per_person=20, days=60, until=UNTIL)


@pytest.fixture(scope="module")
def history(world: World) -> pd.DataFrame:
    frames = [chunk.to_pandas() for chunk in interaction_chunks(world)]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def decisions(history: pd.DataFrame) -> pd.DataFrame:
    return history[history["kind"].isin(DECISIONS)]


def test_the_same_parameters_give_the_same_world_to_the_last_bit(world: World, history: pd.DataFrame) -> None:
    again = World.generate(**world.parameters)
    assert again.users_table().equals(world.users_table())
    first, second = next(iter(interaction_chunks(again))), next(iter(interaction_chunks(world)))
    assert first.equals(second)
    ids = np.arange(1, 2_000)
    assert np.array_equal(again.like_probability(ids, ids + 1), world.like_probability(ids, ids + 1))


def test_another_seed_gives_another_world(world: World) -> None:
    other = World.generate(**{**world.parameters, "seed": 8})
    assert not other.users_table().equals(world.users_table())


def test_nobody_meets_against_a_hard_preference_as_the_features_define_it(
    world: World, decisions: pd.DataFrame
) -> None:
    users = users_frame(world)
    people = _people(world.user_ids, profile_vectors(users))
    at_s = decisions["occurred_at"].to_numpy("datetime64[s]").astype(np.float64)
    actors = people.take(decisions["actor_id"].to_numpy() - 1)
    targets = people.take(decisions["target_id"].to_numpy() - 1)
    assert mutually_eligible(actors, targets, at_s).all()


def test_eligibility_agrees_with_the_features_for_random_pairs(world: World) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(1, 5_001, 20_000), rng.integers(1, 5_001, 20_000)
    people = _people(world.user_ids, profile_vectors(users_frame(world)))
    expected = mutually_eligible(people.take(a - 1), people.take(b - 1), np.full(20_000, UNTIL.timestamp()))
    assert np.array_equal(world.eligible(a, b), expected)
    assert 0 < expected.sum() < 20_000


def _people(user_ids: NDArray[np.int64], profile: NDArray[np.float32]) -> People:
    from feature_repo.layout import ACTIVITY, ATTRIBUTES, RECIPROCITY

    empty = {
        name: np.zeros((len(user_ids), layout.width), np.float32)
        for name, layout in (("attributes", ATTRIBUTES), ("activity", ACTIVITY), ("reciprocity", RECIPROCITY))
    }
    return People(user_ids=user_ids, profile=profile, **empty)


def test_nobody_decides_twice_about_a_person_or_ever_about_themselves(decisions: pd.DataFrame) -> None:
    assert not decisions.duplicated(["actor_id", "target_id"]).any()
    assert (decisions["actor_id"] != decisions["target_id"]).all()


def test_likes_are_a_bit_less_than_a_third_and_some_are_mutual(decisions: pd.DataFrame) -> None:
    liked = decisions["kind"] != "pass"
    assert 0.25 < liked.mean() < 0.35
    both = decisions.assign(liked=liked).merge(
        decisions.assign(liked=liked), left_on=["actor_id", "target_id"], right_on=["target_id", "actor_id"]
    )
    assert 0.05 < (both["liked_x"] & both["liked_y"]).mean() < 0.25


def test_the_oracle_is_calibrated(world: World, decisions: pd.DataFrame) -> None:
    chance = world.like_probability(decisions["actor_id"].to_numpy(), decisions["target_id"].to_numpy())
    liked = (decisions["kind"] != "pass").to_numpy()
    for low, high in pairwise((0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)):
        bucket = (chance >= low) & (chance < high)
        assert abs(liked[bucket].mean() - chance[bucket].mean()) < 0.04


def test_the_chance_of_a_match_is_the_product_of_both_likes(world: World) -> None:
    both = world.like_probability(1, 2) * world.like_probability(2, 1)
    assert world.match_probability(1, 2) == pytest.approx(both)
    assert world.match_probability(1, np.arange(2, 5)).shape == (3,)


def test_events_lie_in_the_window_after_both_people_came(world: World, history: pd.DataFrame) -> None:
    users = users_frame(world).set_index("user_id")
    start = pd.Timestamp(UNTIL) - timedelta(days=60)
    assert history["occurred_at"].between(start, pd.Timestamp(UNTIL), inclusive="left").all()
    for side in ("actor_id", "target_id"):
        assert (history["occurred_at"] >= history[side].map(users["created_at"])).all()
    assert (history["occurred_at"] <= history["actor_id"].map(users["last_active_at"])).all()


def test_the_history_has_about_the_size_asked_for(history: pd.DataFrame) -> None:
    assert 0.8 * 20 * 5_000 < len(history) < 1.2 * 20 * 5_000


def test_attention_is_skewed_to_the_popular(decisions: pd.DataFrame) -> None:
    received = decisions["target_id"].value_counts().to_numpy()
    assert received[: len(received) // 10].sum() > 0.18 * received.sum()


def test_chunks_are_bounded_by_the_people_in_them(world: World) -> None:
    sizes = [len(events) for events in world.event_chunks()]
    assert len(sizes) == world.n_chunks() == 2
    assert max(sizes) < CHUNK_PEOPLE * 20 * 2


def test_everybody_is_of_age_and_asks_for_a_sensible_range(world: World) -> None:
    users = users_frame(world)
    came = users["created_at"].dt.tz_localize(None)
    assert ((came - pd.to_datetime(users["birth_date"])).dt.days >= 18 * 365).all()
    asked = users.dropna(subset=["age_min", "age_max"])
    assert (asked["age_min"] >= 18).all()
    assert (asked["age_min"] <= asked["age_max"]).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"people": 3},
        {"people": 20_000_000},
        {"seed": -1},
        {"days": 1},
        {"interactions_per_person": -1},
        {"until": "2026-01-01T00:00:00"},
        {"version": 0},
    ],
)
def test_a_world_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedWorld, match=next(iter(wrong))):
        World.generate(**{"people": 100, "seed": 1, **wrong})


def test_the_oracle_refuses_people_it_does_not_know(world: World) -> None:
    with pytest.raises(RefusedWorld, match="ids 1 to 5000"):
        world.like_probability(1, 5_001)

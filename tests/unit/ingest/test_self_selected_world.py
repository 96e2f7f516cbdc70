"""The world where people choose whom they look at: its bias, its gaps, its drift, and the truth that goes with it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from pipelines.ingest.errors import RefusedWorld
from pipelines.ingest.world.synthetic import RANDOM_EXPOSURE, SELF_SELECTED, World
from tests.world_frames import interaction_chunks, users_frame

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
N_PEOPLE = 2_000


def generated(world: str) -> World:
    return World.generate(N_PEOPLE, 7, interactions_per_person=20, days=60, until=UNTIL, world=world)


@pytest.fixture(scope="module")
def world() -> World:
    return generated(SELF_SELECTED)


def decisions_of(world: World) -> pd.DataFrame:
    history = pd.concat([chunk.to_pandas() for chunk in interaction_chunks(world)], ignore_index=True)
    decided = history[history["kind"].isin(("like", "pass", "superlike"))]
    return decided.assign(liked=decided["kind"] != "pass")


@pytest.fixture(scope="module")
def decisions(world: World) -> pd.DataFrame:
    return decisions_of(world)


def test_its_parameters_rebuild_it_to_the_last_bit(world: World) -> None:
    again = World.generate(**world.parameters)
    assert again.parameters["world"] == SELF_SELECTED
    assert again.users_table().equals(world.users_table())
    first, second = next(iter(interaction_chunks(again))), next(iter(interaction_chunks(world)))
    assert first.equals(second)
    ids = np.arange(1, 1_000)
    assert np.array_equal(again.like_probability(ids, ids + 1), world.like_probability(ids, ids + 1))
    assert np.array_equal(again.exposure_propensity(5), world.exposure_propensity(5))


def test_parameters_recorded_before_there_were_two_worlds_give_the_first() -> None:
    recorded = generated(RANDOM_EXPOSURE).parameters
    del recorded["world"]
    assert World.generate(**recorded).parameters["world"] == RANDOM_EXPOSURE


def test_another_kind_of_world_is_refused() -> None:
    with pytest.raises(RefusedWorld, match="random-exposure, self-selected, not `flat`"):
        World.generate(100, 1, world="flat")


def test_it_has_about_the_size_asked_for_and_nobody_decides_twice(decisions: pd.DataFrame) -> None:
    assert 0.6 * 20 * N_PEOPLE < len(decisions) < 1.2 * 20 * N_PEOPLE
    assert not decisions.duplicated(["actor_id", "target_id"]).any()


def test_people_look_at_those_they_like_more_than_at_those_who_merely_fit(
    world: World, decisions: pd.DataFrame
) -> None:
    a, b = (side.ravel() for side in np.meshgrid(np.arange(1, 101), world.user_ids, indexing="ij"))
    fits = world.eligible(a, b)
    of_those_who_fit = world.like_probability(a[fits], b[fits]).mean()
    of_those_looked_at = world.like_probability(decisions["actor_id"], decisions["target_id"]).mean()
    assert of_those_looked_at > of_those_who_fit + 0.08


def test_the_oracle_is_calibrated_at_the_time_of_the_decision_and_tastes_have_moved_since(
    world: World, decisions: pd.DataFrame
) -> None:
    start = UNTIL - timedelta(days=60)
    early = decisions[decisions["occurred_at"] < pd.Timestamp(start + timedelta(days=15))]
    ids = early["actor_id"].to_numpy(), early["target_id"].to_numpy()
    liked = early["liked"].to_numpy()
    then, at_the_end = world.like_probability(*ids, at=start + timedelta(days=8)), world.like_probability(*ids)

    def log_loss(chance: np.ndarray) -> float:
        return float(-np.log(np.where(liked, chance, 1 - chance)).mean())

    assert abs(liked.mean() - then.mean()) < 0.03
    assert log_loss(then) < log_loss(at_the_end) - 0.01


def test_popularity_is_rewarded_more_than_where_exposure_is_random(decisions: pd.DataFrame) -> None:
    def share_of_the_first_tenth(decided: pd.DataFrame) -> float:
        received = decided["target_id"].value_counts().to_numpy()
        return float(received[: N_PEOPLE // 10].sum() / received.sum())

    elsewhere = decisions_of(generated(RANDOM_EXPOSURE))
    assert share_of_the_first_tenth(decisions) > share_of_the_first_tenth(elsewhere) + 0.02


def test_some_people_tell_no_interests_and_leave_attributes_out(world: World) -> None:
    users = users_frame(world)
    silent = np.mean([len(told) == 0 for told in users["interests"]])
    assert 0.2 < silent < 0.3
    told = users["attributes"].str.contains('"humour"').mean()
    assert 0.4 < told < 0.8
    assert users["attributes"].str.contains("first_name").all()


def test_the_propensity_says_where_the_next_look_of_ones_own_falls(world: World) -> None:
    actor = 12
    expected = world.exposure_propensity(actor)
    assert expected.sum() == pytest.approx(1.0)
    assert not expected[~world.eligible(actor, world.user_ids)].any()
    # Looks without the bookkeeping of meetings: the same draws, the same tests, at the end of the window.
    rng = np.random.default_rng(0)
    actors, drawn = world._town.draw(np.full(400_000, actor - 1), rng, world.until_s)
    at_s = np.full(len(drawn), world.until_s)
    kept = world._town.eligible(actors, drawn, at_s)
    actors, drawn, at_s = actors[kept], drawn[kept], at_s[kept]
    seen = drawn[world._exposure.opened(actors, drawn, at_s, rng)]
    observed = np.bincount(seen, minlength=N_PEOPLE) / len(seen)
    noise = np.sqrt(expected / len(seen))
    assert (np.abs(observed - expected) <= 5 * noise + 1e-12).all()

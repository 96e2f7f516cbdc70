"""Off-policy estimates find a truth that the plain mean of a biased log misses."""

from datetime import UTC, datetime

import numpy as np
import pytest

from pipelines.ingest.world.synthetic import SELF_SELECTED, World
from pipelines.metrics.errors import BadPropensity
from pipelines.metrics.off_policy import doubly_robust, importance_weights, inverse_propensity, self_normalised

N_LOOKS = 600


def test_the_three_estimates_by_hand() -> None:
    reward, people = np.array([1.0, 0.0, 1.0]), np.array([0, 1, 2])
    weights = importance_weights(np.array([0.5, 0.25, 1.0]), np.array([0.25, 0.5, 0.5]))
    assert weights.tolist() == [0.5, 2.0, 0.5]
    assert inverse_propensity(reward, weights, people).value == pytest.approx(1 / 3)
    assert self_normalised(reward, weights, people).value == pytest.approx(1 / 3)
    robust = doubly_robust(
        reward, weights, people, predicted=np.array([0.5, 0.5, 0.5]), predicted_target=np.array([0.4, 0.4, 0.4])
    )
    assert robust.value == pytest.approx(0.4 + (0.25 - 1.0 + 0.25) / 3)
    assert robust.effective_rows == pytest.approx(9 / 4.5)


def test_the_policy_that_logged_is_worth_its_own_mean() -> None:
    rng = np.random.default_rng(0)
    reward, logged, people = rng.random(50) < 0.3, rng.random(50), np.arange(50)
    found = inverse_propensity(reward, importance_weights(logged, logged), people)
    assert found.value == pytest.approx(reward.mean())
    assert found.standard_error == pytest.approx(reward.std() / np.sqrt(50))


def test_rows_of_one_person_are_not_counted_as_independent() -> None:
    reward, weights = np.repeat([1.0, 0.0, 1.0, 0.0], 25), np.ones(100)
    alone = inverse_propensity(reward, weights, np.arange(100)).standard_error
    assert inverse_propensity(reward, weights, np.repeat(np.arange(4), 25)).standard_error == pytest.approx(5 * alone)


def test_a_row_that_could_not_have_been_logged_is_refused_with_its_number() -> None:
    for bad in (0.0, -0.1, 1.5, np.nan):
        with pytest.raises(BadPropensity, match="row 1"):
            importance_weights(np.array([0.5, bad]), np.array([0.5, 0.5]))


def test_cut_weights_are_no_larger_than_allowed() -> None:
    assert importance_weights(np.array([0.1, 1.0]), np.array([1.0, 1.0]), most=4.0).tolist() == [4.0, 1.0]


def test_where_people_choose_whom_they_look_at_all_three_find_what_showing_anybody_would_bring() -> None:
    world = World.generate(400, 3, days=30, until=datetime(2026, 6, 1, tzinfo=UTC), world=SELF_SELECTED)
    rng = np.random.default_rng(0)
    rows, truth = [], []  # the policy to judge shows whoever fits with equal chance
    for actor in range(1, 81):
        propensity = world.exposure_propensity(actor)
        fits = propensity > 0
        if fits.sum() < 10:
            continue
        # As a platform would that explores: one look in three shows anybody who fits.
        propensity = 2 / 3 * propensity + 1 / 3 * fits / fits.sum()
        likes = world.like_probability(actor, world.user_ids)
        drawn = rng.choice(400, size=N_LOOKS, p=propensity / propensity.sum())
        target = np.full(N_LOOKS, 1 / fits.sum())
        guess = 0.7 * likes + 0.1  # a model that is wrong, but not about the order
        rows.append(
            (
                np.full(N_LOOKS, actor),
                rng.random(N_LOOKS) < likes[drawn],
                propensity[drawn],
                target,
                guess[drawn],
                np.full(N_LOOKS, guess[fits].mean()),
            )
        )
        truth.append(likes[fits].mean())
    people, reward, logged, target, predicted, predicted_target = map(np.concatenate, zip(*rows, strict=True))
    expected = float(np.mean(truth))
    assert reward.mean() > expected + 0.05
    weights = importance_weights(logged, target)
    estimates = [
        inverse_propensity(reward, weights, people),
        self_normalised(reward, weights, people),
        doubly_robust(reward, weights, people, predicted=predicted, predicted_target=predicted_target),
    ]
    for estimate in estimates:
        assert estimate.value == pytest.approx(expected, abs=0.015)
        assert estimate.effective_rows < len(reward)

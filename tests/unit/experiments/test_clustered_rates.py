"""Rates against numbers computed by hand, intervals against many worlds whose truth is known."""

import math

import numpy as np
import pytest

from pipelines.experiments.clustered import (
    Estimate,
    Sums,
    quantile_estimates,
    rate_estimate,
    sample_ratio_p,
)

# Three people with 2, 4 and 4 showings, of which they liked 1, 1 and 4.
TRIALS, LIKED = np.array([2.0, 4.0, 4.0]), np.array([1.0, 1.0, 4.0])


def test_a_rate_is_successes_per_trial_of_all_people_together() -> None:
    assert Sums.of(TRIALS, LIKED).rate == pytest.approx(6 / 10)


def test_its_variance_is_that_of_people_not_of_trials() -> None:
    # Residuals liked - 0.6 shown: -0.2, -1.4, 1.6; squares sum to 4.56; times 3/2, over 10 squared.
    assert Sums.of(TRIALS, LIKED).variance == pytest.approx(1.5 * 4.56 / 100)


def test_its_interval_is_the_normal_one_within_0_and_1() -> None:
    half = 1.959964 * math.sqrt(0.0684)
    assert rate_estimate(Sums.of(TRIALS, LIKED), 0.05) == Estimate(
        pytest.approx(0.6), pytest.approx(0.6 - half), 1.0, pytest.approx(0.0684)
    )


def test_a_rate_of_exactly_zero_is_not_known_exactly() -> None:
    sums = Sums.of(np.full(8, 1.0), np.zeros(8))
    assert (sums.rate, sums.variance) == (0.0, pytest.approx(0.1 * 0.9 / 10))


@pytest.mark.parametrize("n", [0, 1])
def test_from_nobody_and_from_one_person_nothing_follows(n: int) -> None:
    assert Sums.of(np.ones(n), np.zeros(n)).variance == math.inf


def test_the_interval_covers_the_truth_where_people_differ_and_one_that_forgets_people_would_not() -> None:
    rng = np.random.default_rng(4)
    covered, naive = 0, 0
    for _ in range(400):
        taste = rng.beta(1.0, 3.0, 150)  # the mean is 1/4
        trials = rng.integers(5, 30, 150).astype(np.float64)
        sums = Sums.of(trials, rng.binomial(trials.astype(int), taste).astype(np.float64))
        found = rate_estimate(sums, 0.05)
        covered += found.low <= 0.25 <= found.high
        naive += abs(sums.rate - 0.25) <= 1.96 * math.sqrt(sums.rate * (1 - sums.rate) / sums.trials)
    assert 0.92 <= covered / 400 <= 0.98
    assert naive / 400 < 0.75


def test_quantiles_are_those_of_the_answers_and_their_intervals_hold_them() -> None:
    values = np.arange(1.0, 1001.0)
    median, p95 = quantile_estimates(values, np.arange(1000), (0.5, 0.95), 0.05, np.random.default_rng(1))
    assert (median.value, p95.value) == (pytest.approx(500.5), pytest.approx(950.05))
    assert median.low < 500 < median.high
    assert 30 < median.high - median.low < 90  # about 2 * 1.96 * 1000 * sqrt(0.25 / 1000) = 62
    assert p95.low < 950 < p95.high


def test_a_quantile_is_less_sure_when_few_people_gave_all_answers() -> None:
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(20), 50)
    values = rng.normal(size=20)[people] + rng.normal(scale=0.1, size=1000)
    (one_by_one,) = quantile_estimates(values, np.arange(1000), (0.5,), 0.05, rng)
    (by_person,) = quantile_estimates(values, people, (0.5,), 0.05, rng)
    assert by_person.high - by_person.low > 3 * (one_by_one.high - one_by_one.low)


def test_without_an_answer_there_is_no_quantile() -> None:
    (found,) = quantile_estimates(np.empty(0), np.empty(0, np.int64), (0.5,), 0.05, np.random.default_rng(1))
    assert math.isnan(found.value)


def test_sixty_to_forty_is_no_sample_of_a_half() -> None:
    # By hand: (600 - 500)^2 / 500 * 2 = 40 on one degree of freedom.
    p = sample_ratio_p(600, 400, 0.5)
    assert p == pytest.approx(2.54e-10, rel=0.01)


def test_small_arms_and_a_share_of_nobody_say_nothing() -> None:
    assert sample_ratio_p(3, 4, 0.5) is None
    assert sample_ratio_p(1000, 0, 0.0) is None


def test_the_ratio_of_a_sound_assignment_is_rarely_doubted() -> None:
    rng = np.random.default_rng(3)
    found = [sample_ratio_p(1000 - n, n, 0.1) for n in rng.binomial(1000, 0.1, 1000).tolist()]
    assert 0.03 < np.mean([p is not None and p < 0.05 for p in found]) < 0.07

import numpy as np
import pytest

from pipelines.evaluation.drift import feature_psi, psi
from pipelines.evaluation.errors import EmptyReference

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=20_000)


def test_the_same_distribution_has_not_moved() -> None:
    assert psi(NORMAL, NORMAL) == 0
    assert psi(NORMAL, RNG.normal(size=20_000)) < 0.01


def test_a_shift_by_one_deviation_is_far_beyond_the_common_limit() -> None:
    assert psi(NORMAL, NORMAL + 1) > 0.25
    assert psi(NORMAL, NORMAL + 0.1) < 0.1


def test_the_index_of_two_shares_is_the_textbook_sum() -> None:
    before, now = np.repeat([0.0, 1.0], [60, 40]), np.repeat([0.0, 1.0], [30, 70])
    expected = (0.3 - 0.6) * np.log(0.3 / 0.6) + (0.7 - 0.4) * np.log(0.7 / 0.4)
    assert psi(before, now) == pytest.approx(expected)


def test_values_that_begin_to_be_missing_are_drift() -> None:
    half = NORMAL.copy()
    half[::2] = np.nan
    assert psi(NORMAL, half) > 1
    assert psi(half, half) == 0


def test_a_constant_that_changes_is_drift_and_one_that_stays_is_none() -> None:
    assert psi(np.ones(100), np.ones(50)) == 0
    assert psi(np.ones(100), np.full(50, 2.0)) > 1
    assert psi(np.ones(100), np.zeros(50)) > 1


def test_all_missing_before_and_now_has_not_moved() -> None:
    assert psi(np.full(9, np.nan), np.full(4, np.nan)) == 0
    assert psi(np.full(9, np.nan), np.ones(4)) > 1


def test_nothing_now_says_nothing_and_nothing_before_is_refused() -> None:
    assert psi(NORMAL, np.empty(0)) == 0
    with pytest.raises(EmptyReference, match="train a ranker"):
        psi(np.empty(0), NORMAL)


def test_features_come_by_name_the_one_that_moved_furthest_first() -> None:
    before = RNG.normal(size=(5_000, 3)).astype(np.float32)
    now = before + np.array([0, 2, 0.5], dtype=np.float32)
    moved = feature_psi(before, now, ["still", "far", "near"])
    assert list(moved) == ["far", "near", "still"]
    assert moved["still"] == 0

import numpy as np
import pytest

from pipelines.ranking.train import order_statistics
from pipelines.release.replay import exposure_gini, shown_share

EVERYBODY = np.ones(4, dtype=np.bool_)


def lists(*rows: list[int]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


def test_lists_of_everybody_are_equal_and_lists_of_one_are_not() -> None:
    spread, same = lists([0, 1], [2, 3]), lists([0, -1], [0, -1], [0, -1], [0, -1])
    assert (shown_share(spread, EVERYBODY), exposure_gini(spread, EVERYBODY)) == (1.0, 0.0)
    # Four places, four people, one of them shown: a quarter; Gini of 0, 0, 0, 4 by hand is 3/4.
    assert (shown_share(same, EVERYBODY), exposure_gini(same, EVERYBODY)) == (0.25, 0.75)


def test_a_gini_by_hand() -> None:
    # Exposure 1, 1, 2, 4: sum over i of (2i - n - 1) x_i over n * sum = (-3 - 1 + 2 + 12) / 32.
    shown = lists([0, 1, 2, 3], [2, 3, 3, 3])
    assert exposure_gini(shown, EVERYBODY) == pytest.approx(10 / 32)


def test_a_few_lists_among_many_people_are_not_unequal_for_being_few() -> None:
    crowd = np.ones(1_000, dtype=np.bool_)
    shown = lists([1, 2], [3, 4])
    assert (shown_share(shown, crowd), exposure_gini(shown, crowd)) == (1.0, 0.0)


def test_the_hidden_do_not_count_and_nobody_shown_is_no_number() -> None:
    visible = np.array([True, True, False, False])
    assert shown_share(lists([0, 1]), visible) == 1.0
    assert np.isnan(shown_share(lists([-1, -1]), visible))


def test_a_reference_keeps_the_distribution_of_each_column_and_nobodys_row() -> None:
    rng = np.random.default_rng(3)
    features = np.stack([np.arange(10_000), rng.permutation(10_000)], axis=1).astype(np.float32)
    features[:2_500, 1] = np.nan
    kept = order_statistics(features)
    assert kept.shape == (401, 2)
    assert kept[[0, 200, 400], 0].tolist() == [0, 5_000, 9_999]
    assert np.isnan(kept[:, 1]).mean() == pytest.approx(0.25, abs=0.01)
    assert order_statistics(features[:3]).shape == (3, 2)

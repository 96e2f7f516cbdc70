"""Measures on examples small enough to work out by hand."""

import numpy as np
import pytest

from pipelines import metrics


def hits(*rows: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_recall_divides_by_all_relevant_people() -> None:
    shown, relevant = hits("x.x.", "....", "...."), np.array([4, 2, 0])
    np.testing.assert_allclose(metrics.recall_at(shown, relevant, 2), [0.25, 0.0, np.nan])
    np.testing.assert_allclose(metrics.recall_at(shown, relevant, 4), [0.5, 0.0, np.nan])


def test_precision_counts_an_unfilled_place_as_a_miss() -> None:
    np.testing.assert_allclose(metrics.precision_at(hits("xx"), 4), [0.5])


def test_ndcg_is_one_for_the_best_order_and_discounts_by_place() -> None:
    relevant = np.array([2, 2, 12])
    shown = hits("xx........", ".x.x......", "xxxxxxxxxx")
    worked_out = (1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    np.testing.assert_allclose(metrics.ndcg_at(shown, relevant, 10), [1.0, worked_out, 1.0])


def test_average_precision_by_hand() -> None:
    np.testing.assert_allclose(metrics.average_precision_at(hits("x.x"), np.array([3]), 3), [(1 + 2 / 3) / 3])
    assert np.isnan(metrics.average_precision_at(hits("..."), np.array([0]), 3))[0]


def test_auc_counts_ties_as_half_and_needs_both_classes() -> None:
    assert metrics.auc(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.5, 0.5])) == pytest.approx(3.5 / 4)
    assert np.isnan(metrics.auc(np.array([1, 1]), np.array([0.1, 0.2])))


def test_auc_within_groups_ignores_differences_between_them() -> None:
    groups, labels = np.array([5, 5, 3, 3, 9]), np.array([1, 0, 0, 1, 1])
    scores = np.array([0.2, 0.1, 0.9, 0.95, 0.0])
    np.testing.assert_allclose(metrics.grouped_auc(groups, labels, scores), [1.0, 1.0, np.nan])


def test_calibration_error_weighs_the_gaps_by_rows() -> None:
    labels = np.array([0, 0, 1, 1])
    bins = metrics.calibration_bins(labels, np.array([0.1, 0.1, 0.6, 0.8]), bins=2)
    np.testing.assert_allclose(bins.predicted, [0.1, 0.7])
    np.testing.assert_allclose(bins.observed, [0.0, 1.0])
    assert bins.error == pytest.approx(0.2)


def test_log_loss_of_a_coin_is_log_two() -> None:
    assert metrics.log_loss(np.array([0, 1]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_gini_is_zero_when_equal_and_near_one_when_one_has_all() -> None:
    assert metrics.gini(np.array([3, 3, 3])) == pytest.approx(0.0)
    assert metrics.gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert np.isnan(metrics.gini(np.array([0, 0])))
    assert metrics.coverage(np.array([0, 2, 1, 0])) == 0.5


def test_the_bootstrap_is_seeded_leaves_nan_out_and_covers_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    values[:10] = np.nan
    interval = metrics.bootstrap_interval(values, 500, seed=1)
    assert interval == metrics.bootstrap_interval(values, 500, seed=1)
    assert interval.low < interval.mean < interval.high
    assert interval.n == 390
    assert interval.high - interval.low == pytest.approx(4 / np.sqrt(390), rel=0.2)
    assert metrics.bootstrap_interval(np.full(3, np.nan), 50, seed=1).n == 0

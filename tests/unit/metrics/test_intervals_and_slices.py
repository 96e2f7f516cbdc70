"""Intervals of differences, and slices of people and of candidates."""

import numpy as np
import pytest

from pipelines import metrics


def test_a_paired_interval_sees_a_difference_that_two_single_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(200)
    first, second = difficulty + 0.02 + 0.01 * rng.standard_normal(200), difficulty
    one, two = (metrics.bootstrap_interval(values, 400, seed=1) for values in (first, second))
    assert one.low < two.high
    gained = metrics.difference_interval(first, second, 400, seed=1)
    assert gained.low > 0
    assert gained.mean == pytest.approx(0.02, abs=0.003)
    assert metrics.difference_interval(second, first, 400, seed=1).high < 0


def test_a_method_compared_with_itself_is_neither_better_nor_worse() -> None:
    values = np.random.default_rng(0).random(50)
    same = metrics.difference_interval(values, values, 100, seed=1)
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.low <= 0
    assert same.high >= 0


def test_who_has_no_value_in_one_method_is_left_out_of_both() -> None:
    found = metrics.difference_interval(np.array([1.0, np.nan, 3.0]), np.array([0.0, 9.0, np.nan]), 50, seed=1)
    assert (found.mean, found.n) == (1.0, 1)


def test_newcomers_are_sliced_by_what_they_had_decided() -> None:
    slices = metrics.by_swipes(np.array([0, 1, 2, 3, 4, 10, 11]))
    assert slices.groups.tolist() == [0, 1, 2, 2, 3, 3, 4]
    read = slices.intervals(np.array([0.0, 1, 2, 4, 5, 7, 9]), 20, seed=1)
    assert [interval.mean for interval in read.values()] == [0, 1, 3, 6, 9]
    assert next(iter(read)) == "0 swipes"


def test_terciles_keep_the_equally_active_together() -> None:
    assert metrics.by_activity(np.array([5, 1, 9, 1, 9, 5])).groups.tolist() == [1, 0, 2, 0, 2, 1]
    assert len(set(metrics.by_activity(np.full(6, 4)).groups.tolist())) == 1


def test_a_label_slices_those_who_have_one() -> None:
    slices = metrics.by_label(["woman", None, "man", "woman"])
    assert slices.names == ("man", "woman")
    assert slices.groups.tolist() == [1, -1, 0, 1]


def test_recall_by_the_candidates_popularity_shows_who_is_never_found() -> None:
    likes_received = np.array([0, 1, 2, 3, 4, 50, 60, 70, 80, 90])
    deciles = metrics.quantile_groups(likes_received, 10)
    assert deciles.tolist() == list(range(10))
    recall = metrics.recall_by_group(np.array([9, 9, 0, 5]), np.array([True, False, False, True]), deciles, 10)
    assert recall[[9, 0, 5]].tolist() == [0.5, 0.0, 1.0]
    assert np.isnan(recall[1])

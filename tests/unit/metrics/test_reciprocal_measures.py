"""Measures by matches on four people whose lists can be read at a glance."""

import numpy as np
import pytest

from pipelines import metrics

# Women 0 and 1, men 2, 3 and 4; the matches of the test period are 0-2, 0-3 and 1-4.
REQUESTERS = np.array([0, 1, 2, 3, 4])
MEN = np.array([False, False, True, True, True])
MATCHES = np.array([[0, 2], [3, 0], [1, 4]])
SHOWN = np.array(
    [
        [2, 4],  # finds 0-2
        [3, -1],
        [0, 1],  # finds 0-2 again
        [1, 0],  # finds 0-3
        [0, -1],
    ]
)


def test_holistic_measures_count_a_match_once_and_reward_that_both_sides_find_it() -> None:
    found = metrics.holistic_at(REQUESTERS, SHOWN, MATCHES, 2, MEN)
    assert found.coverage_recall == pytest.approx(2 / 3)  # U = {0-2, 0-3}
    assert found.coverage_precision == pytest.approx(2 / (2 * 5))
    assert found.stable_recall == pytest.approx(2 * (1 + 2 - 2) / 3)  # |H_A| = 1, |H_B| = 2
    assert found.stable_precision == pytest.approx(2 * (1 + 2 - 2) / (2 * 5))


def test_reciprocal_ndcg_weighs_the_sides_by_their_size() -> None:
    second_place = 1 / np.log2(3)
    women = (1 / (1 + second_place) + 0) / 2
    men = (1 + second_place + 0) / 3
    found = metrics.holistic_at(REQUESTERS, SHOWN, MATCHES, 2, MEN)
    assert found.ndcg == pytest.approx((2 * women + 3 * men) / 5)
    without_sides = metrics.holistic_at(REQUESTERS, SHOWN, MATCHES, 2)
    assert without_sides.ndcg == pytest.approx((2 * women + 3 * men) / 5)
    assert without_sides.coverage_recall == found.coverage_recall


def test_who_is_the_first_of_a_match_does_not_matter_nor_does_the_order_of_lists() -> None:
    order = np.array([3, 1, 4, 0, 2])
    turned = metrics.holistic_at(REQUESTERS[order], SHOWN[order], MATCHES[::-1, ::-1], 2, MEN[order])
    assert turned == metrics.holistic_at(REQUESTERS, SHOWN, MATCHES, 2, MEN)


def test_only_the_first_k_places_count() -> None:
    assert metrics.holistic_at(REQUESTERS, SHOWN, MATCHES, 1, MEN).coverage_recall == pytest.approx(1 / 3)


def test_without_matches_nothing_can_be_found() -> None:
    none = metrics.holistic_at(REQUESTERS, SHOWN, np.zeros((0, 2), np.int64), 2)
    assert np.isnan(none.coverage_recall)
    assert np.isnan(none.ndcg)
    assert none.coverage_precision == 0.0


def test_match_precision_and_recall_by_hand() -> None:
    matched = np.array([[True, False, True], [False, False, False]])
    np.testing.assert_allclose(metrics.match_precision_at(matched, 3), [2 / 3, 0.0])
    np.testing.assert_allclose(metrics.match_recall_at(matched, np.array([4, 0]), 3), [0.5, np.nan])

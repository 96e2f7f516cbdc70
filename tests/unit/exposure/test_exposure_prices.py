"""Exposure prices against the linear programme and the transfer equilibrium of small markets."""

import re
from itertools import pairwise

import numpy as np
import pytest

from pipelines.retrieval.exposure.errors import UnsolvedMarket
from pipelines.retrieval.exposure.markets import best_exposure, transferable_utility_matching
from pipelines.retrieval.exposure.prices import SampledLists, equal_capacity, exposure_prices
from pipelines.retrieval.exposure.tradeoff import as_text, trade_offs

K = 5


def market(m: int = 60, n: int = 60, seed: int = 0) -> np.ndarray:
    """Match probabilities [m, n] where some of the second side are wanted by nearly everybody."""
    rng = np.random.default_rng(seed)
    liked = rng.normal(size=(m, 4)) @ rng.normal(size=(4, n)) * 0.6 + 1.2 * rng.normal(size=n) - 1
    likes_back = rng.normal(size=(m, 4)) @ rng.normal(size=(4, n)) * 0.6 + 0.6 * rng.normal(size=(m, 1)) - 1
    return 1 / (1 + np.exp(-liked)) / (1 + np.exp(-likes_back))


def lists_of(scores: np.ndarray, weight: np.ndarray | None = None) -> SampledLists:
    m, n = scores.shape
    everybody = np.where(np.isfinite(scores), np.arange(n), -1)
    return SampledLists(everybody, scores.astype(np.float32), np.ones(m) if weight is None else weight, n)


def test_with_two_places_for_two_people_the_price_is_what_the_second_best_loses() -> None:
    # Both want person 0, who has time for one; showing 0 to the first loses .2 for the second, else .4.
    scores = np.array([[0.9, 0.5], [0.8, 0.6]])
    lists = lists_of(scores)
    found = exposure_prices(lists, np.array([1.0, 1.0]), 1, rounds=300, tolerance=0.0)
    assert found.excess == 0.0
    assert 0.2 <= found.prices[0] - found.prices[1] <= 0.4
    shown = {int(scores_of.argmax()) for scores_of in scores - found.prices}
    assert shown == {0, 1}


@pytest.mark.parametrize("slack", [1.1, 1.5])
def test_lists_under_prices_reach_nearly_the_optimum_of_the_linear_programme(slack: float) -> None:
    probability = market()
    lists = lists_of(probability)
    capacity = equal_capacity(lists, K, slack)
    _, best = best_exposure(probability, capacity, K)
    found = exposure_prices(lists, capacity, K)
    without, with_prices = trade_offs(lists, found.prices, capacity, K, (0.0, 1.0))
    assert found.excess < 0.06
    assert with_prices.answered_matches > 0.95 * best
    assert without.answered_matches < 0.9 * best


def test_the_stronger_the_prices_the_more_even_the_exposure_and_the_fewer_matches_if_all_are_answered() -> None:
    lists = lists_of(market())
    capacity = equal_capacity(lists, K, 1.2)
    rows = trade_offs(lists, exposure_prices(lists, capacity, K).prices, capacity, K)
    assert [row.strength for row in rows] == [0.0, 0.25, 0.5, 1.0]
    for weaker, stronger in pairwise(rows):
        assert stronger.gini < weaker.gini
        assert stronger.over_capacity < weaker.over_capacity
        assert stronger.matches < weaker.matches
        assert stronger.answered_matches > weaker.answered_matches
    assert rows[2].gini < rows[0].gini - 0.15
    assert rows[2].matches > 0.94 * rows[0].matches


def test_prices_spread_exposure_at_least_as_far_as_the_equilibrium_with_transfers() -> None:
    probability = market()
    lists = lists_of(probability)
    capacity = equal_capacity(lists, K, 1.2)
    formed = transferable_utility_matching(probability, scale=0.05, sizes=(np.full(60, float(K)), capacity))
    [equilibrium] = trade_offs(lists_of(formed), np.zeros(60), capacity, K, (0.0,))
    [plain, priced] = trade_offs(lists, exposure_prices(lists, capacity, K).prices, capacity, K, (0.0, 1.0))
    assert equilibrium.gini < plain.gini
    assert priced.gini < equilibrium.gini
    assert priced.over_capacity < equilibrium.over_capacity


def test_the_equilibrium_keeps_both_sides_limits_and_is_the_closed_form_for_one_pair() -> None:
    formed = transferable_utility_matching(market(8, 6), scale=0.1)
    assert (formed.sum(axis=0) < 1).all()
    assert (formed.sum(axis=1) < 1).all()
    # For one pair without surplus: formed = (1 - formed), as mu = sqrt(mu_10 mu_01).
    assert transferable_utility_matching(np.zeros((1, 1)), scale=1.0)[0, 0] == pytest.approx(0.5)


def test_where_nobody_is_over_capacity_nothing_costs_anything() -> None:
    lists = lists_of(market())
    found = exposure_prices(lists, np.full(60, 60.0), K)
    assert not found.prices.any()
    assert found.excess == 0.0


def test_who_can_answer_nobody_is_shown_to_nobody_and_costs_those_who_can_answer_nothing() -> None:
    found = exposure_prices(lists_of(np.array([[0.9, 0.8], [0.9, 0.8]])), np.array([0.0, 2.0]), 1)
    assert found.excess == 0.0
    assert found.prices[0] > 0.1
    assert found.prices[1] == 0.0


def test_same_lists_same_prices_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = lists_of(market())
    capacity = equal_capacity(lists, K, 1.2)
    whole = exposure_prices(lists, capacity, K).prices
    monkeypatch.setattr("pipelines.retrieval.exposure.prices._CHUNK", 7)
    assert np.array_equal(exposure_prices(lists, capacity, K).prices, whole)


def test_a_list_that_stands_for_many_answers_counts_as_many() -> None:
    scores = np.array([[0.9, 0.5], [0.8, 0.6]])
    lists = lists_of(scores, np.array([3.0, 1.0]))
    assert lists.exposure(np.zeros(2), 1).tolist() == [4.0, 0.0]
    assert equal_capacity(lists, 1, 1.5).tolist() == [3.0, 3.0]


def test_empty_places_are_shown_to_nobody() -> None:
    lists = lists_of(np.array([[0.9, -np.inf, 0.1], [-np.inf, -np.inf, 0.3]]))
    assert lists.exposure(np.zeros(3), 2).tolist() == [1.0, 0.0, 2.0]
    assert exposure_prices(lists, np.full(3, 2.0), 2).excess == 0.0


def test_the_table_states_losses_against_the_order_without_prices() -> None:
    lists = lists_of(market())
    capacity = equal_capacity(lists, K, 1.2)
    text = as_text(trade_offs(lists, exposure_prices(lists, capacity, K).prices, capacity, K, (0.0, 1.0)))
    head, first, last = text.splitlines()
    assert head.split() == ["strength", "matches", "answered", "exposure", "Gini", "over", "capacity"]
    assert re.match(r" +0\.00 .*\+0\.0%", first)
    assert re.match(r" +1\.00 .*-\d+\.\d%", last)


def test_a_market_without_a_solution_is_refused() -> None:
    with pytest.raises(UnsolvedMarket, match="2 x 2 people"):
        best_exposure(np.ones((2, 2)), np.array([-1.0, -1.0]), 1)

"""Re-ranking after stage 2: prices of exposure, then exploration; diversity has its place here too.

A price is taken off the score of who is in more demand than there is room for, by the function of `registry.scoring`.
A `share` of the places goes to somebody drawn at random instead of the next best, so that people nobody has judged yet
are seen; the logged propensity makes that usable for evaluation. All of them lie in the lower half of an answer, where
a place that is given away costs its reader least.
"""

from dataclasses import replace

import numpy as np

from registry.scoring.exposure import less_price
from registry.scoring.prices import Prices
from serving.reasons import CandidateSource
from serving.recommend.pool import Ranked


def spread_exposure(ranked: Ranked, prices: Prices | None, strength: float) -> Ranked:
    """Order a pool by score less price; strength 0 returns the very same pool."""
    user_ids = ranked.pool.people.user_ids
    score = less_price(ranked.score, user_ids, prices, strength)
    if score is ranked.score:
        return ranked
    return replace(ranked, score=score, order=np.lexsort((user_ids, -score)).astype(np.int64))


def explore(ranked: Ranked, limit: int, share: float, rng: np.random.Generator) -> Ranked:
    """Give a `share` of the first `limit` places, each of the lower half alike, to random-source candidates."""
    found = ranked.pool.found
    propensity = np.ones(len(ranked.pool), dtype=np.float32)
    if share <= 0 or CandidateSource.RANDOM.value not in found.sources or not len(ranked.order):
        return replace(ranked, propensity=propensity)
    column = found.sources.index(CandidateSource.RANDOM.value)
    drawn = np.flatnonzero(found.ranks[:, column] >= 0)
    if not len(drawn):
        return replace(ranked, propensity=propensity)
    n = min(limit, len(ranked.order))
    lower = np.arange(n // 2, n)
    rate = min(share * n / lower.size, 1.0)
    places = lower[rng.random(lower.size) < rate]
    chosen = rng.permutation(drawn)[: len(places)]
    is_chosen = np.zeros(len(ranked.pool), dtype=np.bool_)
    is_chosen[chosen] = True
    greedy = ranked.order[~is_chosen[ranked.order]]
    order = np.empty(len(ranked.order), dtype=np.int64)
    is_explored = np.zeros(len(order), dtype=np.bool_)
    is_explored[places[: len(chosen)]] = True
    order[is_explored] = chosen
    order[~is_explored] = greedy
    # Per place, to first order: its holder keeps it with 1 - rate, and any drawn person gets it with rate / n. Whoever
    # holds a place and is among the drawn has both chances, however they came there this time.
    # The draw itself had a propensity too: being among the random source's candidates.
    by_chance = np.zeros(len(ranked.pool), dtype=np.float32)
    chance = found.propensity[drawn, column]
    by_chance[drawn] = rate / len(drawn) * np.where(np.isnan(chance), np.float32(1.0), chance)
    placed, holders = order[lower], ranked.order[lower]
    keeps = ~is_explored[lower] | (placed == holders)
    propensity[placed] = by_chance[placed] + np.where(keeps, np.float32(1.0 - rate), np.float32(0.0))
    return replace(ranked, order=order, propensity=propensity, explored=is_chosen)

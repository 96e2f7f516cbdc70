"""Re-ranking after stage 2: exploration now; diversity and exposure control have their place here.

With probability `share` a place goes to somebody drawn at random instead of the next best, so that people nobody has
judged yet are seen; the logged propensity makes that usable for evaluation.
"""

from dataclasses import replace

import numpy as np

from serving.pool import Ranked
from serving.reasons import Source


def explore(ranked: Ranked, limit: int, share: float, rng: np.random.Generator) -> Ranked:
    """Give each of the first `limit` places to a random-source candidate with probability `share`."""
    found = ranked.pool.found
    propensity = np.full(len(ranked.pool), 1.0 - share, dtype=np.float32)
    if share <= 0 or Source.RANDOM.value not in found.sources or not len(ranked.order):
        return replace(ranked, propensity=np.ones_like(propensity))
    column = found.sources.index(Source.RANDOM.value)
    drawn = np.flatnonzero(found.ranks[:, column] >= 0)
    if not len(drawn):
        return replace(ranked, propensity=np.ones_like(propensity))
    places = np.flatnonzero(rng.random(min(limit, len(ranked.order))) < share)
    chosen = rng.permutation(drawn)[: len(places)]
    is_chosen = np.zeros(len(ranked.pool), dtype=np.bool_)
    is_chosen[chosen] = True
    greedy = ranked.order[~is_chosen[ranked.order]]
    order = np.empty(len(ranked.order), dtype=np.int64)
    is_explored = np.zeros(len(order), dtype=np.bool_)
    is_explored[places[: len(chosen)]] = True
    order[is_explored] = chosen
    order[~is_explored] = greedy
    # Per place, to first order: the greedy choice keeps it with 1 - share; a drawn person gets it with share / n.
    # The draw itself had a propensity too: being among the random source's candidates.
    chance = found.propensity[chosen, column]
    propensity[chosen] = share / len(drawn) * np.where(np.isnan(chance), np.float32(1.0), chance)
    return replace(ranked, order=order, propensity=propensity)

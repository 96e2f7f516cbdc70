"""Re-ranking by prices of exposure: a score less what it costs to show this person once more."""

import numpy as np

from registry.models.arrays import Floats, Ids
from registry.scoring.prices import Prices
from registry.scoring.ranking import UNKNOWN


def spread_of(score: Floats) -> float:
    """Return the standard deviation of one request's scores, without those whom the order says nothing about."""
    known = score[score > UNKNOWN]
    return float(np.std(known, dtype=np.float64)) if len(known) else 0.0


def less_price(score: Floats, user_ids: Ids, prices: Prices | None, strength: float) -> Floats:
    """Return the scores float32[n] of one request's candidates, less `strength` times what each person costs.

    Strength 0 and a release without prices leave the scores as they are.
    """
    if strength <= 0 or prices is None or not len(prices) or not len(score):
        return score
    cost = np.float32(strength * spread_of(score)) * prices.of(user_ids)
    return np.asarray(score - cost, dtype=np.float32)

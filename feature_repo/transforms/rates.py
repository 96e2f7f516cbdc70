"""Shares of few decisions, pulled towards what is usual so that one like is not a rate of one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from feature_repo.layout import RATE_PRIOR, RATE_STRENGTH


def smoothed_rate(hits: ArrayLike, trials: ArrayLike) -> NDArray[np.float32]:
    """Return (hits + prior) / (trials + strength) as float32; 0 of 0 gives exactly the layout's default."""
    good = np.asarray(hits, dtype=np.float64)
    total = np.asarray(trials, dtype=np.float64)
    return ((good + RATE_PRIOR * RATE_STRENGTH) / (total + RATE_STRENGTH)).astype(np.float32)

"""Measures of who is shown: how evenly, how many of them, and how little known they are."""

import numpy as np

from pipelines.metrics.arrays import Floats, Ints, Numbers


def exposure_of(shown: Ints, n_people: int) -> Ints:
    """Return how often each person is shown in lists int64[n, k] of positions, -1 beyond the end: int64[n people]."""
    return np.bincount(shown[shown >= 0], minlength=n_people).astype(np.int64)


def gini(exposure: Numbers) -> float:
    """Return the inequality of exposure: 0 where everybody is shown equally often, near 1 where one person is."""
    counts = np.sort(np.asarray(exposure, dtype=np.float64))
    if not counts.size or counts.sum() == 0:
        return float("nan")
    n = counts.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def coverage(exposure: Numbers) -> float:
    """Return the share of people shown at least once."""
    counts = np.asarray(exposure)
    return float((counts > 0).mean()) if counts.size else float("nan")


def novelty(shown: Ints, likes_received: Numbers) -> Floats:
    """Return each list's mean self-information in bits, float64[n]; NaN for an empty list.

    A shown person v counts -log2 of the share of all likes that v received (Zhou et al. 2010; Vargas and Castells
    2011), with one like added to everybody so that nobody is infinitely new.
    """
    received = np.asarray(likes_received, dtype=np.float64) + 1.0
    surprise = -np.log2(received / received.sum())
    filled = shown >= 0
    total = np.where(filled, surprise[np.maximum(shown, 0)], 0.0).sum(axis=1)
    value = np.full(len(shown), np.nan)
    np.divide(total, filled.sum(axis=1), out=value, where=filled.any(axis=1))
    return value

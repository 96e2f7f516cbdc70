"""Bootstrap intervals over people, of means and of differences between two methods asked for the same people.

The percentile bootstrap of Efron (1979); paired, as Sakai (2006) uses it to compare two rankers on the same queries.
"""

from dataclasses import dataclass

import numpy as np

from pipelines.metrics.arrays import Floats


@dataclass(frozen=True)
class Interval:
    """A mean over people with its bootstrap interval; `n` people had a value."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_interval(values: Floats, rounds: int, seed: int) -> Interval:
    """Return the mean over people and its 95 % bootstrap interval; NaN values are left out."""
    present = values[np.isfinite(values)]
    if not present.size:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    per_block = max(1, 4_000_000 // present.size)
    means = np.concatenate(
        [
            present[rng.integers(0, present.size, (min(per_block, rounds - done), present.size))].mean(axis=1)
            for done in range(0, rounds, per_block)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(present.mean()), float(low), float(high), int(present.size))


def difference_interval(first: Floats, second: Floats, rounds: int, seed: int) -> Interval:
    """Return the mean of first - second and its 95 % paired bootstrap interval.

    Both are float64[n] over the same people in the same order; who has no value in either is left out of both.
    """
    return bootstrap_interval(np.asarray(first - second, dtype=np.float64), rounds, seed)

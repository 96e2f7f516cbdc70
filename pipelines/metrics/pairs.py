"""How far measures of pairs of people would move if other people had come: the bootstrap over both sides of a pair.

Pairs that share a person resemble each other, so people are drawn and not pairs: a pair counts as often as both of its
people were drawn, together. This is Owen's pigeonhole bootstrap (2007), which errs on the wide side.
"""

from collections.abc import Callable, Iterator

import numpy as np

from pipelines.metrics.arrays import Floats, Ints, Numbers

Weighed = Callable[[Floats], float]
"""A measure of n pairs under weights float64[n]; NaN where the weights leave nothing to measure."""


def drawn_people(people: Ints, rounds: int, seed: int) -> Iterator[Floats]:
    """Yield the weights float64[n] of pairs whose people are int64[n, 2], once a round: drawn anew with replacement."""
    _, at = np.unique(people, return_inverse=True)
    at = at.reshape(people.shape)
    n = int(at.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
        yield times[at[:, 0]] * times[at[:, 1]]


def weighed_auc(labels: Numbers, scores: Numbers) -> Weighed:
    """Return the AUC of some scores as a function of weights."""
    positive = np.asarray(labels) > 0
    values, at = np.unique(np.asarray(scores), return_inverse=True)

    def under(weights: Floats) -> float:
        above = np.bincount(at[positive], weights[positive], minlength=values.size)
        below = np.bincount(at[~positive], weights[~positive], minlength=values.size)
        both = above.sum() * below.sum()
        return float(above @ (np.cumsum(below) - below / 2) / both) if both else float("nan")

    return under


def weighed_log_loss(labels: Numbers, probabilities: Numbers) -> Weighed:
    """Return the mean negative log-likelihood in nats as a function of weights."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    losses = -np.where(np.asarray(labels) > 0, np.log(p), np.log1p(-p))
    return lambda weights: float(losses @ weights / weights.sum()) if weights.any() else float("nan")

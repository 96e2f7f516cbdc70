"""What a list is worth: NDCG of its top, how well its order tells those wanted from the others, and both as merit."""

import numpy as np
import numpy.typing as npt

from pipelines import metrics

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
TOP = 20


def ndcg(shown: Ids, relevant: Ids) -> float:
    """Return the NDCG of a list that is at most `TOP` long, of people who are all as relevant."""
    gain = np.isin(shown, relevant) / np.log2(np.arange(2, shown.size + 2))
    ideal = (1.0 / np.log2(np.arange(2, min(relevant.size, TOP) + 2))).sum()
    return float(gain.sum() / ideal)


def _beside_best(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values float64[policies, n] as shares of the best policy's mean; NaN where there is nothing to find."""
    known = np.isfinite(values[0]) if len(values) else np.zeros(0, dtype=np.bool_)
    best = float(values[:, known].mean(axis=1).max()) if known.any() else 0.0
    return np.asarray(values / best if best > 0 else np.zeros_like(values))


def merit_of(lists: npt.NDArray[np.float64], told: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the merit of lists, float64[policies, n]; half of it is that of telling apart where that was measured."""
    merit = _spread(_beside_best(lists))
    if not np.isfinite(told).any():
        return merit
    return np.asarray((merit + _spread(_beside_best(told))) / 2)


def _spread(merit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the same means over all requests: those that say nothing add nothing, and the others count for them."""
    known = np.isfinite(merit).all(axis=0)
    share = max(int(known.sum()), 1) / max(known.size, 1)
    return np.asarray(np.where(known, np.nan_to_num(merit), 0.0) / share)


def told_apart(scores: Floats, wanted: Bools) -> float:
    """Return the chance that somebody wanted scores above somebody who is not, less 1/2; NaN where one is missing."""
    if wanted.all() or not wanted.any():
        return float("nan")
    return metrics.auc(wanted, scores) - 0.5


def mean_known(values: npt.NDArray[np.float64]) -> float | None:
    """Return the mean of the finite values, None without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None

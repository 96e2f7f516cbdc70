"""Measures of ranked lists, of probabilities and of exposure, vectorised over people.

A ranked list is one row of a matrix `hits` bool[n, k], best first, padded with False. Recall divides by the number
of relevant people (never by min(k, relevant)); NDCG is binary. A person without relevant people yields NaN, which
the means leave out: they cannot be answered rightly or wrongly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]
"""Real numbers or truth values of any width."""
Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A mean over people with its bootstrap interval; `n` people had a value."""

    mean: float
    low: float
    high: float
    n: int


def recall_at(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> Floats:
    """Return the share of the relevant people within the first k, float64[n]."""
    return _where_relevant(hits[:, :k].sum(axis=1), n_relevant)


def precision_at(hits: Hits, k: int, n_candidates: npt.NDArray[np.int64] | None = None) -> Floats:
    """Return the share of the first k places that hit, float64[n]; an unfilled place counts as a miss.

    With `n_candidates` int64[n] it is of min(k, candidates): an evening with six people cannot fill ten places.
    """
    places = k if n_candidates is None else np.minimum(k, n_candidates)
    return np.asarray(hits[:, :k].sum(axis=1) / places, dtype=np.float64)


def ndcg_at(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> Floats:
    """Return the binary normalised discounted cumulative gain of the first k, float64[n]."""
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    shown = hits[:, :k]
    gained = shown @ discount[: shown.shape[1]]
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(n_relevant, k)]
    return _where_relevant(gained, ideal)


def average_precision_at(hits: Hits, n_relevant: npt.NDArray[np.int64], k: int) -> Floats:
    """Return the average precision of the first k over min(k, relevant), float64[n]; its mean is MAP@k."""
    shown = hits[:, :k]
    precision = np.cumsum(shown, axis=1) / np.arange(1, shown.shape[1] + 1)
    return _where_relevant((precision * shown).sum(axis=1), np.minimum(n_relevant, k))


def _where_relevant(gained: Numbers, most: Numbers) -> Floats:
    value = np.full(gained.shape, np.nan)
    np.divide(gained, most, out=value, where=most > 0)
    return value


def auc(labels: Numbers, scores: Numbers) -> float:
    """Return the chance that a positive scores above a negative, ties as half; NaN with one class only."""
    positive = np.asarray(labels, dtype=np.float64) > 0
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def grouped_auc(groups: npt.NDArray[np.int64], labels: Numbers, scores: Numbers) -> Floats:
    """Return the AUC within each group, float64[n groups] in ascending order of group; NaN with one class only."""
    order = np.lexsort((np.asarray(scores), groups))
    _, start = np.unique(groups[order], return_index=True)
    labels_sorted, scores_sorted = np.asarray(labels)[order], np.asarray(scores)[order]
    ends = np.append(start[1:], groups.size)
    return np.array(
        [auc(labels_sorted[a:b], scores_sorted[a:b]) for a, b in zip(start, ends, strict=True)], dtype=np.float64
    )


def log_loss(labels: Numbers, probabilities: Numbers) -> float:
    """Return the mean negative log-likelihood in nats."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    positive = np.asarray(labels, dtype=np.float64) > 0
    return float(-np.where(positive, np.log(p), np.log1p(-p)).mean())


@dataclass(frozen=True)
class CalibrationBins:
    """Mean prediction, observed share and rows of bins that hold equally many rows, each of length <= bins."""

    predicted: Floats
    observed: Floats
    rows: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Return the expected calibration error: mean absolute gap weighted by rows; NaN without rows."""
        if not self.rows.size:
            return float("nan")
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.rows))


def calibration_bins(labels: Numbers, probabilities: Numbers, bins: int = 10) -> CalibrationBins:
    """Sort predictions into bins of equally many rows; equal predictions keep the order given."""
    order = np.argsort(np.asarray(probabilities), kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    p, y = np.asarray(probabilities, dtype=np.float64), (np.asarray(labels, dtype=np.float64) > 0).astype(np.float64)
    return CalibrationBins(
        np.array([p[part].mean() for part in parts]),
        np.array([y[part].mean() for part in parts]),
        np.array([part.size for part in parts], dtype=np.int64),
    )


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

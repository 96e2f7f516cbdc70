"""Measures of probabilities and scores against what was decided."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.metrics.arrays import Floats, Numbers


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

"""Measures of lists, of probabilities, of matches and of exposure, with intervals over people.

Plain functions on arrays; nothing here knows a database, a model or another folder of `pipelines`.
"""

from pipelines.metrics.arrays import Floats, Hits, Ints, Numbers
from pipelines.metrics.exposure import coverage, exposure_of, gini, novelty
from pipelines.metrics.intervals import Interval, bootstrap_interval, difference_interval
from pipelines.metrics.lists import (
    average_precision_at,
    hit_rate_at,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank_at,
)
from pipelines.metrics.pairs import drawn_people, weighed_auc, weighed_log_loss
from pipelines.metrics.probabilities import CalibrationBins, auc, calibration_bins, grouped_auc, log_loss
from pipelines.metrics.reciprocal import Holistic, holistic_at, match_precision_at, match_recall_at
from pipelines.metrics.slices import Slices, by_activity, by_label, by_swipes, quantile_groups, recall_by_group

__all__ = [
    "CalibrationBins", "Floats", "Hits", "Holistic", "Interval", "Ints", "Numbers", "Slices", "auc",
    "average_precision_at", "bootstrap_interval", "by_activity", "by_label", "by_swipes", "calibration_bins",
    "coverage", "difference_interval", "drawn_people", "exposure_of", "gini", "grouped_auc", "hit_rate_at",
    "holistic_at", "log_loss", "match_precision_at", "match_recall_at", "ndcg_at", "novelty", "precision_at",
    "quantile_groups", "recall_at", "recall_by_group", "reciprocal_rank_at", "weighed_auc", "weighed_log_loss",
]  # fmt: skip

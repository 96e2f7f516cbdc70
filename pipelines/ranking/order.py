"""Decide on unseen rows whether the ranker orders people better than retrieval alone does.

Compared within each requester, because that is what a list is. The ranker must win on average; with little
evidence or a tie the simpler first-stage order stays.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipelines.evaluation.metrics import Interval, Numbers, bootstrap_interval, grouped_auc
from pipelines.ranking.config import RankerConfig

Floats = npt.NDArray[np.float32]
_MIN_REQUESTERS = 10


@dataclass(frozen=True)
class OrderEvidence:
    """The winning order, mean AUC within requesters of both orders, and the interval of their difference."""

    order: Literal["ranker", "retrieval"]
    ranker: float
    retrieval: float
    difference: Interval


def decide_order(
    requester_ids: npt.NDArray[np.int64],
    labels: Numbers,
    probability: Floats,
    score_forward: Floats,
    score_backward: Floats,
    *,
    config: RankerConfig,
) -> OrderEvidence:
    """Compare p(like) with the better of the forward and the weighted retrieval score; NaN scores count as zero."""
    forward, backward = np.nan_to_num(score_forward), np.nan_to_num(score_backward)
    weighted = config.weight * forward + (1.0 - config.weight) * backward
    ranker = grouped_auc(requester_ids, labels, probability)
    rivals = [grouped_auc(requester_ids, labels, scores) for scores in (forward, weighted)]
    compared = np.isfinite(ranker)
    if int(compared.sum()) < _MIN_REQUESTERS:
        nothing = Interval(float("nan"), float("nan"), float("nan"), int(compared.sum()))
        return OrderEvidence("retrieval", float("nan"), float("nan"), nothing)
    retrieval = max(rivals, key=lambda values: float(values[compared].mean()))
    difference = bootstrap_interval(ranker - retrieval, 500, config.seed)
    order: Literal["ranker", "retrieval"] = "ranker" if difference.mean > 0 else "retrieval"
    return OrderEvidence(order, float(ranker[compared].mean()), float(retrieval[compared].mean()), difference)

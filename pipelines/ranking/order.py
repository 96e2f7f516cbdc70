"""Decide on unseen rows whether the ranker orders people better than retrieval alone does.

Compared within each requester, because that is what a list is: on matches where most rows hold both directions of a
pair, else on likes. The ranker must win on average; with little evidence the simpler first-stage order stays.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipelines.metrics import Interval, Numbers, bootstrap_interval, grouped_auc
from pipelines.ranking.config import RankerConfig
from registry.ranker import combine

Floats = npt.NDArray[np.float32]
_MIN_REQUESTERS = 10
_MET_SHARE = 0.5


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
    candidate_ids: npt.NDArray[np.int64] | None = None,
) -> OrderEvidence:
    """Compare p(like) with the better of the forward and the weighted retrieval score; NaN scores count as zero.

    With `candidate_ids` int64[n] the rows whose reverse is among them are judged by p(u->v) * p(v->u) on matches.
    """
    if candidate_ids is not None:
        rows, reverse = _both_directions(requester_ids, candidate_ids)
        mutual = (labels[rows] > 0) & (labels[reverse] > 0)
        # Where people seldom decide on each other, the few who did are too few to overrule everybody's likes.
        if rows.size >= _MET_SHARE * labels.size and _n_compared(requester_ids[rows], mutual) >= _MIN_REQUESTERS:
            requester_ids, labels = requester_ids[rows], mutual
            probability = combine(probability[rows], probability[reverse], config.aggregator)
            score_forward, score_backward = score_forward[rows], score_backward[rows]
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


def _both_directions(
    requester_ids: npt.NDArray[np.int64], candidate_ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows whose pair stands the other way round in another row, and that other row of each."""
    ids, codes = np.unique(np.concatenate([requester_ids, candidate_ids]), return_inverse=True)
    a, b = codes[: requester_ids.size], codes[requester_ids.size :]
    pair, first = np.unique(a * ids.size + b, return_index=True)
    wanted = b * ids.size + a
    found = np.minimum(np.searchsorted(pair, wanted), max(pair.size - 1, 0))
    rows = np.flatnonzero(pair[found] == wanted) if pair.size else np.empty(0, dtype=np.intp)
    return rows, first[found[rows]]


def _n_compared(groups: npt.NDArray[np.int64], labels: Numbers) -> int:
    return int(np.isfinite(grouped_auc(groups, labels, labels)).sum())

"""Measures of lists by matches: who was shown to whom, and which pairs matched in the test period.

The holistic ones look at the lists of everybody at once, because a match has two chances to be found (Yang et al.,
"Revisiting Reciprocal Recommender Systems: Metrics, Formulation, and Method", KDD 2024).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.metrics.arrays import Floats, Hits, Ints
from pipelines.metrics.lists import ndcg_at, precision_at, recall_at


def match_precision_at(matched: Hits, k: int, n_candidates: Ints | None = None) -> Floats:
    """Return the share of the first k places that became a match, float64[n]; see `precision_at`."""
    return precision_at(matched, k, n_candidates)


def match_recall_at(matched: Hits, n_matches: Ints, k: int) -> Floats:
    """Return the share of each person's matches within the first k, float64[n]; NaN for who has none."""
    return recall_at(matched, n_matches, k)


@dataclass(frozen=True)
class Holistic:
    """Measures of all lists together; `stable` counts matches that both people were shown.

    With M the matches of the test period, H_A and H_B those found in the lists of either side, U their union, and n
    lists of k places: coverage recall |U| / |M|, coverage precision |U| / (k n), stable recall
    2 (|H_A| + |H_B| - |U|) / |M| (two where every match is found twice), stable precision likewise over k n.
    """

    coverage_recall: float
    coverage_precision: float
    stable_recall: float
    stable_precision: float
    ndcg: float
    """The mean of both sides' binary NDCG over who has a match, weighted by the number of lists of each side."""


def holistic_at(
    requesters: Ints, shown: Ints, matches: Ints, k: int, side: npt.NDArray[np.bool_] | None = None
) -> Holistic:
    """Measure the lists of everybody, of both sides.

    Args:
        requesters: int64[n], whose lists they are, each once.
        shown: int64[n, >= k] of people, best first, -1 beyond the end.
        matches: int64[m, 2] of people, unordered and distinct pairs.
        k: places of a list that count.
        side: bool[n], which requesters are of the second side; None = one side only.

    """
    first, second = np.minimum(matches[:, 0], matches[:, 1]), np.maximum(matches[:, 0], matches[:, 1])
    span = 1 + int(max(requesters.max(initial=0), shown.max(initial=0), second.max(initial=0)))
    head = shown[:, :k]
    row, place = np.nonzero(head >= 0)
    listed = requesters[row] * span + head[row, place]
    # Which of a match's two people is called A changes neither the union nor the sum.
    in_first, in_second = np.isin(first * span + second, listed), np.isin(second * span + first, listed)
    union, both = int((in_first | in_second).sum()), int((in_first & in_second).sum())
    n_matches, n_places = len(matches), k * len(requesters)
    return Holistic(
        coverage_recall=_share(union, n_matches),
        coverage_precision=_share(union, n_places),
        stable_recall=_share(2 * both, n_matches),
        stable_precision=_share(2 * both, n_places),
        ndcg=_two_sided_ndcg(requesters, head, matches, (span, k), side),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _two_sided_ndcg(
    requesters: Ints, head: Ints, matches: Ints, size: tuple[int, int], side: npt.NDArray[np.bool_] | None
) -> float:
    span, k = size
    partners = np.concatenate([matches, matches[:, ::-1]])
    hits = np.isin(requesters[:, None] * span + head, partners[:, 0] * span + partners[:, 1]) & (head >= 0)
    value = ndcg_at(hits, np.bincount(partners[:, 0], minlength=span)[requesters].astype(np.int64), k)
    sides = [np.ones(len(requesters), dtype=bool)] if side is None else [~side, side]
    measured = [(value[of & np.isfinite(value)], int(of.sum())) for of in sides]
    known = [(float(found.mean()), weight) for found, weight in measured if found.size]
    return sum(mean * weight for mean, weight in known) / sum(w for _, w in known) if known else float("nan")

"""What the truth says of every list: the expected share of shown people who would become a match.

Only a generated world has a truth to ask. Observed matches are few because most pairs never meet; the expected
share counts every shown pair, and the oracle's own best list says how much was possible at all.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipelines.evaluation.errors import UnknownPerson
from pipelines.evaluation.protocols import ProtocolResult, Rankings

ORACLE = "oracle"
LikeProbability = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float64]]
"""The true probability that each actor likes each target, from aligned user ids."""


def match_probability(
    truth: LikeProbability, actor_ids: npt.NDArray[np.int64], target_ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the probability that both like each other, float64[n].

    Raises:
        UnknownPerson: the truth gives no probability for somebody.

    """
    both = truth(actor_ids, target_ids) * truth(target_ids, actor_ids)
    if not np.isfinite(both).all():
        bad = int(actor_ids[np.flatnonzero(~np.isfinite(both))[0]])
        raise UnknownPerson(f"The generated world gives no probability for person {bad}: evaluate without the oracle.")
    return np.asarray(both, dtype=np.float64)


def expected_match_precision(
    rankings: Rankings, user_ids: npt.NDArray[np.int64], truth: LikeProbability, k: int
) -> npt.NDArray[np.float64]:
    """Return per requester the expected matches among the first k over min(k, candidates), float64[n]."""
    expected = expected_matches(rankings.requesters, rankings.shown[:, :k], user_ids, truth)
    return np.asarray(expected / np.minimum(k, rankings.sizes), dtype=np.float64)


def expected_matches(
    requesters: npt.NDArray[np.int64],
    shown: npt.NDArray[np.int64],
    user_ids: npt.NDArray[np.int64],
    truth: LikeProbability,
) -> npt.NDArray[np.float64]:
    """Return how many of those shown, int64[n, k] with -1 beyond the end, would become a match, float64[n]."""
    row, column = np.nonzero(shown >= 0)
    probability = np.zeros(shown.shape)
    probability[row, column] = match_probability(truth, user_ids[requesters[row]], user_ids[shown[row, column]])
    return np.asarray(probability.sum(axis=1), dtype=np.float64)


def oracle_match_precision(
    result: ProtocolResult,
    requesters: npt.NDArray[np.int64],
    user_ids: npt.NDArray[np.int64],
    truth: LikeProbability,
    k: int,
) -> npt.NDArray[np.float64]:
    """Return what the best possible first k would give each requester, float64[n]."""
    best = np.zeros(requesters.size)
    for at, (requester, candidates) in enumerate(zip(requesters.tolist(), result.candidates, strict=True)):
        actors = np.full(candidates.size, user_ids[requester], dtype=np.int64)
        probability = match_probability(truth, actors, user_ids[candidates])
        depth = min(k, candidates.size)
        best[at] = np.partition(probability, candidates.size - depth)[candidates.size - depth :].mean()
    return best

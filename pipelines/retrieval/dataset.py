"""Decisions before an instant as a signed confidence matrix: what the factorisation reads.

One value per directed pair, from the pair's latest decision: positive for a like, negative for a pass (the
convention of `implicit`: preference 0 with the confidence of the absolute value), absent for the unseen.
"""

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipelines.features.events import Events
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.errors import TooFewLikes


def latest_decisions(events: Events) -> Events:
    """Return each directed pair's latest decision that was not taken back, in order of time."""
    decided = events.take(events.is_lasting_decision)
    reversed_pairs = decided.pair[::-1]
    _, first_from_the_end = np.unique(reversed_pairs, return_index=True)
    rows = np.sort(len(decided) - 1 - first_from_the_end)
    return decided.take(rows)


def first_decisions(events: Events) -> Events:
    """Return each directed pair's first decision that was not taken back, in order of time."""
    decided = events.take(events.is_lasting_decision)
    _, rows = np.unique(decided.pair, return_index=True)
    return decided.take(np.sort(rows))


def confidence_matrix(events: Events, config: EmbeddingConfig) -> sparse.csr_matrix:
    """Return float32[n, n]: rows choose, columns are chosen; each pair's latest decision counts.

    Raises:
        TooFewLikes: fewer than two people or no like at all.

    """
    decided = latest_decisions(events)
    if events.n_people < 2 or not decided.is_like.any():
        raise TooFewLikes(f"There are {int(decided.is_like.sum())} likes to learn from: import interactions first.")
    value = np.where(decided.is_like, config.alpha, -config.pass_confidence).astype(np.float32)
    shape = (events.n_people, events.n_people)
    matrix = sparse.csr_matrix((value, (decided.actor, decided.target)), shape=shape)
    matrix.sort_indices()
    return matrix


def decision_counts(events: Events) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many decisions each person made and received, int64[n] each; one per directed pair."""
    decided = latest_decisions(events)
    return (
        np.bincount(decided.actor, minlength=events.n_people),
        np.bincount(decided.target, minlength=events.n_people),
    )

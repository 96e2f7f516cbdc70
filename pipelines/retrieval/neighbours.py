"""Fit the neighbour scores of `registry.models.neighbours` on likes: item k-NN, two steps, spectral vectors and EASE.

The nearest neighbours come from `implicit`, the singular vectors from scikit-learn. Likes are each directed pair's
latest decision; who has none takes part with empty rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipelines.evaluation.baselines.popularity import decayed_popularity
from pipelines.features.events import Events
from pipelines.retrieval.config import NeighboursConfig
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.dataset import latest_decisions
from pipelines.retrieval.like_odds import fit_like_odds
from registry.models.neighbours import Neighbours
from registry.models.sparse_rows import SparseRows

Floats = npt.NDArray[np.float32]
_DAY_US = 86_400_000_000
_EASE_BLOCK = 512


@dataclass(frozen=True)
class Likes:
    """The standing likes of a window as matrices: rows like, columns are liked; `at_us` int64[m] aligns with them."""

    user_ids: npt.NDArray[np.int64]
    actor: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    at_us: npt.NDArray[np.int64]

    @classmethod
    def of(cls, events: Events) -> "Likes":
        """Return the pairs whose latest decision is a like, in order of time."""
        return cls.among(latest_decisions(events))

    @classmethod
    def among(cls, decided: Events) -> "Likes":
        """Return the likes among these decisions, one of each directed pair in order of time."""
        liked = decided.take(decided.is_like)
        return cls(liked.user_ids, liked.actor, liked.target, liked.at_us)

    @property
    def matrix(self) -> sparse.csr_matrix:
        """Return float32[n, n] of ones, sorted by column."""
        n = len(self.user_ids)
        found = sparse.csr_matrix((np.ones(self.actor.size, np.float32), (self.actor, self.target)), shape=(n, n))
        found.sort_indices()
        return found


def fit_neighbours(
    events: Events, config: NeighboursConfig | None = None, inputs: ContentInputs | None = None
) -> Neighbours:
    """Fit on the events given; people are those of `events.user_ids`, and `inputs` gives the profiles of them.

    Without profiles the odds of a like come from decisions alone.
    """
    config = config or NeighboursConfig()
    decided = latest_decisions(events)
    likes = Likes.among(decided)
    matrix = likes.matrix
    normalised = _normalised(matrix)
    return Neighbours(
        user_ids=np.asarray(likes.user_ids, dtype=np.int64),
        likes=_in_time(likes.actor, likes.target, len(likes.user_ids)),
        liked_by=_in_time(likes.target, likes.actor, len(likes.user_ids)),
        item_knn=_nearest(_bm25(matrix, config), config.neighbours, config.threads),
        two_steps=_nearest(normalised, config.spectral_neighbours, config.threads),
        ease=_ease(matrix, config),
        spectral=_spectral(normalised, config),
        popularity=_popularity(likes, config.popularity_half_life_days),
        smooth_weight=config.smooth_weight,
        like_odds=fit_like_odds(decided, inputs, config),
    )


def _normalised(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return D_u^-1/2 R D_i^-1/2, the likes normalised by what both sides gave and got."""
    made = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    received = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
    scaled = sparse.diags(1.0 / np.sqrt(made)) @ matrix @ sparse.diags(1.0 / np.sqrt(received))
    return sparse.csr_matrix(scaled, dtype=np.float32)


def _bm25(matrix: sparse.csr_matrix, config: NeighboursConfig) -> sparse.csr_matrix:
    from implicit.nearest_neighbours import bm25_weight

    if not matrix.nnz:
        return matrix
    return sparse.csr_matrix(bm25_weight(matrix.tocoo(), K1=config.bm25_k1, B=config.bm25_b), dtype=np.float32)


def _nearest(weighted: sparse.csr_matrix, k: int, threads: int) -> SparseRows:
    """Return the `k` largest entries of each row of W'W, the diagonal left out."""
    from implicit.nearest_neighbours import ItemItemRecommender

    n = weighted.shape[1]
    if not weighted.nnz:
        return SparseRows(np.zeros(n + 1, dtype=np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    model = ItemItemRecommender(K=min(k + 1, n), num_threads=threads)
    model.fit(weighted.astype(np.float64), show_progress=False)  # its loop takes doubles only
    similarity = sparse.csr_matrix(model.similarity, dtype=np.float32)
    similarity.setdiag(0.0)
    similarity.eliminate_zeros()
    return _rows_of(similarity)


def _ease(matrix: sparse.csr_matrix, config: NeighboursConfig) -> SparseRows | None:
    """Return the weights of EASE over those who received a like, or None where they are too many.

    Steck (2019): B = I - P diag(1 / diag P), P = (X'X + lambda I)^-1; the largest of each row are kept.
    """
    received = np.asarray(matrix.sum(axis=0)).ravel()
    liked = np.flatnonzero(received > 0)
    if not 0 < liked.size <= config.ease_people:
        return None
    held = matrix[:, liked]
    gram = (held.T @ held).toarray().astype(np.float32)
    gram[np.diag_indices_from(gram)] += np.float32(config.ease_ridge)
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diagonal(inverse)
    np.fill_diagonal(weights, 0.0)
    k = min(config.ease_neighbours, liked.size)
    column, weight = [], []
    for first in range(0, liked.size, _EASE_BLOCK):
        block = weights[first : first + _EASE_BLOCK]
        top = np.sort(np.argpartition(-np.abs(block), k - 1, axis=1)[:, :k], axis=1)
        column.append(liked[top].astype(np.int32).ravel())
        weight.append(np.take_along_axis(block, top, axis=1).ravel())
    counts = np.zeros(matrix.shape[0], dtype=np.int64)
    counts[liked] = k
    start = np.concatenate([[0], np.cumsum(counts)])
    return SparseRows(start, np.concatenate(column), np.concatenate(weight).astype(np.float32))


def _spectral(normalised: sparse.csr_matrix, config: NeighboursConfig) -> npt.NDArray[np.float16]:
    """Return the right singular vectors of the normalised likes, float16[n, d]."""
    from sklearn.utils.extmath import randomized_svd

    d = min(config.spectral_dimensions, min(normalised.shape) - 1)
    if not normalised.nnz or d < 1:
        return np.zeros((normalised.shape[1], 1), dtype=np.float16)
    # Only rows and columns that hold something: empty ones would cost a dense row each.
    rows = np.flatnonzero(np.diff(normalised.indptr))
    columns = np.flatnonzero(np.diff(normalised.tocsc().indptr))
    d = max(1, min(d, min(rows.size, columns.size) - 1))
    _, _, right = randomized_svd(
        normalised[rows][:, columns], n_components=d, n_iter=config.spectral_passes, random_state=config.seed
    )
    out = np.zeros((normalised.shape[1], d), dtype=np.float16)
    out[columns] = right.T.astype(np.float16)
    return out


def _popularity(likes: Likes, half_life_days: float) -> Floats:
    """Return likes received, each counting half as much per half-life before the latest one, float32[n]."""
    n = len(likes.user_ids)
    if not likes.at_us.size:
        return np.zeros(n, dtype=np.float32)
    age_days = (likes.at_us.max() - likes.at_us) / _DAY_US
    return decayed_popularity(likes.target, age_days, n, half_life=half_life_days).astype(np.float32)


def _in_time(rows: npt.NDArray[np.int32], columns: npt.NDArray[np.int32], n: int) -> SparseRows:
    """Return pairs, given in order of time, by row and the newest last."""
    order = np.argsort(rows, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
    return SparseRows(start, columns[order].astype(np.int32), np.ones(order.size, dtype=np.float32))


def _rows_of(matrix: sparse.csr_matrix) -> SparseRows:
    matrix.sort_indices()
    return SparseRows(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))

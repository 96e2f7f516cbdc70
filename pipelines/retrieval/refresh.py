"""Bring an embedding up to date without fitting it again: one half-step for whoever decided or was decided on since.

Everybody else keeps the factors of the fit, so scores stay comparable and the ranker stays valid. The result is for
building an index; it is never registered as an embedding.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipelines.features.events import Events
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.dataset import confidence_matrix
from registry.embedding import Embedding

Floats = npt.NDArray[np.float32]


def refreshed(embedding: Embedding, events: Events, since_us: int, threads: int = 2) -> tuple[Embedding, int]:
    """Return the embedding with fresh factors of its people who took part in a decision after `since_us`.

    `events` are all interactions to learn from. The second value says how many factors (P and Q) were recomputed.
    """
    recent = events.take(events.is_decision).between(since_us, int(np.iinfo(np.int64).max))
    if not len(recent) or not len(embedding):
        return embedding, 0
    config = EmbeddingConfig(
        alpha=embedding.parameters.alpha,
        pass_confidence=embedding.parameters.pass_confidence,
        regularization=max(embedding.parameters.regularization, 0.001),
    )
    rows = embedding.positions(events.user_ids)
    here = np.flatnonzero(rows >= 0)
    # Over the embedding's people only, in their order: both ascend by id.
    matrix = confidence_matrix(events, config)[here][:, here].tocsr()
    inside = rows[here]
    actors = np.unique(rows[recent.actor][rows[recent.actor] >= 0])
    targets = np.unique(rows[recent.target][rows[recent.target] >= 0])
    place = np.full(len(embedding), -1, dtype=np.int64)
    place[inside] = np.arange(inside.size)
    chooser, chosen = embedding.chooser.copy(), embedding.chosen.copy()
    chooser[actors] = _half_step(matrix, place[actors], embedding.chosen[inside], config, threads)
    chosen[targets] = _half_step(matrix.T.tocsr(), place[targets], embedding.chooser[inside], config, threads)
    return replace(embedding, chooser=chooser, chosen=chosen), int(actors.size + targets.size)


def _half_step(
    matrix: sparse.csr_matrix, rows: npt.NDArray[np.int64], others: Floats, config: EmbeddingConfig, threads: int
) -> Floats:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    if not rows.size:
        return np.empty((0, others.shape[1]), dtype=np.float32)
    with threadpool_limits(limits=1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=others.shape[1], regularization=config.regularization, alpha=1.0, num_threads=threads
        )
        model.item_factors = np.ascontiguousarray(others, dtype=np.float32)
        return np.asarray(model.recalculate_user(rows, matrix[rows]), dtype=np.float32)

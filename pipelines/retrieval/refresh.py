"""Bring an embedding up to date without fitting it again: one half-step for whoever decided or was decided on since.

Everybody else keeps the factors of the fit, so scores stay comparable and the ranker stays valid. The result is for
building an index; it is never registered as an embedding.
"""

from dataclasses import replace

import numpy as np

from pipelines.features.events import Events
from pipelines.retrieval.config import EmbeddingConfig
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.dataset import confidence_matrix
from pipelines.retrieval.half_step import EXACT, half_step
from registry.embedding import Embedding


def refreshed(
    embedding: Embedding, events: Events, since_us: int, content_inputs: ContentInputs, threads: int = 2
) -> tuple[Embedding, int]:
    """Return the embedding with fresh factors of its people who took part in a decision after `since_us`.

    `events` are all interactions to learn from; `content_inputs` gives float32[m, c] of the people at m of their
    positions. The second value says how many factors (P and Q) were recomputed.
    """
    recent = events.take(events.is_decision).between(since_us, int(np.iinfo(np.int64).max))
    if not len(recent) or not len(embedding):
        return embedding, 0
    parameters = embedding.parameters
    config = EmbeddingConfig(alpha=parameters.alpha, pass_confidence=parameters.pass_confidence)
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
    for own, others, moved, decisions, side in (
        (chooser, embedding.chosen, actors, matrix, 0),
        (chosen, embedding.chooser, targets, matrix.T.tocsr(), 1),
    ):
        if not moved.size:
            continue
        prior = np.zeros((moved.size, embedding.dimensions), dtype=np.float32)
        if parameters.content_prior:
            prior = embedding.content_factors(content_inputs(here[place[moved]]))[side]
        own[moved] = half_step(
            decisions[place[moved]],
            others[inside],
            prior,
            own[moved],
            regularization=parameters.regularization,
            steps=EXACT,
            threads=threads,
        )
    return replace(embedding, chooser=chooser, chosen=chosen), int(actors.size + targets.size)

"""Bring an embedding up to date without fitting it again: one half-step for whoever decided or was decided on since.

Everybody else keeps the factors of the fit, so scores stay comparable and the ranker stays valid. The result is for
building an index; it is never registered as an embedding.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from pipelines.features.events import Events
from pipelines.retrieval.content import ContentInputs
from pipelines.retrieval.dataset import latest_decisions
from pipelines.retrieval.half_step import EXACT, gram_of, half_step
from registry.models.embedding import Embedding

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_BLOCK = 50_000
_SMALL_BLOCK = 10_000


def refreshed(
    embedding: Embedding, events: Events, since_us: int, content_inputs: ContentInputs, threads: int = 2
) -> tuple[Embedding, int]:
    """Return the embedding with fresh factors of its people who decided, or were decided on, after `since_us`.

    Taking something back counts too. `events` are all interactions to learn from; `content_inputs` gives float32[m, c]
    of the people at m of their positions. The second value says how many factors (P and Q) were recomputed.
    """
    recent = events.take(events.is_decision | events.is_undo).between(since_us, int(np.iinfo(np.int64).max))
    if not len(recent) or not len(embedding):
        return embedding, 0
    step = _Step(embedding, events, embedding.positions(events.user_ids), content_inputs, threads)
    choosers, chosen = step.known(recent.actor), step.known(recent.target)
    return (
        replace(embedding, chooser=step.solved(choosers, side=0), chosen=step.solved(chosen, side=1)),
        int(choosers.size + chosen.size),
    )


@dataclass(frozen=True)
class _Step:
    """One half-step; `rows` int64[n] are the rows of the events' people in the embedding, -1 where it has none."""

    embedding: Embedding
    events: Events
    rows: Ints
    content_inputs: ContentInputs
    threads: int

    def known(self, people: npt.NDArray[np.int32]) -> Ints:
        """Return the positions, ascending, of those of `people` whom the embedding knows."""
        found = np.unique(people).astype(np.int64)
        return found[self.rows[found] >= 0]

    def solved(self, moved: Ints, *, side: int) -> Floats:
        """Return the factors of everybody on a side (0: P, 1: Q), with those of `moved` solved anew."""
        embedding = self.embedding
        own, others = (embedding.chooser, embedding.chosen)[:: 1 - 2 * side]
        if not moved.size:
            return own
        matrix, gram, fresh = self._decisions(moved, side), gram_of(others), own.copy()
        for start in range(0, moved.size, _BLOCK):
            part = moved[start : start + _BLOCK]
            fresh[self.rows[part]] = half_step(
                matrix[start : start + _BLOCK],
                others,
                self._prior(part, side),
                own[self.rows[part]],
                regularization=embedding.parameters.regularization,
                steps=EXACT,
                threads=self.threads,
                gram=gram,
            )
        return fresh

    def _decisions(self, moved: Ints, side: int) -> sparse.csr_matrix:
        """Return the signed confidences of all decisions of `moved`, or on them, by the embedding's rows."""
        place = np.full(self.events.n_people, -1, dtype=np.int64)
        place[moved] = np.arange(moved.size)
        own, other = (self.events.actor, self.events.target)[:: 1 - 2 * side]
        latest = latest_decisions(self.events.take((place[own] >= 0) & (self.rows[other] >= 0)))
        own, other = (latest.actor, latest.target)[:: 1 - 2 * side]
        parameters = self.embedding.parameters
        value = np.where(latest.is_like, parameters.alpha, -parameters.pass_confidence).astype(np.float32)
        shape = (moved.size, len(self.embedding))
        matrix = sparse.csr_matrix((value, (place[own], self.rows[other])), shape=shape)
        matrix.sort_indices()
        return matrix

    def _prior(self, people: Ints, side: int) -> Floats:
        """Return what the factors of these people are pulled to, float32[m, d]; their inputs are five times as wide."""
        prior = np.zeros((people.size, self.embedding.dimensions), dtype=np.float32)
        if self.embedding.parameters.content_prior:
            for start in range(0, people.size, _SMALL_BLOCK):
                part = people[start : start + _SMALL_BLOCK]
                prior[start : start + _SMALL_BLOCK] = self.embedding.content_factors(self.content_inputs(part))[side]
        return prior
